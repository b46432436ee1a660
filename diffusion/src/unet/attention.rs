//! Attention of pixels over text and, unless a block only has cross-attention, over pixels too.
//!
//! `add_k_proj` and `add_v_proj` project keys and values of the text, which come before the pixels'
//! own in one softmax. They do not change over the steps, so [`Attention::project_text`] computes
//! them once.

use tch::Tensor;

use super::config::CrossNorm;
use crate::error::LoadError;
use crate::fused::{Norm, Projection, Steering};
use crate::kernels::{self, Heads};
use crate::layers::{GroupNorm, LayerNorm, Linear, Torch, as_picture, as_sequence, attention};
use crate::timings::{Part, timed};
use crate::weights::Weights;

/// One attention layer with its residual connection.
pub(crate) struct Attention {
    pub(super) head_dim: i64,
    pub(super) norm: Norm,
    pub(super) text_norm: TextNorm,
    pub(super) text_key: Linear,
    pub(super) text_value: Linear,
    /// Queries; if pixels attend to pixels, their keys and values follow.
    pub(super) pixels: Projection,
    pub(super) only_cross: bool,
    pub(super) out: Projection,
    /// With this crate's kernels, if a row's bits depend on that row alone.
    pub(super) by_row: bool,
}

/// The operation on the text before its projections.
#[derive(Debug)]
pub(super) enum TextNorm {
    None,
    Layer(LayerNorm),
    Group(GroupNorm),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionShape {
    pub(crate) channels: usize,
    pub(crate) head_dim: usize,
    pub(crate) text_dim: usize,
    pub(crate) groups: usize,
    pub(crate) text_norm: CrossNorm,
    pub(crate) only_cross: bool,
}

impl Attention {
    /// The reference's attention normalises with its own epsilon, whatever `norm_eps` is.
    const EPS: f64 = 1e-5;
    /// Groups of the text's group norm; a fixed number in the reference.
    const TEXT_GROUPS: usize = 32;

    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        shape: AttentionShape,
    ) -> Result<Self, LoadError> {
        let AttentionShape { channels, text_dim, .. } = shape;
        let part = |part: &str| format!("{name}.{part}");
        let linear = |name: &str, inputs| Linear::load(weights, &part(name), inputs, channels);
        let query = linear("to_q", channels)?;
        let pixels = if shape.only_cross {
            query
        } else {
            Linear::join(&[query, linear("to_k", channels)?, linear("to_v", channels)?])?
        };
        let norm_cross = part("norm_cross");
        Ok(Self {
            head_dim: shape.head_dim as i64,
            norm: Norm::load(
                weights,
                &part("group_norm"),
                channels,
                (shape.groups, Self::EPS),
                None,
            )?,
            text_norm: match shape.text_norm {
                CrossNorm::None => TextNorm::None,
                CrossNorm::Layer => {
                    TextNorm::Layer(LayerNorm::load(weights, &norm_cross, text_dim)?)
                }
                CrossNorm::Group => TextNorm::Group(GroupNorm::load(
                    weights,
                    &norm_cross,
                    text_dim,
                    Self::TEXT_GROUPS,
                    Self::EPS,
                )?),
            },
            text_key: linear("add_k_proj", text_dim)?,
            text_value: linear("add_v_proj", text_dim)?,
            pixels: Projection::new(pixels, weights.placement())?,
            only_cross: shape.only_cross,
            out: Projection::new(linear("to_out.0", channels)?, weights.placement())?,
            by_row: weights.placement().engine.rows_are_independent(),
        })
    }

    /// Keys and values, `[rows, length, channels]`, of a text `[rows, length, text_dim]`.
    pub(crate) fn project_text(&self, text: &Tensor) -> Torch<(Tensor, Tensor)> {
        let normed;
        let text = match &self.text_norm {
            TextNorm::None => text,
            TextNorm::Layer(norm) => {
                normed = norm.forward(text)?;
                &normed
            }
            TextNorm::Group(norm) => {
                normed = norm.forward(&text.f_transpose(1, 2)?)?.f_transpose(1, 2)?;
                &normed
            }
        };
        Ok((self.text_key.forward(text)?, self.text_value.forward(text)?))
    }

    /// `x` is `[rows, channels, height, width]`, channels-last.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        (text_key, text_value): &(Tensor, Tensor),
    ) -> Torch<Tensor> {
        let (_, channels, height, width) = x.size4()?;
        let normed = self.norm.forward(x.into(), &Steering::None)?;
        let pixels = self.pixels.forward(&as_sequence(&normed)?)?;
        let mixed = if self.only_cross {
            self.attend(&pixels, &[[text_key, text_value]])?
        } else {
            let part = |part: i64| pixels.f_narrow(2, part * channels, channels);
            self.attend(&part(0)?, &[[text_key, text_value], [&part(1)?, &part(2)?]])?
        };
        as_picture(&self.out.forward_onto(&mixed, &as_sequence(x)?)?, height, width)
    }

    /// Pairs of keys and values, joined in order.
    fn attend(&self, query: &Tensor, pairs: &[[&Tensor; 2]]) -> Torch<Tensor> {
        timed(Part::Attention, || self.mixed(query, pairs))
    }

    fn mixed(&self, query: &Tensor, pairs: &[[&Tensor; 2]]) -> Torch<Tensor> {
        if self.by_row {
            let scale = (self.head_dim as f64).sqrt().recip();
            let heads = Heads { head_dim: self.head_dim, scale, bias: None, seen: None };
            return kernels::attend(query, pairs, heads);
        }
        let joined = |which: usize| -> Torch<Tensor> {
            match pairs {
                [alone] => self.heads(alone[which]),
                several => {
                    let parts: Vec<&Tensor> = several.iter().map(|pair| pair[which]).collect();
                    self.heads(&Tensor::f_cat(&parts, 1)?)
                }
            }
        };
        let mixed = attention(&self.heads(query)?, &joined(0)?, &joined(1)?)?;
        let (rows, heads, length, head_dim) = mixed.size4()?;
        mixed.f_transpose(1, 2)?.f_reshape([rows, length, heads * head_dim])
    }

    /// `[rows, length, channels]` viewed as `[rows, heads, length, head_dim]`.
    fn heads(&self, x: &Tensor) -> Torch<Tensor> {
        let (rows, length, channels) = x.size3()?;
        x.f_view([rows, length, channels / self.head_dim, self.head_dim])?.f_transpose(1, 2)
    }
}
