//! Speeds of jobs and devices, and forecasts from them.

use async_trait::async_trait;
use darkroom_core::{
    forecast::{Forecast, StageSpent},
    id::JobId,
};

use crate::store::{error::Error, forecast::StageRate};

/// Speeds of jobs and devices, and forecasts from them.
#[async_trait]
pub trait Forecasts: Send + Sync + 'static {
    /// Records the progress of about `limit` active jobs, if that was not done recently, so that
    /// every coordinator computes the same rates. Deletes the progress of ended jobs.
    async fn note_paces(&self, limit: u32) -> Result<(), Error>;

    /// Keeps a live job's first forecast. False if one is already kept or the job has ended.
    async fn keep_forecast(&self, job: JobId, forecast: &Forecast) -> Result<bool, Error>;

    /// About `limit` active jobs without a kept forecast, in no order.
    async fn without_forecast(&self, limit: u32) -> Result<Vec<JobId>, Error>;

    /// Records a job's real cost, if there is a first forecast.
    async fn note_spent(&self, job: JobId, spent: &[StageSpent]) -> Result<(), Error>;

    /// Replaces recorded speeds of classes of device in stages; others do not change.
    async fn note_rates(&self, rates: &[StageRate]) -> Result<(), Error>;

    /// The recorded speeds of all classes of device that ever ran a stage.
    async fn rates(&self) -> Result<Vec<StageRate>, Error>;
}
