//! The encoder half of T5 v1.1 (Raffel et al. 2020; Shazeer 2020), as IF uses it for text.
//!
//! Pre-norm blocks with RMSNorm, attention without 1/√d and with a relative bias that block 0 holds
//! for all blocks, and a gated feed-forward (tanh GELU). bf16 is safe. f16 overflows in the
//! feed-forward, so it is not offered.

mod config;
mod fused;

use std::cell::RefCell;
use std::sync::Arc;

use tch::{Kind, Tensor};

use crate::device::{Placement, give_freed_memory_back};
use crate::error::LoadError;
use crate::kernels::{self, ConvKernel, ConvPart, Heads, Layout, OneThread, Packing, Shape};
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
    /// The position bias for the last used length, which all layers and texts share.
    position_bias: RefCell<Option<(i64, Tensor)>>,
}

/// The keys and values that a row attends to.
#[derive(Debug)]
pub(crate) enum Keys<'a> {
    /// For each row, those at the first positions, this many; the others are not computed. They
    /// would add exactly nothing, because the softmax of a hidden position is zero. Each row
    /// attends separately.
    First(&'a [i64]),
    /// Those at which `[rows, length]` i64 is 1.
    Masked(&'a Tensor),
}

/// The keys, values and bias for the rows of a pass.
enum Sight<'a> {
    /// For this crate's kernels, each row with its first positions; the bias is `[1, heads, length,
    /// length]` in f32.
    First {
        seen: &'a [i64],
        bias: Tensor,
    },
    Views(Vec<View>),
}

/// Rows that attend together, and their keys, values and bias.
struct View {
    first: i64,
    rows: i64,
    /// The number of positions whose keys and values they see.
    seen: i64,
    /// Added to the scores, `[1 or rows, heads, length, seen]`.
    bias: Tensor,
}

/// One layer: attention, then feed-forward, each added to its input.
struct Block {
    attention_norm: RmsNorm,
    projections: Matrix,
    output: Matrix,
    feed_forward_norm: RmsNorm,
    gate: Matrix,
    linear: Matrix,
    down: Matrix,
}

/// A linear layer without a bias. Packed for this crate's own kernels if they are available,
/// otherwise libtorch's.
enum Matrix {
    Kernel(Arc<ConvKernel>, Kind),
    Libtorch(Linear),
}

impl Matrix {
    fn new(weight: Tensor, placement: Placement) -> Result<Self, LoadError> {
        if !placement.engine.packs_weights() {
            return Ok(Self::Libtorch(Linear { weight, bias: None }));
        }
        let packing = Packing { kind: placement.kind, layout: Layout::Stride(1), may_grow: false };
        let kernel = ConvKernel::new(packing, &[ConvPart::whole(&weight)], None)?;
        // The next matrix would not fill all of the memory that the unpacked weights leave.
        drop(weight);
        give_freed_memory_back();
        Ok(Self::Kernel(Arc::new(kernel), placement.kind))
    }

    /// The same for another thread.
    fn share(&self) -> Self {
        match self {
            Self::Kernel(kernel, kind) => Self::Kernel(Arc::clone(kernel), *kind),
            Self::Libtorch(linear) => {
                Self::Libtorch(Linear { weight: linear.weight.shallow_clone(), bias: None })
            }
        }
    }

    fn forward(&self, x: &Tensor) -> Torch<Tensor> {
        match self {
            Self::Kernel(kernel, kind) => {
                kernel.forward(&[x.into()], None, Shape { factor: 1.0, kind: *kind })
            }
            Self::Libtorch(linear) => linear.forward(x),
        }
    }

    /// The result plus `residual`.
    fn forward_onto(&self, x: &Tensor, residual: &Tensor) -> Torch<Tensor> {
        match self {
            Self::Kernel(kernel, kind) => kernel.forward(
                &[x.into()],
                Some(residual.into()),
                Shape { factor: 1.0, kind: *kind },
            ),
            Self::Libtorch(linear) => linear.forward(x)?.f_add_(residual),
        }
    }
}

/// x / rms(x) · weight, the mean square taken in f32.
struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl T5Encoder {
    pub(crate) fn load(
        config: T5Config,
        weights: Weights,
        placement: Placement,
    ) -> Result<Self, LoadError> {
        let this = Self::take(config, &weights, placement)?;
        weights.finish(is_extra)?;
        Ok(this)
    }

    fn take(config: T5Config, weights: &Weights, placement: Placement) -> Result<Self, LoadError> {
        let (width, inner) = (config.d_model, config.heads * config.head_dim);
        let shared = if weights.contains("shared.weight") {
            "shared.weight"
        } else {
            "encoder.embed_tokens.weight"
        };
        let bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";
        Ok(Self {
            embedding: weights.take(shared, &[config.vocab, width])?,
            relative_bias: weights.take_f32(bias, &[config.buckets, config.heads])?,
            blocks: (0..config.layers)
                .map(|index| {
                    Block::load(weights, &format!("encoder.block.{index}"), &config, inner)
                })
                .collect::<Result<_, _>>()?,
            final_norm: RmsNorm::load(weights, "encoder.final_layer_norm", &config)?,
            position_bias: RefCell::new(None),
            config,
            placement,
        })
    }

    /// Checks a configuration against the weights' headers, as [`Self::load`] does.
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
        let block = |block: &Block| Block {
            attention_norm: norm(&block.attention_norm),
            projections: block.projections.share(),
            output: block.output.share(),
            feed_forward_norm: norm(&block.feed_forward_norm),
            gate: block.gate.share(),
            linear: block.linear.share(),
            down: block.down.share(),
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

    /// The last hidden state, `[rows, length, d_model]` f32, for token ids, `[rows, length]` i64 on
    /// the device. Every position is computed, with padding; `keys` are the visible ones.
    pub(crate) fn forward(&self, ids: &Tensor, keys: &Keys<'_>) -> Torch<Tensor> {
        // libtorch's part has the same bits, however many threads the kernels have.
        let _one = self.placement.engine.rows_are_independent().then(OneThread::enter);
        let (rows, length) = ids.size2()?;
        let mut x = Tensor::f_embedding(&self.embedding, ids, -1, false, false)?;
        let position_bias = self.position_bias(length)?;
        let kind = self.placement.kind;
        let sight = match keys {
            Keys::First(seen) if self.placement.engine.rows_are_independent() => {
                Sight::First { seen, bias: position_bias }
            }
            Keys::First(counts) => {
                debug_assert_eq!(counts.len() as i64, rows);
                let view = |(row, seen): (usize, &i64)| {
                    let bias =
                        position_bias.f_narrow(3, 0, *seen)?.f_to_kind(kind)?.f_contiguous()?;
                    Ok(View { first: row as i64, rows: 1, seen: *seen, bias })
                };
                Sight::Views(counts.iter().enumerate().map(view).collect::<Torch<_>>()?)
            }
            Keys::Masked(mask) => {
                // The lowest f32 instead of −∞, which would give NaN in an empty row.
                let hidden =
                    mask.f_view([rows, 1, 1, length])?.f_to_kind(Kind::Float)?.f_sub_scalar(1.0)?;
                let bias = position_bias.f_add(&hidden.f_mul_scalar(f64::from(f32::MAX))?)?;
                let bias = bias.f_to_kind(kind)?.f_contiguous()?;
                Sight::Views(vec![View { first: 0, rows, seen: length, bias }])
            }
        };
        for block in &self.blocks {
            x = block.forward(&x, &sight, self.config.head_dim as i64)?;
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
        let buckets = Tensor::f_from_slice(&buckets)?.f_to_device(self.placement.device())?;
        let bias = self.relative_bias.f_index_select(0, &buckets)?;
        let bias = bias.f_view([length, length, self.config.heads as i64])?.f_permute([2, 0, 1])?;
        let bias = bias.f_unsqueeze(0)?.f_contiguous()?;
        *self.position_bias.borrow_mut() = Some((length, bias.shallow_clone()));
        Ok(bias)
    }
}

/// A complete T5 also contains its decoder, and its embedding under several names.
fn is_extra(tensor: &str) -> bool {
    tensor.starts_with("decoder.")
        || ["lm_head.weight", "shared.weight", "encoder.embed_tokens.weight"].contains(&tensor)
}

impl Block {
    fn load(
        weights: &Weights,
        name: &str,
        config: &T5Config,
        inner: usize,
    ) -> Result<Self, LoadError> {
        let width = config.d_model;
        let placement = weights.placement();
        let matrix = |part: &str, inputs, outputs| {
            Matrix::new(
                weights.take(&format!("{name}.layer.{part}.weight"), &[outputs, inputs])?,
                placement,
            )
        };
        Ok(Self {
            attention_norm: RmsNorm::load(weights, &format!("{name}.layer.0.layer_norm"), config)?,
            // Read into one piece, so that no holes in memory remain.
            projections: Matrix::new(
                weights.take_stacked(
                    &["q", "k", "v"]
                        .map(|part| format!("{name}.layer.0.SelfAttention.{part}.weight")),
                    [inner, width],
                )?,
                placement,
            )?,
            output: matrix("0.SelfAttention.o", inner, width)?,
            feed_forward_norm: RmsNorm::load(
                weights,
                &format!("{name}.layer.1.layer_norm"),
                config,
            )?,
            gate: matrix("1.DenseReluDense.wi_0", width, config.d_ff)?,
            linear: matrix("1.DenseReluDense.wi_1", width, config.d_ff)?,
            down: matrix("1.DenseReluDense.wo", config.d_ff, width)?,
        })
    }

    fn forward(&self, x: &Tensor, sight: &Sight<'_>, head_dim: i64) -> Torch<Tensor> {
        let projected = self.projections.forward(&self.attention_norm.forward(x)?)?;
        let mixed = sight.attend(&projected, head_dim)?;
        let x = self.output.forward_onto(&mixed, x)?;
        let normed = self.feed_forward_norm.forward(&x)?;
        let (gate, up) = (self.gate.forward(&normed)?, self.linear.forward(&normed)?);
        self.down.forward_onto(&gated(gate, &up)?, &x)
    }
}

impl Sight<'_> {
    /// Attention over queries, keys and values side by side, `[rows, length, 3 · inner]`.
    fn attend(&self, projected: &Tensor, head_dim: i64) -> Torch<Tensor> {
        match self {
            Self::First { seen, bias } => {
                let (_, _, width) = projected.size3()?;
                let part = |part: i64| projected.f_narrow(2, part * (width / 3), width / 3);
                let heads = Heads { head_dim, scale: 1.0, bias: Some(bias), seen: Some(seen) };
                kernels::attend(&part(0)?, &[[&part(1)?, &part(2)?]], heads)
            }
            Self::Views(views) => {
                let mixed = views
                    .iter()
                    .map(|view| {
                        view.attend(&projected.f_narrow(0, view.first, view.rows)?, head_dim)
                    })
                    .collect::<Torch<Vec<_>>>()?;
                match mixed.as_slice() {
                    [alone] => Ok(alone.shallow_clone()),
                    several => Tensor::f_cat(several, 0),
                }
            }
        }
    }
}

impl View {
    /// Attention over some rows' queries, keys and values side by side, `[rows, length, 3 ·
    /// inner]`.
    fn attend(&self, projected: &Tensor, head_dim: i64) -> Torch<Tensor> {
        let (rows, length, width) = projected.size3()?;
        let inner = width / 3;
        let heads = |index: i64, positions: i64| {
            projected
                .f_narrow(2, index * inner, inner)?
                .f_narrow(1, 0, positions)?
                .f_unflatten(2, [inner / head_dim, head_dim])?
                .f_transpose(1, 2)
        };
        let mixed = Tensor::f_scaled_dot_product_attention(
            &heads(0, length)?,
            &heads(1, self.seen)?,
            &heads(2, self.seen)?,
            Some(&self.bias),
            0.0,
            false,
            1.0,
            false,
        )?;
        mixed.f_transpose(1, 2)?.f_reshape([rows, length, inner])
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
        Ok(Self {
            weight: weights.take(&format!("{name}.weight"), &[config.d_model])?,
            eps: config.eps,
        })
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
