//! Layers as networks call them: each layer includes the operations that follow it, so that one
//! pass over a picture does everything.
//!
//! With this crate's kernels a layer is one or two kernels. Otherwise it is a series of libtorch's
//! operations; on a GPU this crate's kernels then do everything except convolutions. Networks are
//! written once, against this module.

use tch::{Kind, Tensor};

use crate::cuda::{self, CudaNorm};
use crate::device::Placement;
use crate::error::LoadError;
use crate::kernels::{ConvKernel, ConvPart, Layout, NormKernel, Packing, Picture, Shape, halve};
use crate::layers::{Activation, Conv2d, ConvShape, GroupNorm, Linear, Steer, Torch};
use crate::timings::{Part, timed};
use crate::weights::Weights;

/// A picture, and one kept from the way down that is joined to it in the channels.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) x: &'a Tensor,
    /// It is multiplied by its factor.
    pub(crate) skip: Option<(&'a Tensor, f64)>,
}

impl<'a> From<&'a Tensor> for Input<'a> {
    fn from(x: &'a Tensor) -> Self {
        Self { x, skip: None }
    }
}

impl<'a> Input<'a> {
    /// Each with its factor.
    fn sources(&self) -> Vec<(&'a Tensor, f64)> {
        [(self.x, 1.0)].into_iter().chain(self.skip).collect()
    }

    /// Both as one tensor.
    pub(crate) fn joined(&self) -> Torch<Tensor> {
        match self.skip {
            None => Ok(self.x.shallow_clone()),
            Some((skip, 1.0)) => Tensor::f_cat(&[self.x, skip], 1),
            Some((skip, factor)) => Tensor::f_cat(&[self.x, &skip.f_mul_scalar(factor)?], 1),
        }
    }
}

/// How many of a layer's input channels come from a kept picture, and that picture's factor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Skip {
    pub(crate) channels: usize,
    pub(crate) factor: f64,
}

/// How the timestep's embedding enters a normalisation.
pub(crate) enum Steering<'a> {
    None,
    /// `[rows, 2 · channels]`: x · (the first half) + the second.
    ScaleShift(&'a Tensor),
    /// `[rows, channels]`, added before the normalisation.
    Added(&'a Tensor),
}

/// Group normalisation, steering and activation.
pub(crate) struct Norm {
    way: NormWay,
    activation: Option<Activation>,
}

enum NormWay {
    Kernel(NormKernel),
    Cuda(CudaNorm),
    Libtorch(GroupNorm),
}

impl Norm {
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        channels: usize,
        (groups, eps): (usize, f64),
        activation: Option<Activation>,
    ) -> Result<Self, LoadError> {
        let placement = weights.placement();
        let take = |part: &str| weights.take_f32(&format!("{name}.{part}"), &[channels]);
        let on_card = match placement.engine.cuda_kernels() {
            Some(kernels) => CudaNorm::new(kernels, take("weight")?, take("bias")?, groups, eps),
            None => None,
        };
        let way = match on_card {
            Some(norm) => NormWay::Cuda(norm),
            None if placement.engine.packs_weights() => {
                NormWay::Kernel(NormKernel::new(&take("weight")?, &take("bias")?, groups, eps)?)
            }
            None => NormWay::Libtorch(GroupNorm::load(weights, name, channels, groups, eps)?),
        };
        Ok(Self { way, activation })
    }

    /// Adds the bias of the convolution before it, if that saves a pass over the picture.
    pub(crate) fn take_bias(&mut self, conv: &mut Conv) -> Torch<()> {
        let (NormWay::Cuda(norm), ConvWay::Libtorch(conv)) = (&mut self.way, &mut conv.way) else {
            return Ok(());
        };
        conv.take_bias().map_or(Ok(()), |bias| norm.with_bias_before(&bias))
    }

    pub(crate) fn forward(&self, input: Input<'_>, steering: &Steering<'_>) -> Torch<Tensor> {
        timed(Part::Normalisation, || self.run(input, steering))
    }

    fn steer<'a>(&self, steering: &Steering<'a>) -> Steer<'a> {
        let steer = Steer { activation: self.activation, ..Steer::default() };
        match *steering {
            Steering::None => steer,
            Steering::ScaleShift(values) => Steer { scale_shift: Some(values), ..steer },
            Steering::Added(values) => Steer { added: Some(values), ..steer },
        }
    }

    fn run(&self, input: Input<'_>, steering: &Steering<'_>) -> Torch<Tensor> {
        match &self.way {
            NormWay::Kernel(norm) => norm.forward(&input.sources(), self.steer(steering)),
            NormWay::Cuda(norm) => norm.forward(&input.sources(), self.steer(steering)),
            NormWay::Libtorch(norm) => {
                let x = input.joined()?;
                let wide = |values: &Tensor| values.f_unsqueeze(-1)?.f_unsqueeze(-1);
                let normed = match steering {
                    Steering::None => norm.forward(&x)?,
                    Steering::Added(values) => norm.forward(&x.f_add(&wide(values)?)?)?,
                    Steering::ScaleShift(values) => {
                        let channels = values.size()[1] / 2;
                        let scale = wide(&values.f_narrow(1, 0, channels)?)?;
                        let shift = wide(&values.f_narrow(1, channels, channels)?)?;
                        shift.f_addcmul(&norm.forward(&x)?, &scale)?
                    }
                };
                self.activation
                    .map_or(Ok(normed.shallow_clone()), |activation| activation.apply(normed))
            }
        }
    }
}

/// What happens to height and width before a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resample {
    Keep,
    /// Mean of 2 × 2.
    Halve,
    /// Nearest neighbour.
    Double,
}

impl Resample {
    fn by_libtorch(self, x: &Tensor) -> Torch<Tensor> {
        match self {
            Self::Keep => Ok(x.shallow_clone()),
            Self::Halve => x.f_avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None),
            Self::Double => {
                let (_, _, height, width) = x.size4()?;
                x.f_upsample_nearest2d([height * 2, width * 2], None, None)
            }
        }
    }
}

/// A convolution, and how its picture is resampled before it.
pub(crate) struct Conv {
    way: ConvWay,
    resample: Resample,
    kind: Kind,
}

enum ConvWay {
    Kernel(ConvKernel),
    Libtorch(Conv2d),
}

impl Conv {
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        shape: ConvShape,
        resample: Resample,
    ) -> Result<Self, LoadError> {
        let Placement { kind, engine, .. } = weights.placement();
        let way = if engine.packs_weights() {
            let (weight, bias) = Conv2d::load_f32(weights, name, shape)?;
            let layout = match resample {
                Resample::Double => Layout::Double,
                _ => Layout::Stride(shape.stride),
            };
            let packing = Packing { kind, layout, may_grow: weights.may_grow() };
            ConvWay::Kernel(ConvKernel::new(packing, &[ConvPart::whole(&weight)], Some(&bias))?)
        } else {
            ConvWay::Libtorch(Conv2d::load(weights, name, shape)?)
        };
        Ok(Self { way, resample, kind })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Torch<Tensor> {
        timed(Part::Convolution, || self.run(x, self.kind))
    }

    /// The result in f32, for the last layer.
    pub(crate) fn forward_f32(&self, x: &Tensor) -> Torch<Tensor> {
        timed(Part::Convolution, || self.run(x, Kind::Float))
    }

    fn run(&self, x: &Tensor, kind: Kind) -> Torch<Tensor> {
        match &self.way {
            ConvWay::Kernel(conv) => {
                let halved = (self.resample == Resample::Halve).then(|| halve(x)).transpose()?;
                let x = halved.as_ref().unwrap_or(x);
                conv.forward(&[x.into()], None, Shape { factor: 1.0, kind })
            }
            ConvWay::Libtorch(conv) => {
                conv.forward(&self.resample.by_libtorch(x)?)?.f_to_kind(kind)
            }
        }
    }
}

/// The end of a residual block: a convolution, plus the block's input, either unchanged or through
/// a 1 × 1 convolution.
pub(crate) struct Closing {
    way: ClosingWay,
    /// The sum is divided by this.
    divisor: f64,
    kind: Kind,
}

enum ClosingWay {
    Kernel { sum: ConvKernel, has_shortcut: bool },
    Libtorch { conv: Conv2d, shortcut: Option<Conv2d>, sum: Option<CudaSum> },
}

/// A sum that includes the biases of its parts, on a GPU.
struct CudaSum {
    kernels: &'static cuda::Kernels,
    bias: Tensor,
}

impl Closing {
    pub(crate) fn load(
        weights: &Weights,
        (conv, shortcut): (&str, &str),
        (inputs, outputs): (usize, usize),
        skip: Option<Skip>,
        divisor: f64,
    ) -> Result<Self, LoadError> {
        let Placement { kind, engine, .. } = weights.placement();
        let has_shortcut = inputs != outputs;
        let (shape, narrow) =
            (ConvShape::same(outputs, outputs, 3), ConvShape::same(inputs, outputs, 1));
        let way = if engine.packs_weights() {
            let (weight, bias) = Conv2d::load_f32(weights, conv, shape)?;
            let mut parts = vec![ConvPart::whole(&weight)];
            let extra =
                has_shortcut.then(|| Conv2d::load_f32(weights, shortcut, narrow)).transpose()?;
            let mut bias = bias;
            if let Some((weight, shortcut_bias)) = &extra {
                let behind = skip.map_or(0, |skip| skip.channels);
                let own = inputs - behind;
                parts.push(ConvPart { weight, from: 0, channels: own, factor: 1.0 });
                if let Some(Skip { channels, factor }) = skip {
                    parts.push(ConvPart { weight, from: own, channels, factor });
                }
                bias = bias.f_add(shortcut_bias)?;
            }
            let packing = Packing { kind, layout: Layout::Apart, may_grow: weights.may_grow() };
            ClosingWay::Kernel { sum: ConvKernel::new(packing, &parts, Some(&bias))?, has_shortcut }
        } else {
            let mut conv = Conv2d::load(weights, conv, shape)?;
            let mut shortcut =
                has_shortcut.then(|| Conv2d::load(weights, shortcut, narrow)).transpose()?;
            let sum = match engine.cuda_kernels() {
                Some(kernels) if outputs % 4 == 0 => {
                    let biases = [conv.take_bias(), shortcut.as_mut().and_then(Conv2d::take_bias)];
                    let mut bias =
                        Tensor::f_zeros([outputs as i64], (Kind::Float, engine.device()))?;
                    for part in biases.iter().flatten() {
                        bias = bias.f_add(&part.f_to_kind(Kind::Float)?)?;
                    }
                    Some(CudaSum { kernels, bias })
                }
                _ => None,
            };
            ClosingWay::Libtorch { conv, shortcut, sum }
        };
        Ok(Self { way, divisor, kind })
    }

    /// `input` is the block's input, before `resample`.
    pub(crate) fn forward(
        &self,
        hidden: &Tensor,
        input: Input<'_>,
        resample: Resample,
    ) -> Torch<Tensor> {
        timed(Part::Convolution, || self.run(hidden, input, resample))
    }

    fn run(&self, hidden: &Tensor, input: Input<'_>, resample: Resample) -> Torch<Tensor> {
        match &self.way {
            ClosingWay::Kernel { sum, has_shortcut } => {
                let shape = Shape { factor: 1.0 / self.divisor, kind: self.kind };
                let doubled = resample == Resample::Double;
                let halved = |x: &Tensor| match resample {
                    Resample::Halve => halve(x),
                    _ => Ok(x.shallow_clone()),
                };
                let picture = |tensor| Picture { tensor, doubled };
                if !has_shortcut {
                    let residual = halved(&input.joined()?)?;
                    return sum.forward(&[hidden.into()], Some(picture(&residual)), shape);
                }
                let x = halved(input.x)?;
                let skip = input.skip.map(|(skip, _)| halved(skip)).transpose()?;
                let behind = skip.as_ref().map(picture);
                let sources: Vec<Picture<'_>> =
                    [hidden.into(), picture(&x)].into_iter().chain(behind).collect();
                sum.forward(&sources, None, shape)
            }
            ClosingWay::Libtorch { conv, shortcut, sum } => {
                let x = resample.by_libtorch(&input.joined()?)?;
                let mut hidden = conv.forward(hidden)?;
                if let Some(CudaSum { kernels, bias }) = sum {
                    let x = shortcut
                        .as_ref()
                        .map_or_else(|| Ok(x.shallow_clone()), |conv| conv.forward(&x))?;
                    return kernels.sum(&hidden, &x, bias, self.divisor);
                }
                let mut sum = match shortcut {
                    Some(conv) => hidden.f_add_(&conv.forward(&x)?)?,
                    None => hidden.f_add_(&x)?,
                };
                if self.divisor == 1.0 { Ok(sum) } else { sum.f_div_scalar_(self.divisor) }
            }
        }
    }
}

/// A linear layer over vectors: pixels as a sequence, or one vector per row.
pub(crate) enum Projection {
    Kernel(ConvKernel, Kind),
    Libtorch(Linear),
}

impl Projection {
    /// From a linear layer in f32 or in the network's format.
    pub(crate) fn new(linear: Linear, placement: Placement) -> Torch<Self> {
        if !placement.engine.packs_weights() {
            return Ok(Self::Libtorch(linear));
        }
        let parts = [ConvPart::whole(&linear.weight)];
        let packing = Packing { kind: placement.kind, layout: Layout::Stride(1), may_grow: false };
        let kernel = ConvKernel::new(packing, &parts, linear.bias.as_ref())?;
        Ok(Self::Kernel(kernel, placement.kind))
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Torch<Tensor> {
        timed(Part::Linear, || self.run(x, None, false))
    }

    /// The result in f32 if that costs nothing; for the vectors that steer a normalisation.
    pub(crate) fn forward_f32(&self, x: &Tensor) -> Torch<Tensor> {
        timed(Part::Linear, || self.run(x, None, true))
    }

    /// The result plus `residual`, which has the same shape.
    pub(crate) fn forward_onto(&self, x: &Tensor, residual: &Tensor) -> Torch<Tensor> {
        timed(Part::Linear, || self.run(x, Some(residual), false))
    }

    fn run(&self, x: &Tensor, residual: Option<&Tensor>, wide: bool) -> Torch<Tensor> {
        match self {
            Self::Kernel(kernel, kind) => {
                let kind = if wide { Kind::Float } else { *kind };
                kernel.forward(
                    &[x.into()],
                    residual.map(Picture::from),
                    Shape { factor: 1.0, kind },
                )
            }
            Self::Libtorch(linear) => {
                let mut out = linear.forward(x)?;
                residual.map_or(Ok(out.shallow_clone()), |residual| out.f_add_(residual))
            }
        }
    }
}
