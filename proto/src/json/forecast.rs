//! Forecasts, and the comparison of a first forecast with the real values.

use super::{Seconds, U64};

super::answers! {
    /// The cost of a job, or of its remaining work.
    Forecast {
        at: Option<Seconds>,
        device_seconds: Option<f64>,
        seconds: Option<f64>,
        stages: Vec<StageForecast>,
    }

    /// The same for one stage.
    StageForecast {
        stage: String,
        images: U64,
        seconds_per_image: Option<f64>,
        device_seconds: Option<f64>,
        seconds: Option<f64>,
        classes: Vec<ClassForecast>,
    }

    /// Workers of one class of device in a stage.
    ClassForecast {
        device_class: String,
        workers: U64,
        seconds_per_image: Option<f64>,
    }

    /// Compares a job's first forecast with the real values.
    ForecastCheck {
        stages: Vec<StageCheck>,
        forecast_device_seconds: f64,
        device_seconds: f64,
        device_seconds_ratio: Option<f64>,
        forecast_seconds: Option<f64>,
        seconds: Option<f64>,
        seconds_ratio: Option<f64>,
    }

    /// The same for one stage.
    StageCheck {
        stage: String,
        images: U64,
        forecast_device_seconds: f64,
        device_seconds: f64,
    }
}
