//! From a prediction to a slightly less noisy picture: the samplers, planned ahead.
//!
//! A [`SamplerPlan`] holds every coefficient of every step, computed in f64 before the first forward pass; stepping is
//! then a handful of f32 operations. Pictures here are `[rows, 3, height, width]` f32 tensors of any memory layout.

mod ddim;
mod ddpm;
mod dpm_solver;
mod threshold;

use tch::{Device, Kind, Tensor};

use crate::error::RenderError;
use crate::guidance::{GuidanceSchedule, is_guided};
use crate::kernels;
use crate::layers::Torch;
use crate::schedule::{Prediction, Schedule, Spacing, Thresholding, Variance, check_custom};
use crate::schedule::{ddim_timesteps, ddpm_timesteps, dpm_timesteps};

/// Which sampler runs a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampler {
    /// Ancestral sampling with the stage's variance (Ho et al. 2020), betas respaced to the visited timesteps.
    Ddpm,
    /// Song et al. 2020; deterministic at eta 0.
    Ddim,
    /// DPM-Solver++(2M) (Lu et al. 2022), midpoint; the first step is of first order, and so is the last where its
    /// final sigma is 0.
    DpmSolverPp,
    /// SDE-DPM-Solver++(2M), midpoint: the same with fresh noise at every step whose sigma is not 0.
    SdeDpmSolverPp,
}

/// What a plan is made from, beside the schedule.
#[derive(Clone, Debug)]
pub(crate) struct PlanOptions {
    pub(crate) sampler: Sampler,
    pub(crate) steps: usize,
    pub(crate) timesteps: Option<Vec<u32>>,
    /// Replaces what the schedule or the sampler says.
    pub(crate) spacing: Option<Spacing>,
    pub(crate) guidance_scale: f64,
    pub(crate) guidance_schedule: GuidanceSchedule,
    pub(crate) eta: f64,
    /// Replaces what the schedule says.
    pub(crate) thresholding: Option<Thresholding>,
    /// Whether the network gives a variance too.
    pub(crate) has_variance: bool,
}

/// All steps of one stage.
#[derive(Debug)]
pub(crate) struct SamplerPlan {
    pub(crate) timesteps: Vec<u32>,
    /// Each step's weight; where it is 1, only the conditional half is asked for.
    pub(crate) guidance: Vec<f64>,
    /// The network's deeper features are computed at every so-many-th step.
    pub(crate) cache_interval: usize,
    guidance_scale: f64,
    guidance_schedule: GuidanceSchedule,
    prediction: Prediction,
    thresholding: Thresholding,
    steps: Steps,
}

#[derive(Debug)]
enum Steps {
    Ddpm(Vec<ddpm::Step>),
    Ddim(Vec<ddim::Step>),
    Dpm(Vec<dpm_solver::Step>),
}

/// The network's word on one step, after guidance.
pub(crate) struct Guided {
    /// Noise, clean picture or velocity, `[rows, 3, height, width]`.
    pub(crate) mean: Tensor,
    /// The raw variance channels, if the network has them.
    pub(crate) variance: Option<Tensor>,
}

/// What a multistep sampler remembers from the step before.
#[derive(Debug, Default)]
pub(crate) struct History {
    clean: Option<Tensor>,
}

impl SamplerPlan {
    pub(crate) fn new(schedule: &Schedule, options: &PlanOptions) -> Result<Self, RenderError> {
        let config = &schedule.config;
        let invalid_steps = |message| RenderError::invalid("steps", message);
        let timesteps = match &options.timesteps {
            Some(list) => {
                check_custom(list, config.train_timesteps)
                    .map_err(|message| RenderError::invalid("timesteps", message))?;
                list.clone()
            }
            None => match options.sampler {
                Sampler::Ddpm => ddpm_timesteps(schedule, options.spacing, options.steps),
                Sampler::Ddim => ddim_timesteps(schedule, options.spacing, options.steps),
                Sampler::DpmSolverPp | Sampler::SdeDpmSolverPp => {
                    dpm_timesteps(schedule, options.spacing, options.steps)
                }
            }
            .map_err(invalid_steps)?,
        };
        if !(0.0..=1.0).contains(&options.eta) {
            return Err(RenderError::invalid("eta", format!("{}; accepted: 0 to 1", options.eta)));
        }
        options.guidance_schedule.check()?;
        let (guidance_scale, guidance_schedule) = (options.guidance_scale, options.guidance_schedule);
        let guidance = guidance_schedule.weights(guidance_scale, &timesteps);
        let thresholding = settle_thresholding(schedule, options)?;
        let learned = matches!(config.variance, Variance::Learned | Variance::LearnedRange);
        if options.sampler == Sampler::Ddpm && learned && !options.has_variance {
            let message = "ddpm with a learned variance needs a network of 6 output channels";
            return Err(RenderError::invalid("sampler", message));
        }
        let steps = match options.sampler {
            Sampler::Ddpm => Steps::Ddpm(ddpm::plan(schedule, &timesteps)),
            Sampler::Ddim => {
                let stride =
                    options.timesteps.is_none().then_some(config.train_timesteps / options.steps.max(1));
                Steps::Ddim(ddim::plan(schedule, &timesteps, stride, options.eta))
            }
            Sampler::DpmSolverPp => Steps::Dpm(dpm_solver::plan(schedule, &timesteps, false)),
            Sampler::SdeDpmSolverPp => Steps::Dpm(dpm_solver::plan(schedule, &timesteps, true)),
        };
        let prediction = config.prediction;
        Ok(Self {
            timesteps,
            guidance,
            cache_interval: 1,
            guidance_scale,
            guidance_schedule,
            prediction,
            thresholding,
            steps,
        })
    }

    /// Whether step `index` asks for the unconditional half.
    pub(crate) fn guided(&self, index: usize) -> bool {
        is_guided(self.guidance[index])
    }

    /// Without its first `count` steps. A multistep sampler remembers nothing at the first step that is left, and the
    /// guidance schedule counts the steps from there.
    pub(crate) fn without_first(mut self, count: usize) -> Self {
        let count = count.min(self.timesteps.len());
        self.timesteps.drain(..count);
        self.guidance = self.guidance_schedule.weights(self.guidance_scale, &self.timesteps);
        match &mut self.steps {
            Steps::Ddpm(steps) => drop(steps.drain(..count)),
            Steps::Ddim(steps) => drop(steps.drain(..count)),
            Steps::Dpm(steps) => drop(steps.drain(..count)),
        }
        self
    }

    /// Picture and noise in x when a step begins.
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

    /// One step from `x`. `noise` must be given where [`Self::draws_noise`] says so.
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

    /// The clean picture that a prediction implies (Ho et al., equation 15; Salimans & Ho, section 4), bounded.
    fn clean(&self, x: &Tensor, prediction: &Tensor, level: Level) -> Torch<Tensor> {
        let limit = threshold::fixed_limit(self.thresholding);
        let clean = match self.prediction {
            Prediction::Epsilon => {
                weighted(&[(x, 1.0 / level.signal), (prediction, -level.noise / level.signal)], limit)?
            }
            // A copy, because bounding works in place.
            Prediction::Sample => weighted(&[(prediction, 1.0)], limit)?,
            Prediction::Velocity => weighted(&[(x, level.signal), (prediction, -level.noise)], limit)?,
        };
        threshold::bound(clean, self.thresholding)
    }
}

/// Σ factor · picture in the order given, then kept within ±`limit`: a new picture, in one pass where this crate's
/// kernels can.
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

/// Picture and noise in x at one timestep: x = signal · x₀ + noise · ε.
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

fn settle_thresholding(schedule: &Schedule, options: &PlanOptions) -> Result<Thresholding, RenderError> {
    let config = &schedule.config;
    match options.thresholding {
        Some(given) => {
            let valid = match given {
                Thresholding::Off => true,
                Thresholding::Static { range } => range > 0.0 && range.is_finite(),
                Thresholding::Dynamic { ratio, max } => {
                    (0.0..=1.0).contains(&ratio) && (1.0..f64::INFINITY).contains(&max)
                }
            };
            let accepted = "a range above 0, or a ratio from 0 to 1 with a maximum of at least 1";
            if valid {
                Ok(given)
            } else {
                Err(RenderError::invalid("thresholding", format!("{given:?}; accepted: {accepted}")))
            }
        }
        None => Ok(match (config.thresholding, config.clip) {
            (Some(dynamic), _) => dynamic,
            // The reference's DPM-Solver++ has no `clip_sample`.
            (None, Some(range)) if matches!(options.sampler, Sampler::Ddpm | Sampler::Ddim) => {
                Thresholding::Static { range }
            }
            (None, _) => Thresholding::Off,
        }),
    }
}

#[cfg(test)]
mod tests;
