//! The networks that predict what to remove from a noisy picture.
//!
//! There are two classes, distinguished by `_class_name` in `unet/config.json`: diffusers'
//! `UNet2DConditionModel` as DeepFloyd IF configures it ([`model`]), and the Imagen paper's
//! Efficient U-Net ([`efficient`]). Both take the noisy picture, the timestep and a
//! [`Conditioning`], which has everything that does not change over the steps.

pub(crate) mod attention;
pub(crate) mod blocks;
pub(crate) mod config;
pub(crate) mod efficient;
pub(crate) mod embedding;
pub(crate) mod model;
pub(crate) mod resnet;

use std::path::Path;
use std::sync::Arc;

use tch::{Kind, Tensor};

use crate::config::ConfigFile;
use crate::device::Placement;
use crate::engine::Engine;
use crate::error::LoadError;
use crate::layers::Torch;
use crate::timings::{Part, timed};
use crate::weights::{Weights, WeightsSurvey, nowhere};

/// What a forward pass needs from the text, the negative text and the noise level. Computed once
/// per image and stage.
pub(crate) struct Conditioning {
    /// Added to the time embedding: class and pooled text, `[rows, width]` in f32; absent if there
    /// is neither.
    pub(crate) embedding: Option<Tensor>,
    /// The text's keys and values for every attention layer in forward order, each `[rows, length,
    /// channels]`.
    pub(crate) text: Vec<(Tensor, Tensor)>,
    identity: Arc<()>,
}

impl Conditioning {
    pub(crate) fn new(embedding: Option<Tensor>, text: Vec<(Tensor, Tensor)>) -> Self {
        Self { embedding, text, identity: Arc::new(()) }
    }

    /// Another handle to the same values.
    pub(crate) fn share(&self) -> Self {
        let pair = |(key, value): &(Tensor, Tensor)| (key.shallow_clone(), value.shallow_clone());
        Self {
            embedding: self.embedding.as_ref().map(Tensor::shallow_clone),
            text: self.text.iter().map(pair).collect(),
            identity: self.identity(),
        }
    }

    /// Distinguishes this conditioning from all others while somebody holds it.
    pub(crate) fn identity(&self) -> Arc<()> {
        Arc::clone(&self.identity)
    }

    /// Joins the rows of several conditionings.
    pub(crate) fn join(parts: &[&Self]) -> Torch<Self> {
        let embeddings: Vec<&Tensor> =
            parts.iter().filter_map(|part| part.embedding.as_ref()).collect();
        let embedding =
            if embeddings.is_empty() { None } else { Some(Tensor::f_cat(&embeddings, 0)?) };
        let layers = parts.first().map_or(0, |part| part.text.len());
        let text = (0..layers)
            .map(|layer| {
                let keys: Vec<&Tensor> = parts.iter().map(|part| &part.text[layer].0).collect();
                let values: Vec<&Tensor> = parts.iter().map(|part| &part.text[layer].1).collect();
                Ok((Tensor::f_cat(&keys, 0)?, Tensor::f_cat(&values, 0)?))
            })
            .collect::<Torch<_>>()?;
        Ok(Self::new(embedding, text))
    }
}

/// The inputs and outputs of a network of either class.
#[derive(Clone, Debug)]
pub(crate) struct Interface {
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) text_dim: usize,
    pub(crate) takes_noise_level: bool,
    pub(crate) sample_size: Option<(usize, usize)>,
    /// Height and width must be multiples of this.
    pub(crate) size_multiple: usize,
}

/// A loaded network of either class.
pub(crate) enum Network {
    If(Box<model::UNet>),
    Efficient(Box<efficient::EfficientUNet>),
}

/// A network, and facts found while loading it.
pub(crate) struct LoadedNetwork {
    pub(crate) network: Network,
    pub(crate) interface: Interface,
    pub(crate) parameters: usize,
    pub(crate) ignored_keys: Vec<String>,
}

/// The content of a network's folder, by its configuration and its weights' headers.
pub(crate) struct SurveyedNetwork {
    pub(crate) class: &'static str,
    pub(crate) interface: Interface,
    pub(crate) weights: WeightsSurvey,
    pub(crate) ignored_keys: Vec<String>,
    pub(crate) unknown_keys: Vec<String>,
}

/// The name of weights files, without the extension.
const STEM: &str = "diffusion_pytorch_model";

impl Network {
    /// Loads `config.json` and `diffusion_pytorch_model.safetensors` (or its shards) from a folder.
    pub(crate) fn load(folder: &Path, placement: Placement) -> Result<LoadedNetwork, LoadError> {
        let config = ConfigFile::open(&folder.join("config.json"))?;
        let weights = Weights::open(folder, STEM, placement)?;
        let (network, interface) = Self::take(&config, &weights, placement)?;
        let parameters = weights.parameters();
        weights.finish(|_| false)?;
        Ok(LoadedNetwork { network, interface, parameters, ignored_keys: config.ignored_keys() })
    }

    /// Checks configuration and headers like [`Self::load`], without reading the weights.
    pub(crate) fn survey(
        folder: &Path,
        variant: Option<&str>,
    ) -> Result<SurveyedNetwork, LoadError> {
        let config = ConfigFile::open(&folder.join("config.json"))?;
        let weights = Weights::survey(folder, STEM, variant)?;
        let (network, interface) = Self::take(&config, &weights, nowhere())?;
        let survey = weights.describe();
        weights.finish(|_| false)?;
        Ok(SurveyedNetwork {
            class: network.class_name(),
            interface,
            weights: survey,
            ignored_keys: config.ignored_keys(),
            unknown_keys: config.unknown_keys(),
        })
    }

    fn take(
        config: &ConfigFile,
        weights: &Weights,
        placement: Placement,
    ) -> Result<(Self, Interface), LoadError> {
        match config.class_name() {
            "UNet2DConditionModel" => {
                let parsed = config::UNetConfig::read(config)?;
                let network = model::UNet::load(&parsed, weights, placement)?;
                Ok((Self::If(Box::new(network)), parsed.interface()))
            }
            "EfficientUNet2DModel" => {
                let parsed = efficient::EfficientConfig::read(config)?;
                let network = efficient::EfficientUNet::load(&parsed, weights, placement)?;
                Ok((Self::Efficient(Box::new(network)), parsed.interface()))
            }
            _ => Err(config.refuse("_class_name", "UNet2DConditionModel, EfficientUNet2DModel")),
        }
    }

    /// Prepares text (`[rows, length, dimension]`, f32 on the device) and the noise level for all
    /// steps.
    pub(crate) fn condition(&self, text: &Tensor, noise_level: Option<u32>) -> Torch<Conditioning> {
        timed(Part::Conditioning, || match self {
            Self::If(network) => network.condition(text, noise_level),
            Self::Efficient(network) => network.condition(text, noise_level),
        })
    }

    /// The prediction for `x` (`[rows, in_channels, height, width]`, channels-last, any float type)
    /// at one timestep, in f32. Also returns the deeper features: the input of the last block on
    /// the way up. With the deeper features of another step (`deep`), only the blocks at the
    /// highest resolution are computed (Ma et al. 2024, "DeepCache").
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        timestep: u32,
        conditioning: &Conditioning,
        deep: Option<&Tensor>,
    ) -> Torch<(Tensor, Tensor)> {
        let time =
            Tensor::f_full([1], f64::from(timestep), (Kind::Float, self.placement().device()))?;
        self.forward_at(x, &time, conditioning, deep)
    }

    /// The same for a time on the device, `[1]` in f32: everything that changes from step to step
    /// is then a tensor.
    pub(crate) fn forward_at(
        &self,
        x: &Tensor,
        time: &Tensor,
        conditioning: &Conditioning,
        deep: Option<&Tensor>,
    ) -> Torch<(Tensor, Tensor)> {
        #[cfg(test)]
        counted::note(x.size()[0], deep.is_some());
        timed(Part::Network, || {
            let (output, deep) = match self {
                Self::If(network) => network.forward(x, time, conditioning, deep)?,
                Self::Efficient(network) => network.forward(x, time, conditioning, deep)?,
            };
            Ok((output.f_to_kind(Kind::Float)?, deep))
        })
    }

    /// The engine that computes it.
    pub(crate) fn engine(&self) -> Engine {
        self.placement().engine
    }

    /// The number format in which it computes.
    pub(crate) fn kind(&self) -> Kind {
        self.placement().kind
    }

    fn placement(&self) -> Placement {
        match self {
            Self::If(network) => network.placement,
            Self::Efficient(network) => network.placement,
        }
    }

    /// The name of the class, as in configuration files.
    pub(crate) fn class_name(&self) -> &'static str {
        match self {
            Self::If(_) => "UNet2DConditionModel",
            Self::Efficient(_) => "EfficientUNet2DModel",
        }
    }
}

/// The passes of this thread; for tests that count them.
#[cfg(test)]
pub(crate) mod counted {
    use std::cell::RefCell;

    thread_local! {
        static PASSES: RefCell<Vec<(i64, bool)>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn note(rows: i64, reused: bool) {
        PASSES.with_borrow_mut(|passes| passes.push((rows, reused)));
    }

    /// The rows of each pass since the last call, and whether it reused deeper features.
    pub(crate) fn take() -> Vec<(i64, bool)> {
        PASSES.take()
    }
}
