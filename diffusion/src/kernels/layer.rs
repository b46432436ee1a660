//! The kernels for libtorch's tensors, in f32 or bf16.

#![expect(
    unsafe_code,
    reason = "a dense tensor's memory is seen as a slice while the tensor is borrowed"
)]

use tch::{Device, Kind, Tensor};

use super::attend::{self, Attending, Sequence};
use super::conv::{self, Output, Residual, Source};
use super::instructions::{InstructionSet, on};
use super::norm::{self, Affine, Joined};
use super::packed::{Packed, Part, Taps};
use super::pictures;
use super::threads;
use super::vector::{Bf16, Element, Simd};
use super::winograd;
use crate::layers::{Steer, Torch, channels_last};

pub(crate) use super::packed::Layout;

/// A picture `[rows, channels, height, width]`, or a sequence `[rows, length, channels]` or `[rows,
/// channels]`.
#[derive(Clone, Copy)]
pub(crate) struct Picture<'a> {
    pub(crate) tensor: &'a Tensor,
    /// Whether it is read at twice its height and width, nearest neighbour.
    pub(crate) doubled: bool,
}

impl<'a> From<&'a Tensor> for Picture<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Self { tensor, doubled: false }
    }
}

/// Part of a layer: a weight `[outputs, inputs, kernel, kernel]` or `[outputs, inputs]` in f32, and
/// which of its inputs a source provides.
pub(crate) struct ConvPart<'a> {
    pub(crate) weight: &'a Tensor,
    pub(crate) from: usize,
    pub(crate) channels: usize,
    /// Factor of the source.
    pub(crate) factor: f64,
}

impl<'a> ConvPart<'a> {
    /// All inputs of a weight.
    pub(crate) fn whole(weight: &'a Tensor) -> Self {
        let channels = weight.size()[1] as usize;
        Self { weight, from: 0, channels, factor: 1.0 }
    }
}

/// How outputs are finished.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Factor of the whole sum.
    pub(crate) factor: f64,
    pub(crate) kind: Kind,
}

/// How weights are packed.
#[derive(Clone, Copy)]
pub(crate) struct Packing {
    pub(crate) kind: Kind,
    pub(crate) layout: Layout,
    /// Whether weights may take up to 16/9 of their memory if that saves products.
    pub(crate) may_grow: bool,
}

/// A convolution or linear layer, or a sum of several, with weights packed for an instruction set.
pub(crate) struct ConvKernel {
    set: InstructionSet,
    ways: Ways,
}

/// How a layer is computed, by the number format of its weights.
enum Ways {
    F32(Way<f32>),
    Bf16(Way<Bf16>),
}

/// How a layer is computed.
enum Way<E> {
    Taps(Packed<E>),
    Winograd(winograd::Packed<E>),
}

impl ConvKernel {
    pub(crate) fn new(
        packing: Packing,
        parts: &[ConvPart<'_>],
        bias: Option<&Tensor>,
    ) -> Torch<Self> {
        let dense = |part: &ConvPart<'_>| part.weight.f_to_kind(Kind::Float)?.f_contiguous();
        let values: Vec<Tensor> = parts.iter().map(dense).collect::<Torch<_>>()?;
        let outputs = parts.first().map_or(0, |part| part.weight.size()[0] as usize);
        let bias = match bias {
            Some(bias) => floats(bias)?,
            None => vec![0.0; outputs],
        };
        let parts: Vec<Part<'_>> = parts
            .iter()
            .zip(&values)
            .map(|(part, weights)| Part {
                weights: elements(weights),
                kernel: part.weight.size().get(2).map_or(1, |kernel| *kernel as usize),
                inputs: part.weight.size()[1] as usize,
                from: part.from,
                channels: part.channels,
                factor: part.factor as f32,
            })
            .collect();
        let set = chosen();
        let ways = on!(set, S => match packing.kind {
            Kind::BFloat16 => Ways::Bf16(Way::new::<S>(packing, outputs, &parts, &bias)),
            _ => Ways::F32(Way::new::<S>(packing, outputs, &parts, &bias)),
        });
        Ok(Self { set, ways })
    }

    pub(crate) fn forward(
        &self,
        sources: &[Picture<'_>],
        residual: Option<Picture<'_>>,
        shape: Shape,
    ) -> Torch<Tensor> {
        on!(self.set, S => match (&self.ways, shape.kind) {
            (Ways::F32(way), _) => convolve::<S, f32, f32>(way, sources, residual, shape),
            (Ways::Bf16(way), Kind::Float) => {
                convolve::<S, Bf16, f32>(way, sources, residual, shape)
            }
            (Ways::Bf16(way), _) => convolve::<S, Bf16, Bf16>(way, sources, residual, shape),
        })
    }
}

impl<E: Element> Way<E> {
    fn new<S: Simd>(packing: Packing, outputs: usize, parts: &[Part<'_>], bias: &[f32]) -> Self {
        let Packing { layout, may_grow, .. } = packing;
        if may_grow && winograd::pays(outputs, parts, layout) {
            return Self::Winograd(winograd::Packed::new::<S>(outputs, parts, bias));
        }
        Self::Taps(Packed::new(S::LANES, outputs, parts, bias, layout))
    }

    fn outputs(&self) -> usize {
        match self {
            Self::Taps(packed) => packed.outputs(),
            Self::Winograd(packed) => packed.outputs(),
        }
    }

    fn sources(&self) -> &[Taps] {
        match self {
            Self::Taps(packed) => packed.sources(),
            Self::Winograd(packed) => packed.sources(),
        }
    }

    /// The output's extent for a source's extent.
    fn extent(&self, source: usize) -> usize {
        match self {
            Self::Taps(packed) => packed.extent(source),
            Self::Winograd(_) => source,
        }
    }
}

fn convolve<S: Simd, E: TorchElement, O: TorchElement>(
    way: &Way<E>,
    sources: &[Picture<'_>],
    residual: Option<Picture<'_>>,
    shape: Shape,
) -> Torch<Tensor> {
    let dense: Vec<Tensor> = sources
        .iter()
        .zip(way.sources())
        .map(|(source, taps)| even::<E>(source.tensor, taps.channels))
        .collect::<Torch<_>>()?;
    let views: Vec<Source<'_, E>> = dense
        .iter()
        .zip(sources)
        .map(|(tensor, source)| {
            let [_, height, width, _] = extents(tensor);
            Source { data: elements(tensor), height, width, doubled: source.doubled }
        })
        .collect();
    let [rows, height, width, _] = dense.first().map_or([0; 4], extents);
    let scale = if views.first().is_some_and(|source| source.doubled) { 2 } else { 1 };
    let (height, width) = (way.extent(height * scale), way.extent(width * scale));
    let extent = |value: usize| value as i64;
    let outputs = way.outputs();
    let out = empty::<O>(&[extent(rows), extent(height), extent(width), extent(outputs)])?;
    let added = residual.map(|residual| dense_tensor::<E>(residual.tensor)).transpose()?;
    let residual = added
        .as_ref()
        .zip(residual)
        .map(|(tensor, residual)| Residual { data: elements(tensor), doubled: residual.doubled });
    let output =
        Output { data: elements_mut::<O>(&out), rows, height, width, factor: shape.factor as f32 };
    match way {
        Way::Taps(packed) => {
            conv::run::<S, E, O>(threads::count(), packed, &views, residual, output);
        }
        Way::Winograd(packed) => {
            winograd::run::<S, E, O>(threads::count(), packed, &views, residual, output);
        }
    }
    match sources.first().map_or(4, |source| source.tensor.dim()) {
        4 => out.f_permute([0, 3, 1, 2]),
        3 => out.f_view([extent(rows), extent(height), extent(outputs)]),
        _ => out.f_view([extent(rows), extent(outputs)]),
    }
}

/// Group normalisation with the operations after it.
pub(crate) struct NormKernel {
    weight: Vec<f32>,
    bias: Vec<f32>,
    groups: usize,
    eps: f64,
}

impl NormKernel {
    pub(crate) fn new(weight: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Torch<Self> {
        Ok(Self { weight: floats(weight)?, bias: floats(bias)?, groups, eps })
    }

    /// Normalises pictures joined in their channels; each is first multiplied by its factor.
    pub(crate) fn forward(&self, sources: &[(&Tensor, f64)], steer: Steer<'_>) -> Torch<Tensor> {
        match sources.first().map(|(tensor, _)| tensor.kind()) {
            Some(Kind::BFloat16) => self.normalise::<Bf16>(sources, steer),
            _ => self.normalise::<f32>(sources, steer),
        }
    }

    fn normalise<E: TorchElement>(
        &self,
        sources: &[(&Tensor, f64)],
        steer: Steer<'_>,
    ) -> Torch<Tensor> {
        let dense: Vec<Tensor> =
            sources.iter().map(|(tensor, _)| dense_tensor::<E>(tensor)).collect::<Torch<_>>()?;
        let [rows, height, width, _] = dense.first().map_or([0; 4], extents);
        let views: Vec<Joined<'_, E>> = dense
            .iter()
            .zip(sources)
            .map(|(tensor, (_, factor))| Joined {
                data: elements(tensor),
                channels: extents(tensor)[3],
                factor: *factor as f32,
            })
            .collect();
        let steering = steer.scale_shift.map(floats).transpose()?;
        let added = steer.added.map(floats).transpose()?;
        let affine = Affine {
            weight: &self.weight,
            bias: &self.bias,
            groups: self.groups,
            eps: self.eps,
            steering: steering.as_deref(),
            added: added.as_deref(),
        };
        let out =
            empty::<E>(&[rows as i64, height as i64, width as i64, self.weight.len() as i64])?;
        on!(chosen(), S => norm::run::<S, E>(
            threads::count(),
            &views,
            (rows, height * width),
            &affine,
            steer.activation,
            elements_mut(&out),
        ));
        out.f_permute([0, 3, 1, 2])
    }
}

/// The mean of every two by two pixels.
pub(crate) fn halve(picture: &Tensor) -> Torch<Tensor> {
    match picture.kind() {
        Kind::BFloat16 => halved::<Bf16>(picture),
        _ => halved::<f32>(picture),
    }
}

fn halved<E: TorchElement>(picture: &Tensor) -> Torch<Tensor> {
    let picture = dense_tensor::<E>(picture)?;
    let shape = extents(&picture);
    let [rows, height, width, channels] = shape.map(|extent| extent as i64);
    let out = empty::<E>(&[rows, height / 2, width / 2, channels])?;
    on!(chosen(), S => {
        norm::halve::<S, E>(threads::count(), elements(&picture), shape, elements_mut(&out));
    });
    out.f_permute([0, 3, 1, 2])
}

/// Σ factor · picture in f32, in the given order, then kept within ±`limit`; pictures `[rows,
/// channels, height, width]`.
pub(crate) fn blend(terms: &[(&Tensor, f64)], limit: Option<f64>) -> Torch<Tensor> {
    let dense: Vec<Tensor> =
        terms.iter().map(|(tensor, _)| dense_tensor::<f32>(tensor)).collect::<Torch<_>>()?;
    let views: Vec<(&[f32], f32)> = dense
        .iter()
        .zip(terms)
        .map(|(tensor, (_, factor))| (elements(tensor), *factor as f32))
        .collect();
    let [rows, height, width, channels] =
        dense.first().map_or([0; 4], extents).map(|extent| extent as i64);
    let out = empty::<f32>(&[rows, height, width, channels])?;
    let limit = limit.map(|limit| limit as f32);
    on!(chosen(), S => {
        pictures::blend::<S>(threads::count(), &views, limit, elements_mut(&out));
    });
    out.f_permute([0, 3, 1, 2])
}

/// Joins two pictures `[rows, 3, height, width]` into one of six channels, in the network's `kind`.
pub(crate) fn beside(left: &Tensor, right: &Tensor, kind: Kind) -> Torch<Tensor> {
    match kind {
        Kind::BFloat16 => joined::<Bf16>(left, right),
        _ => joined::<f32>(left, right),
    }
}

fn joined<E: TorchElement>(left: &Tensor, right: &Tensor) -> Torch<Tensor> {
    let (left, right) = (dense_tensor::<f32>(left)?, dense_tensor::<f32>(right)?);
    let [rows, height, width, channels] = extents(&left).map(|extent| extent as i64);
    let out = empty::<E>(&[rows, height, width, 2 * channels])?;
    let (left, right) = (elements(&left), elements(&right));
    on!(chosen(), S => {
        pictures::beside::<S, E>(threads::count(), left, right, elements_mut(&out));
    });
    out.f_permute([0, 3, 1, 2])
}

/// How heads attend.
#[derive(Clone, Copy)]
pub(crate) struct Heads<'a> {
    /// Channels of one head.
    pub(crate) head_dim: i64,
    /// Multiplies the scores; above 0.
    pub(crate) scale: f64,
    /// Added to them, `[1, heads, queries, keys]` in f32, dense.
    pub(crate) bias: Option<&'a Tensor>,
    /// How many keys each row sees, from the first on; `None`: all.
    pub(crate) seen: Option<&'a [i64]>,
}

/// softmax(scale · q kᵀ + bias) v for every head, `[rows, queries, channels]`. Keys and values are
/// pairs of `[rows, length, channels]`, joined in order.
pub(crate) fn attend(query: &Tensor, pairs: &[[&Tensor; 2]], heads: Heads<'_>) -> Torch<Tensor> {
    match query.kind() {
        Kind::BFloat16 => attended::<Bf16>(query, pairs, heads),
        _ => attended::<f32>(query, pairs, heads),
    }
}

fn attended<E: TorchElement>(
    query: &Tensor,
    pairs: &[[&Tensor; 2]],
    heads: Heads<'_>,
) -> Torch<Tensor> {
    let (rows, queries, channels) = query.size3()?;
    let Heads { head_dim, scale, bias, seen } = heads;
    let missing = head_dim % E::STEP as i64;
    let query = strided::<E>(query, head_dim, missing)?;
    let pairs: Vec<[Tensor; 2]> = pairs
        .iter()
        .map(|[key, value]| {
            Ok([strided::<E>(key, head_dim, missing)?, strided::<E>(value, head_dim, missing)?])
        })
        .collect::<Torch<_>>()?;
    let sequences: Vec<[Sequence<'_, E>; 2]> =
        pairs.iter().map(|pair| [sequence(&pair[0], rows), sequence(&pair[1], rows)]).collect();
    let seen: Option<Vec<usize>> =
        seen.map(|seen| seen.iter().map(|seen| *seen as usize).collect());
    let padded = (head_dim + missing) as usize;
    let task = Attending {
        rows: rows as usize,
        heads: (channels / head_dim) as usize,
        head_dim: padded,
        query: sequence(&query, rows),
        pairs: &sequences,
        scale: scale as f32,
        bias: bias.map(elements),
        seen: seen.as_deref(),
    };
    let out = empty::<E>(&[rows, queries, channels / head_dim * (head_dim + missing)])?;
    on!(chosen(), S => attend::run::<S, E>(threads::count(), &task, elements_mut(&out)));
    if missing == 0 {
        return Ok(out);
    }
    out.f_unflatten(2, [-1, head_dim + missing])?.f_narrow(3, 0, head_dim)?.f_flatten(2, 3)
}

/// The tensor itself if the channels of each position are adjacent, or else a copy like that. Each
/// head gets `missing` more channels of 0.
fn strided<E: TorchElement>(tensor: &Tensor, head_dim: i64, missing: i64) -> Torch<Tensor> {
    let tensor = tensor.f_to_kind(E::KIND)?;
    if missing > 0 {
        return tensor
            .f_unflatten(2, [-1, head_dim])?
            .f_pad([0, missing], "constant", 0.0)?
            .f_flatten(2, 3);
    }
    if tensor.stride().last() == Some(&1) { Ok(tensor) } else { tensor.f_contiguous() }
}

/// `[rows, length, channels]` by its strides.
fn sequence<E: TorchElement>(tensor: &Tensor, rows: i64) -> Sequence<'_, E> {
    assert!(tensor.kind() == E::KIND && tensor.device() == Device::Cpu, "a tensor of another kind");
    let (size, strides) = (tensor.size(), tensor.stride());
    assert!(size.len() == 3 && size[0] == rows && strides[2] == 1, "a sequence of other rows");
    let strides = [strides[0] as usize, strides[1] as usize];
    // SAFETY: libtorch's strides lead to the elements of all its rows and positions, whose channels
    // are neighbours; the borrow keeps them alive.
    unsafe { Sequence::new(tensor.data_ptr().cast::<E>().cast_const(), size[1] as usize, strides) }
}

/// The instruction set of this call.
fn chosen() -> InstructionSet {
    InstructionSet::chosen().expect("kernels are used only where `available` says so")
}

/// Elements by libtorch's types.
trait TorchElement: Element {
    const KIND: Kind;
}

impl TorchElement for f32 {
    const KIND: Kind = Kind::Float;
}

impl TorchElement for Bf16 {
    const KIND: Kind = Kind::BFloat16;
}

fn empty<E: TorchElement>(shape: &[i64]) -> Torch<Tensor> {
    Tensor::f_empty(shape, (E::KIND, Device::Cpu))
}

/// The tensor itself if it is dense, channels-last and of the wanted type, or else a copy like
/// that.
fn dense_tensor<E: TorchElement>(tensor: &Tensor) -> Torch<Tensor> {
    let tensor = tensor.f_to_kind(E::KIND)?;
    if tensor.dim() != 4 {
        return tensor.f_contiguous();
    }
    if tensor.f_permute([0, 2, 3, 1])?.is_contiguous() {
        Ok(tensor)
    } else {
        channels_last(&tensor)
    }
}

/// The same, with channels of 0 added up to a whole multiply-and-add.
fn even<E: TorchElement>(tensor: &Tensor, channels: usize) -> Torch<Tensor> {
    let dense = dense_tensor::<E>(tensor)?;
    let missing = channels.saturating_sub(extents(&dense)[3]) as i64;
    match (missing, dense.dim()) {
        (0, _) => Ok(dense),
        (_, 4) => channels_last(&dense.f_pad([0, 0, 0, 0, 0, missing], "constant", 0.0)?),
        _ => dense.f_pad([0, missing], "constant", 0.0)?.f_contiguous(),
    }
}

/// Rows, height, width and channels; a sequence is one pixel wide.
fn extents(tensor: &Tensor) -> [usize; 4] {
    let size: Vec<usize> = tensor.size().iter().map(|extent| *extent as usize).collect();
    match size.as_slice() {
        [rows, channels, height, width] => [*rows, *height, *width, *channels],
        [rows, length, channels] => [*rows, *length, 1, *channels],
        [rows, channels] => [*rows, 1, 1, *channels],
        other => [1, 1, 1, other.iter().product()],
    }
}

fn floats(tensor: &Tensor) -> Torch<Vec<f32>> {
    Ok(elements::<f32>(&tensor.f_to_kind(Kind::Float)?.f_contiguous()?).to_vec())
}

/// The memory of a dense tensor.
fn elements<E: TorchElement>(tensor: &Tensor) -> &[E] {
    assert!(tensor.kind() == E::KIND && tensor.device() == Device::Cpu, "a tensor of another kind");
    let count = tensor.numel();
    if count == 0 {
        return &[];
    }
    // SAFETY: every caller made the tensor dense (`dense_tensor`, `empty`, `f_contiguous`), so its
    // elements are the `numel` from its pointer on; the borrow keeps it alive, and nothing writes
    // it meanwhile.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<E>(), count) }
}

/// The memory of a tensor that was just made by [`empty`].
#[expect(clippy::mut_from_ref, reason = "a tensor is a handle; nobody else has this one yet")]
fn elements_mut<E: TorchElement>(tensor: &Tensor) -> &mut [E] {
    assert!(tensor.kind() == E::KIND && tensor.device() == Device::Cpu, "a tensor of another kind");
    let count = tensor.numel();
    if count == 0 {
        return &mut [];
    }
    // SAFETY: as above; the only handle on this memory is the caller's. Any bits are valid
    // elements.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<E>(), count) }
}

#[cfg(test)]
mod tests;
