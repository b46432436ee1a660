//! A series of residual blocks, each with or without attention, and a resampling block at its end.
//!
//! `ResnetDownsampleBlock2D`, `SimpleCrossAttnDownBlock2D`, `ResnetUpsampleBlock2D`,
//! `SimpleCrossAttnUpBlock2D` and `UNetMidBlock2DSimpleCrossAttn` are all this, with different
//! parts.

use tch::Tensor;

use super::attention::{Attention, AttentionShape};
use super::config::ResnetStyle;
use super::resnet::{Resnet, ResnetShape};
use crate::error::LoadError;
use crate::fused::Input;
use crate::layers::Torch;
use crate::weights::Weights;

/// The text's keys and values, given to the attention layers in forward order.
pub(crate) type TextFlow<'a> = std::slice::Iter<'a, (Tensor, Tensor)>;

/// One block of the network.
pub(crate) struct Block {
    pub(crate) resnets: Vec<Resnet>,
    pub(crate) attentions: Vec<Attention>,
    pub(crate) resampler: Option<Resnet>,
}

#[derive(Clone, Debug)]
pub(crate) struct BlockShape {
    pub(crate) resnets: Vec<ResnetShape>,
    /// The shape of every attention layer, and how many there are.
    pub(crate) attention: Option<(AttentionShape, usize)>,
    /// The resampling block and the name of its list.
    pub(crate) resampler: Option<(ResnetShape, &'static str)>,
}

impl Block {
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        shape: &BlockShape,
        style: ResnetStyle,
    ) -> Result<Self, LoadError> {
        let resnets = shape.resnets.iter().enumerate();
        let resnets = resnets
            .map(|(index, resnet)| {
                Resnet::load(weights, &format!("{name}.resnets.{index}"), *resnet, style)
            })
            .collect::<Result<_, _>>()?;
        let attentions = match shape.attention {
            None => Vec::new(),
            Some((attention, count)) => (0..count)
                .map(|index| {
                    Attention::load(weights, &format!("{name}.attentions.{index}"), attention)
                })
                .collect::<Result<_, _>>()?,
        };
        let resampler = shape
            .resampler
            .map(|(resnet, list)| Resnet::load(weights, &format!("{name}.{list}.0"), resnet, style))
            .transpose()?;
        Ok(Self { resnets, attentions, resampler })
    }

    /// The way down: every intermediate result is kept for the way up.
    pub(crate) fn down(
        &self,
        x: &Tensor,
        time: &Tensor,
        text: &mut TextFlow<'_>,
        kept: &mut Vec<Tensor>,
    ) -> Torch<Tensor> {
        let mut x = self.down_in_place(x, time, text, kept)?;
        if let Some(resampler) = &self.resampler {
            x = resampler.forward(&x, time)?;
            kept.push(x.shallow_clone());
        }
        Ok(x)
    }

    /// The way down, without the resampling at the end.
    pub(crate) fn down_in_place(
        &self,
        x: &Tensor,
        time: &Tensor,
        text: &mut TextFlow<'_>,
        kept: &mut Vec<Tensor>,
    ) -> Torch<Tensor> {
        let mut x = x.shallow_clone();
        for (index, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(&x, time)?;
            x = self.attended(index, x, text)?;
            kept.push(x.shallow_clone());
        }
        Ok(x)
    }

    /// The way up: every residual block also gets the matching result of the way down.
    pub(crate) fn up(
        &self,
        x: Tensor,
        time: &Tensor,
        text: &mut TextFlow<'_>,
        kept: &mut Vec<Tensor>,
    ) -> Torch<Tensor> {
        let mut x = x;
        for (index, resnet) in self.resnets.iter().enumerate() {
            let kept = kept.pop();
            let input = Input { x: &x, skip: kept.as_ref().map(|skip| (skip, 1.0)) };
            x = resnet.forward(input, time)?;
            x = self.attended(index, x, text)?;
        }
        match &self.resampler {
            Some(resampler) => resampler.forward(&x, time),
            None => Ok(x),
        }
    }

    /// The middle: one residual block, then attention and residual block in turn.
    pub(crate) fn middle(
        &self,
        x: Tensor,
        time: &Tensor,
        text: &mut TextFlow<'_>,
    ) -> Torch<Tensor> {
        let mut x = x;
        for (index, resnet) in self.resnets.iter().enumerate() {
            if index > 0 {
                x = self.attended(index - 1, x, text)?;
            }
            x = resnet.forward(&x, time)?;
        }
        Ok(x)
    }

    fn attended(&self, index: usize, x: Tensor, text: &mut TextFlow<'_>) -> Torch<Tensor> {
        match (self.attentions.get(index), text.as_slice().first()) {
            (Some(attention), Some(keys_and_values)) => {
                text.next();
                attention.forward(&x, keys_and_values)
            }
            _ => Ok(x),
        }
    }
}
