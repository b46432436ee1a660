//! Submits, whole or in chunks.

use std::time::Duration;

use async_trait::async_trait;
use darkroom_core::{digest::Digest, id::JobId};

use crate::store::{
    error::Error,
    records::{NewJob, NewPrompt, Submitted},
};

/// Submits, whole or in chunks.
#[async_trait]
pub trait Submits: Send + Sync + 'static {
    /// The accepted job with a client's request id, and the digest of its content.
    /// [`Error::Deleted`] if that job was deleted, as long as the farm knows of it.
    async fn find_submitted(
        &self,
        tenant: &str,
        client_request_id: &str,
    ) -> Result<Option<(JobId, Digest)>, Error>;

    /// Accepts a job whole; refuses one whose deadline is not in the future.
    async fn submit(
        &self,
        job: &NewJob,
        prompts: &[NewPrompt],
        content: Digest,
    ) -> Result<Submitted, Error>;

    /// Starts a job that arrives in chunks. Nothing runs before [`accept`](Self::accept).
    async fn begin(&self, job: &NewJob) -> Result<(), Error>;

    /// Adds a chunk. `NotFound` if the job was swept meanwhile. Refused if it repeats another
    /// chunk's custom id.
    async fn receive(&self, job: JobId, prompts: &[NewPrompt]) -> Result<(), Error>;

    /// Accepts the received job. If a job with the same request id was accepted before, returns
    /// that one, and deletes the received one.
    async fn accept(&self, job: JobId, content: Digest) -> Result<Submitted, Error>;

    /// Deletes a job that was not accepted.
    async fn abandon(&self, job: JobId) -> Result<(), Error>;

    /// Deletes jobs whose last chunk came longer than `idle` ago. Returns their number.
    async fn sweep_receiving(&self, idle: Duration) -> Result<u64, Error>;
}
