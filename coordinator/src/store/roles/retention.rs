//! How long what ended jobs have left is kept.

use async_trait::async_trait;
use darkroom_core::{id::JobId, retention::Policy};

use crate::store::{
    error::Error,
    records::Term,
    removal::{Due, Expiring},
};

/// How long what ended jobs have left is kept. A tenant's own policy goes before the farm's.
///
/// Times are the caller's, as in [`Removal`](super::Removal).
#[async_trait]
pub trait Retention: Send + Sync + 'static {
    /// Sets a policy that was [checked](Policy::check). Returns whether it was another one before. If
    /// it was, it looks at all jobs anew.
    async fn set_retention(&self, policy: &Policy) -> Result<bool, Error>;

    /// The policies, the farm's first, then by tenant. Others keep everything for ever.
    async fn retention(&self) -> Result<Vec<Policy>, Error>;

    /// Deletes about `limit` jobs that the policies do not keep any longer. Returns them.
    /// [`Error::NotLeading`] if the term has ended.
    async fn expire_jobs(&self, term: Term, now_ms: i64, limit: u32) -> Result<Vec<JobId>, Error>;

    /// The next outputs that a policy does not keep any longer, of about `limit` images of one job.
    /// [`Error::NotLeading`] if the term has ended.
    async fn expiring(
        &self,
        term: Term,
        now_ms: i64,
        limit: u32,
    ) -> Result<Option<Expiring>, Error>;

    /// Removes these outputs, if their job is as it was: their rows stay and say so, and what they
    /// stored becomes a candidate. Returns how many; `None` if that must wait, or something has
    /// changed. [`Error::NotLeading`] if the term has ended.
    async fn expire(
        &self,
        term: Term,
        now_ms: i64,
        expiring: &Expiring,
    ) -> Result<Option<u64>, Error>;

    /// Removes about `limit` uploads that the policies do not keep any longer and that no job of
    /// their tenant uses. Their pictures become candidates. Returns how many, and whether there may
    /// be more; `None`: the farm's commits were busy, so try again. [`Error::NotLeading`] if the
    /// term has ended.
    async fn forget_inputs(
        &self,
        term: Term,
        now_ms: i64,
        limit: u32,
    ) -> Result<Option<(u64, bool)>, Error>;

    /// What each policy would remove now, except previews, of which the record knows nothing.
    async fn due(&self, now_ms: i64) -> Result<Vec<Due>, Error>;
}
