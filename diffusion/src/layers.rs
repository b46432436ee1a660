//! The few layers that all networks here consist of: linear, convolution, normalisations,
//! activations.
//!
//! Pictures are `[rows, channels, height, width]` tensors whose memory is channels-last (the
//! channels of one pixel are adjacent). Convolutions are fastest with that layout on a CPU, and
//! attention reads pixels as a sequence of vectors without a copy. [`channels_last`] makes a tensor
//! channels-last, and every operation here keeps it so.

use tch::{Kind, TchError, Tensor};

use crate::config::ConfigFile;
use crate::error::LoadError;
use crate::weights::Weights;

pub(crate) type Torch<T> = Result<T, TchError>;

/// y = x Wᵀ + b over the last dimension.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<Self, LoadError> {
        let weight = weights.take(&format!("{name}.weight"), &[outputs, inputs])?;
        Ok(Self { weight, bias: Some(weights.take(&format!("{name}.bias"), &[outputs])?) })
    }

    /// The same, in f32 whatever format the network runs in.
    pub(crate) fn load_f32(
        weights: &Weights,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<Self, LoadError> {
        let weight = weights.take_f32(&format!("{name}.weight"), &[outputs, inputs])?;
        Ok(Self { weight, bias: Some(weights.take_f32(&format!("{name}.bias"), &[outputs])?) })
    }

    pub(crate) fn load_without_bias(
        weights: &Weights,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            weight: weights.take(&format!("{name}.weight"), &[outputs, inputs])?,
            bias: None,
        })
    }

    /// Joins several layers with the same input into one, whose outputs are side by side.
    pub(crate) fn join(layers: &[Self]) -> Torch<Self> {
        let weights: Vec<&Tensor> = layers.iter().map(|layer| &layer.weight).collect();
        let biases: Vec<&Tensor> = layers.iter().filter_map(|layer| layer.bias.as_ref()).collect();
        let bias =
            if biases.len() == layers.len() { Some(Tensor::f_cat(&biases, 0)?) } else { None };
        Ok(Self { weight: Tensor::f_cat(&weights, 0)?, bias })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Torch<Tensor> {
        x.f_linear(&self.weight, self.bias.as_ref())
    }
}

/// A square convolution, padded so that stride 1 keeps height and width, and stride 2 halves them.
#[derive(Debug)]
pub(crate) struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
    padding: i64,
}

/// The shape of a [`Conv2d`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvShape {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
}

impl ConvShape {
    pub(crate) fn same(inputs: usize, outputs: usize, kernel: usize) -> Self {
        Self { inputs, outputs, kernel, stride: 1 }
    }
}

impl Conv2d {
    pub(crate) fn load(weights: &Weights, name: &str, shape: ConvShape) -> Result<Self, LoadError> {
        let extents = [shape.outputs, shape.inputs, shape.kernel, shape.kernel];
        let weight = weights.take_channels_last(&format!("{name}.weight"), &extents)?;
        let bias = weights.take(&format!("{name}.bias"), &[shape.outputs])?;
        let padding = (shape.kernel as i64 - 1) / 2;
        Ok(Self { weight, bias: Some(bias), stride: shape.stride as i64, padding })
    }

    /// From now on it adds no bias; the caller adds the returned one.
    pub(crate) fn take_bias(&mut self) -> Option<Tensor> {
        self.bias.take()
    }

    /// Weight and bias in f32, to be packed.
    pub(crate) fn load_f32(
        weights: &Weights,
        name: &str,
        shape: ConvShape,
    ) -> Result<(Tensor, Tensor), LoadError> {
        let extents = [shape.outputs, shape.inputs, shape.kernel, shape.kernel];
        let weight = weights.take_f32(&format!("{name}.weight"), &extents)?;
        Ok((weight, weights.take_f32(&format!("{name}.bias"), &[shape.outputs])?))
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Torch<Tensor> {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        x.f_conv2d(&self.weight, self.bias.as_ref(), stride, padding, [1, 1], 1)
    }
}

/// Group normalisation over channels (Wu, He 2018).
#[derive(Debug)]
pub(crate) struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: i64,
    eps: f64,
}

impl GroupNorm {
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        channels: usize,
        groups: usize,
        eps: f64,
    ) -> Result<Self, LoadError> {
        let weight = weights.take(&format!("{name}.weight"), &[channels])?;
        let bias = weights.take(&format!("{name}.bias"), &[channels])?;
        Ok(Self { weight, bias, groups: groups as i64, eps })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Torch<Tensor> {
        x.f_group_norm(self.groups, Some(&self.weight), Some(&self.bias), self.eps, true)
    }
}

/// Layer normalisation over the last dimension.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Option<Tensor>,
    eps: f64,
}

impl LayerNorm {
    const EPS: f64 = 1e-5;

    pub(crate) fn load(weights: &Weights, name: &str, width: usize) -> Result<Self, LoadError> {
        let weight = weights.take(&format!("{name}.weight"), &[width])?;
        Ok(Self {
            weight,
            bias: Some(weights.take(&format!("{name}.bias"), &[width])?),
            eps: Self::EPS,
        })
    }

    pub(crate) fn with_eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    pub(crate) fn load_f32(weights: &Weights, name: &str, width: usize) -> Result<Self, LoadError> {
        let weight = weights.take_f32(&format!("{name}.weight"), &[width])?;
        Ok(Self {
            weight,
            bias: Some(weights.take_f32(&format!("{name}.bias"), &[width])?),
            eps: Self::EPS,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Torch<Tensor> {
        x.f_layer_norm(
            [self.weight.size()[0]],
            Some(&self.weight),
            self.bias.as_ref(),
            self.eps,
            true,
        )
    }
}

/// What a normalisation does besides: before it, on its channels, and behind it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Steer<'a> {
    /// `[rows, 2 · channels]` in f32: multiply by the first half, then add the second.
    pub(crate) scale_shift: Option<&'a Tensor>,
    /// `[rows, channels]` in f32, added first.
    pub(crate) added: Option<&'a Tensor>,
    pub(crate) activation: Option<Activation>,
}

/// A point-wise non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// x · sigmoid(x), also called swish.
    Silu,
    /// x · Φ(x), by the error function, not the tanh approximation.
    Gelu,
    /// max(x, 0).
    Relu,
    /// x · tanh(softplus(x)).
    Mish,
}

impl Activation {
    /// Reads an activation by its name in the configuration; an absent key gives `None`.
    pub(crate) fn read(config: &ConfigFile, key: &str) -> Result<Option<Self>, LoadError> {
        match config.text(key)?.map(str::to_ascii_lowercase).as_deref() {
            None => Ok(None),
            Some("silu" | "swish") => Ok(Some(Self::Silu)),
            Some("gelu") => Ok(Some(Self::Gelu)),
            Some("relu") => Ok(Some(Self::Relu)),
            Some("mish") => Ok(Some(Self::Mish)),
            Some(_) => Err(config.refuse(key, "silu, swish, gelu, relu, mish")),
        }
    }

    /// Applies it in place, to a tensor that nothing else reads.
    pub(crate) fn apply(self, mut x: Tensor) -> Torch<Tensor> {
        match self {
            Self::Silu => x.f_silu_(),
            Self::Gelu => x.f_gelu_("none"),
            Self::Relu => x.f_relu_(),
            Self::Mish => x.f_mish_(),
        }
    }

    /// Applies it to a tensor that is needed again unchanged.
    pub(crate) fn of(self, x: &Tensor) -> Torch<Tensor> {
        match self {
            Self::Silu => x.f_silu(),
            Self::Gelu => x.f_gelu("none"),
            Self::Relu => x.f_relu(),
            Self::Mish => x.f_mish(),
        }
    }
}

/// softmax(q kᵀ / √d) v over the last two dimensions.
pub(crate) fn attention(query: &Tensor, key: &Tensor, value: &Tensor) -> Torch<Tensor> {
    let none = None::<Tensor>;
    Tensor::f_scaled_dot_product_attention(query, key, value, none, 0.0, false, None, false)
}

/// A channels-last copy, or the tensor itself if it already is channels-last.
pub(crate) fn channels_last(x: &Tensor) -> Torch<Tensor> {
    x.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])
}

/// `[rows, channels, height, width]` viewed as `[rows, height · width, channels]`; no copy if it is
/// channels-last.
pub(crate) fn as_sequence(x: &Tensor) -> Torch<Tensor> {
    let (rows, channels, height, width) = x.size4()?;
    x.f_permute([0, 2, 3, 1])?.f_reshape([rows, height * width, channels])
}

/// The inverse of [`as_sequence`]: a channels-last picture from a contiguous sequence.
pub(crate) fn as_picture(x: &Tensor, height: i64, width: i64) -> Torch<Tensor> {
    let (rows, _, channels) = x.size3()?;
    x.f_reshape([rows, height, width, channels])?.f_permute([0, 3, 1, 2])
}

/// Sines and cosines of a time (Vaswani et al. 2017, as Ho et al. 2020 use them), in f32 as the
/// reference computes them: at t = 999 an f64 angle would already differ by 6e-5.
#[derive(Debug)]
pub(crate) struct Sinusoid {
    frequencies: Tensor,
    flip_sin_to_cos: bool,
    width: i64,
}

impl Sinusoid {
    pub(crate) fn new(
        width: usize,
        flip_sin_to_cos: bool,
        freq_shift: f64,
        device: tch::Device,
    ) -> Torch<Self> {
        let half = (width / 2) as i64;
        let exponent = Tensor::f_arange(half, (Kind::Float, tch::Device::Cpu))?
            .f_mul_scalar(-(10_000f64.ln()))?
            .f_div_scalar(half as f64 - freq_shift)?;
        Ok(Self {
            frequencies: exponent.f_exp()?.f_to_device(device)?,
            flip_sin_to_cos,
            width: width as i64,
        })
    }

    /// `[1, width]` in f32.
    pub(crate) fn forward(&self, time: f64) -> Torch<Tensor> {
        self.waves(&self.frequencies.f_mul_scalar(time)?)
    }

    /// The same for a time on the device, `[1]` in f32, with the same bits.
    pub(crate) fn of(&self, time: &Tensor) -> Torch<Tensor> {
        self.waves(&self.frequencies.f_mul(time)?)
    }

    fn waves(&self, angle: &Tensor) -> Torch<Tensor> {
        let angle = angle.f_unsqueeze(0)?;
        let (sine, cosine) = (angle.f_sin()?, angle.f_cos()?);
        let parts = if self.flip_sin_to_cos { [cosine, sine] } else { [sine, cosine] };
        let joined = Tensor::f_cat(&parts, 1)?;
        if self.width % 2 == 1 { joined.f_pad([0, 1], "constant", 0.0) } else { Ok(joined) }
    }
}
