//! How a stage is sampled: the one struct that `cascade.toml`, a job's settings, a task, a
//! picture's recipe and the renderer hold.
//!
//! A new setting is a field here and in [`StageRequest`], with its check in `apply`. The wire
//! (`proto`), `cascade.toml` (`cascade/stage.rs`) and the command line each name it too. The code
//! that hashes settings does not compile without the new field, because a digest never uses a
//! default.

mod apply;
mod guidance;
mod limits;
mod passes;
mod preset;
mod sampler;
mod thresholding;

use serde::{Deserialize, Serialize};

use crate::{defaults::is_default, id::StageName, request::StageRequest};

pub use apply::check_value;
pub(crate) use apply::{Place, ScheduleLengths};
pub use guidance::GuidanceSchedule;
pub use limits::{
    MAX_CACHE_INTERVAL, MAX_GUIDANCE_SCALE, MAX_NOISE_LEVEL, MAX_STEPS, MAX_TIMESTEP,
};
pub use passes::{Pass, REUSING_PASS, is_guided};
pub use preset::{PRESETS, Preset};
pub use sampler::{Sampler, Spacing};
pub use thresholding::Thresholding;

/// How a stage is sampled. A field at its default is not written, so the text of older settings can
/// still be read and their digest stays the same. Fields are hashed in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Sampler.
    pub sampler: Sampler,
    /// Denoising steps, 1 to [`MAX_STEPS`]; the number of `timesteps` if those are given.
    pub steps: u32,
    /// Name of the preset that `timesteps` came from, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// The training timesteps to visit, in falling order; empty: `spacing` spreads the `steps`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timesteps: Vec<u32>,
    /// Spacing of the timesteps if they are not given.
    #[serde(default, skip_serializing_if = "is_default")]
    pub spacing: Spacing,
    /// DDIM's share of fresh noise, 0 to 1; 0 with other samplers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub eta: f64,
    /// Guidance weight w in u + w · (c − u), 1 to [`MAX_GUIDANCE_SCALE`]; 1 means no guidance.
    pub guidance_scale: f64,
    /// At which steps the guidance weight applies.
    #[serde(default, skip_serializing_if = "is_default")]
    pub guidance_schedule: GuidanceSchedule,
    /// How a predicted clean picture is bounded.
    #[serde(default, skip_serializing_if = "is_default")]
    pub thresholding: Thresholding,
    /// Noise level of the low-resolution input, 0 to [`MAX_NOISE_LEVEL`]. Every super-resolution
    /// stage has one, and no other stage.
    pub noise_level: Option<u32>,
    /// How much noise is added to the user's picture before the stage starts from it: above 0, at
    /// most 1. Only in stages that start from a picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
    /// The network's deeper features are computed every N steps, 1 to [`MAX_CACHE_INTERVAL`], and
    /// reused in between.
    #[serde(default = "every_step", skip_serializing_if = "is_every_step")]
    pub cache_interval: u32,
}

impl Sampling {
    /// Only a sampler and a number of steps. There is no guidance and no noise level; all other
    /// values come from the stage's files.
    #[must_use]
    pub fn plain(sampler: Sampler, steps: u32) -> Self {
        Self {
            sampler,
            steps,
            preset: None,
            timesteps: Vec::new(),
            spacing: Spacing::Configured,
            eta: 0.0,
            guidance_scale: 1.0,
            guidance_schedule: GuidanceSchedule::Constant,
            thresholding: Thresholding::Configured,
            noise_level: None,
            strength: None,
            cache_interval: every_step(),
        }
    }

    /// Whether any step computes the unconditional half and so needs the negative prompt's
    /// embedding.
    #[must_use]
    pub fn guided(&self) -> bool {
        self.guidance_schedule.guided(self.guidance_scale)
    }

    /// Steps of a run that starts from noise.
    #[must_use]
    pub fn all_steps(&self) -> usize {
        if self.timesteps.is_empty() { self.steps as usize } else { self.timesteps.len() }
    }

    /// Steps that run. A stage that starts from a picture runs only the last ⌊steps · strength⌋.
    #[must_use]
    pub fn steps_run(&self) -> usize {
        let steps = self.all_steps();
        // Rounded down as the reference does, also for 0.7 · 10 = 7 and 0.29 · 100 = 28.
        self.strength.map_or(steps, |strength| ((steps as f64 * strength) as usize).min(steps))
    }

    /// The guidance weight of every step of a run that visits `timesteps`.
    #[must_use]
    pub fn weights(&self, timesteps: &[f64]) -> Vec<f64> {
        self.guidance_schedule.weights(self.guidance_scale, timesteps)
    }

    /// Network passes of one image, which its time is proportional to. A guided step has two
    /// passes. A pass that reuses deeper features counts as [`REUSING_PASS`] of a whole one.
    /// Timesteps that are not listed are assumed to be evenly spread.
    #[must_use]
    pub fn passes(&self) -> f64 {
        let weights = self.weights(&self.likely_timesteps());
        Pass::of_steps(&weights, self.cache_interval)
            .into_iter()
            .fold(0.0, |sum, pass| sum + pass.cost())
    }

    fn likely_timesteps(&self) -> Vec<f64> {
        let steps = self.steps_run();
        if !self.timesteps.is_empty() {
            return self.timesteps[self.timesteps.len() - steps..]
                .iter()
                .copied()
                .map(f64::from)
                .collect();
        }
        // A task in the queue may say any number, and its cost is asked before it is checked.
        let steps = steps.min(MAX_STEPS as usize);
        let stride =
            f64::from(MAX_TIMESTEP + 1) * self.strength.unwrap_or(1.0) / steps.max(1) as f64;
        (0..steps).map(|index| ((steps - index) as f64 - 0.5) * stride).collect()
    }

    /// The request that gives the same sampling with any defaults of the cascade: it names every
    /// value.
    #[must_use]
    pub fn as_request(&self, stage: &StageName) -> StageRequest {
        let Self {
            sampler,
            steps,
            preset,
            timesteps,
            spacing,
            eta,
            guidance_scale,
            guidance_schedule,
            thresholding,
            noise_level,
            strength,
            cache_interval,
        } = self;
        StageRequest {
            stage: stage.to_string(),
            sampler: Some(sampler.to_string()),
            steps: Some(*steps),
            preset: preset.clone(),
            timesteps: timesteps.clone(),
            spacing: Some(spacing.to_string()),
            eta: Some(*eta),
            guidance_scale: Some(*guidance_scale),
            guidance_schedule: Some(guidance_schedule.to_string()),
            thresholding: Some(thresholding.to_string()),
            noise_level: *noise_level,
            strength: *strength,
            cache_interval: Some(*cache_interval),
        }
    }
}

/// The interval at which no features are reused.
pub(crate) fn every_step() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
pub(crate) fn is_every_step(interval: &u32) -> bool {
    *interval == every_step()
}
