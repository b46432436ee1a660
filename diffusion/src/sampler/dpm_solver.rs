//! DPM-Solver++(2M), midpoint (Lu et al. 2022, algorithm 2), on predicted clean pictures, and its
//! stochastic variant.
//!
//! With σ = √((1−ᾱ)/ᾱ), α = 1/√(σ²+1), λ = −ln σ and h the step in λ: x′ = (σ̂′/σ̂) x + α′ (1 −
//! e^−h) D, where σ̂ = σα and D = D₀ + (1/2r)(D₀ − D₋₁) with r = h₋₁/h, or D₀ in first order.
//! SDE-DPM-Solver++ (appendix B there) goes twice as far and adds what is missing as noise: x′ =
//! (σ̂′/σ̂) e^−h x + α′ (1 − e^−2h) D + σ̂′ √(1 − e^−2h) ε.

use tch::Tensor;

use super::{Level, weighted};
use crate::layers::Torch;
use crate::schedule::Schedule;

/// One step's coefficients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) level: Level,
    x: f64,
    clean: f64,
    /// Factor of the clean picture of the step before; 0 in first order.
    clean_before: f64,
    /// Factor of fresh noise; 0 in the deterministic solver.
    noise: f64,
}

/// The share of the picture at the last timestep of a schedule that is rescaled to end in pure
/// noise, as in the reference.
const ALMOST_NOTHING: f64 = 1.0 / 16_777_216.0;

pub(super) fn plan(schedule: &Schedule, timesteps: &[u32], stochastic: bool) -> Vec<Step> {
    let config = &schedule.config;
    let sigma_at = |timestep: u32| {
        let last = timestep as usize == config.train_timesteps - 1;
        let alpha_bar = schedule.alpha_cumprod(i64::from(timestep));
        let alpha_bar =
            if last && config.rescale_betas_zero_snr { ALMOST_NOTHING } else { alpha_bar };
        ((1.0 - alpha_bar) / alpha_bar).sqrt()
    };
    let end = if config.dpm.ends_at_zero { 0.0 } else { sigma_at(0) };
    let sigmas: Vec<f64> =
        timesteps.iter().map(|timestep| sigma_at(*timestep)).chain([end]).collect();
    let count = timesteps.len();
    let first_order_at_end = config.dpm.euler_at_final
        || (config.dpm.lower_order_final && count < 15)
        || config.dpm.ends_at_zero;
    (0..count)
        .map(|index| {
            let (from, to) = (level(sigmas[index]), level(sigmas[index + 1]));
            let step = sigmas[index].ln() - sigmas[index + 1].ln();
            let (kept, missing) = match stochastic {
                true => ((-step).exp(), -(-2.0 * step).exp_m1()),
                false => (1.0, -(-step).exp_m1()),
            };
            let gain = to.signal * missing;
            let first_order = index == 0
                || !config.dpm.second_order
                || (index + 1 == count && first_order_at_end);
            let before = if first_order {
                0.0
            } else {
                0.5 * step / (sigmas[index - 1].ln() - sigmas[index].ln())
            };
            Step {
                level: from,
                x: to.noise / from.noise * kept,
                clean: gain * (1.0 + before),
                clean_before: -gain * before,
                noise: if stochastic { to.noise * missing.sqrt() } else { 0.0 },
            }
        })
        .collect()
}

fn level(sigma: f64) -> Level {
    let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
    Level { signal, noise: sigma * signal }
}

impl Step {
    pub(super) fn draws_noise(&self) -> bool {
        self.noise > 0.0
    }

    pub(super) fn apply(
        &self,
        x: &Tensor,
        clean: &Tensor,
        before: Option<&Tensor>,
        noise: Option<&Tensor>,
    ) -> Torch<Tensor> {
        // Without an earlier prediction (the first step of a run that begins midway) it is of first
        // order.
        let gain = if before.is_none() { self.clean + self.clean_before } else { self.clean };
        let mut terms = vec![(clean, gain)];
        // A value that is not used may be infinite or NaN.
        terms.extend((self.x != 0.0).then_some((x, self.x)));
        terms.extend(
            before.filter(|_| self.clean_before != 0.0).map(|before| (before, self.clean_before)),
        );
        terms.extend(noise.filter(|_| self.draws_noise()).map(|noise| (noise, self.noise)));
        weighted(&terms, None)
    }
}
