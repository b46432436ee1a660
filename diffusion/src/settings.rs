//! What a caller of a stage says and hears: settings, one row per image, progress, and what the stage is.

use crate::guidance::GuidanceSchedule;
use crate::host::HostTensor;
use crate::sampler::Sampler;
use crate::schedule::{Spacing, Thresholding};

/// How a stage is sampled; the same for every row of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerSettings {
    /// The sampler.
    pub sampler: Sampler,
    /// How many steps; at least 1. Not looked at where `timesteps` is given.
    pub steps: usize,
    /// The timesteps to visit, falling; spread by the sampler if absent.
    pub timesteps: Option<Vec<u32>>,
    /// How the sampler spreads its steps, instead of what the stage's scheduler configuration or the sampler says.
    pub spacing: Option<Spacing>,
    /// w in u + w · (c − u). With 1 there is one forward row per image instead of two, and no negative text.
    pub guidance_scale: f64,
    /// At which steps the weight counts.
    pub guidance_schedule: GuidanceSchedule,
    /// Of the noise added to the low-resolution input, a training timestep; needed by super-resolution stages and by
    /// no other.
    pub noise_level: Option<u32>,
    /// Of the picture to make, in pixels; a multiple of the stage's `size_multiple`.
    pub width: usize,
    /// Of the picture to make, in pixels; a multiple of the stage's `size_multiple`.
    pub height: usize,
    /// How far to move away from each row's `init_image`, above 0 and at most 1: of the steps, the last ⌊steps · strength⌋
    /// run, from that picture noised to the first of them. Without it every row starts from noise.
    pub strength: Option<f64>,
    /// Instead of what the stage's scheduler configuration says.
    pub thresholding: Option<Thresholding>,
    /// DDIM's share of fresh noise, 0…1: 0 is deterministic, 1 as noisy as DDPM. Other samplers do not look at it.
    pub eta: f64,
    /// The network's deeper features are computed at every so-many-th step and used again between; at least 1, which is at
    /// every step.
    pub cache_interval: usize,
}

impl Default for SamplerSettings {
    /// DPM-Solver++ in 25 steps without guidance at 64 × 64.
    fn default() -> Self {
        Self {
            sampler: Sampler::DpmSolverPp,
            steps: 25,
            timesteps: None,
            spacing: None,
            guidance_scale: 1.0,
            guidance_schedule: GuidanceSchedule::Constant,
            noise_level: None,
            width: 64,
            height: 64,
            strength: None,
            thresholding: None,
            eta: 0.0,
            cache_interval: 1,
        }
    }
}

impl SamplerSettings {
    /// Whether rows need a negative text.
    pub fn guided(&self) -> bool {
        self.guidance_schedule.guided(self.guidance_scale)
    }
}

/// One image of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct RowInput {
    /// The prompt's embedding, `[length, dimension]`; the same shape in every row of a call.
    pub text: HostTensor,
    /// The negative prompt's embedding (of the empty text by default); needed where [`SamplerSettings::guided`] says so.
    pub negative: Option<HostTensor>,
    /// The stage before's picture, `[3, height, width]` in −1…1; needed by super-resolution stages and by no other.
    pub low_res: Option<HostTensor>,
    /// The picture to start from, `[3, height, width]` in −1…1 at the size to make; needed where there is a strength, and
    /// accepted nowhere else. Nothing is resized here.
    pub init_image: Option<HostTensor>,
    /// What to repaint of `init_image`, `[1, height, width]`: 1 is repainted, 0 comes out as it was given; values between
    /// count as the nearer of the two, a half as 1. Everything is repainted if absent.
    pub mask: Option<HostTensor>,
    /// Names the image's noise.
    pub seed: u64,
}

/// Progress: one step of all rows of a call is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepReport {
    /// Steps done, from 1.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// The training timestep that was just worked at.
    pub timestep: u32,
}

/// What a loaded stage is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageDescription {
    /// The stage's name, which its noise is keyed by.
    pub name: String,
    /// The network's class.
    pub class: &'static str,
    /// Channels the network takes: 3, or 6 with a low-resolution picture.
    pub in_channels: usize,
    /// Channels it gives: 3, or 6 with a variance.
    pub out_channels: usize,
    /// Width of the text embeddings it takes.
    pub text_dim: usize,
    /// Whether rows need a low-resolution picture.
    pub takes_low_res: bool,
    /// In pixels, of the configured `sample_size`.
    pub default_width: usize,
    /// In pixels, of the configured `sample_size`.
    pub default_height: usize,
    /// Width and height must be multiples of this.
    pub size_multiple: usize,
    /// How many numbers the network learned.
    pub parameters: usize,
    /// `f32` or `bf16`.
    pub dtype: String,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Keys of the configuration files that neither the reference nor this implementation looks at.
    pub ignored_keys: Vec<String>,
}
