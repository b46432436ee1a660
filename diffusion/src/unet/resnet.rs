//! The residual block: two convolutions, the time's scale and shift between them, and a shortcut.
//!
//! The same block, given a resampling, makes the picture half or twice as large (BigGAN's up and down blocks).

use tch::Tensor;

use super::config::ResnetStyle;
use crate::error::LoadError;
use crate::layers::{Conv2d, ConvShape, GroupNorm, Linear, Torch};
use crate::weights::Weights;

/// What a block does to height and width, after its first normalisation and before its first convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resample {
    Keep,
    /// Mean of 2 × 2.
    Halve,
    /// Nearest neighbour.
    Double,
}

/// One residual block.
#[derive(Debug)]
pub(crate) struct Resnet {
    style: ResnetStyle,
    resample: Resample,
    scale_factor: f64,
    norm1: GroupNorm,
    conv1: Conv2d,
    time: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
    channels: i64,
}

/// The shape of a [`Resnet`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResnetShape {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) resample: Resample,
    /// The sum of shortcut and result is divided by this.
    pub(crate) scale_factor: f64,
}

impl Resnet {
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        shape: ResnetShape,
        style: ResnetStyle,
    ) -> Result<Self, LoadError> {
        let ResnetShape { inputs, outputs, resample, scale_factor } = shape;
        let part = |part: &str| format!("{name}.{part}");
        let time_outputs = if style.scale_shift { 2 * outputs } else { outputs };
        let mut time = Linear::load(weights, &part(style.time_projection), style.time_width, time_outputs)?;
        if style.scale_shift {
            time.bias = time.bias.map(|bias| one_plus_scale(&bias, outputs as i64)).transpose()?;
        }
        let shortcut = (inputs != outputs)
            .then(|| Conv2d::load(weights, &part("conv_shortcut"), ConvShape::same(inputs, outputs, 1)))
            .transpose()?;
        Ok(Self {
            norm1: GroupNorm::load(weights, &part("norm1"), inputs, style.groups, style.eps)?,
            conv1: Conv2d::load(weights, &part("conv1"), ConvShape::same(inputs, outputs, 3))?,
            time,
            norm2: GroupNorm::load(weights, &part("norm2"), outputs, style.groups, style.eps)?,
            conv2: Conv2d::load(weights, &part("conv2"), ConvShape::same(outputs, outputs, 3))?,
            shortcut,
            style,
            resample,
            scale_factor,
            channels: outputs as i64,
        })
    }

    /// `time` is the block's own input already: the time's vector through the activation, unless that is skipped.
    pub(crate) fn forward(&self, x: &Tensor, time: &Tensor) -> Torch<Tensor> {
        let activation = self.style.activation;
        let hidden = self.resized(activation.apply(self.norm1.forward(x)?)?)?;
        let hidden = self.conv1.forward(&hidden)?;
        let time = self.time.forward(time)?.f_unsqueeze(-1)?.f_unsqueeze(-1)?;
        let hidden = if self.style.scale_shift {
            let scale = time.f_narrow(1, 0, self.channels)?;
            let shift = time.f_narrow(1, self.channels, self.channels)?;
            shift.f_addcmul(&self.norm2.forward(&hidden)?, &scale)?
        } else {
            self.norm2.forward(&hidden.f_add(&time)?)?
        };
        let mut hidden = self.conv2.forward(&activation.apply(hidden)?)?;
        let shortcut = self.resized(x.shallow_clone())?;
        let mut sum = match &self.shortcut {
            Some(conv) => hidden.f_add_(&conv.forward(&shortcut)?)?,
            None => hidden.f_add_(&shortcut)?,
        };
        if self.scale_factor == 1.0 { Ok(sum) } else { sum.f_div_scalar_(self.scale_factor) }
    }

    fn resized(&self, x: Tensor) -> Torch<Tensor> {
        match self.resample {
            Resample::Keep => Ok(x),
            Resample::Halve => x.f_avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None),
            Resample::Double => {
                let (_, _, height, width) = x.size4()?;
                x.f_upsample_nearest2d([height * 2, width * 2], None, None)
            }
        }
    }
}

/// Adds one to the scale's half of a bias: x · (1 + scale) + shift is then one fused multiply and add.
pub(crate) fn one_plus_scale(bias: &Tensor, channels: i64) -> Torch<Tensor> {
    let scale = bias.f_narrow(0, 0, channels)?.f_add_scalar(1.0)?;
    Tensor::f_cat(&[scale, bias.f_narrow(0, channels, bias.size()[0] - channels)?], 0)
}
