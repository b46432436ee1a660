//! The samplers: they turn a prediction into a slightly less noisy picture, with a plan made in
//! advance.
//!
//! A [`SamplerPlan`] has every coefficient of every step, computed in f64 before the first forward
//! pass. A step is then a few f32 operations. Pictures here are `[rows, 3, height, width]` f32
//! tensors with any memory layout.

mod ddim;
mod ddpm;
mod dpm_solver;
mod threshold;

use darkroom_core::sampling::{Pass, Sampler, Sampling, Thresholding};
use tch::{Device, Kind, Tensor};

use crate::error::RenderError;
use crate::guidance::{self, Guided};
use crate::kernels;
use crate::layers::Torch;
use crate::schedule::{Limit, Prediction, Schedule, Spacing, Variance, check_custom};
use crate::schedule::{ddim_timesteps, ddpm_timesteps, dpm_timesteps};

/// The inputs of a plan, beside the schedule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanOptions<'a> {
    pub(crate) sampling: &'a Sampling,
    /// Whether the network also gives a variance.
    pub(crate) has_variance: bool,
}

/// The steps of one stage that run.
#[derive(Debug)]
pub(crate) struct SamplerPlan {
    pub(crate) timesteps: Vec<u32>,
    /// Each step's guidance weight.
    pub(crate) guidance: Vec<f64>,
    /// The network pass of each step.
    pub(crate) passes: Vec<Pass>,
    prediction: Prediction,
    limit: Limit,
    steps: Steps,
}

#[derive(Debug)]
enum Steps {
    Ddpm(Vec<ddpm::Step>),
    Ddim(Vec<ddim::Step>),
    Dpm(Vec<dpm_solver::Step>),
}

/// What a multistep sampler remembers of the step before.
#[derive(Debug, Default)]
pub(crate) struct History {
    clean: Option<Tensor>,
}

impl Steps {
    fn plan(schedule: &Schedule, sampling: &Sampling, timesteps: &[u32]) -> Self {
        match sampling.sampler {
            Sampler::Ddpm => Self::Ddpm(ddpm::plan(schedule, timesteps)),
            Sampler::Ddim => {
                let stride = schedule.config.train_timesteps / sampling.all_steps().max(1);
                let stride = sampling.timesteps.is_empty().then_some(stride);
                Self::Ddim(ddim::plan(schedule, timesteps, stride, sampling.eta))
            }
            Sampler::DpmSolverPlusPlus => Self::Dpm(dpm_solver::plan(schedule, timesteps, false)),
            Sampler::SdeDpmSolverPlusPlus => Self::Dpm(dpm_solver::plan(schedule, timesteps, true)),
        }
    }

    fn drop_first(&mut self, count: usize) {
        match self {
            Self::Ddpm(steps) => drop(steps.drain(..count)),
            Self::Ddim(steps) => drop(steps.drain(..count)),
            Self::Dpm(steps) => drop(steps.drain(..count)),
        }
    }
}

impl SamplerPlan {
    /// A stage that starts from a picture runs only the last steps. A multistep sampler remembers
    /// nothing at the first of these, and the guidance schedule counts the steps from there.
    pub(crate) fn new(schedule: &Schedule, options: PlanOptions<'_>) -> Result<Self, RenderError> {
        let (config, sampling) = (&schedule.config, options.sampling);
        let left_out = steps_left_out(sampling)?;
        if sampling.cache_interval == 0 {
            return Err(RenderError::invalid("cache_interval", "0; accepted: at least 1"));
        }
        let mut timesteps = visited(schedule, sampling)?;
        if !(0.0..=1.0).contains(&sampling.eta) {
            return Err(RenderError::invalid("eta", format!("{}; accepted: 0 to 1", sampling.eta)));
        }
        guidance::check(sampling.guidance_schedule)?;
        let limit = settle_limit(schedule, sampling)?;
        let learned = matches!(config.variance, Variance::Learned | Variance::LearnedRange);
        if sampling.sampler == Sampler::Ddpm && learned && !options.has_variance {
            let message = "ddpm with a learned variance needs a network of 6 output channels";
            return Err(RenderError::invalid("sampler", message));
        }
        let mut steps = Steps::plan(schedule, sampling, &timesteps);
        let left_out = left_out.min(timesteps.len());
        timesteps.drain(..left_out);
        steps.drop_first(left_out);
        if timesteps.is_empty() {
            let message = match sampling.strength {
                Some(strength) => {
                    format!("{strength} leaves no step of this schedule; accepted: up to 1")
                }
                None => "no step is left of this schedule; accepted: more steps".to_owned(),
            };
            return Err(RenderError::invalid("strength", message));
        }
        let times: Vec<f64> = timesteps.iter().copied().map(f64::from).collect();
        let guidance = sampling.weights(&times);
        let passes = Pass::of_steps(&guidance, sampling.cache_interval);
        Ok(Self { timesteps, guidance, passes, prediction: config.prediction, limit, steps })
    }

    /// Whether step `index` needs the unconditional half.
    pub(crate) fn guided(&self, index: usize) -> bool {
        self.passes[index].guided
    }

    /// Whether any step reuses the deeper features of an earlier one.
    pub(crate) fn reuses(&self) -> bool {
        self.passes.iter().any(|pass| pass.reuses)
    }

    /// The shares of picture and noise in x when a step begins.
    pub(crate) fn level(&self, index: usize) -> Level {
        match &self.steps {
            Steps::Ddpm(steps) => steps[index].level,
            Steps::Ddim(steps) => steps[index].level,
            Steps::Dpm(steps) => steps[index].level,
        }
    }

    /// Whether a step adds noise.
    pub(crate) fn draws_noise(&self, index: usize) -> bool {
        match &self.steps {
            Steps::Ddpm(steps) => steps[index].draws_noise(),
            Steps::Ddim(steps) => steps[index].draws_noise(),
            Steps::Dpm(steps) => steps[index].draws_noise(),
        }
    }

    /// One step from `x`. `noise` is required if [`Self::draws_noise`] says so.
    pub(crate) fn step(
        &self,
        index: usize,
        x: &Tensor,
        guided: &Guided,
        noise: Option<&Tensor>,
        history: &mut History,
    ) -> Torch<Tensor> {
        match &self.steps {
            Steps::Ddpm(steps) => {
                let clean = self.clean(x, &guided.mean, steps[index].level)?;
                steps[index].apply(x, &clean, guided.variance.as_ref(), noise)
            }
            Steps::Ddim(steps) => {
                let level = steps[index].level;
                let epsilon = match self.prediction {
                    Prediction::Epsilon => guided.mean.shallow_clone(),
                    Prediction::Sample => weighted(
                        &[(x, 1.0 / level.noise), (&guided.mean, -level.signal / level.noise)],
                        None,
                    )?,
                    Prediction::Velocity => {
                        weighted(&[(&guided.mean, level.signal), (x, level.noise)], None)?
                    }
                };
                let clean = self.clean(x, &guided.mean, level)?;
                steps[index].apply(&clean, &epsilon, noise)
            }
            Steps::Dpm(steps) => {
                let clean = self.clean(x, &guided.mean, steps[index].level)?;
                let next = steps[index].apply(x, &clean, history.clean.as_ref(), noise)?;
                history.clean = Some(clean);
                Ok(next)
            }
        }
    }

    /// The clean picture that a prediction implies (Ho et al., equation 15; Salimans & Ho, section
    /// 4), kept within bounds.
    fn clean(&self, x: &Tensor, prediction: &Tensor, level: Level) -> Torch<Tensor> {
        let limit = threshold::fixed_limit(self.limit);
        let clean = match self.prediction {
            Prediction::Epsilon => weighted(
                &[(x, 1.0 / level.signal), (prediction, -level.noise / level.signal)],
                limit,
            )?,
            // A copy, because bounding works in place.
            Prediction::Sample => weighted(&[(prediction, 1.0)], limit)?,
            Prediction::Velocity => {
                weighted(&[(x, level.signal), (prediction, -level.noise)], limit)?
            }
        };
        threshold::bound(clean, self.limit)
    }
}

/// Σ factor · picture in the given order, then kept within ±`limit`: a new picture, in one pass if
/// this crate's kernels are available.
fn weighted(terms: &[(&Tensor, f64)], limit: Option<f64>) -> Torch<Tensor> {
    let on_cpu = |(tensor, _): &(&Tensor, f64)| {
        tensor.device() == Device::Cpu && tensor.kind() == Kind::Float && tensor.dim() == 4
    };
    if kernels::available() && terms.iter().all(on_cpu) {
        return kernels::blend(terms, limit);
    }
    let Some(((first, factor), others)) = terms.split_first() else { return Ok(Tensor::new()) };
    let mut sum = first.f_mul_scalar(*factor)?;
    for (picture, factor) in others {
        sum = sum.f_add_(&picture.f_mul_scalar(*factor)?)?;
    }
    limit.map_or(Ok(sum.shallow_clone()), |limit| sum.f_clamp_(-limit, limit))
}

/// The shares of picture and noise in x at one timestep: x = signal · x₀ + noise · ε.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Level {
    pub(crate) signal: f64,
    pub(crate) noise: f64,
}

impl Level {
    pub(crate) fn of(alpha_cumprod: f64) -> Self {
        Self { signal: alpha_cumprod.sqrt(), noise: (1.0 - alpha_cumprod).sqrt() }
    }
}

/// How many of the first steps a strength skips; none without a strength.
pub(crate) fn steps_left_out(sampling: &Sampling) -> Result<usize, RenderError> {
    let Some(strength) = sampling.strength else { return Ok(0) };
    if !(strength > 0.0 && strength <= 1.0) {
        return Err(RenderError::invalid(
            "strength",
            format!("{strength}; accepted: above 0, up to 1"),
        ));
    }
    let (steps, run) = (sampling.all_steps(), sampling.steps_run());
    if run == 0 {
        let message = format!(
            "{strength} leaves none of {steps} steps; accepted: at least one step's share, 1/{steps}"
        );
        return Err(RenderError::invalid("strength", message));
    }
    Ok(steps - run)
}

/// The timesteps of a run that starts from noise.
fn visited(schedule: &Schedule, sampling: &Sampling) -> Result<Vec<u32>, RenderError> {
    if !sampling.timesteps.is_empty() {
        check_custom(&sampling.timesteps, schedule.config.train_timesteps)
            .map_err(|message| RenderError::invalid("timesteps", message))?;
        return Ok(sampling.timesteps.clone());
    }
    let (spacing, steps) = (Spacing::asked(sampling.spacing), sampling.steps as usize);
    match sampling.sampler {
        Sampler::Ddpm => ddpm_timesteps(schedule, spacing, steps),
        Sampler::Ddim => ddim_timesteps(schedule, spacing, steps),
        Sampler::DpmSolverPlusPlus | Sampler::SdeDpmSolverPlusPlus => {
            dpm_timesteps(schedule, spacing, steps)
        }
    }
    .map_err(|message| RenderError::invalid("steps", message))
}

/// The requested thresholding, or what the stage's file gives this sampler.
fn settle_limit(schedule: &Schedule, sampling: &Sampling) -> Result<Limit, RenderError> {
    let config = &schedule.config;
    let (valid, limit) = match sampling.thresholding {
        Thresholding::Configured => {
            // The reference's DPM-Solver++ has no `clip_sample`.
            let clip =
                config.clip.filter(|_| matches!(sampling.sampler, Sampler::Ddpm | Sampler::Ddim));
            let clip = clip.map_or(Limit::Off, |range| Limit::Static { range });
            return Ok(config.thresholding.unwrap_or(clip));
        }
        Thresholding::Off => (true, Limit::Off),
        Thresholding::Static { range } => {
            (range > 0.0 && range.is_finite(), Limit::Static { range })
        }
        Thresholding::Dynamic { percentile, max } => {
            let valid = (0.0..=100.0).contains(&percentile) && (1.0..f64::INFINITY).contains(&max);
            (valid, Limit::Dynamic { ratio: percentile / 100.0, max })
        }
    };
    if valid {
        return Ok(limit);
    }
    let accepted = "a range above 0, or a percentile from 0 to 100 with a maximum of at least 1";
    let message = format!("{}; accepted: {accepted}", sampling.thresholding);
    Err(RenderError::invalid("thresholding", message))
}

#[cfg(test)]
mod tests;
