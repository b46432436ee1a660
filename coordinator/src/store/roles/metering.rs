//! What tenants may use, and what they use of it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use darkroom_core::{id::JobId, quota::Quotas};
use darkroom_queue::task::PoolId;

use crate::store::{
    error::Error,
    metering::{LimitedTenant, Usage},
};

/// What tenants may use, and what they use of it.
///
/// The quotas of images and of stored bytes are checked by the transactions that add some:
/// [`Submits`](super::Submits), retries ([`Commands`](super::Commands),
/// [`ImageCommands`](super::ImageCommands)) and uploads ([`Inputs`](super::Inputs)).
#[async_trait]
pub trait Metering: Send + Sync + 'static {
    /// A tenant's quotas and its usage. A tenant that the record does not have has no quota.
    async fn standing(&self, tenant: &str) -> Result<(Quotas, Usage), Error>;

    /// What each of these tenants uses.
    async fn usage_of(&self, tenants: &[String]) -> Result<BTreeMap<String, Usage>, Error>;

    /// The tenants that have a quota or a weight, by name, and the record's clock in milliseconds
    /// since 1970.
    async fn limited(&self) -> Result<(Vec<LimitedTenant>, i64), Error>;

    /// Tasks of a rendering pool that are with the queue or a worker, for each tenant that has a
    /// quota of workers; a tenant without such tasks is left out.
    async fn in_flight(&self, pool: &PoolId) -> Result<BTreeMap<String, u64>, Error>;

    /// The jobs of a tenant that have rendering tasks with the queue or a worker.
    async fn jobs_in_flight(&self, tenant: &str) -> Result<Vec<JobId>, Error>;

    /// Records that this coordinator runs. Returns how many do, with this one.
    async fn note_coordinator(&self, holder: &str) -> Result<u64, Error>;

    /// The differences between what is kept of tenants' usage and their rows; none are expected.
    async fn audit_usage(&self) -> Result<Vec<String>, Error>;
}
