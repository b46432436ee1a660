//! Describes a stage by its configuration and its weights' headers, for `model import` and `model
//! info`. Takes milliseconds, whatever the stage's size.

use std::path::Path;

use crate::config::ConfigFile;
use crate::device::{LoadOptions, place_network};
use crate::error::LoadError;
use crate::schedule::Schedule;
use crate::stage::{NOISING_SCHEDULER, SCHEDULER, check_parts};
use crate::unet::Network;
use crate::weights::WeightsSurvey;

/// Keys that the three scheduler classes of diffusers 0.42 read. A key that one class ignores may
/// be for another.
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

/// The content of a stage's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageSurvey {
    /// The network's class.
    pub class: &'static str,
    /// Width of the text embeddings that it takes.
    pub text_dim: usize,
    /// Whether it takes a low-resolution picture.
    pub takes_low_res: bool,
    /// Height and width of its pictures, if its configuration gives them.
    pub sample_size: Option<(usize, usize)>,
    /// Width and height must be multiples of this.
    pub size_multiple: usize,
    /// The network's weights.
    pub weights: WeightsSurvey,
    /// Keys that neither the reference nor this implementation reads; those of the schedules begin
    /// with `scheduler.`.
    pub ignored_keys: Vec<String>,
    /// The unknown ones of these keys.
    pub unknown_keys: Vec<String>,
}

impl StageSurvey {
    /// Checks everything that loading a stage checks, except the weights' values. `variant` names a
    /// set of weights (`fp16`, `bf16`, `fp32`); if absent, the preferred one is used.
    ///
    /// # Errors
    /// As for [`crate::StageModel::load`].
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
            unknown_keys
                .extend(unknown.into_iter().map(|key| format!("image_noising_scheduler.{key}")));
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

/// Bytes of a stage's weights with the placement of `options`, packed as they would be there,
/// computed from its files' headers. This excludes what a pass needs beside the weights, which
/// depends on the pictures.
///
/// # Errors
/// As for [`crate::StageModel::load`].
pub fn weights_memory(stage_dir: &Path, options: &LoadOptions) -> Result<u64, LoadError> {
    let placement = place_network(options)?;
    Ok(StageSurvey::read(stage_dir, None)?.weights.packed(placement))
}

/// How many pictures with this many pixels share a forward pass with the placement of `options`,
/// computed from the headers; fewer pictures take as long. `None` if any number may share a pass,
/// and if each has its own.
///
/// # Errors
/// As for [`crate::StageModel::load`].
pub fn images_per_pass(
    stage_dir: &Path,
    options: &LoadOptions,
    pixels: usize,
) -> Result<Option<usize>, LoadError> {
    let placement = place_network(options)?;
    if !placement.engine.pads_passes() {
        return Ok(None);
    }
    let parameters = StageSurvey::read(stage_dir, None)?.weights.parameters;
    Ok(Some(placement.images_per_pass(pixels, parameters)))
}

fn read_schedule(path: &Path) -> Result<(Schedule, Vec<String>), LoadError> {
    let file = ConfigFile::open(path)?;
    let schedule = Schedule::from_config(&file)?;
    let mut unknown = file.unknown_keys();
    unknown.retain(|key| !SCHEDULER_KEYS.contains(&key.as_str()));
    Ok((schedule, unknown))
}
