//! The timesteps that a sampler visits, exactly as each reference class chooses them.
//!
//! Classes differ for the same name: DPM-Solver++ spreads one step more and drops the last, and
//! starts below the timestep at which λ falls under `lambda_min_clipped`. Halves round to even, as
//! in numpy.

use super::Schedule;
use super::betas::linspace;
use super::config::{Spacing, Spread};

/// `DDPMScheduler.set_timesteps`.
pub(crate) fn ddpm_timesteps(
    schedule: &Schedule,
    spacing: Option<Spacing>,
    steps: usize,
) -> Result<Vec<u32>, String> {
    spaced(schedule, schedule.config.ddpm_spacing.given(spacing), steps)
}

/// `DDIMScheduler.set_timesteps`.
pub(crate) fn ddim_timesteps(
    schedule: &Schedule,
    spacing: Option<Spacing>,
    steps: usize,
) -> Result<Vec<u32>, String> {
    spaced(schedule, schedule.config.ddim_spacing.given(spacing), steps)
}

impl Spread {
    /// With another spacing, as if the file had named it.
    fn given(self, spacing: Option<Spacing>) -> Self {
        Self { spacing: spacing.unwrap_or(self.spacing), ..self }
    }
}

fn spaced(schedule: &Schedule, spread: Spread, steps: usize) -> Result<Vec<u32>, String> {
    let train = schedule.config.train_timesteps;
    if !(1..=train).contains(&steps) {
        return Err(format!("{steps} steps; accepted: 1 to {train}"));
    }
    let times: Vec<f64> = match spread.spacing {
        Spacing::Linspace => linspace(0.0, (train - 1) as f64, steps).into_iter().rev().collect(),
        Spacing::Leading => {
            (0..steps).rev().map(|index| (index * (train / steps) + spread.offset) as f64).collect()
        }
        Spacing::Trailing => trailing(train as f64, train as f64 / steps as f64),
    };
    finish(times, train)
}

/// `DPMSolverMultistepScheduler.set_timesteps`.
pub(crate) fn dpm_timesteps(
    schedule: &Schedule,
    spacing: Option<Spacing>,
    steps: usize,
) -> Result<Vec<u32>, String> {
    let train = schedule.config.train_timesteps;
    let Spread { spacing, offset } = schedule.config.dpm_spacing.given(spacing);
    let last = last_unclipped(schedule);
    if !(1..last).contains(&steps) {
        return Err(format!("{steps} steps; accepted: 1 to {}", last.saturating_sub(1)));
    }
    let times: Vec<f64> = match spacing {
        Spacing::Linspace => {
            linspace(0.0, (last - 1) as f64, steps + 1).into_iter().rev().take(steps).collect()
        }
        Spacing::Leading => (0..=steps)
            .rev()
            .take(steps)
            .map(|index| (index * (last / (steps + 1)) + offset) as f64)
            .collect(),
        Spacing::Trailing => trailing(last as f64, train as f64 / steps as f64),
    };
    finish(times, train)
}

/// One above the largest timestep whose λ = ln(√ᾱ / √(1−ᾱ)) is not below the bound.
fn last_unclipped(schedule: &Schedule) -> usize {
    let bound = schedule.config.dpm.lambda_min_clipped;
    let lambda = |alpha: &f64| 0.5 * (alpha.ln() - (1.0 - alpha).ln());
    let clipped =
        schedule.alphas_cumprod.iter().rev().take_while(|alpha| lambda(alpha) < bound).count();
    schedule.config.train_timesteps - clipped
}

/// From `start` down in strides; each timestep is the last of its stride.
fn trailing(start: f64, stride: f64) -> Vec<f64> {
    // Like numpy's arange: as many as fit before 0.
    let count = (start / stride).ceil() as usize;
    // It multiplies the rounded difference of the first two. At 48 of 1000 that decides how 937.5
    // is rounded.
    let stride = start - (start - stride);
    // With 61 of 1000 and some other counts a last step remains just above 0. The reference visits
    // −1 there, which is not a timestep.
    (0..count)
        .map(|index| (start - index as f64 * stride).round_ties_even() - 1.0)
        .filter(|time| *time >= 0.0)
        .collect()
}

fn finish(times: Vec<f64>, train: usize) -> Result<Vec<u32>, String> {
    let rounded: Vec<u32> =
        times.iter().map(|time| time.round_ties_even().max(0.0) as u32).collect();
    check_custom(&rounded, train)?;
    Ok(rounded)
}

/// A list of timesteps must fall strictly and be within the training range.
pub(crate) fn check_custom(timesteps: &[u32], train: usize) -> Result<(), String> {
    let accepted = format!("accepted: a falling list of timesteps below {train}");
    match (timesteps.first(), timesteps.windows(2).find(|pair| pair[0] <= pair[1])) {
        (None, _) => Err(format!("none; {accepted}")),
        (Some(first), _) if *first as usize >= train => Err(format!("{first}; {accepted}")),
        (_, Some(pair)) => Err(format!("{} and then {}; {accepted}", pair[0], pair[1])),
        _ => Ok(()),
    }
}
