//! DeepFloyd IF's U-Net: `UNet2DConditionModel` of diffusers with resnet-resampling and simple
//! cross-attention blocks.
//!
//! Imagen (Saharia et al. 2022), appendix F; the names of weights are those of diffusers. Every
//! position of the text is attended to: the network gets no text mask.

use tch::Tensor;

use super::Conditioning;
use super::attention::{Attention, AttentionShape};
use super::blocks::{Block, BlockShape};
use super::config::{Level, UNetConfig};
use super::embedding::{TextPooling, TimeEmbedding};
use super::resnet::ResnetShape;
use crate::device::Placement;
use crate::error::LoadError;
use crate::fused::{Conv, Norm, Resample, Skip, Steering};
use crate::layers::{Activation, ConvShape, Linear, Sinusoid, Torch};
use crate::weights::Weights;

/// A loaded network.
pub(crate) struct UNet {
    pub(super) placement: Placement,
    center_input_sample: bool,
    /// Applied to the joint vector by the network, and by each resnet unless they skip it; both
    /// together.
    time_activations: [Option<Activation>; 2],
    sinusoid: Sinusoid,
    time: TimeEmbedding,
    class: Option<TimeEmbedding>,
    pooling: Option<TextPooling>,
    text_projection: Option<Linear>,
    conv_in: Conv,
    down: Vec<Block>,
    mid: Option<Block>,
    up: Vec<Block>,
    norm_out: Norm,
    conv_out: Conv,
}

impl UNet {
    pub(crate) fn load(
        config: &UNetConfig,
        weights: &Weights,
        placement: Placement,
    ) -> Result<Self, LoadError> {
        let style = config.resnet;
        let time_shape = (config.time.sinusoid, style.time_width);
        let (first, text) = (config.levels[0].channels, config.text);
        let time = TimeEmbedding::load(
            weights,
            "time_embedding",
            time_shape,
            style.activation,
            config.time.post_activation,
        )?;
        let class = config
            .class_is_timestep
            .then(|| {
                TimeEmbedding::load(weights, "class_embedding", time_shape, style.activation, None)
            })
            .transpose()?;
        let pooling_shape = (text.input_dim(), style.time_width);
        let pooling = text
            .pooling_heads
            .map(|heads| TextPooling::load(weights, "add_embedding", pooling_shape, heads))
            .transpose()?;
        let text_projection = text
            .encoder_dim
            .map(|inputs| Linear::load_f32(weights, "encoder_hid_proj", inputs, text.cross_dim))
            .transpose()?;
        let blocks = |prefix: &str, shapes: Vec<BlockShape>| -> Result<Vec<Block>, LoadError> {
            let named = shapes.iter().enumerate();
            named
                .map(|(index, shape)| {
                    Block::load(weights, &format!("{prefix}.{index}"), shape, style)
                })
                .collect()
        };
        let conv_in = ConvShape::same(config.in_channels, first, config.conv_in_kernel);
        let conv_out = ConvShape::same(first, config.out_channels, config.conv_out_kernel);
        Ok(Self {
            placement,
            center_input_sample: config.center_input_sample,
            time_activations: [
                config.time.joint_activation,
                (!style.skip_time_act).then_some(style.activation),
            ],
            sinusoid: Sinusoid::new(
                config.time.sinusoid,
                config.time.flip_sin_to_cos,
                config.time.freq_shift,
                placement.device(),
            )?,
            time,
            class,
            pooling,
            text_projection,
            conv_in: Conv::load(weights, "conv_in", conv_in, Resample::Keep)?,
            down: blocks("down_blocks", down_shapes(config))?,
            mid: mid_shape(config)
                .map(|shape| Block::load(weights, "mid_block", &shape, style))
                .transpose()?,
            up: blocks("up_blocks", up_shapes(config))?,
            norm_out: Norm::load(
                weights,
                "conv_norm_out",
                first,
                (style.groups, style.eps),
                Some(style.activation),
            )?,
            conv_out: Conv::load(weights, "conv_out", conv_out, Resample::Keep)?,
        })
    }

    pub(crate) fn condition(&self, text: &Tensor, noise_level: Option<u32>) -> Torch<Conditioning> {
        let class = match (&self.class, noise_level) {
            (Some(class), Some(level)) => {
                Some(class.forward(&self.sinusoid.forward(f64::from(level))?)?)
            }
            _ => None,
        };
        let pooled = self.pooling.as_ref().map(|pooling| pooling.forward(text)).transpose()?;
        let embedding = match (class, pooled) {
            (Some(class), Some(pooled)) => Some(class.f_add(&pooled)?),
            (class, pooled) => class.or(pooled),
        };
        let projected =
            self.text_projection.as_ref().map(|projection| projection.forward(text)).transpose()?;
        let text = projected.as_ref().unwrap_or(text).f_to_kind(self.placement.kind)?;
        let text = self
            .attentions()
            .map(|attention| attention.project_text(&text))
            .collect::<Torch<_>>()?;
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
        let mut x = x.f_to_kind(self.placement.kind)?;
        if self.center_input_sample {
            x = x.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?;
        }
        let steering = self.steering(time, conditioning, x.size()[0])?;
        let mut text = conditioning.text.iter();
        let mut x = self.conv_in.forward(&x)?;
        let mut kept = vec![x.shallow_clone()];
        let (last, lower) =
            self.up.split_last().map_or((None, &self.up[..]), |(last, lower)| (Some(last), lower));
        let deep = match deep {
            Some(deep) => {
                if let Some(block) = self.down.first() {
                    drop(block.down_in_place(&x, &steering, &mut text, &mut kept)?);
                }
                deep.shallow_clone()
            }
            None => {
                for block in &self.down {
                    x = block.down(&x, &steering, &mut text, &mut kept)?;
                }
                if let Some(block) = &self.mid {
                    x = block.middle(x, &steering, &mut text)?;
                }
                for block in lower {
                    x = block.up(x, &steering, &mut text, &mut kept)?;
                }
                x
            }
        };
        let mut x = deep.shallow_clone();
        if let Some(block) = last {
            let mut text =
                conditioning.text[conditioning.text.len() - block.attentions.len()..].iter();
            x = block.up(x, &steering, &mut text, &mut kept)?;
        }
        Ok((
            self.conv_out.forward_f32(&self.norm_out.forward((&x).into(), &Steering::None)?)?,
            deep,
        ))
    }

    /// The vector that every residual block projects: time, noise level and pooled text, `[rows,
    /// width]`.
    fn steering(&self, time: &Tensor, conditioning: &Conditioning, rows: i64) -> Torch<Tensor> {
        let mut vector = self.time.forward(&self.sinusoid.of(time)?)?;
        if let Some(embedding) = &conditioning.embedding {
            vector = vector.f_add(embedding)?;
        }
        let vector = steered(&vector, &self.time_activations, self.placement)?;
        let width = vector.size()[1];
        vector.f_expand([rows, width], false)
    }

    fn attentions(&self) -> impl Iterator<Item = &Attention> {
        self.down.iter().chain(&self.mid).chain(&self.up).flat_map(|block| &block.attentions)
    }
}

/// Applies activations to one vector per row, in the network's format; row by row if a row's bits
/// must depend on that row alone.
pub(super) fn steered(
    vector: &Tensor,
    activations: &[Option<Activation>],
    placement: Placement,
) -> Torch<Tensor> {
    let through = |vector: &Tensor| {
        let mut vector = vector.shallow_clone();
        for activation in activations.iter().flatten() {
            vector = activation.of(&vector)?;
        }
        vector.f_to_kind(placement.kind)
    };
    let rows = vector.size()[0];
    if !placement.engine.rows_are_independent() || rows == 1 {
        return through(vector);
    }
    let rows =
        (0..rows).map(|row| through(&vector.f_narrow(0, row, 1)?)).collect::<Torch<Vec<_>>>()?;
    Tensor::f_cat(&rows, 0)
}

fn attention_shape(
    config: &UNetConfig,
    level: &Level,
    head_dim: usize,
    only_cross: bool,
) -> AttentionShape {
    AttentionShape {
        channels: level.channels,
        head_dim,
        text_dim: config.text.cross_dim,
        groups: config.resnet.groups,
        text_norm: config.text.norm,
        only_cross,
    }
}

fn down_shapes(config: &UNetConfig) -> Vec<BlockShape> {
    let scale_factor = config.resnet_out_scale_factor;
    let mut inputs = config.levels[0].channels;
    let mut shapes = Vec::new();
    for (index, level) in config.levels.iter().enumerate() {
        let outputs = level.channels;
        let resnets = (0..level.layers).map(|layer| ResnetShape {
            inputs: if layer == 0 { inputs } else { outputs },
            outputs,
            skip: None,
            resample: Resample::Keep,
            scale_factor,
        });
        let halve = ResnetShape {
            inputs: outputs,
            outputs,
            skip: None,
            resample: Resample::Halve,
            scale_factor,
        };
        shapes.push(BlockShape {
            resnets: resnets.collect(),
            attention: level.attends_down.then(|| {
                (attention_shape(config, level, level.head_dim, level.only_cross), level.layers)
            }),
            resampler: (index + 1 < config.levels.len()).then_some((halve, "downsamplers")),
        });
        inputs = outputs;
    }
    shapes
}

fn mid_shape(config: &UNetConfig) -> Option<BlockShape> {
    let (mid, level) = (config.mid?, config.levels.last()?);
    let channels = level.channels;
    let resnet = ResnetShape {
        inputs: channels,
        outputs: channels,
        skip: None,
        resample: Resample::Keep,
        scale_factor: mid.scale_factor,
    };
    Some(BlockShape {
        resnets: vec![resnet; 2],
        attention: Some((attention_shape(config, level, level.head_dim, mid.only_cross), 1)),
        resampler: None,
    })
}

fn up_shapes(config: &UNetConfig) -> Vec<BlockShape> {
    let scale_factor = config.resnet_out_scale_factor;
    let mut previous = config.levels.last().map_or(0, |level| level.channels);
    let mut shapes = Vec::new();
    for (index, level) in config.levels.iter().enumerate().rev() {
        let outputs = level.channels;
        // The last residual block of a level gets what the way down had before that level.
        let before = config.levels[index.saturating_sub(1)].channels;
        let resnets = (0..=level.layers).map(|layer| {
            let channels = if layer == level.layers { before } else { outputs };
            ResnetShape {
                inputs: if layer == 0 { previous } else { outputs } + channels,
                outputs,
                skip: Some(Skip { channels, factor: 1.0 }),
                resample: Resample::Keep,
                scale_factor,
            }
        });
        let double = ResnetShape {
            inputs: outputs,
            outputs,
            skip: None,
            resample: Resample::Double,
            scale_factor,
        };
        shapes.push(BlockShape {
            resnets: resnets.collect(),
            attention: level.attends_up.then(|| {
                (
                    attention_shape(config, level, level.head_dim_up, level.only_cross),
                    level.layers + 1,
                )
            }),
            resampler: (index > 0).then_some((double, "upsamplers")),
        });
        previous = outputs;
    }
    shapes
}
