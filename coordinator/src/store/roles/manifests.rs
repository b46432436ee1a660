//! Manifests of ended jobs.

use async_trait::async_trait;
use darkroom_core::{digest::Digest, id::JobId};

use crate::store::error::Error;

/// Manifests of ended jobs.
#[async_trait]
pub trait Manifests: Send + Sync + 'static {
    /// Jobs whose manifest must be written, with the generation it describes. Other processes get
    /// the same jobs only if they are not written for a while.
    async fn pending_manifests(&self, limit: u32) -> Result<Vec<(JobId, u32)>, Error>;

    /// Records that a generation's manifest is stored. False if the job continued meanwhile. With
    /// `made_up_for`, a removal of the job's pictures at that time (milliseconds since 1970) is
    /// forgotten, because the manifest lists them all again.
    async fn manifest_written(
        &self,
        (job, generation): (JobId, u32),
        key: &str,
        sha256: Digest,
        made_up_for: Option<i64>,
    ) -> Result<bool, Error>;
}
