//! Forecasts of a job as lines for people, and the first forecast beside the real values.

use darkroom_core::shown::shown;
use darkroom_proto::{json, v1};
use serde::Serialize;

use crate::{quotas, span::span};

/// What `submit --dry-run --json` prints: the farm's answer and the notes about the prompt file.
#[derive(Serialize)]
pub(crate) struct DryRun {
    #[serde(flatten)]
    pub(crate) answer: json::ForecastJobResponse,
    pub(crate) batch_notes: Vec<String>,
}

/// A stage's part of a forecast, as the end of a line about the stage; empty if nothing is left or
/// known.
pub(crate) fn stage_left(forecast: Option<&v1::Forecast>, stage: &str) -> String {
    let left =
        forecast.and_then(|forecast| forecast.stages.iter().find(|left| left.stage == stage));
    match left.filter(|left| left.images > 0).and_then(|left| left.device_seconds) {
        Some(seconds) => format!(", {} of device time left", span(seconds)),
        None => String::new(),
    }
}

/// Several lines about what a job would take.
pub(crate) fn dry_run_text(answer: &v1::ForecastJobResponse) -> String {
    let forecast = answer.forecast.clone().unwrap_or_default();
    let mut text = format!("{} images", answer.images);
    for stage in &forecast.stages {
        let what = if stage.stage == "encode" { "texts" } else { "images" };
        text += &format!("\n  {:<8} {} {what}", shown(&stage.stage), stage.images);
        match (stage.seconds_per_image, stage.device_seconds) {
            (Some(one), Some(all)) => {
                text += &format!(" × {one:.3} s = {} of device time", span(all))
            }
            _ => text += ", never measured",
        }
        if stage.classes.is_empty() {
            text += ", no worker serves it now";
        }
        for class in &stage.classes {
            let each = class.seconds_per_image.map(|seconds| format!(" at {seconds:.3} s"));
            let (workers, class) = (class.workers, shown(&class.device_class));
            text += &format!("\n    {workers} × {class}{}", each.unwrap_or_default());
        }
    }
    match forecast.device_seconds {
        Some(seconds) => text += &format!("\n{} of device time in all", span(seconds)),
        None => text += "\ndevice time unknown: a stage was never measured",
    }
    match forecast.seconds {
        Some(seconds) => text += &format!(", about {} from start to end", span(seconds)),
        None => text += ", time to the end unknown",
    }
    for note in quotas::notes(&answer.notes) {
        text += &format!("\n{note}");
    }
    text
}

/// A line that compares a job's first forecast with the real values; empty if either is missing.
pub(crate) fn check_text(check: &v1::ForecastCheck) -> String {
    let Some(ratio) = check.device_seconds_ratio else { return String::new() };
    let mut text = format!(
        "took {} of device time, {} was forecast (× {ratio:.2})",
        span(check.device_seconds),
        span(check.forecast_device_seconds)
    );
    if let (Some(forecast), Some(seconds), Some(ratio)) =
        (check.forecast_seconds, check.seconds, check.seconds_ratio)
    {
        text += &format!(
            "; {} to the end, {} was forecast (× {ratio:.2})",
            span(seconds),
            span(forecast)
        );
    }
    text
}
