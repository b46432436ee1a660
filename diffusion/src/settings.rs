//! The interface of a stage: settings, one row per image, progress, and a description of the stage.

use darkroom_core::sampling::Sampling;

use crate::host::HostTensor;

/// What a stage does with every row of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerSettings {
    /// How it is sampled.
    pub sampling: Sampling,
    /// Width of the picture to make, in pixels; a multiple of the stage's `size_multiple`.
    pub width: usize,
    /// Height of the picture to make, in pixels; a multiple of the stage's `size_multiple`.
    pub height: usize,
}

/// One image of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct RowInput {
    /// The prompt's embedding, `[length, dimension]`; the same shape in every row of a call.
    pub text: HostTensor,
    /// The negative prompt's embedding (by default of the empty text); needed if
    /// [`Sampling::guided`] says so.
    pub negative: Option<HostTensor>,
    /// The picture of the stage before, `[3, height, width]` in −1…1. Super-resolution stages need
    /// it, and no other stage accepts it.
    pub low_res: Option<HostTensor>,
    /// The picture to start from, `[3, height, width]` in −1…1 at the size to make. Needed if there
    /// is a strength, and not accepted otherwise. Nothing is resized here.
    pub init_image: Option<HostTensor>,
    /// The part of `init_image` to repaint, `[1, height, width]`: 1 is repainted, and 0 stays as it
    /// was given. Values in between count as the nearer end, a half as 1. If absent, everything is
    /// repainted.
    pub mask: Option<HostTensor>,
    /// Decides the image's noise.
    pub seed: u64,
}

/// Progress: one step of all rows of a call is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepReport {
    /// Steps done, from 1.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// The training timestep of this step.
    pub timestep: u32,
}

/// The description of a loaded stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageDescription {
    /// The stage's name, which decides its noise.
    pub name: String,
    /// The network's class.
    pub class: &'static str,
    /// Input channels of the network: 3, or 6 with a low-resolution picture.
    pub in_channels: usize,
    /// Output channels: 3, or 6 with a variance.
    pub out_channels: usize,
    /// Width of the text embeddings that it takes.
    pub text_dim: usize,
    /// Whether rows need a low-resolution picture.
    pub takes_low_res: bool,
    /// In pixels, from the configured `sample_size`.
    pub default_width: usize,
    /// In pixels, from the configured `sample_size`.
    pub default_height: usize,
    /// Width and height must be multiples of this.
    pub size_multiple: usize,
    /// The number of the network's parameters.
    pub parameters: usize,
    /// `f32` or `bf16`.
    pub dtype: String,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Keys of the configuration files that neither the reference nor this implementation reads.
    pub ignored_keys: Vec<String>,
}
