//! Keeping the record in order, and telling why it cannot be reached.

use darkroom_core::id::JobId;

use super::{Error, PostgresStore, Tx, moves::save_and_finish, progress::LockedJobs, prune};

/// Finishes jobs whose images are all terminal, if under their lock they still are.
pub(super) async fn finish_complete(tx: &mut Tx, jobs: &[i64]) -> Result<Vec<JobId>, Error> {
    let mut jobs = LockedJobs::lock(tx, jobs.iter().copied()).await?;
    for job in jobs.iter_mut().filter(|job| job.complete()) {
        job.raise();
    }
    Ok(save_and_finish(tx, &mut jobs).await?.1)
}

impl PostgresStore {
    pub(super) async fn prune_next(&self) -> Result<bool, Error> {
        prune::prune_next(self.begin_write().await?).await
    }

    pub(super) async fn why_unreachable(&self) -> Option<String> {
        Some(self.servers.diagnose().await?.message)
    }

    pub(super) async fn close_all(&self) {
        if let Ok(mut listener) = self.listener.try_lock() {
            listener.take();
        }
        self.servers.leave(&self.pool);
        self.pool.close().await;
    }
}
