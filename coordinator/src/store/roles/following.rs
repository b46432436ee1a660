//! Updates of image rows in chunks, after changes of their texts or commands.

use async_trait::async_trait;

use crate::store::{error::Error, records::Committed};

/// Updates of image rows in chunks, after changes of their texts or their job.
#[async_trait]
pub trait Following: Send + Sync + 'static {
    /// Updates the images of texts whose embedding was committed or given up, about `limit` images
    /// at a time. `more` says whether there are others.
    async fn spread(&self, limit: u64) -> Result<Committed, Error>;

    /// Applies a cancel or retry of a job, or a command to some of its images, to about `limit`
    /// image rows. A job's own command goes first.
    async fn follow(&self, limit: u64) -> Result<Committed, Error>;
}
