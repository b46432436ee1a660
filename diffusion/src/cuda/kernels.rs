//! This crate's own CUDA kernels: group normalisation with everything that follows it, and the sum
//! at the end of a residual block.
//!
//! libtorch normalises channels-last pictures by copying them to another layout and back, with one
//! block of threads per group: at 1024 × 1024 pixels and four groups, only four of a card's more
//! than one hundred processors work. NVRTC compiles `norm.cu` when a network is first placed on a
//! card, in about half a second. The kernels are used only after their results agreed with
//! libtorch's on that card; see docs/adr/0020-cuda-kernels.md. A row's bits depend on that row
//! alone.

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};

use tch::{Device, Kind, TchError, Tensor};

use super::native::KernelsHandle;
use crate::layers::{Activation, Steer, Torch, channels_last};

/// The source to compile.
pub(super) const SOURCE: &str = concat!(include_str!("norm.cu"), "\0");
/// In the order of [`Kernel`], each in f32 and in bf16.
pub(super) const NAMES: [&str; 8] = [
    "sum_up_f32\0",
    "sum_up_bf16\0",
    "combine_f32\0",
    "combine_bf16\0",
    "apply_f32\0",
    "apply_bf16\0",
    "sum_f32\0",
    "sum_bf16\0",
];
/// Threads per block, as in `norm.cu`.
pub(super) const THREADS: usize = 256;
/// More channels would not fit into a block's shared memory.
const MOST_CHANNELS: i64 = 4096;

#[derive(Clone, Copy, Debug)]
enum Kernel {
    SumUp = 0,
    Combine = 2,
    Apply = 4,
    Sum = 6,
}

/// As in `norm.cu`.
#[repr(C)]
struct NormArguments {
    x: *const c_void,
    skip: *const c_void,
    before: *const c_void,
    added: *const c_void,
    weight: *const c_void,
    bias: *const c_void,
    steer: *const c_void,
    out: *const c_void,
    partial: *const c_void,
    moments: *const c_void,
    pixels: i64,
    chunk: i64,
    channels: i32,
    own: i32,
    groups: i32,
    chunks: i32,
    activation: i32,
    factor: f32,
    eps: f32,
}

/// As in `norm.cu`.
#[repr(C)]
struct SumArguments {
    a: *const c_void,
    b: *const c_void,
    bias: *const c_void,
    out: *const c_void,
    count: i64,
    channels: i32,
    divisor: f32,
}

/// The kernels, loaded on one device.
pub(crate) struct Kernels(Runner);

enum Runner {
    Card(KernelsHandle),
    #[cfg(test)]
    Host(tests::Host),
}

/// How many blocks, and the shared bytes of each.
struct Grid {
    x: usize,
    y: usize,
    shared: usize,
}

/// The kernels of a device, or `None` if they are missing or disagree with libtorch. This is tested
/// once.
pub(crate) fn kernels(device: usize) -> Option<&'static Kernels> {
    static LOADED: OnceLock<Mutex<HashMap<usize, Option<&'static Kernels>>>> = OnceLock::new();
    let mut loaded =
        LOADED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    *loaded.entry(device).or_insert_with(|| {
        let found = Kernels::load(device)
            .and_then(|kernels| kernels.agree(Device::Cuda(device)).map(|()| kernels));
        match found {
            Ok(kernels) => Some(&*Box::leak(Box::new(kernels))),
            Err(reason) => {
                tracing::warn!(
                    reason,
                    "networks run on libtorch's operations alone, which take longer"
                );
                None
            }
        }
    })
}

/// Group normalisation of pictures on a card.
pub(crate) struct CudaNorm {
    kernels: &'static Kernels,
    parameters: Parameters,
}

/// The learned weights of a normalisation, in f32, `[channels]`.
struct Parameters {
    weight: Tensor,
    bias: Tensor,
    /// Added to the picture first.
    before: Option<Tensor>,
    groups: i64,
    eps: f64,
}

impl CudaNorm {
    /// Weight and bias in f32, `[channels]`. `None` for widths that the kernels do not support.
    pub(crate) fn new(
        kernels: &'static Kernels,
        weight: Tensor,
        bias: Tensor,
        groups: usize,
        eps: f64,
    ) -> Option<Self> {
        let (channels, groups) = (weight.size()[0], groups as i64);
        let divided = groups > 0 && channels % groups == 0;
        let taken =
            divided && channels % 4 == 0 && channels <= MOST_CHANNELS && groups <= THREADS as i64;
        taken.then_some(Self {
            kernels,
            parameters: Parameters { weight, bias, before: None, groups, eps },
        })
    }

    /// The same for pictures to which a layer's bias, `[channels]`, must still be added.
    pub(crate) fn with_bias_before(&mut self, bias: &Tensor) -> Torch<()> {
        self.parameters.before = Some(bias.f_to_kind(Kind::Float)?);
        Ok(())
    }

    /// `sources` are joined in the channels; there are at most two, and the second is multiplied by
    /// its factor.
    pub(crate) fn forward(&self, sources: &[(&Tensor, f64)], steer: Steer<'_>) -> Torch<Tensor> {
        let by_four = sources.iter().all(|(picture, _)| picture.size()[1] % 4 == 0);
        match sources {
            [(x, _)] => self.kernels.norm(&self.parameters, x, None, steer),
            [(x, _), (skip, factor)] if by_four => {
                self.kernels.norm(&self.parameters, x, Some((skip, *factor)), steer)
            }
            _ => {
                let parts: Vec<Tensor> = sources
                    .iter()
                    .map(|(picture, factor)| picture.f_mul_scalar(*factor))
                    .collect::<Torch<_>>()?;
                let joined = Tensor::f_cat(&parts.iter().collect::<Vec<_>>(), 1)?;
                self.kernels.norm(&self.parameters, &joined, None, steer)
            }
        }
    }
}

impl Kernels {
    fn load(device: usize) -> Result<Self, String> {
        super::shim()?.kernels(device).map(|handle| Self(Runner::Card(handle)))
    }

    fn norm(
        &self,
        norm: &Parameters,
        x: &Tensor,
        skip: Option<(&Tensor, f64)>,
        steer: Steer<'_>,
    ) -> Torch<Tensor> {
        let x = picture(x, x.kind())?;
        let skip = skip
            .map(|(skip, factor)| Ok::<_, TchError>((picture(skip, x.kind())?, factor)))
            .transpose()?;
        let (rows, own, height, width) = x.size4()?;
        let channels = norm.weight.size()[0];
        let (pixels, kind) = (height * width, x.kind());
        let behind = skip.as_ref().map_or(0, |(skip, _)| skip.size()[1]);
        let fits =
            skip.as_ref().is_none_or(|(skip, _)| skip.size() == [rows, behind, height, width]);
        if own + behind != channels || !fits {
            let skip = skip.map(|(skip, _)| skip.size());
            return Err(TchError::Shape(format!(
                "{:?} with {skip:?} behind it; expected {channels} channels",
                x.size()
            )));
        }
        let of_rows = |values: Option<&Tensor>, width: i64| -> Torch<Option<Tensor>> {
            let values = values.map(|values| {
                values.f_to_kind(kind)?.f_expand([rows, width], false)?.f_contiguous()
            });
            values.transpose()
        };
        let (steering, added) =
            (of_rows(steer.scale_shift, 2 * channels)?, of_rows(steer.added, channels)?);
        let (chunk, chunks) = chunks(pixels, channels);
        let sums = rows * chunks * norm.groups * 2;
        let scratch = Tensor::f_empty([sums + rows * norm.groups * 2], (Kind::Float, x.device()))?;
        let moments = scratch.f_narrow(0, sums, rows * norm.groups * 2)?;
        let out = Tensor::f_empty([rows, height, width, channels], (kind, x.device()))?;
        let arguments = NormArguments {
            x: address(Some(&x)),
            skip: address(skip.as_ref().map(|(skip, _)| skip)),
            before: address(norm.before.as_ref()),
            added: address(added.as_ref()),
            weight: address(Some(&norm.weight)),
            bias: address(Some(&norm.bias)),
            steer: address(steering.as_ref()),
            out: address(Some(&out)),
            partial: address(Some(&scratch)),
            moments: address(Some(&moments)),
            pixels,
            chunk,
            channels: channels as i32,
            own: own as i32,
            groups: norm.groups as i32,
            chunks: chunks as i32,
            activation: match steer.activation {
                None => 0,
                Some(Activation::Silu) => 1,
                Some(Activation::Gelu) => 2,
                Some(Activation::Relu) => 3,
                Some(Activation::Mish) => 4,
            },
            factor: skip.as_ref().map_or(1.0, |(_, factor)| *factor as f32),
            eps: norm.eps as f32,
        };
        let (rows, chunks, channels) = (rows as usize, chunks as usize, channels as usize);
        let lanes = power_of_two_below(THREADS / (channels / 4).min(THREADS));
        let sums = lanes * channels * 2 * size_of::<f32>();
        self.run(Kernel::SumUp, kind, Grid { x: chunks, y: rows, shared: sums }, &arguments)?;
        let lanes = power_of_two_below(THREADS / norm.groups as usize);
        let sums = lanes * norm.groups as usize * 2 * size_of::<f64>();
        self.run(Kernel::Combine, kind, Grid { x: rows, y: 1, shared: sums }, &arguments)?;
        self.run(Kernel::Apply, kind, Grid { x: chunks, y: rows, shared: 0 }, &arguments)?;
        out.f_permute([0, 3, 1, 2])
    }

    /// (a + b + bias) / divisor: two pictures, and a bias `[channels]` in f32. The number of
    /// channels is a multiple of four.
    pub(crate) fn sum(&self, a: &Tensor, b: &Tensor, bias: &Tensor, divisor: f64) -> Torch<Tensor> {
        const MOST_BLOCKS: usize = 4096;
        let (a, kind) = (picture(a, a.kind())?, a.kind());
        let b = picture(b, kind)?;
        let (rows, channels, height, width) = a.size4()?;
        if b.size() != a.size() || bias.size() != [channels] || channels % 4 != 0 {
            let message = format!("a sum of {:?}, {:?} and {:?}", a.size(), b.size(), bias.size());
            return Err(TchError::Shape(message));
        }
        let out = Tensor::f_empty([rows, height, width, channels], (kind, a.device()))?;
        let count = rows * channels * height * width;
        let arguments = SumArguments {
            a: address(Some(&a)),
            b: address(Some(&b)),
            bias: address(Some(bias)),
            out: address(Some(&out)),
            count,
            channels: channels as i32,
            divisor: divisor as f32,
        };
        let blocks = (count as usize / 4).div_ceil(THREADS).clamp(1, MOST_BLOCKS);
        self.run(Kernel::Sum, kind, Grid { x: blocks, y: 1, shared: 0 }, &arguments)?;
        out.f_permute([0, 3, 1, 2])
    }

    fn run<A>(&self, kernel: Kernel, kind: Kind, grid: Grid, arguments: &A) -> Torch<()> {
        let index = kernel as usize
            + match kind {
                Kind::Float => 0,
                Kind::BFloat16 => 1,
                other => {
                    return Err(TchError::Kind(format!(
                        "{other:?}; the kernels take f32 and bf16"
                    )));
                }
            };
        let arguments = ptr::from_ref(arguments).cast::<c_void>();
        let ran = match &self.0 {
            Runner::Card(handle) => handle.launch(index, [grid.x, grid.y, grid.shared], arguments),
            #[cfg(test)]
            Runner::Host(host) => host.run(index, [grid.x, grid.y], arguments),
        };
        ran.map_err(TchError::Torch)
    }

    /// Compares small norms and sums with libtorch's, in both formats.
    fn agree(&self, device: Device) -> Result<(), String> {
        // f32 sums in another order differ by 1e-6; bf16 rounds by 1/512.
        for (kind, most) in [(Kind::Float, 1e-4), (Kind::BFloat16, 0.01)] {
            let off = self.disagreement(device, kind).map_err(|error| error.to_string())?;
            if off > most || off.is_nan() {
                return Err(format!("in {kind:?} they differ from libtorch by {off}"));
            }
        }
        Ok(())
    }

    /// How much a norm with everything around it, a plain norm and a sum differ from libtorch's in
    /// f32, as a share of the value's size plus one.
    fn disagreement(&self, device: Device, kind: Kind) -> Torch<f64> {
        let random = |shape: &[i64]| Tensor::f_randn(shape, (Kind::Float, device))?.f_to_kind(kind);
        let picture = |channels: i64| channels_last(&random(&[2, channels, 18, 18])?);
        let (x, skip, steer, added) =
            (picture(24)?, picture(8)?, random(&[2, 64])?, random(&[2, 32])?);
        let f32 = |values: &Tensor| values.f_to_kind(Kind::Float);
        let wide = |values: &Tensor| f32(values)?.f_unsqueeze(-1)?.f_unsqueeze(-1);
        let parameters = |channels: i64, before: Option<Tensor>| -> Torch<Parameters> {
            let (weight, bias) = (f32(&random(&[channels])?)?, f32(&random(&[channels])?)?);
            Ok(Parameters { weight, bias, before, groups: 4, eps: 1e-5 })
        };
        let by_libtorch = |norm: &Parameters, x: &Tensor| {
            x.f_group_norm(norm.groups, Some(&norm.weight), Some(&norm.bias), norm.eps, true)
        };
        let off = |a: &Tensor, b: &Tensor| -> Torch<f64> {
            let size = b.f_abs()?.f_add_scalar(1.0)?;
            let off: f64 = f32(a)?.f_sub(b)?.f_abs()?.f_div(&size)?.f_max()?.try_into()?;
            Ok(if off.is_nan() { f64::INFINITY } else { off })
        };

        let before = f32(&random(&[32])?)?;
        let joined = Tensor::f_cat(&[&f32(&x)?, &f32(&skip)?.f_mul_scalar(0.5)?], 1)?;
        let joined = joined.f_add(&wide(&before)?)?.f_add(&wide(&added)?)?;
        let norm = parameters(32, Some(before))?;
        let (scale, shift) =
            (wide(&steer.f_narrow(1, 0, 32)?)?, wide(&steer.f_narrow(1, 32, 32)?)?);
        let expected =
            Activation::Silu.apply(by_libtorch(&norm, &joined)?.f_mul(&scale)?.f_add(&shift)?)?;
        let around = Steer {
            scale_shift: Some(&steer),
            added: Some(&added),
            activation: Some(Activation::Silu),
        };
        let steered = off(&self.norm(&norm, &x, Some((&skip, 0.5)), around)?, &expected)?;

        let norm = parameters(24, None)?;
        let got = self.norm(&norm, &x, None, Steer::default())?;
        let plain = off(&got, &by_libtorch(&norm, &f32(&x)?)?)?;

        let sum = self.sum(&got, &x, &norm.weight, 2.0)?;
        let expected =
            f32(&got)?.f_add(&f32(&x)?)?.f_add(&wide(&norm.weight)?)?.f_div_scalar(2.0)?;
        Ok(steered.max(plain).max(off(&sum, &expected)?))
    }
}

/// Pixels per chunk, and the number of chunks. They depend only on a picture's shape, so that a
/// row's bits depend on that row alone.
fn chunks(pixels: i64, channels: i64) -> (i64, i64) {
    const VALUES: i64 = 8192;
    const MOST: i64 = 256;
    let pixels = pixels.max(1);
    let chunk =
        (VALUES / channels).max(pixels.div_euclid(MOST) + i64::from(pixels % MOST > 0)).max(1);
    (chunk, (pixels + chunk - 1) / chunk)
}

/// The largest power of two that is not larger than the number.
fn power_of_two_below(number: usize) -> usize {
    1 << number.max(1).ilog2()
}

/// Makes a tensor channels-last, in the kernels' format.
fn picture(x: &Tensor, kind: Kind) -> Torch<Tensor> {
    channels_last(&x.f_to_kind(kind)?)
}

/// The address of a contiguous tensor's values; null for none.
fn address(tensor: Option<&Tensor>) -> *const c_void {
    tensor.map_or(ptr::null(), |tensor| tensor.data_ptr().cast_const())
}

#[cfg(test)]
mod tests;
