//! The sampling of a recorded run, from its metadata.

use std::str::FromStr;

use darkroom_core::error::UserError;
use darkroom_core::sampling::{GuidanceSchedule, Sampler, Sampling, Spacing, Thresholding};

use super::CheckError;
use super::recording::Recording;
use crate::host::HostTensor;
use crate::settings::SamplerSettings;

/// The settings of a stage's run.
pub(super) fn settings(recording: &Recording) -> Result<SamplerSettings, CheckError> {
    let sampler: Sampler = recording
        .required("sampler")?
        .parse()
        .map_err(|error: UserError| recording.invalid(format!("its {}", error.message)))?;
    let shape = recording.tensor("noise.init")?.size();
    let [_, 3, height, width] = shape.as_slice() else {
        return Err(recording.invalid(format!(
            "`noise.init` has shape {shape:?}; expected [images, 3, height, width]"
        )));
    };
    let custom: bool = recording.optional("custom_timesteps")?.unwrap_or(false);
    let timesteps = if custom { given_timesteps(recording)? } else { Vec::new() };
    Ok(SamplerSettings {
        sampling: Sampling {
            timesteps,
            spacing: words(recording, "spacing", spacing)?.unwrap_or_default(),
            eta: recording.optional("eta")?.unwrap_or(0.0),
            guidance_scale: recording.number("guidance_scale")?,
            guidance_schedule: words(recording, "guidance_schedule", guidance_schedule)?
                .unwrap_or_default(),
            thresholding: words(recording, "thresholding", thresholding)?.unwrap_or_default(),
            noise_level: recording.optional("noise_level")?,
            strength: recording.optional("strength")?,
            ..Sampling::plain(sampler, recording.number("steps")?)
        },
        width: *width as usize,
        height: *height as usize,
    })
}

fn given_timesteps(recording: &Recording) -> Result<Vec<u32>, CheckError> {
    let given = if recording.has("timesteps.given") { "timesteps.given" } else { "timesteps" };
    let recorded = HostTensor::from_tensor(recording.tensor(given)?)?;
    if recorded.data.is_empty() {
        return Err(recording.invalid(format!("its list of timesteps, `{given}`, is empty")));
    }
    Ok(recorded.data.iter().map(|timestep| *timestep as u32).collect())
}

/// A value of several words, if it is present.
fn words<T>(
    recording: &Recording,
    key: &str,
    read: fn(&[&str]) -> Option<T>,
) -> Result<Option<T>, CheckError> {
    let Some(text) = recording.optional::<String>(key)? else { return Ok(None) };
    let value = read(&text.split(' ').collect::<Vec<_>>());
    value.map(Some).ok_or_else(|| {
        recording
            .invalid(format!("its `{key}` is {text}, which cannot be read; see the trace format"))
    })
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// Converts a share to per cent. Shares are written as decimals, so whatever the multiplication
/// adds after the twelfth digit is rounding.
fn per_cent(share: &str) -> Option<f64> {
    Some((number::<f64>(share)? * 1e14).round() / 1e12)
}

fn spacing(words: &[&str]) -> Option<Spacing> {
    match words {
        ["leading"] => Some(Spacing::Leading),
        ["linspace"] => Some(Spacing::Linspace),
        ["trailing"] => Some(Spacing::Trailing),
        _ => None,
    }
}

fn guidance_schedule(words: &[&str]) -> Option<GuidanceSchedule> {
    match words {
        ["timesteps", from, to] => {
            Some(GuidanceSchedule::Timesteps { from: number(from)?, to: number(to)? })
        }
        ["steps", from, to] => {
            Some(GuidanceSchedule::Steps { from: per_cent(from)?, to: per_cent(to)? })
        }
        ["oscillating", first, low] => {
            Some(GuidanceSchedule::Oscillating { first: number(first)?, low: number(low)? })
        }
        _ => None,
    }
}

fn thresholding(words: &[&str]) -> Option<Thresholding> {
    match words {
        ["off"] => Some(Thresholding::Off),
        ["static", range] => Some(Thresholding::Static { range: number(range)? }),
        ["dynamic", ratio, max] => {
            Some(Thresholding::Dynamic { percentile: per_cent(ratio)?, max: number(max)? })
        }
        _ => None,
    }
}
