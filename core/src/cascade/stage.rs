//! A stage of a cascade, and how it is written: one flat table of `cascade.toml`.
//!
//! The names and their order are the format, and the order is part of every cascade's digest. A
//! separate struct for reading keeps the line and key of a mistake in the message. When
//! [`Sampling`] gains a field, this file does not compile until it has it too.

use serde::{Deserialize, Serialize};

use crate::{
    defaults::is_default,
    id::StageName,
    sampling::{
        GuidanceSchedule, Sampler, Sampling, ScheduleLengths, Spacing, Thresholding, every_step,
        is_every_step,
    },
};

/// One diffusion stage of a cascade, with the defaults of its settings. `cascade.toml` and digests
/// have all of it in one flat table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "StageToml", into = "StageToml")]
pub struct StageSpec {
    /// Its name, unique in the cascade and not `encode`.
    pub name: StageName,
    /// Folder with `unet/`, `scheduler/` and, for super-resolution, `image_noising_scheduler/`.
    pub folder: String,
    /// Edge of its output, pixels.
    pub size: u32,
    /// Default sampling as written. A preset's timesteps are not filled in;
    /// [`CascadeSpec::sampling`](super::CascadeSpec::sampling) does that. There is no default
    /// strength.
    pub sampling: Sampling,
    /// Width and height of its output must be multiples of this number. If absent, it is read from
    /// the network's configuration, where there is one. It limits what jobs can ask for and changes
    /// no picture, so it is not part of the cascade's identity.
    pub size_multiple: Option<u32>,
    /// Training timesteps of its schedule. If absent, they are read from the scheduler's
    /// configuration, where there is one. They are not part of the cascade's identity either; that
    /// covers the configuration file.
    pub train_timesteps: Option<u32>,
    /// The same for the schedule that adds noise to the low-resolution input; only in
    /// super-resolution stages.
    pub noise_timesteps: Option<u32>,
}

/// The fields of a [`StageSpec`] and of its [`Sampling`], whose docs explain them.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename = "StageSpec", deny_unknown_fields)]
struct StageToml {
    name: StageName,
    folder: String,
    size: u32,
    sampler: Sampler,
    /// May be absent if `preset` or `timesteps` gives the number.
    #[serde(default)]
    steps: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    preset: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    timesteps: Vec<u32>,
    #[serde(default, skip_serializing_if = "is_default")]
    spacing: Spacing,
    #[serde(default, skip_serializing_if = "is_default")]
    eta: f64,
    #[serde(default = "every_step", skip_serializing_if = "is_every_step")]
    cache_interval: u32,
    guidance_scale: f64,
    #[serde(default, skip_serializing_if = "is_default")]
    guidance_schedule: GuidanceSchedule,
    #[serde(default, skip_serializing_if = "is_default")]
    thresholding: Thresholding,
    #[serde(default)]
    noise_level: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size_multiple: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    train_timesteps: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    noise_timesteps: Option<u32>,
}

impl StageSpec {
    /// The lengths of its schedules, where known.
    pub(crate) fn schedule_lengths(&self) -> ScheduleLengths {
        ScheduleLengths { train: self.train_timesteps, noise: self.noise_timesteps }
    }
}

impl From<StageToml> for StageSpec {
    fn from(toml: StageToml) -> Self {
        Self {
            name: toml.name,
            folder: toml.folder,
            size: toml.size,
            sampling: Sampling {
                sampler: toml.sampler,
                steps: toml.steps,
                preset: toml.preset,
                timesteps: toml.timesteps,
                spacing: toml.spacing,
                eta: toml.eta,
                guidance_scale: toml.guidance_scale,
                guidance_schedule: toml.guidance_schedule,
                thresholding: toml.thresholding,
                noise_level: toml.noise_level,
                strength: None,
                cache_interval: toml.cache_interval,
            },
            size_multiple: toml.size_multiple,
            train_timesteps: toml.train_timesteps,
            noise_timesteps: toml.noise_timesteps,
        }
    }
}

impl From<StageSpec> for StageToml {
    fn from(spec: StageSpec) -> Self {
        let StageSpec {
            name,
            folder,
            size,
            sampling,
            size_multiple,
            train_timesteps,
            noise_timesteps,
        } = spec;
        let Sampling {
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
            // Only a job has a picture to start from.
            strength: _,
            cache_interval,
        } = sampling;
        Self {
            name,
            folder,
            size,
            sampler,
            steps,
            preset,
            timesteps,
            spacing,
            eta,
            cache_interval,
            guidance_scale,
            guidance_schedule,
            thresholding,
            noise_level,
            size_multiple,
            train_timesteps,
            noise_timesteps,
        }
    }
}
