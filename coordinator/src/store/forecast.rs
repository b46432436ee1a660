//! What is kept of forecasts: each job's first one, what the job took, and how fast devices were.

use darkroom_core::forecast::{Forecast, StageSpent};
use darkroom_queue::task::PoolId;

/// How fast a class of device ran a stage when it last did.
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
    /// What it said.
    pub forecast: Forecast,
    /// What the job took, once its manifest was written.
    pub spent: Option<Vec<StageSpent>>,
}
