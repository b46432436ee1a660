//! Imagen's Efficient U-Net for super-resolution (Saharia et al. 2022, appendices B and F),
//! `EfficientUNet2DModel`.
//!
//! Its efficiency comes from this: convolutions that halve come first in a block, and those that
//! double come last; most blocks are at low resolution; skips are scaled by 1/√2; and only the
//! lowest resolution attends. Except for its first and last convolution, the network works at half
//! the picture's size and below.
//!
//! It is simpler than the paper in four places (ADR 61): the pooled text is a mean, where the paper has
//! attention pooling; heads are `attention_head_dim` wide, where the paper has 8 over twice the
//! channels; there is one skip per level, where the paper has one per residual block; and all blocks
//! share one vector of time and text, where in the paper each block makes its own.

mod config;

use std::f64::consts::FRAC_1_SQRT_2;

use tch::{Kind, Tensor};

use super::Conditioning;
use super::attention::{Attention, TextNorm};
use super::embedding::TimeEmbedding;
use super::model::steered;
use super::resnet::{Resnet, ResnetShape};
use crate::device::Placement;
use crate::error::LoadError;
use crate::fused::{Conv, Input, Norm, Projection, Resample, Skip, Steering};
use crate::layers::{Activation, ConvShape, LayerNorm, Linear, Sinusoid, Torch};
use crate::weights::Weights;

pub(crate) use config::EfficientConfig;

/// A loaded network.
pub(crate) struct EfficientUNet {
    pub(super) placement: Placement,
    conv_in: Conv,
    sinusoid: Sinusoid,
    time: TimeEmbedding,
    noise: TimeEmbedding,
    pool_norm: LayerNorm,
    pool_projection: Linear,
    down: Vec<DownBlock>,
    /// From the lowest resolution up.
    up: Vec<UpBlock>,
    norm_out: Norm,
    conv_out: Conv,
}

/// Halves first: a strided convolution, residual blocks, attention.
struct DownBlock {
    halve: Conv,
    resnets: Vec<Resnet>,
    attention: Option<Attention>,
}

/// Doubles last: residual blocks, attention, nearest neighbour and a convolution.
struct UpBlock {
    resnets: Vec<Resnet>,
    attention: Option<Attention>,
    double: Conv,
}

impl EfficientUNet {
    pub(crate) fn load(
        config: &EfficientConfig,
        weights: &Weights,
        placement: Placement,
    ) -> Result<Self, LoadError> {
        let (first, text_dim, width) =
            (config.conv_in_channels, config.text_dim, config.time_width());
        let embedding = |name: &str| {
            TimeEmbedding::load(weights, name, (config.sinusoid, width), Activation::Silu, None)
        };
        let levels = config.levels.len();
        let mut down = Vec::with_capacity(levels);
        let mut up = Vec::with_capacity(levels);
        for index in 0..levels {
            down.push(DownBlock::load(config, weights, index)?);
            up.push(UpBlock::load(
                config,
                weights,
                levels - 1 - index,
                &format!("up_blocks.{index}"),
            )?);
        }
        let (style, silu) = ((config.resnet.groups, config.resnet.eps), Some(Activation::Silu));
        let norm_out = Norm::load(weights, "norm_out", 2 * first, style, silu)?;
        let conv_in = ConvShape::same(config.in_channels, first, 3);
        let conv_out = ConvShape::same(2 * first, config.out_channels, 3);
        Ok(Self {
            placement,
            conv_in: Conv::load(weights, "conv_in", conv_in, Resample::Keep)?,
            sinusoid: Sinusoid::new(config.sinusoid, true, 0.0, placement.device())?,
            time: embedding("time_embedding")?,
            noise: embedding("noise_embedding")?,
            pool_norm: LayerNorm::load_f32(weights, "text_pool_norm", text_dim)?
                .with_eps(config.resnet.eps),
            pool_projection: Linear::load_f32(weights, "text_pool_proj", text_dim, width)?,
            down,
            up,
            norm_out,
            conv_out: Conv::load(weights, "conv_out", conv_out, Resample::Keep)?,
        })
    }

    pub(crate) fn condition(&self, text: &Tensor, noise_level: Option<u32>) -> Torch<Conditioning> {
        let pooled = text.f_mean_dim([1i64].as_slice(), false, Kind::Float)?;
        let pooled = self.pool_projection.forward(&self.pool_norm.forward(&pooled)?)?;
        let level = self.sinusoid.forward(f64::from(noise_level.unwrap_or(0)))?;
        let embedding = Some(pooled.f_add(&self.noise.forward(&level)?)?);
        let text = text.f_to_kind(self.placement.kind)?;
        let down = self.down.iter().filter_map(|block| block.attention.as_ref());
        let up = self.up.iter().filter_map(|block| block.attention.as_ref());
        let text =
            down.chain(up).map(|attention| attention.project_text(&text)).collect::<Torch<_>>()?;
        Ok(Conditioning::new(embedding, text))
    }

    /// The raw prediction, and the input of the last block on the way up, which is `deep` if that
    /// is given.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        time: &Tensor,
        conditioning: &Conditioning,
        deep: Option<&Tensor>,
    ) -> Torch<(Tensor, Tensor)> {
        let mut vector = self.time.forward(&self.sinusoid.of(time)?)?;
        if let Some(embedding) = &conditioning.embedding {
            vector = vector.f_add(embedding)?;
        }
        let vector = steered(&vector, &[Some(Activation::Silu)], self.placement)?;
        let mut text = conditioning.text.iter();
        let mut x = self.conv_in.forward(&x.f_to_kind(self.placement.kind)?)?;
        let mut skips = Vec::with_capacity(self.down.len());
        let down =
            if deep.is_some() { &self.down[..self.down.len().min(1)] } else { &self.down[..] };
        for block in down {
            let below = block.forward(&x, &vector, &mut text)?;
            skips.push(std::mem::replace(&mut x, below));
        }
        let (last, lower) =
            self.up.split_last().map_or((None, &self.up[..]), |(last, lower)| (Some(last), lower));
        let deep = match deep {
            Some(deep) => {
                // What the omitted blocks would have passed to the last block's side input.
                if !lower.is_empty() {
                    skips.push(x);
                }
                deep.shallow_clone()
            }
            None => {
                for (index, block) in lower.iter().enumerate() {
                    let skip = if index > 0 { skips.pop() } else { None };
                    x = block.forward(with_skip(&x, skip.as_ref()), &vector, &mut text)?;
                }
                x
            }
        };
        let mut x = deep.shallow_clone();
        if let Some(block) = last {
            let skip = if lower.is_empty() { None } else { skips.pop() };
            let attends = usize::from(block.attention.is_some());
            let mut text = conditioning.text[conditioning.text.len() - attends..].iter();
            x = block.forward(with_skip(&x, skip.as_ref()), &vector, &mut text)?;
        }
        let skip = skips.pop();
        let normed = self.norm_out.forward(with_skip(&x, skip.as_ref()), &Steering::None)?;
        Ok((self.conv_out.forward_f32(&normed)?, deep))
    }
}

fn with_skip<'a>(x: &'a Tensor, skip: Option<&'a Tensor>) -> Input<'a> {
    Input { x, skip: skip.map(|skip| (skip, FRAC_1_SQRT_2)) }
}

impl DownBlock {
    fn load(config: &EfficientConfig, weights: &Weights, level: usize) -> Result<Self, LoadError> {
        let name = format!("down_blocks.{level}");
        let (inputs, outputs) = (config.width_before(level), config.levels[level].channels);
        let halve = ConvShape { inputs, outputs, kernel: 3, stride: 2 };
        Ok(Self {
            halve: Conv::load(weights, &format!("{name}.conv_down"), halve, Resample::Keep)?,
            resnets: resnets(config, weights, &name, level, None)?,
            attention: attention(config, weights, &name, level)?,
        })
    }

    fn forward(
        &self,
        x: &Tensor,
        vector: &Tensor,
        text: &mut super::blocks::TextFlow<'_>,
    ) -> Torch<Tensor> {
        let mut x = self.halve.forward(x)?;
        for resnet in &self.resnets {
            x = resnet.forward(&x, vector)?;
        }
        attended(self.attention.as_ref(), x, text)
    }
}

impl UpBlock {
    fn load(
        config: &EfficientConfig,
        weights: &Weights,
        level: usize,
        name: &str,
    ) -> Result<Self, LoadError> {
        let channels = config.levels[level].channels;
        let deepest = level + 1 == config.levels.len();
        let skip = (!deepest).then_some(Skip { channels, factor: FRAC_1_SQRT_2 });
        let double = ConvShape::same(channels, config.width_before(level), 3);
        Ok(Self {
            resnets: resnets(config, weights, name, level, skip)?,
            attention: attention(config, weights, name, level)?,
            double: Conv::load(weights, &format!("{name}.conv_up"), double, Resample::Double)?,
        })
    }

    fn forward(
        &self,
        input: Input<'_>,
        vector: &Tensor,
        text: &mut super::blocks::TextFlow<'_>,
    ) -> Torch<Tensor> {
        let mut x = None;
        for resnet in &self.resnets {
            x = Some(resnet.forward(x.as_ref().map_or(input, Input::from), vector)?);
        }
        let x = x.map_or_else(|| input.joined(), Ok)?;
        let x = attended(self.attention.as_ref(), x, text)?;
        self.double.forward(&x)
    }
}

fn attended(
    attention: Option<&Attention>,
    x: Tensor,
    text: &mut super::blocks::TextFlow<'_>,
) -> Torch<Tensor> {
    match (attention, text.as_slice().first()) {
        (Some(attention), Some(keys_and_values)) => {
            text.next();
            attention.forward(&x, keys_and_values)
        }
        _ => Ok(x),
    }
}

fn resnets(
    config: &EfficientConfig,
    weights: &Weights,
    name: &str,
    level: usize,
    skip: Option<Skip>,
) -> Result<Vec<Resnet>, LoadError> {
    let outputs = config.levels[level].channels;
    (0..config.levels[level].layers)
        .map(|layer| {
            let skip = skip.filter(|_| layer == 0);
            let shape = ResnetShape {
                inputs: outputs + skip.map_or(0, |skip| skip.channels),
                outputs,
                skip,
                resample: Resample::Keep,
                scale_factor: 1.0,
            };
            Resnet::load(weights, &format!("{name}.resnets.{layer}"), shape, config.resnet)
        })
        .collect()
}

/// The lowest level's attention; `None` for other levels.
fn attention(
    config: &EfficientConfig,
    weights: &Weights,
    name: &str,
    level: usize,
) -> Result<Option<Attention>, LoadError> {
    if level + 1 != config.levels.len() {
        return Ok(None);
    }
    let (channels, text_dim) = (config.levels[level].channels, config.text_dim);
    let part = |part: &str| format!("{name}.attention.{part}");
    let linear =
        |name: &str, inputs| Linear::load_without_bias(weights, &part(name), inputs, channels);
    let query = linear("to_q", channels)?;
    let pixels = if config.self_attention {
        Linear::join(&[query, linear("to_k", channels)?, linear("to_v", channels)?])?
    } else {
        query
    };
    let text_norm =
        LayerNorm::load(weights, &part("text_norm"), text_dim)?.with_eps(config.resnet.eps);
    Ok(Some(Attention {
        head_dim: config.head_dim as i64,
        norm: Norm::load(
            weights,
            &part("norm"),
            channels,
            (config.resnet.groups, config.resnet.eps),
            None,
        )?,
        text_norm: TextNorm::Layer(text_norm),
        text_key: linear("to_k_text", text_dim)?,
        text_value: linear("to_v_text", text_dim)?,
        pixels: Projection::new(pixels, weights.placement())?,
        only_cross: !config.self_attention,
        out: Projection::new(
            Linear::load(weights, &part("to_out"), channels, channels)?,
            weights.placement(),
        )?,
        by_row: weights.placement().engine.rows_are_independent(),
    }))
}
