//! Following all jobs of a farm.

use async_trait::async_trait;

use crate::store::{
    error::Error,
    farm_changes::{ChangeBounds, ChangeQuery, ChangedJobs, LiveJobs},
};

/// Following all jobs of a farm.
#[async_trait]
pub trait FarmChanges: Send + Sync + 'static {
    /// The bounds of the changes that are visible now.
    async fn change_bounds(&self) -> Result<ChangeBounds, Error>;

    /// Jobs that changed, in order.
    async fn changed_jobs(&self, query: ChangeQuery<'_>) -> Result<ChangedJobs, Error>;

    /// Jobs that have not ended, newest first, below a `seq`, of one tenant if one is named.
    async fn live_jobs(
        &self,
        tenant: Option<&str>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<LiveJobs, Error>;
}
