//! Removal of jobs, and of stored objects that no row needs any more.

use async_trait::async_trait;
use darkroom_core::id::JobId;

use crate::store::{
    error::Error,
    records::Term,
    removal::{Candidate, Cleared, Forgotten, Leaving, Leavings, Marked},
};

/// Removal of jobs, and of stored objects that no row needs any more.
///
/// Times are the caller's, in milliseconds since 1970, so that a test can move its clock. Every
/// change fails with [`Error::NotLeading`] if the term has ended, except those of users.
#[async_trait]
pub trait Removal: Send + Sync + 'static {
    /// Deletes a job for its user. It must have ended, unless `cancel` ends it now; its images then
    /// follow the cancel first. From now on it is not found, and listed nowhere. Returns whether
    /// this call deleted it: a job that is deleted already stays so.
    async fn delete_job(&self, job: JobId, by: &str, cancel: bool) -> Result<bool, Error>;

    /// Why a job is not found: it was deleted, or there never was one. With a tenant, only that
    /// tenant's jobs count.
    async fn why_not_found(&self, job: JobId, tenant: Option<&str>) -> Result<Error, Error>;

    /// Whether one of the other steps would find something to do now.
    async fn is_due(&self, now_ms: i64) -> Result<bool, Error>;

    /// Removes rows of a deleted job whose images have followed its last command: about `limit`
    /// images. What they named becomes a candidate in the same transaction. The job's own row stays
    /// for a minute, and other jobs do not wait for that. Also removes what is left of jobs that
    /// were deleted long ago.
    async fn clear_deleted(&self, term: Term, now_ms: i64, limit: u32) -> Result<Cleared, Error>;

    /// Removes about `limit` texts that no job has needed since `before_ms`. Their embeddings
    /// become candidates. `None`: the farm's commits were busy, so try again.
    async fn forget_texts(
        &self,
        term: Term,
        (now_ms, before_ms): (i64, i64),
        limit: u32,
    ) -> Result<Option<Forgotten>, Error>;

    /// Adds objects to look at. Those that are on their way out already stay as they are.
    async fn suspect(&self, term: Term, now_ms: i64, candidates: &[Candidate])
    -> Result<(), Error>;

    /// Looks up who needs the next candidates, at most `limit`. Those that nobody needs are marked.
    /// Nobody can begin to need one meanwhile or later. `None`: the farm's commits were busy, so
    /// try again.
    async fn mark(&self, term: Term, now_ms: i64, limit: u32) -> Result<Option<Marked>, Error>;

    /// Objects to delete in storage now, at most `limit`: those that were marked, and once more
    /// those that were deleted a while ago.
    async fn leaving(&self, term: Term, now_ms: i64, limit: u32) -> Result<Vec<Leaving>, Error>;

    /// Records that these objects are deleted in storage.
    async fn note_deleted(&self, term: Term, now_ms: i64, keys: &[String]) -> Result<(), Error>;

    /// Records why these objects could not be deleted. They are tried again later. Those that are
    /// not due stay as they are: somebody else has tried since.
    async fn note_not_deleted(
        &self,
        term: Term,
        now_ms: i64,
        faults: &[(String, String)],
    ) -> Result<(), Error>;

    /// Forgets about `limit` objects that were deleted for the last time long ago. Returns how
    /// many.
    async fn forget_removed(&self, term: Term, now_ms: i64, limit: u32) -> Result<u64, Error>;

    /// Whether something is marked and was not deleted in storage yet, be it due or not.
    async fn is_undeleted(&self) -> Result<bool, Error>;

    /// How many objects are in which step.
    async fn leavings(&self) -> Result<Leavings, Error>;

    /// The keys of those of these objects that no row names, not even as removed.
    async fn orphans(&self, objects: &[Candidate]) -> Result<Vec<String>, Error>;

    /// The farm's count of removals. Storage has the same number.
    async fn removal_count(&self) -> Result<u64, Error>;

    /// Sets the farm's count of removals to at least this, and makes objects that are marked and
    /// not deleted yet candidates again: the record is a copy that was restored, so they must be
    /// looked up again.
    async fn accept_restored(&self, term: Term, count: u64) -> Result<(), Error>;
}
