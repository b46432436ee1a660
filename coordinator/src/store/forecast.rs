//! Kept forecasts: each job's first one, the job's real cost, and the speeds of devices.

use darkroom_core::forecast::{Forecast, StageSpent};
use darkroom_queue::task::PoolId;

/// How fast a class of device ran a stage most recently.
#[derive(Clone, Debug, PartialEq)]
pub struct StageRate {
    /// The stage.
    pub pool: PoolId,
    /// The class of device.
    pub device_class: String,
    /// Model seconds per network pass of an image, per text for `encode`.
    pub seconds_per_pass: f64,
}

/// A job's first forecast.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptForecast {
    /// When it was made, milliseconds since 1970.
    pub at_ms: i64,
    /// The forecast.
    pub forecast: Forecast,
    /// The job's real cost, once its manifest is written.
    pub spent: Option<Vec<StageSpent>>,
}
