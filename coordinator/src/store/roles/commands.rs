//! A user's commands to a job.

use async_trait::async_trait;
use darkroom_core::id::JobId;

use crate::store::{error::Error, limits::NewDeadline, records::Commanded};

/// A user's commands to a job.
#[async_trait]
pub trait Commands: Send + Sync + 'static {
    /// Cancels a job; its image rows follow. Idempotent.
    async fn cancel(&self, job: JobId) -> Result<Commanded, Error>;

    /// Pauses a job. Idempotent.
    async fn pause(&self, job: JobId) -> Result<Commanded, Error>;

    /// Resumes a paused job. Idempotent.
    async fn resume(&self, job: JobId) -> Result<Commanded, Error>;

    /// Runs dead and cancelled images again, in a new generation; the image rows follow. Refused if
    /// the job's deadline has passed and no other is given.
    async fn retry(&self, job: JobId, deadline: NewDeadline) -> Result<Commanded, Error>;
}
