//! The encoder half of T5 v1.1 (Raffel et al. 2020; Shazeer 2020), as IF uses it for text.
//!
//! Pre-norm blocks with RMSNorm, attention without 1/√d and with a relative bias that block 0 holds for all, and a
//! gated feed-forward (tanh GELU). bf16 is safe; f16 overflows in the feed-forward, so it is not offered.

mod config;

use tch::{Kind, Tensor};

use crate::device::Placement;
use crate::error::LoadError;
use crate::layers::{Linear, Torch};
use crate::weights::Weights;

pub(crate) use config::T5Config;

/// A loaded encoder.
pub(crate) struct T5Encoder {
    config: T5Config,
    placement: Placement,
    embedding: Tensor,
    relative_bias: Tensor,
    blocks: Vec<Block>,
    final_norm: RmsNorm,
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
        let (width, inner) = (config.d_model, config.heads * config.head_dim);
        let shared =
            if weights.contains("shared.weight") { "shared.weight" } else { "encoder.embed_tokens.weight" };
        let bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
        let this = Self {
            embedding: weights.take(shared, &[config.vocab, width])?,
            relative_bias: weights.take_f32(bias, &[config.buckets, config.heads])?,
            blocks: (0..config.layers)
                .map(|index| Block::load(&weights, &format!("encoder.block.{index}"), &config, inner))
                .collect::<Result<_, _>>()?,
            final_norm: RmsNorm::load(&weights, "encoder.final_layer_norm", &config)?,
            config,
            placement,
        };
        // A whole T5 carries its decoder and its embedding under several names.
        weights.finish(|name| {
            name.starts_with("decoder.")
                || ["lm_head.weight", "shared.weight", "encoder.embed_tokens.weight"].contains(&name)
        })?;
        Ok(this)
    }

    pub(crate) fn config(&self) -> &T5Config {
        &self.config
    }

    /// The last hidden state, `[rows, length, d_model]` f32, of token ids and their mask (1 where a token is real),
    /// `[rows, length]` i64 each, on the device. Padding positions are computed too but seen by none.
    pub(crate) fn forward(&self, ids: &Tensor, mask: &Tensor) -> Torch<Tensor> {
        let (rows, length) = ids.size2()?;
        let mut x = Tensor::f_embedding(&self.embedding, ids, -1, false, false)?;
        // 0 where a position may be seen; the lowest f32 rather than −∞, which would make NaN of an empty row.
        let hidden = mask.f_view([rows, 1, 1, length])?.f_to_kind(Kind::Float)?.f_sub_scalar(1.0)?;
        let hidden = hidden.f_mul_scalar(f64::from(f32::MAX))?;
        let bias = self.position_bias(length)?.f_add(&hidden)?.f_to_kind(self.placement.kind)?;
        for block in &self.blocks {
            x = block.forward(&x, &bias, self.config.head_dim as i64)?;
        }
        self.final_norm.forward(&x)?.f_to_kind(Kind::Float)
    }

    /// `[1, heads, length, length]` in f32: a learned number for each head and distance bucket.
    fn position_bias(&self, length: i64) -> Torch<Tensor> {
        let mut buckets = Vec::with_capacity((length * length) as usize);
        for query in 0..length {
            buckets.extend((0..length).map(|key| self.config.bucket(key - query)));
        }
        let buckets = Tensor::f_from_slice(&buckets)?.f_to_device(self.placement.device)?;
        let bias = self.relative_bias.f_index_select(0, &buckets)?;
        bias.f_view([length, length, self.config.heads as i64])?.f_permute([2, 0, 1])?.f_unsqueeze(0)
    }
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
            projections: Linear::join(&[
                attention("q", width, inner)?,
                attention("k", width, inner)?,
                attention("v", width, inner)?,
            ])?,
            output: attention("o", inner, width)?,
            feed_forward_norm: RmsNorm::load(weights, &format!("{name}.layer.1.layer_norm"), config)?,
            gate: feed_forward("wi_0", width, config.d_ff)?,
            linear: feed_forward("wi_1", width, config.d_ff)?,
            down: feed_forward("wo", config.d_ff, width)?,
        })
    }

    fn forward(&self, x: &Tensor, bias: &Tensor, head_dim: i64) -> Torch<Tensor> {
        let (rows, length, _) = x.size3()?;
        let projected = self.projections.forward(&self.attention_norm.forward(x)?)?;
        let inner = projected.size()[2] / 3;
        let heads = |index: i64| {
            projected
                .f_narrow(2, index * inner, inner)?
                .f_reshape([rows, length, inner / head_dim, head_dim])?
                .f_transpose(1, 2)
        };
        let mixed = Tensor::f_scaled_dot_product_attention(
            &heads(0)?,
            &heads(1)?,
            &heads(2)?,
            Some(bias),
            0.0,
            false,
            1.0,
            false,
        )?;
        let mixed = mixed.f_transpose(1, 2)?.f_reshape([rows, length, inner])?;
        let x = self.output.forward(&mixed)?.f_add_(x)?;
        let normed = self.feed_forward_norm.forward(&x)?;
        let mut gate = self.gate.forward(&normed)?.f_gelu_("tanh")?;
        let gated = gate.f_mul_(&self.linear.forward(&normed)?)?;
        self.down.forward(&gated)?.f_add_(&x)
    }
}

impl RmsNorm {
    fn load(weights: &Weights, name: &str, config: &T5Config) -> Result<Self, LoadError> {
        Ok(Self { weight: weights.take(&format!("{name}.weight"), &[config.d_model])?, eps: config.eps })
    }

    fn forward(&self, x: &Tensor) -> Torch<Tensor> {
        let wide = x.f_to_kind(Kind::Float)?;
        let mean = wide.f_square()?.f_mean_dim([-1i64].as_slice(), true, Kind::Float)?;
        let scale = mean.f_add_scalar(self.eps)?.f_rsqrt()?;
        wide.f_mul(&scale)?.f_to_kind(self.weight.kind())?.f_mul(&self.weight)
    }
}
