//! Keeping the record in order.

use darkroom_core::id::JobId;

use super::{
    Error, SqliteStore, Tx,
    moves::{finish, raise_versions},
};

/// Finishes jobs whose images are all terminal.
pub(super) async fn finish_complete(tx: &mut Tx, jobs: &[i64]) -> Result<Vec<JobId>, Error> {
    raise_versions(tx, jobs).await?;
    finish(tx, jobs).await
}

impl SqliteStore {
    /// Versions are columns of the images, so nothing of them is to be forgotten.
    pub(super) async fn prune_next(&self) -> Result<bool, Error> {
        Ok(false)
    }

    /// The errors of a file say it themselves.
    pub(super) async fn why_unreachable(&self) -> Option<String> {
        None
    }

    pub(super) async fn close_all(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}
