//! What the fuzz targets of `tests/fuzz` call: the readers of single configuration files, without
//! the weights beside them. Nothing else uses them from outside.

use std::path::Path;

use crate::config::ConfigFile;
use crate::error::LoadError;
use crate::schedule::{Schedule, ddim_timesteps, ddpm_timesteps, dpm_timesteps};
use crate::t5::T5Config;
use crate::unet::config::UNetConfig;
use crate::unet::efficient::EfficientConfig;

/// Reads the configuration of an IF network.
///
/// # Errors
/// What is wrong with it.
pub fn unet(path: &Path) -> Result<(), LoadError> {
    let config = UNetConfig::read(&ConfigFile::open(path)?)?;
    let _ = config.interface();
    Ok(())
}

/// Reads the configuration of an efficient network.
///
/// # Errors
/// What is wrong with it.
pub fn efficient(path: &Path) -> Result<(), LoadError> {
    let config = EfficientConfig::read(&ConfigFile::open(path)?)?;
    let _ = config.interface();
    Ok(())
}

/// Reads the configuration of a text encoder.
///
/// # Errors
/// What is wrong with it.
pub fn t5(path: &Path) -> Result<(), LoadError> {
    T5Config::read(&ConfigFile::open(path)?).map(drop)
}

/// The parts of a schedule.
#[derive(Clone, Debug)]
pub struct Read {
    /// The number of training timesteps.
    pub train: usize,
    /// ᾱ at every training timestep.
    pub alphas: Vec<f64>,
    /// The timesteps that each sampler visits, or why it has none.
    pub visited: Vec<Result<Vec<u32>, String>>,
}

/// Reads the configuration of a schedule, and visits it in so many steps.
///
/// # Errors
/// What is wrong with it.
pub fn schedule(path: &Path, steps: usize) -> Result<Read, LoadError> {
    let schedule = Schedule::load(path)?;
    let visited = [ddpm_timesteps, ddim_timesteps, dpm_timesteps]
        .map(|timesteps| timesteps(&schedule, None, steps))
        .to_vec();
    Ok(Read { train: schedule.config.train_timesteps, alphas: schedule.alphas_cumprod, visited })
}
