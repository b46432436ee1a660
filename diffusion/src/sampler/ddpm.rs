//! DDPM's ancestral step (Ho et al. 2020, equations 6 and 7) over a subset of the training
//! timesteps.
//!
//! Betas are respaced: the step from t to the next visited t′ has α = ᾱ_t / ᾱ_t′ and β = 1 − α
//! (Nichol & Dhariwal 2021).

use tch::Tensor;

use super::{Level, weighted};
use crate::layers::Torch;
use crate::schedule::{Schedule, Variance};

/// One step's coefficients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) level: Level,
    clean: f64,
    x: f64,
    spread: Spread,
}

/// The noise's standard deviation.
#[derive(Clone, Copy, Debug)]
enum Spread {
    /// At t = 0 no noise is added.
    None,
    Fixed(f64),
    /// The square root of the network's variance channels.
    Learned,
    /// exp of half of an interpolation between two logarithms, by (v + 1) / 2.
    Between {
        min_log: f64,
        max_log: f64,
    },
}

/// The posterior's variance is 0 in the last step, but its logarithm is still needed.
const LEAST_VARIANCE: f64 = 1e-20;

pub(super) fn plan(schedule: &Schedule, timesteps: &[u32]) -> Vec<Step> {
    let next = timesteps.iter().skip(1).map(|t| i64::from(*t)).chain([-1]);
    timesteps
        .iter()
        .zip(next)
        .map(|(timestep, previous)| {
            let alpha_bar = schedule.alpha_cumprod(i64::from(*timestep));
            let alpha_bar_previous = schedule.alpha_cumprod(previous);
            let alpha = alpha_bar / alpha_bar_previous;
            let beta = 1.0 - alpha;
            let left = 1.0 - alpha_bar_previous;
            let posterior = (left / (1.0 - alpha_bar) * beta).max(LEAST_VARIANCE);
            let spread = match schedule.config.variance {
                _ if *timestep == 0 => Spread::None,
                Variance::FixedSmall => Spread::Fixed(posterior.sqrt()),
                Variance::FixedLarge => Spread::Fixed(beta.sqrt()),
                Variance::Learned => Spread::Learned,
                Variance::LearnedRange => {
                    Spread::Between { min_log: posterior.ln(), max_log: beta.ln() }
                }
            };
            Step {
                level: Level::of(alpha_bar),
                clean: alpha_bar_previous.sqrt() * beta / (1.0 - alpha_bar),
                x: alpha.sqrt() * left / (1.0 - alpha_bar),
                spread,
            }
        })
        .collect()
}

impl Step {
    pub(super) fn draws_noise(&self) -> bool {
        !matches!(self.spread, Spread::None)
    }

    pub(super) fn apply(
        &self,
        x: &Tensor,
        clean: &Tensor,
        variance: Option<&Tensor>,
        noise: Option<&Tensor>,
    ) -> Torch<Tensor> {
        let terms = [(clean, self.clean), (x, self.x)];
        let Some(noise) = noise.filter(|_| self.draws_noise()) else {
            return weighted(&terms, None);
        };
        if let Spread::Fixed(deviation) = self.spread {
            return weighted(&[terms[0], terms[1], (noise, deviation)], None);
        }
        let mut mean = weighted(&terms, None)?;
        let noise = match (self.spread, variance) {
            (Spread::Learned, Some(variance)) => noise.f_mul(&variance.f_sqrt()?)?,
            (Spread::Between { min_log, max_log }, Some(variance)) => {
                let fraction = variance.f_add_scalar(1.0)?.f_div_scalar_(2.0)?;
                let from_min =
                    fraction.f_mul_scalar(-1.0)?.f_add_scalar_(1.0)?.f_mul_scalar_(min_log)?;
                let log = fraction.f_mul_scalar(max_log)?.f_add_(&from_min)?;
                noise.f_mul(&log.f_mul_scalar(0.5)?.f_exp_()?)?
            }
            _ => return Ok(mean),
        };
        mean.f_add_(&noise)
    }
}
