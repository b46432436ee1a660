//! DDIM's step (Song, Meng, Ermon 2020, equation 12).
//!
//! The direction term uses the network's own epsilon, not one derived again from the bounded clean
//! picture. The timestep after t is t − T // steps, as in the reference, or the next of a given
//! list.

use tch::Tensor;

use super::{Level, weighted};
use crate::layers::Torch;
use crate::schedule::Schedule;

/// One step's coefficients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) level: Level,
    clean: f64,
    epsilon: f64,
    noise: f64,
}

pub(super) fn plan(
    schedule: &Schedule,
    timesteps: &[u32],
    stride: Option<usize>,
    eta: f64,
) -> Vec<Step> {
    let next = timesteps.iter().skip(1).map(|t| i64::from(*t)).chain([-1]);
    timesteps
        .iter()
        .zip(next)
        .map(|(timestep, next)| {
            let timestep = i64::from(*timestep);
            let previous = stride.map_or(next, |stride| timestep - stride as i64);
            let alpha_bar = schedule.alpha_cumprod(timestep);
            let alpha_bar_previous = match previous {
                0.. => schedule.alpha_cumprod(previous),
                _ if schedule.config.ddim_ends_at_one => 1.0,
                _ => schedule.alpha_cumprod(0),
            };
            let variance = (1.0 - alpha_bar_previous) / (1.0 - alpha_bar)
                * (1.0 - alpha_bar / alpha_bar_previous);
            let deviation = eta * variance.max(0.0).sqrt();
            Step {
                level: Level::of(alpha_bar),
                clean: alpha_bar_previous.sqrt(),
                epsilon: (1.0 - alpha_bar_previous - deviation * deviation).max(0.0).sqrt(),
                noise: deviation,
            }
        })
        .collect()
}

impl Step {
    pub(super) fn draws_noise(&self) -> bool {
        self.noise > 0.0
    }

    pub(super) fn apply(
        &self,
        clean: &Tensor,
        epsilon: &Tensor,
        noise: Option<&Tensor>,
    ) -> Torch<Tensor> {
        let mut terms = vec![(clean, self.clean), (epsilon, self.epsilon)];
        terms.extend(noise.filter(|_| self.draws_noise()).map(|noise| (noise, self.noise)));
        weighted(&terms, None)
    }
}
