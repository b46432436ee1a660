//! What ended jobs leave in storage beside their pictures.

use async_trait::async_trait;
use darkroom_core::id::JobId;

use crate::store::{
    error::Error,
    leftovers::{End, EndedJob, Leftover},
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

    /// Outputs of an ended job that are no finished pictures and that no unfinished job names, by
    /// image and stage, after this image and stage; at most `limit`. None if the job was retried.
    async fn leftovers(
        &self,
        job: JobId,
        after: Option<(u64, usize)>,
        limit: u32,
    ) -> Result<Vec<Leftover>, Error>;
}
