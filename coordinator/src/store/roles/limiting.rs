//! Jobs that have passed a limit.

use async_trait::async_trait;
use darkroom_core::id::JobId;

use crate::store::{error::Error, records::Term};

/// Jobs that have passed a limit.
#[async_trait]
pub trait Limiting: Send + Sync + 'static {
    /// Ends about `limit` jobs whose deadline has passed by the database's clock, as cancelled, and
    /// about `limit` jobs with more dead images than they allow, as failed. Their image rows
    /// follow. Returns these jobs. [`Error::NotLeading`] if the term has ended.
    async fn end_overdue(&self, term: Term, limit: u32) -> Result<Vec<JobId>, Error>;
}
