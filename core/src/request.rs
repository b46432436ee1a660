//! What a user asks for, before the cascade's defaults are filled in and values are checked.

use serde::{Deserialize, Serialize};

use crate::{defaults::is_default, output::OutputRequest};

/// What a user asks of one stage; `None`, or an empty list, takes the cascade's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StageRequest {
    /// The stage's name.
    pub stage: String,
    /// Sampler name. A sampler other than the cascade's drops the cascade's preset or list of
    /// timesteps, and its eta.
    pub sampler: Option<String>,
    /// Denoising steps. Drops the cascade's preset or list of timesteps.
    pub steps: Option<u32>,
    /// Name of a preset of timesteps; `steps` is its length.
    pub preset: Option<String>,
    /// The training timesteps to visit, in falling order; `steps` is their number.
    pub timesteps: Vec<u32>,
    /// Spacing of the timesteps, by name.
    pub spacing: Option<String>,
    /// DDIM's share of fresh noise.
    pub eta: Option<f64>,
    /// Guidance weight.
    pub guidance_scale: Option<f64>,
    /// At which steps the guidance weight applies, in the text form of
    /// [`crate::sampling::GuidanceSchedule`].
    pub guidance_schedule: Option<String>,
    /// Thresholding, in the text form of [`crate::sampling::Thresholding`].
    pub thresholding: Option<String>,
    /// Noise level of the low-resolution input.
    pub noise_level: Option<u32>,
    /// How much noise is added to the picture that the stage starts from: above 0, at most 1.
    pub strength: Option<f64>,
    /// Compute the network's deeper features every N steps.
    pub cache_interval: Option<u32>,
}

/// What a user asks of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SettingsRequest {
    /// Edge of the final picture, pixels; 0: that of the last stage.
    pub size: u32,
    /// Width of the final picture, pixels; 0: the edge of the last stage.
    pub width: u32,
    /// Height of the final picture, pixels; 0: the edge of the last stage.
    pub height: u32,
    /// What images start from, by name ([`crate::start::Start`]); empty: noise, or what
    /// `start_stage` implies.
    pub start: String,
    /// The super-resolution stage that starts from the prompts' pictures; empty: all stages run.
    pub start_stage: String,
    /// How a picture of another shape is made to fit, by name ([`crate::fit::Fit`]); empty: it is
    /// cropped.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fit: String,
    /// How the final picture is stored.
    #[serde(skip_serializing_if = "is_default")]
    pub output: OutputRequest,
    /// Per stage, at most once each.
    pub stages: Vec<StageRequest>,
}
