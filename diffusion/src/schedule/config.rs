//! The content of `scheduler_config.json`, whichever of the three reference classes wrote it.
//!
//! A stage names one scheduler, but may be sampled with another. As in the reference, the new one
//! uses every key in the file that it knows. Spacing is the exception: DDIM and DPM-Solver++ keep
//! their own unless the file is for them.

use darkroom_core::sampling;
use serde_json::json;

use super::Limit;
use crate::config::ConfigFile;
use crate::error::LoadError;

/// Largest bound of a picture's values.
const MAX_BOUND: f64 = 1000.0;

/// The options of a schedule that samplers use.
#[derive(Clone, Debug)]
pub(crate) struct ScheduleConfig {
    pub(crate) train_timesteps: usize,
    pub(crate) prediction: Prediction,
    pub(crate) variance: Variance,
    pub(crate) thresholding: Option<Limit>,
    /// `clip_sample` with its range. DDPM and DDIM use it if there is no thresholding; DPM-Solver++
    /// never does.
    pub(crate) clip: Option<f64>,
    pub(crate) rescale_betas_zero_snr: bool,
    pub(crate) ddpm_spacing: Spread,
    pub(crate) ddim_spacing: Spread,
    /// Whether ᾱ after DDIM's last step is 1; otherwise it is ᾱ_0.
    pub(crate) ddim_ends_at_one: bool,
    pub(crate) dpm_spacing: Spread,
    pub(crate) dpm: DpmOptions,
}

/// What the network predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prediction {
    /// The noise (Ho et al. 2020).
    Epsilon,
    /// The clean picture.
    Sample,
    /// v = √ᾱ·ε − √(1−ᾱ)·x₀ (Salimans & Ho 2022).
    Velocity,
}

/// The variance of a DDPM step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variance {
    /// β̃ of the posterior; `fixed_small` and `fixed_small_log` are the same number.
    FixedSmall,
    /// β.
    FixedLarge,
    /// The network's last three channels.
    Learned,
    /// Between the two above on a logarithmic scale, by the network's last three channels.
    LearnedRange,
}

/// How timesteps are spread over the training range (Lin et al. 2023, table 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spacing {
    /// In equal strides from the first timestep up. Never reaches the last one.
    Leading,
    /// From the first timestep to the last.
    Linspace,
    /// In equal strides from the last timestep down.
    Trailing,
}

impl Spacing {
    /// The requested spacing; `None` if the stage's file or the sampler decides.
    pub(crate) fn asked(spacing: sampling::Spacing) -> Option<Self> {
        match spacing {
            sampling::Spacing::Configured => None,
            sampling::Spacing::Leading => Some(Self::Leading),
            sampling::Spacing::Linspace => Some(Self::Linspace),
            sampling::Spacing::Trailing => Some(Self::Trailing),
        }
    }
}

/// A spacing with its option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    pub(crate) spacing: Spacing,
    /// Added to every timestep of "leading".
    pub(crate) offset: usize,
}

/// Options that only DPM-Solver++ uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DpmOptions {
    pub(crate) lambda_min_clipped: f64,
    pub(crate) second_order: bool,
    pub(crate) lower_order_final: bool,
    pub(crate) euler_at_final: bool,
    pub(crate) ends_at_zero: bool,
}

impl ScheduleConfig {
    pub(super) fn read(file: &ConfigFile) -> Result<Self, LoadError> {
        let class = file.class_name().to_owned();
        let known = ["DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler", ""];
        if !known.contains(&class.as_str()) {
            return Err(file.refuse("_class_name", known[..3].join(", ")));
        }
        let train_timesteps = file.count("num_train_timesteps", 1000, 2..=1_000_000)?;
        let offset = file.count("steps_offset", 0, 0..=train_timesteps - 1)?;
        let written = read_spacing(file)?;
        let spread = |of: &str, own: Spacing| match class == of {
            true => Spread { spacing: written.unwrap_or(own), offset },
            false => Spread { spacing: own, offset: 0 },
        };
        Ok(Self {
            train_timesteps,
            prediction: match file.text("prediction_type")? {
                None | Some("epsilon") => Prediction::Epsilon,
                Some("sample") => Prediction::Sample,
                Some("v_prediction") => Prediction::Velocity,
                Some(_) => {
                    return Err(file.refuse("prediction_type", "epsilon, sample, v_prediction"));
                }
            },
            variance: match file.text("variance_type")? {
                None | Some("fixed_small" | "fixed_small_log") => Variance::FixedSmall,
                Some("fixed_large") => Variance::FixedLarge,
                Some("learned") => Variance::Learned,
                Some("learned_range") => Variance::LearnedRange,
                Some(_) => {
                    let accepted =
                        "fixed_small, fixed_small_log, fixed_large, learned, learned_range";
                    return Err(file.refuse("variance_type", accepted));
                }
            },
            thresholding: read_thresholding(file)?,
            clip: read_clip(file)?,
            rescale_betas_zero_snr: file.flag("rescale_betas_zero_snr")?.unwrap_or(false),
            ddpm_spacing: spread(known[0], Spacing::Leading),
            ddim_spacing: spread(known[1], Spacing::Leading),
            ddim_ends_at_one: file.flag("set_alpha_to_one")?.unwrap_or(true),
            dpm_spacing: spread(known[2], Spacing::Linspace),
            dpm: read_dpm(file)?,
        })
    }
}

fn read_spacing(file: &ConfigFile) -> Result<Option<Spacing>, LoadError> {
    match file.text("timestep_spacing")? {
        None => Ok(None),
        Some("leading") => Ok(Some(Spacing::Leading)),
        Some("linspace") => Ok(Some(Spacing::Linspace)),
        Some("trailing") => Ok(Some(Spacing::Trailing)),
        Some(_) => Err(file.refuse("timestep_spacing", "leading, linspace, trailing")),
    }
}

fn read_thresholding(file: &ConfigFile) -> Result<Option<Limit>, LoadError> {
    let ratio = file.number("dynamic_thresholding_ratio", 0.995, 0.001..=1.0)?;
    let max = file.number("sample_max_value", 1.0, 1.0..=MAX_BOUND)?;
    Ok(file.flag("thresholding")?.unwrap_or(false).then_some(Limit::Dynamic { ratio, max }))
}

fn read_clip(file: &ConfigFile) -> Result<Option<f64>, LoadError> {
    let range = file.number("clip_sample_range", 1.0, 0.001..=MAX_BOUND)?;
    Ok(file.flag("clip_sample")?.unwrap_or(true).then_some(range))
}

fn read_dpm(file: &ConfigFile) -> Result<DpmOptions, LoadError> {
    for key in [
        "use_karras_sigmas",
        "use_exponential_sigmas",
        "use_beta_sigmas",
        "use_lu_lambdas",
        "use_flow_sigmas",
        "use_dynamic_shifting",
    ] {
        file.only(key, &json!(false))?;
    }
    // The sampler's name, not the file, decides which of the two runs.
    if !matches!(file.text("algorithm_type")?, None | Some("dpmsolver++" | "sde-dpmsolver++")) {
        return Err(file.refuse("algorithm_type", "dpmsolver++, sde-dpmsolver++"));
    }
    file.only("solver_type", &json!("midpoint"))?;
    file.without_effect("flow_shift", &json!(1.0));
    file.without_effect("time_shift_type", &json!("exponential"));
    // Some writers store minus infinity as a text.
    let lambda_min_clipped = match file.get("lambda_min_clipped") {
        Some(serde_json::Value::String(text))
            if text.eq_ignore_ascii_case("-infinity") || text == "-inf" =>
        {
            f64::NEG_INFINITY
        }
        _ => file.number("lambda_min_clipped", f64::NEG_INFINITY, -1e12..=100.0)?,
    };
    Ok(DpmOptions {
        lambda_min_clipped,
        second_order: file.count("solver_order", 2, 1..=2)? == 2,
        lower_order_final: file.flag("lower_order_final")?.unwrap_or(true),
        euler_at_final: file.flag("euler_at_final")?.unwrap_or(false),
        ends_at_zero: match file.text("final_sigmas_type")? {
            None | Some("zero") => true,
            Some("sigma_min") => false,
            Some(_) => return Err(file.refuse("final_sigmas_type", "zero, sigma_min")),
        },
    })
}
