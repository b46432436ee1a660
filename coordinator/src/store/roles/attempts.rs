//! Outcomes of the attempts at an image.

use async_trait::async_trait;
use darkroom_core::id::JobId;

use crate::store::{attempt::Attempt, error::Error};

/// Outcomes of the attempts at an image.
#[async_trait]
pub trait Attempts: Send + Sync + 'static {
    /// The latest [`KEPT`](crate::store::attempt::KEPT) attempts at an image's stages, in order;
    /// none if there is no such image.
    async fn attempts(&self, job: JobId, index: u64) -> Result<Vec<Attempt>, Error>;
}
