//! How a recorded run was sampled, from its metadata.

use std::str::FromStr;

use super::CheckError;
use super::recording::Recording;
use crate::guidance::GuidanceSchedule;
use crate::host::HostTensor;
use crate::sampler::Sampler;
use crate::schedule::{Spacing, Thresholding};
use crate::settings::SamplerSettings;

/// The settings of a stage's run.
pub(super) fn settings(recording: &Recording) -> Result<SamplerSettings, CheckError> {
    let sampler = match recording.required("sampler")? {
        "ddpm" => Sampler::Ddpm,
        "ddim" => Sampler::Ddim,
        "dpmsolver++" => Sampler::DpmSolverPp,
        "sde-dpmsolver++" => Sampler::SdeDpmSolverPp,
        other => {
            let accepted = "ddpm, ddim, dpmsolver++, sde-dpmsolver++";
            return Err(recording.invalid(format!("its sampler is {other}; accepted: {accepted}")));
        }
    };
    let shape = recording.tensor("noise.init")?.size();
    let [_, 3, height, width] = shape.as_slice() else {
        return Err(recording
            .invalid(format!("`noise.init` has shape {shape:?}; expected [images, 3, height, width]")));
    };
    let custom: bool = recording.optional("custom_timesteps")?.unwrap_or(false);
    let timesteps = custom
        .then(|| {
            let given = if recording.has("timesteps.given") { "timesteps.given" } else { "timesteps" };
            let recorded = HostTensor::from_tensor(recording.tensor(given)?)?;
            Ok::<_, CheckError>(recorded.data.iter().map(|timestep| *timestep as u32).collect())
        })
        .transpose()?;
    Ok(SamplerSettings {
        cache_interval: 1,
        sampler,
        steps: recording.number("steps")?,
        timesteps,
        spacing: words(recording, "spacing", spacing)?,
        guidance_scale: recording.number("guidance_scale")?,
        guidance_schedule: words(recording, "guidance_schedule", guidance_schedule)?.unwrap_or_default(),
        noise_level: recording.optional("noise_level")?,
        width: *width as usize,
        height: *height as usize,
        strength: recording.optional("strength")?,
        thresholding: words(recording, "thresholding", thresholding)?,
        eta: recording.optional("eta")?.unwrap_or(0.0),
    })
}

/// A value of several words, if it is there.
fn words<T>(
    recording: &Recording,
    key: &str,
    read: fn(&[&str]) -> Option<T>,
) -> Result<Option<T>, CheckError> {
    let Some(text) = recording.optional::<String>(key)? else { return Ok(None) };
    let value = read(&text.split(' ').collect::<Vec<_>>());
    value.map(Some).ok_or_else(|| {
        recording.invalid(format!("its `{key}` is {text}, which cannot be read; see the trace format"))
    })
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
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
        ["timesteps", from, to] => Some(GuidanceSchedule::Timesteps { from: number(from)?, to: number(to)? }),
        ["steps", from, to] => Some(GuidanceSchedule::Steps { from: number(from)?, to: number(to)? }),
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
        ["dynamic", ratio, max] => Some(Thresholding::Dynamic { ratio: number(ratio)?, max: number(max)? }),
        _ => None,
    }
}
