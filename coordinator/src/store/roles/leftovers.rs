//! What ended jobs leave in storage beside their pictures.

use async_trait::async_trait;
use darkroom_core::id::JobId;

use crate::store::{
    error::Error,
    leftovers::{End, EndedJob, Left, Leftover},
    records::Term,
};

/// What ended jobs leave in storage beside their pictures.
///
/// An output that is gone is no loss of work that was asked for: whoever needs it reports it as
/// missing, and its stage runs again.
#[async_trait]
pub trait Leftovers: Send + Sync + 'static {
    /// Jobs that ended after this one, oldest end first, at most `limit`. Only those with nothing
    /// left to do: their images have followed and their manifest is written.
    async fn ended_after(&self, after: End, limit: u32) -> Result<Vec<EndedJob>, Error>;

    /// Outputs of an ended job that are stored and that no unfinished job names, by image and
    /// stage, after this image and stage; at most `limit`. None if the job was retried.
    async fn leftovers(
        &self,
        (job, left): (JobId, Left),
        after: Option<(u64, usize)>,
        limit: u32,
    ) -> Result<Vec<Leftover>, Error>;

    /// Removes these outputs, if their job is still ended: their rows stay and say so, and what
    /// they stored becomes a candidate of the cleaner. `by` is told to those who look for pictures
    /// that were removed. Returns how many. [`Error::NotLeading`] if the term has ended.
    async fn take(
        &self,
        term: Term,
        (job, left): (JobId, Left),
        outputs: &[(u64, usize)],
        by: &str,
    ) -> Result<u64, Error>;
}
