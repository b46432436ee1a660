//! β_t, the variance of the noise added in each training step.

use std::f64::consts::FRAC_PI_2;
use std::ops::RangeInclusive;

use crate::config::ConfigFile;
use crate::error::LoadError;

/// The range of β: with 0 no noise is added, and with 1 nothing of the picture remains.
const BETA: RangeInclusive<f64> = 1e-9..=0.9999;

/// Reads `beta_schedule` or `trained_betas`.
pub(super) fn betas(file: &ConfigFile, count: usize) -> Result<Vec<f64>, LoadError> {
    let start = file.number("beta_start", 1e-4, BETA)?;
    let end = file.number("beta_end", 0.02, BETA)?;
    let name = file.text("beta_schedule")?.unwrap_or("linear");
    if let Some(trained) = file.numbers("trained_betas")? {
        if trained.len() != count || trained.iter().any(|beta| !BETA.contains(beta)) {
            let (least, most) = (BETA.start(), BETA.end());
            return Err(
                file.refuse("trained_betas", format!("{count} numbers from {least:e} to {most}"))
            );
        }
        return Ok(trained);
    }
    match name {
        "linear" => Ok(linspace(start, end, count)),
        "scaled_linear" => {
            Ok(linspace(start.sqrt(), end.sqrt(), count).iter().map(|root| root * root).collect())
        }
        "squaredcos_cap_v2" => Ok(cosine(count)),
        _ => Err(file.refuse("beta_schedule", "linear, scaled_linear, squaredcos_cap_v2")),
    }
}

/// Nichol & Dhariwal 2021, equation 17: ᾱ(t) = cos²((t + 0.008) / 1.008 · π/2), with each β at most
/// 0.999.
fn cosine(count: usize) -> Vec<f64> {
    let alpha_bar = |step: usize| {
        let time = step as f64 / count as f64;
        libm::cos((time + 0.008) / 1.008 * FRAC_PI_2).powi(2)
    };
    (0..count).map(|step| (1.0 - alpha_bar(step + 1) / alpha_bar(step)).min(0.999)).collect()
}

/// `count` numbers from `start` to `end`, both included.
pub(super) fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    match count {
        0 => Vec::new(),
        1 => vec![start],
        _ => {
            let step = (end - start) / (count - 1) as f64;
            let mut values: Vec<f64> =
                (0..count).map(|index| start + step * index as f64).collect();
            values[count - 1] = end;
            values
        }
    }
}

/// Lin et al. 2023, algorithm 1: shifts and scales √ᾱ so that nothing of the picture remains at the
/// last timestep.
pub(super) fn rescale_to_zero_terminal_snr(betas: &mut [f64]) {
    let mut product = 1.0;
    let mut roots: Vec<f64> = betas
        .iter()
        .map(|beta| {
            product *= 1.0 - beta;
            f64::sqrt(product)
        })
        .collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else { return };
    for root in &mut roots {
        *root = (*root - last) * (first / (first - last));
    }
    let mut before = 1.0;
    for (beta, root) in betas.iter_mut().zip(&roots) {
        let alpha_bar = root * root;
        *beta = 1.0 - alpha_bar / before;
        before = alpha_bar;
    }
}
