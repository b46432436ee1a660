//! The noise schedule: the share of a picture that remains at each training timestep, and the
//! visited timesteps.
//!
//! Everything is computed in f64. The reference rounds betas and products to f32. The two agree to
//! 3e-7 relative, and to 1.3e-5 at t = 999 of the cosine schedule, where the reference rounds β =
//! 0.999.

mod betas;
mod config;
mod timesteps;

pub(crate) use config::{Prediction, ScheduleConfig, Spacing, Variance};
pub(crate) use timesteps::{check_custom, ddim_timesteps, ddpm_timesteps, dpm_timesteps};

use std::path::Path;

use crate::config::ConfigFile;
use crate::error::LoadError;

/// How a predicted clean picture is kept within bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    /// Not at all. The final picture is still clamped to −1…1.
    Off,
    /// Clamped to −range…range.
    Static {
        /// The bound, above 0.
        range: f64,
    },
    /// Imagen's dynamic thresholding (section 2.3): clamped to −s…s and divided by s, where s is a
    /// quantile of the picture's magnitudes, at least 1 and at most `max`.
    Dynamic {
        /// Which quantile, 0…1; the paper's is 0.995.
        ratio: f64,
        /// The largest s. With 1 this is exactly a clamp to −1…1.
        max: f64,
    },
}

/// Smallest share of a picture's variance that a schedule may leave at its last timestep; the
/// cosine schedule leaves 2e-9.
const LEAST_LEFT: f64 = 1e-15;

/// A stage's schedule, for any sampler.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) config: ScheduleConfig,
    /// ᾱ_t, the share of the picture's variance that remains at t.
    pub(crate) alphas_cumprod: Vec<f64>,
    pub(crate) ignored_keys: Vec<String>,
}

impl Schedule {
    /// Reads a `scheduler_config.json`.
    pub(crate) fn load(path: &Path) -> Result<Self, LoadError> {
        Self::from_config(&ConfigFile::open(path)?)
    }

    pub(crate) fn from_config(file: &ConfigFile) -> Result<Self, LoadError> {
        let config = ScheduleConfig::read(file)?;
        let mut betas = betas::betas(file, config.train_timesteps)?;
        if config.rescale_betas_zero_snr {
            betas::rescale_to_zero_terminal_snr(&mut betas);
        }
        let mut product = 1.0;
        let alphas_cumprod: Vec<f64> = betas
            .iter()
            .map(|beta| {
                product *= 1.0 - beta;
                product
            })
            .collect();
        // The share that remains at the end is a divisor, unless the schedule is meant to leave
        // nothing.
        if !config.rescale_betas_zero_snr
            && alphas_cumprod.last().is_none_or(|left| *left < LEAST_LEFT)
        {
            let accepted =
                format!("a schedule that leaves at least {LEAST_LEFT:e} of a picture's variance");
            let key =
                if file.get("trained_betas").is_some() { "trained_betas" } else { "beta_end" };
            return Err(file.refuse(key, accepted));
        }
        Ok(Self { config, alphas_cumprod, ignored_keys: file.ignored_keys() })
    }

    /// ᾱ at a timestep; 1 before the first.
    pub(crate) fn alpha_cumprod(&self, timestep: i64) -> f64 {
        usize::try_from(timestep)
            .ok()
            .and_then(|t| self.alphas_cumprod.get(t))
            .copied()
            .unwrap_or(1.0)
    }
}

#[cfg(test)]
mod tests;
