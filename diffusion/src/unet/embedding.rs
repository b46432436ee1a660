//! Small vectors that steer the whole network: time, noise level, pooled text. All are computed in
//! f32, whatever format the network has.

use tch::{Kind, Tensor};

use crate::error::LoadError;
use crate::layers::{Activation, LayerNorm, Linear, Torch, attention};
use crate::weights::Weights;

/// Two linear layers around an activation, on a sinusoid (`TimestepEmbedding`).
#[derive(Debug)]
pub(crate) struct TimeEmbedding {
    linear_1: Linear,
    activation: Activation,
    linear_2: Linear,
    post_activation: Option<Activation>,
}

impl TimeEmbedding {
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        (inputs, outputs): (usize, usize),
        activation: Activation,
        post_activation: Option<Activation>,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            linear_1: Linear::load_f32(weights, &format!("{name}.linear_1"), inputs, outputs)?,
            activation,
            linear_2: Linear::load_f32(weights, &format!("{name}.linear_2"), outputs, outputs)?,
            post_activation,
        })
    }

    pub(crate) fn forward(&self, sinusoid: &Tensor) -> Torch<Tensor> {
        let hidden = self.activation.apply(self.linear_1.forward(sinusoid)?)?;
        let out = self.linear_2.forward(&hidden)?;
        match self.post_activation {
            None => Ok(out),
            Some(activation) => activation.apply(out),
        }
    }
}

/// One vector for a whole text: attention pooling between two layer norms (`TextTimeEmbedding`).
#[derive(Debug)]
pub(crate) struct TextPooling {
    norm1: LayerNorm,
    position: Tensor,
    query: Linear,
    key: Linear,
    value: Linear,
    heads: i64,
    projection: Linear,
    norm2: LayerNorm,
}

impl TextPooling {
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        (inputs, outputs): (usize, usize),
        heads: usize,
    ) -> Result<Self, LoadError> {
        let part = |part: &str| format!("{name}.{part}");
        let projection = |name: &str| Linear::load_f32(weights, &part(name), inputs, inputs);
        Ok(Self {
            norm1: LayerNorm::load_f32(weights, &part("norm1"), inputs)?,
            position: weights.take_f32(&part("pool.positional_embedding"), &[1, inputs])?,
            query: projection("pool.q_proj")?,
            key: projection("pool.k_proj")?,
            value: projection("pool.v_proj")?,
            heads: heads as i64,
            projection: Linear::load_f32(weights, &part("proj"), inputs, outputs)?,
            norm2: LayerNorm::load_f32(weights, &part("norm2"), outputs)?,
        })
    }

    /// `[rows, outputs]` for text `[rows, length, inputs]`; every position counts, padding
    /// included.
    pub(crate) fn forward(&self, text: &Tensor) -> Torch<Tensor> {
        let text = self.norm1.forward(text)?;
        let mean = text.f_mean_dim([1i64].as_slice(), true, Kind::Float)?.f_add(&self.position)?;
        let all = Tensor::f_cat(&[&mean, &text], 1)?;
        let pooled = attention(
            &self.split(&self.query.forward(&mean)?)?,
            &self.split(&self.key.forward(&all)?)?,
            &self.split(&self.value.forward(&all)?)?,
        )?;
        let (rows, heads, _, head_dim) = pooled.size4()?;
        self.norm2.forward(&self.projection.forward(&pooled.f_reshape([rows, heads * head_dim])?)?)
    }

    fn split(&self, x: &Tensor) -> Torch<Tensor> {
        let (rows, length, width) = x.size3()?;
        x.f_view([rows, length, self.heads, width / self.heads])?.f_transpose(1, 2)
    }
}
