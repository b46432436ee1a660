//! Outcomes of dispatched tasks.

use std::collections::HashMap;

use async_trait::async_trait;
use darkroom_queue::task::{PoolId, TaskKey};

use crate::store::{
    error::Error,
    records::{Committed, Dispatched, Onward, Release, Report, Term},
};

/// Outcomes of dispatched tasks.
#[async_trait]
pub trait Outcomes: Send + Sync + 'static {
    /// Applies results: each changes its image or text, or is discarded for a reason. The last
    /// image of a job finishes it in the same transaction.
    async fn commit(&self, pool: &PoolId, reports: &[Report]) -> Result<Committed, Error>;

    /// As [`commit`](Self::commit), but images that become ready are dispatched at once if there is
    /// credit, so that a row is written once and not twice. [`Error::NotLeading`] if the term has
    /// ended; then nothing was committed. A backend may dispatch nothing.
    async fn commit_onward(
        &self,
        pool: &PoolId,
        reports: &[Report],
        _onward: &[Onward],
    ) -> Result<(Committed, Vec<(PoolId, Dispatched)>), Error> {
        Ok((self.commit(pool, reports).await?, Vec::new()))
    }

    /// The latest marks of those of these prefixes under which an object is on its way out of
    /// storage. No result that names the object is believed.
    async fn leaving_under(&self, prefixes: &[String]) -> Result<HashMap<String, u64>, Error>;

    /// Makes dispatched tasks ready again, if their dispatch is still the given one.
    /// [`Error::NotLeading`] if the term has ended.
    async fn release(
        &self,
        term: Term,
        pool: &PoolId,
        tasks: &[TaskKey],
        why: &Release,
    ) -> Result<Committed, Error>;
}
