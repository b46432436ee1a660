//! Following all jobs of a farm.

use std::collections::HashMap;

use async_trait::async_trait;

use crate::store::{
    error::Error,
    farm_changes::{ChangeBounds, ChangePosition, ChangedJobs, LiveJobs},
};

/// Following all jobs of a farm.
#[async_trait]
pub trait FarmChanges: Send + Sync + 'static {
    /// The bounds of the changes that are visible now.
    async fn change_bounds(&self) -> Result<ChangeBounds, Error>;

    /// At most `limit` jobs that changed, after `from` and below the mark `next`, in order. Jobs
    /// whose version is still the one in `known` (by `seq`) are left out.
    async fn changed_jobs(
        &self,
        from: ChangePosition,
        next: u64,
        limit: u32,
        known: &HashMap<i64, u64>,
    ) -> Result<ChangedJobs, Error>;

    /// Jobs that have not ended, newest first, below a `seq`, of one tenant if one is named.
    async fn live_jobs(
        &self,
        tenant: Option<&str>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<LiveJobs, Error>;
}
