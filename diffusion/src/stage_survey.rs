//! A stage by its configuration and its weights' headers: what `model import` and `model info` look at, in
//! milliseconds whatever its size.

use std::path::Path;

use crate::config::ConfigFile;
use crate::device::{LoadOptions, place_network};
use crate::error::LoadError;
use crate::rows::images_per_forward;
use crate::schedule::Schedule;
use crate::stage::{NOISING_SCHEDULER, SCHEDULER, check_parts};
use crate::unet::Network;
use crate::weights::WeightsSurvey;

/// Keys of the three scheduler classes that are read, of diffusers 0.42; what one of them ignores may be another's.
const SCHEDULER_KEYS: [&str; 31] = [
    "algorithm_type",
    "beta_end",
    "beta_schedule",
    "beta_start",
    "clip_sample",
    "clip_sample_range",
    "dynamic_thresholding_ratio",
    "euler_at_final",
    "final_sigmas_type",
    "flow_shift",
    "lambda_min_clipped",
    "lower_order_final",
    "num_train_timesteps",
    "prediction_type",
    "rescale_betas_zero_snr",
    "sample_max_value",
    "set_alpha_to_one",
    "solver_order",
    "solver_type",
    "steps_offset",
    "thresholding",
    "time_shift_type",
    "timestep_spacing",
    "trained_betas",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "use_exponential_sigmas",
    "use_flow_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
    "variance_type",
];

/// What a stage's folder holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageSurvey {
    /// The network's class.
    pub class: &'static str,
    /// Width of the text embeddings it takes.
    pub text_dim: usize,
    /// Whether it takes a low-resolution picture.
    pub takes_low_res: bool,
    /// Height and width of its pictures, where its configuration says.
    pub sample_size: Option<(usize, usize)>,
    /// Width and height must be multiples of this.
    pub size_multiple: usize,
    /// The network's weights.
    pub weights: WeightsSurvey,
    /// Keys that neither the reference nor this implementation looks at; of the schedules, `scheduler.` before them.
    pub ignored_keys: Vec<String>,
    /// Of those, the keys that nobody knows.
    pub unknown_keys: Vec<String>,
}

impl StageSurvey {
    /// Checks everything that loading a stage checks but the weights' values; `variant` names a set of weights
    /// (`fp16`, `bf16`, `fp32`), the preferred one if absent.
    ///
    /// # Errors
    /// As [`crate::StageModel::load`].
    pub fn read(stage_dir: &Path, variant: Option<&str>) -> Result<Self, LoadError> {
        let (schedule, unknown_of_schedule) = read_schedule(&stage_dir.join(SCHEDULER))?;
        let network = Network::survey(&stage_dir.join("unet"), variant)?;
        let interface = &network.interface;
        check_parts(stage_dir, interface, &schedule)?;
        let takes_low_res = interface.in_channels == 6;
        let mut unknown_keys = network.unknown_keys;
        unknown_keys.extend(unknown_of_schedule.into_iter().map(|key| format!("scheduler.{key}")));
        if takes_low_res {
            let (_, unknown) = read_schedule(&stage_dir.join(NOISING_SCHEDULER))?;
            unknown_keys.extend(unknown.into_iter().map(|key| format!("image_noising_scheduler.{key}")));
        }
        let mut ignored_keys = network.ignored_keys;
        ignored_keys.extend(schedule.ignored_keys.iter().map(|key| format!("scheduler.{key}")));
        Ok(Self {
            class: network.class,
            text_dim: interface.text_dim,
            takes_low_res,
            sample_size: interface.sample_size,
            size_multiple: interface.size_multiple,
            weights: network.weights,
            ignored_keys,
            unknown_keys,
        })
    }
}

/// Bytes that a stage's weights will take where `options` place them, packed as they are there, by its files' headers. What a
/// pass needs beside them depends on the pictures and is not in it.
///
/// # Errors
/// As [`crate::StageModel::load`].
pub fn weights_memory(stage_dir: &Path, options: &LoadOptions) -> Result<u64, LoadError> {
    let placement = place_network(options)?;
    Ok(StageSurvey::read(stage_dir, None)?.weights.packed(placement))
}

/// How many pictures of so many pixels share a forward pass where `options` place a stage's network, by its files' headers: fewer
/// take as long. `None` where any number may share one, and where each has its own.
///
/// # Errors
/// As [`crate::StageModel::load`].
pub fn images_per_pass(
    stage_dir: &Path,
    options: &LoadOptions,
    pixels: usize,
) -> Result<Option<usize>, LoadError> {
    let placement = place_network(options)?;
    if !placement.device.is_cuda() {
        return Ok(None);
    }
    let parameters = StageSurvey::read(stage_dir, None)?.weights.parameters;
    Ok(Some(images_per_forward(placement, pixels, parameters)))
}

fn read_schedule(path: &Path) -> Result<(Schedule, Vec<String>), LoadError> {
    let file = ConfigFile::open(path)?;
    let schedule = Schedule::from_config(&file)?;
    let mut unknown = file.unknown_keys();
    unknown.retain(|key| !SCHEDULER_KEYS.contains(&key.as_str()));
    Ok((schedule, unknown))
}
