//! The residual block: two convolutions, the time's scale and shift between them, and a shortcut.
//!
//! With a resampling, the same block makes the picture half or twice as large (BigGAN's up and down
//! blocks).

use tch::Tensor;

use super::config::ResnetStyle;
use crate::error::LoadError;
use crate::fused::{Closing, Conv, Input, Norm, Projection, Resample, Skip, Steering};
use crate::layers::{ConvShape, Linear, Torch};
use crate::weights::Weights;

/// One residual block.
pub(crate) struct Resnet {
    scale_shift: bool,
    /// After the first normalisation and before the first convolution.
    resample: Resample,
    norm1: Norm,
    conv1: Conv,
    time: Projection,
    norm2: Norm,
    closing: Closing,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct ResnetShape {
    /// Input channels, with those of the skip.
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) skip: Option<Skip>,
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
        let ResnetShape { inputs, outputs, skip, resample, scale_factor } = shape;
        let part = |part: &str| format!("{name}.{part}");
        let time_outputs = if style.scale_shift { 2 * outputs } else { outputs };
        let placement = weights.placement();
        let (time, width) = (part(style.time_projection), style.time_width);
        let mut time = if placement.engine.packs_weights() {
            Linear::load_f32(weights, &time, width, time_outputs)?
        } else {
            Linear::load(weights, &time, width, time_outputs)?
        };
        if style.scale_shift {
            time.bias = time.bias.map(|bias| one_plus_scale(&bias, outputs as i64)).transpose()?;
        }
        let norm = |name: &str, channels| {
            let activation = Some(style.activation);
            Norm::load(weights, &part(name), channels, (style.groups, style.eps), activation)
        };
        let closing = (part("conv2"), part("conv_shortcut"));
        let mut conv1 =
            Conv::load(weights, &part("conv1"), ConvShape::same(inputs, outputs, 3), resample)?;
        let mut norm2 = norm("norm2", outputs)?;
        norm2.take_bias(&mut conv1)?;
        Ok(Self {
            scale_shift: style.scale_shift,
            resample,
            norm1: norm("norm1", inputs)?,
            conv1,
            time: Projection::new(time, placement)?,
            norm2,
            closing: Closing::load(
                weights,
                (&closing.0, &closing.1),
                (inputs, outputs),
                skip,
                scale_factor,
            )?,
        })
    }

    /// `time` is already the block's own input: the time's vector after the activation, unless that
    /// is skipped.
    pub(crate) fn forward<'a>(&self, input: impl Into<Input<'a>>, time: &Tensor) -> Torch<Tensor> {
        let input = input.into();
        let hidden = self.norm1.forward(input, &Steering::None)?;
        let hidden = self.conv1.forward(&hidden)?;
        let time = self.time.forward_f32(time)?;
        let steering =
            if self.scale_shift { Steering::ScaleShift(&time) } else { Steering::Added(&time) };
        let hidden = self.norm2.forward((&hidden).into(), &steering)?;
        self.closing.forward(&hidden, input, self.resample)
    }
}

/// Adds one to the scale's half of a bias, so that x · (1 + scale) + shift is one fused
/// multiply-add.
fn one_plus_scale(bias: &Tensor, channels: i64) -> Torch<Tensor> {
    let scale = bias.f_narrow(0, 0, channels)?.f_add_scalar(1.0)?;
    Tensor::f_cat(&[scale, bias.f_narrow(0, channels, bias.size()[0] - channels)?], 0)
}
