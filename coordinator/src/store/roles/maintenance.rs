//! Maintenance of the record.

use async_trait::async_trait;
use darkroom_core::{id::JobId, job_state::JobState};

use crate::store::error::Error;

/// Maintenance of the record.
#[async_trait]
pub trait Maintenance: Send + Sync + 'static {
    /// Finishes open jobs whose images have all ended; zero are expected. Returns them, and counts
    /// them.
    async fn finish_overlooked(&self) -> Result<Vec<JobId>, Error>;

    /// Number of jobs that [`finish_overlooked`](Self::finish_overlooked) has finished since the
    /// record began.
    async fn overlooked(&self) -> Result<u64, Error>;

    /// Deletes some stale changes of an ended job, which listings by version no longer need.
    /// Returns whether there are more. A backend without such rows does nothing.
    async fn prune_changes(&self) -> Result<bool, Error> {
        Ok(false)
    }

    /// The differences between a job's counters and its rows; none are expected.
    async fn audit(&self, job: JobId) -> Result<Vec<String>, Error>;

    /// Jobs in a state, for tests and audits.
    async fn count(&self, state: JobState) -> Result<u64, Error>;

    /// Why the record cannot be reached, for people, with details that the connection pool does not
    /// report. `None` if it can be reached after all, or a backend has no details.
    async fn diagnose(&self) -> Option<String> {
        None
    }

    /// Closes connections and files.
    async fn close(&self);
}
