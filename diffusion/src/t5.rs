//! The encoder half of T5 v1.1 (Raffel et al. 2020; Shazeer 2020), as IF uses it for text.
//!
//! Pre-norm blocks with RMSNorm, attention without 1/√d and with a relative bias that block 0 holds for all, and a
//! gated feed-forward (tanh GELU). bf16 is safe; f16 overflows in the feed-forward, so it is not offered.

mod config;
mod fused;

use std::cell::RefCell;

use tch::{Kind, Tensor};

use crate::device::Placement;
use crate::error::LoadError;
use crate::layers::{Linear, Torch};
use crate::weights::{Weights, WeightsSurvey, nowhere};

pub(crate) use config::T5Config;

/// A loaded encoder.
pub(crate) struct T5Encoder {
    config: T5Config,
    placement: Placement,
    embedding: Tensor,
    relative_bias: Tensor,
    blocks: Vec<Block>,
    final_norm: RmsNorm,
    /// The last length's position bias, which all layers and texts share.
    position_bias: RefCell<Option<(i64, Tensor)>>,
}

/// Which keys and values a row attends to.
#[derive(Debug)]
pub(crate) enum Keys<'a> {
    /// Those at the first so many positions; the others are not computed with. What they would add is exactly
    /// nothing: the softmax of a hidden position is zero.
    First(i64),
    /// Those where `[rows, length]` i64 is 1.
    Masked(&'a Tensor),
}

/// One layer: attention, then feed-forward, each added to its input.
struct Block {
    attention_norm: RmsNorm,
    projections: Linear,
    output: Linear,
    feed_forward_norm: RmsNorm,
    gate: Linear,
    linear: Linear,
    down: Linear,
}

/// x / rms(x) · weight, the mean square taken in f32.
struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl T5Encoder {
    pub(crate) fn load(config: T5Config, weights: Weights, placement: Placement) -> Result<Self, LoadError> {
        let this = Self::take(config, &weights, placement)?;
        weights.finish(is_extra)?;
        Ok(this)
    }

    fn take(config: T5Config, weights: &Weights, placement: Placement) -> Result<Self, LoadError> {
        let (width, inner) = (config.d_model, config.heads * config.head_dim);
        let shared =
            if weights.contains("shared.weight") { "shared.weight" } else { "encoder.embed_tokens.weight" };
        let bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
        Ok(Self {
            embedding: weights.take(shared, &[config.vocab, width])?,
            relative_bias: weights.take_f32(bias, &[config.buckets, config.heads])?,
            blocks: (0..config.layers)
                .map(|index| Block::load(weights, &format!("encoder.block.{index}"), &config, inner))
                .collect::<Result<_, _>>()?,
            final_norm: RmsNorm::load(weights, "encoder.final_layer_norm", &config)?,
            position_bias: RefCell::new(None),
            config,
            placement,
        })
    }

    /// Checks a configuration against weights' headers as [`Self::load`] does.
    pub(crate) fn survey(config: T5Config, weights: Weights) -> Result<WeightsSurvey, LoadError> {
        Self::take(config, &weights, nowhere())?;
        let survey = weights.describe();
        weights.finish(is_extra)?;
        Ok(survey)
    }

    pub(crate) fn config(&self) -> &T5Config {
        &self.config
    }

    /// The same encoder for another thread; the weights are shared.
    pub(crate) fn share(&self) -> Self {
        let norm = |norm: &RmsNorm| RmsNorm { weight: norm.weight.shallow_clone(), eps: norm.eps };
        let linear = |linear: &Linear| Linear { weight: linear.weight.shallow_clone(), bias: None };
        let block = |block: &Block| Block {
            attention_norm: norm(&block.attention_norm),
            projections: linear(&block.projections),
            output: linear(&block.output),
            feed_forward_norm: norm(&block.feed_forward_norm),
            gate: linear(&block.gate),
            linear: linear(&block.linear),
            down: linear(&block.down),
        };
        Self {
            config: self.config.clone(),
            placement: self.placement,
            embedding: self.embedding.shallow_clone(),
            relative_bias: self.relative_bias.shallow_clone(),
            blocks: self.blocks.iter().map(block).collect(),
            final_norm: norm(&self.final_norm),
            position_bias: RefCell::new(None),
        }
    }

    /// The last hidden state, `[rows, length, d_model]` f32, of token ids, `[rows, length]` i64 on the device. Every
    /// position is computed, padding included; `keys` are those that are seen.
    pub(crate) fn forward(&self, ids: &Tensor, keys: &Keys<'_>) -> Torch<Tensor> {
        let (rows, length) = ids.size2()?;
        let mut x = Tensor::f_embedding(&self.embedding, ids, -1, false, false)?;
        let position_bias = self.position_bias(length)?;
        let (bias, seen) = match keys {
            Keys::First(count) => (position_bias.f_narrow(3, 0, *count)?, *count),
            Keys::Masked(mask) => {
                // The lowest f32 rather than −∞, which would make NaN of an empty row.
                let hidden = mask.f_view([rows, 1, 1, length])?.f_to_kind(Kind::Float)?.f_sub_scalar(1.0)?;
                (position_bias.f_add(&hidden.f_mul_scalar(f64::from(f32::MAX))?)?, length)
            }
        };
        let bias = bias.f_to_kind(self.placement.kind)?.f_contiguous()?;
        for block in &self.blocks {
            x = block.forward(&x, &bias, seen, self.config.head_dim as i64)?;
        }
        self.final_norm.forward(&x)?.f_to_kind(Kind::Float)
    }

    /// `[1, heads, length, length]` in f32: a learned number for each head and distance bucket.
    fn position_bias(&self, length: i64) -> Torch<Tensor> {
        if let Some((known, bias)) = &*self.position_bias.borrow()
            && *known == length
        {
            return Ok(bias.shallow_clone());
        }
        let mut buckets = Vec::with_capacity((length * length) as usize);
        for query in 0..length {
            buckets.extend((0..length).map(|key| self.config.bucket(key - query)));
        }
        let buckets = Tensor::f_from_slice(&buckets)?.f_to_device(self.placement.device)?;
        let bias = self.relative_bias.f_index_select(0, &buckets)?;
        let bias = bias.f_view([length, length, self.config.heads as i64])?.f_permute([2, 0, 1])?;
        let bias = bias.f_unsqueeze(0)?.f_contiguous()?;
        *self.position_bias.borrow_mut() = Some((length, bias.shallow_clone()));
        Ok(bias)
    }
}

/// A whole T5 carries its decoder and its embedding under several names.
fn is_extra(tensor: &str) -> bool {
    tensor.starts_with("decoder.")
        || ["lm_head.weight", "shared.weight", "encoder.embed_tokens.weight"].contains(&tensor)
}

impl Block {
    fn load(weights: &Weights, name: &str, config: &T5Config, inner: usize) -> Result<Self, LoadError> {
        let width = config.d_model;
        let attention = |part: &str, inputs, outputs| {
            Linear::load_without_bias(
                weights,
                &format!("{name}.layer.0.SelfAttention.{part}"),
                inputs,
                outputs,
            )
        };
        let feed_forward = |part: &str, inputs, outputs| {
            Linear::load_without_bias(
                weights,
                &format!("{name}.layer.1.DenseReluDense.{part}"),
                inputs,
                outputs,
            )
        };
        Ok(Self {
            attention_norm: RmsNorm::load(weights, &format!("{name}.layer.0.layer_norm"), config)?,
            // Read into one piece, which leaves no holes in memory behind it.
            projections: Linear {
                weight: weights.take_stacked(
                    &["q", "k", "v"].map(|part| format!("{name}.layer.0.SelfAttention.{part}.weight")),
                    [inner, width],
                )?,
                bias: None,
            },
            output: attention("o", inner, width)?,
            feed_forward_norm: RmsNorm::load(weights, &format!("{name}.layer.1.layer_norm"), config)?,
            gate: feed_forward("wi_0", width, config.d_ff)?,
            linear: feed_forward("wi_1", width, config.d_ff)?,
            down: feed_forward("wo", config.d_ff, width)?,
        })
    }

    fn forward(&self, x: &Tensor, bias: &Tensor, seen: i64, head_dim: i64) -> Torch<Tensor> {
        let (rows, length, _) = x.size3()?;
        let projected = self.projections.forward(&self.attention_norm.forward(x)?)?;
        let inner = projected.size()[2] / 3;
        let heads = |index: i64, positions: i64| {
            projected
                .f_narrow(2, index * inner, inner)?
                .f_narrow(1, 0, positions)?
                .f_unflatten(2, [inner / head_dim, head_dim])?
                .f_transpose(1, 2)
        };
        let mixed = Tensor::f_scaled_dot_product_attention(
            &heads(0, length)?,
            &heads(1, seen)?,
            &heads(2, seen)?,
            Some(bias),
            0.0,
            false,
            1.0,
            false,
        )?;
        let mixed = mixed.f_transpose(1, 2)?.f_reshape([rows, length, inner])?;
        let x = self.output.forward(&mixed)?.f_add_(x)?;
        let normed = self.feed_forward_norm.forward(&x)?;
        let (gate, up) = (self.gate.forward(&normed)?, self.linear.forward(&normed)?);
        self.down.forward(&gated(gate, &up)?)?.f_add_(&x)
    }
}

/// gelu(gate) · up.
fn gated(mut gate: Tensor, up: &Tensor) -> Torch<Tensor> {
    if fused::fits(&[&gate, up]) {
        return Ok(fused::gated_gelu(gate, up));
    }
    gate.f_gelu_("tanh")?.f_mul_(up)
}

impl RmsNorm {
    fn load(weights: &Weights, name: &str, config: &T5Config) -> Result<Self, LoadError> {
        Ok(Self { weight: weights.take(&format!("{name}.weight"), &[config.d_model])?, eps: config.eps })
    }

    fn forward(&self, x: &Tensor) -> Torch<Tensor> {
        if fused::fits(&[x, &self.weight]) {
            return fused::rms_norm(x, &self.weight, self.eps);
        }
        let wide = x.f_to_kind(Kind::Float)?;
        let mean = wide.f_square()?.f_mean_dim([-1i64].as_slice(), true, Kind::Float)?;
        let scale = mean.f_add_scalar(self.eps)?.f_rsqrt()?;
        wide.f_mul(&scale)?.f_to_kind(self.weight.kind())?.f_mul(&self.weight)
    }
}
