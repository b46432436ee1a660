//! Upper limits of sampling settings.

/// Most denoising steps of a stage.
pub const MAX_STEPS: u32 = 1000;
/// Largest guidance weight.
pub const MAX_GUIDANCE_SCALE: f64 = 100.0;
/// The last training timestep.
pub const MAX_TIMESTEP: u32 = 999;
/// Most steps from one computation of the network's deeper features to the next.
pub const MAX_CACHE_INTERVAL: u32 = 100;
/// Highest noise level: the last timestep of the noising schedule.
pub const MAX_NOISE_LEVEL: u32 = MAX_TIMESTEP;
