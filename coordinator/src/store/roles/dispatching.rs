//! Ready and dispatched tasks.

use async_trait::async_trait;
use darkroom_core::{fair_share, id::JobId};
use darkroom_queue::task::{PoolId, TaskKey};

use crate::store::{
    error::Error,
    records::{Dispatched, Term},
};

/// Ready and dispatched tasks.
#[async_trait]
pub trait Dispatching: Send + Sync + 'static {
    /// Active jobs with tasks ready for the pool, oldest first.
    async fn candidates(&self, pool: &PoolId) -> Result<Vec<fair_share::Candidate>, Error>;

    /// Number of the pool's dispatched tasks.
    async fn dispatched_count(&self, pool: &PoolId) -> Result<u64, Error>;

    /// Marks tasks as dispatched and returns them with everything that a worker needs. Fewer than
    /// picked if jobs changed meanwhile. [`Error::NotLeading`] if the term has ended.
    async fn dispatch(
        &self,
        term: Term,
        pool: &PoolId,
        picks: &[fair_share::Pick],
    ) -> Result<Vec<Dispatched>, Error>;

    /// Every dispatched task of the pool: O(workers).
    async fn dispatched(&self, pool: &PoolId) -> Result<Vec<TaskKey>, Error>;

    /// The dispatched tasks of one job's images, each with its pool.
    async fn dispatched_of_job(&self, job: JobId) -> Result<Vec<(PoolId, TaskKey)>, Error>;
}
