//! What a job takes, as JSON and as lines for people: a forecast, and a first forecast beside what came true.

use darkroom_core::shown::shown;
use darkroom_proto::v1;
use serde::Serialize;

use crate::view::{SettingsView, span, unix_seconds};

#[derive(Serialize)]
pub(crate) struct ForecastView {
    at: Option<f64>,
    device_seconds: Option<f64>,
    seconds: Option<f64>,
    stages: Vec<StageView>,
}

#[derive(Serialize)]
struct StageView {
    stage: String,
    images: u64,
    seconds_per_image: Option<f64>,
    device_seconds: Option<f64>,
    seconds: Option<f64>,
    classes: Vec<ClassView>,
}

#[derive(Serialize)]
struct ClassView {
    device_class: String,
    workers: u64,
    seconds_per_image: Option<f64>,
}

#[derive(Serialize)]
pub(crate) struct CheckView {
    stages: Vec<StageCheckView>,
    forecast_device_seconds: f64,
    device_seconds: f64,
    device_seconds_ratio: Option<f64>,
    forecast_seconds: Option<f64>,
    seconds: Option<f64>,
    seconds_ratio: Option<f64>,
}

#[derive(Serialize)]
struct StageCheckView {
    stage: String,
    images: u64,
    forecast_device_seconds: f64,
    device_seconds: f64,
}

/// Answer of `submit --dry-run`.
#[derive(Serialize)]
pub(crate) struct DryRunView {
    images: u64,
    cascade_digest: String,
    settings: Vec<SettingsView>,
    forecast: Option<ForecastView>,
}

impl From<&v1::Forecast> for ForecastView {
    fn from(forecast: &v1::Forecast) -> Self {
        let class = |class: &v1::ClassForecast| ClassView {
            device_class: class.device_class.clone(),
            workers: class.workers,
            seconds_per_image: class.seconds_per_image,
        };
        let stage = |stage: &v1::StageForecast| StageView {
            stage: stage.stage.clone(),
            images: stage.images,
            seconds_per_image: stage.seconds_per_image,
            device_seconds: stage.device_seconds,
            seconds: stage.seconds,
            classes: stage.classes.iter().map(class).collect(),
        };
        Self {
            at: forecast.at.as_ref().map(unix_seconds),
            device_seconds: forecast.device_seconds,
            seconds: forecast.seconds,
            stages: forecast.stages.iter().map(stage).collect(),
        }
    }
}

impl From<&v1::ForecastCheck> for CheckView {
    fn from(check: &v1::ForecastCheck) -> Self {
        let stage = |stage: &v1::StageCheck| StageCheckView {
            stage: stage.stage.clone(),
            images: stage.images,
            forecast_device_seconds: stage.forecast_device_seconds,
            device_seconds: stage.device_seconds,
        };
        Self {
            stages: check.stages.iter().map(stage).collect(),
            forecast_device_seconds: check.forecast_device_seconds,
            device_seconds: check.device_seconds,
            device_seconds_ratio: check.device_seconds_ratio,
            forecast_seconds: check.forecast_seconds,
            seconds: check.seconds,
            seconds_ratio: check.seconds_ratio,
        }
    }
}

impl From<&v1::ForecastJobResponse> for DryRunView {
    fn from(answer: &v1::ForecastJobResponse) -> Self {
        Self {
            images: answer.images,
            cascade_digest: answer.cascade_digest.clone(),
            settings: answer
                .effective_settings
                .iter()
                .flat_map(|settings| &settings.stages)
                .map(SettingsView::from)
                .collect(),
            forecast: answer.forecast.as_ref().map(ForecastView::from),
        }
    }
}

/// A stage's part of a forecast as the end of a line about it; empty when nothing is left or known.
pub(crate) fn stage_left(forecast: Option<&v1::Forecast>, stage: &str) -> String {
    let left = forecast.and_then(|forecast| forecast.stages.iter().find(|left| left.stage == stage));
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
            (Some(one), Some(all)) => text += &format!(" × {one:.3} s = {} of device time", span(all)),
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
        Some(seconds) => text + &format!(", about {} from start to end", span(seconds)),
        None => text + ", time to the end unknown",
    }
}

/// A line about how far off a job's first forecast was; empty when nothing was forecast or is known.
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
        text += &format!("; {} to the end, {} was forecast (× {ratio:.2})", span(seconds), span(forecast));
    }
    text
}
