//! Events that wake the coordinator's parts. They are only hints: each part also polls.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use darkroom_core::id::JobId;
use tokio::sync::{Notify, watch};

/// Wakes the coordinator's parts and the watchers of jobs.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// A task may be ready for dispatch, or a queue has room.
    pub(crate) dispatch: Notify,
    /// As `dispatch`, but from another coordinator.
    pub(crate) told: Notify,
    /// Image rows must follow a text, a cancel or a retry.
    pub(crate) follow: Notify,
    /// An image failed: a job may have more failures than it allows.
    pub(crate) limits: Notify,
    /// A job was deleted.
    pub(crate) clean: Notify,
    /// A job ended.
    pub(crate) finish: Notify,
    /// An event may be sent to webhooks.
    pub(crate) webhooks: Notify,
    jobs: Mutex<HashMap<JobId, watch::Sender<()>>>,
}

impl Events {
    /// Registers interest in a job. From now on, no change of it is missed.
    pub(crate) fn watch(&self, job: JobId) -> watch::Receiver<()> {
        let mut jobs = self.jobs();
        jobs.retain(|_, sender| sender.receiver_count() > 0);
        jobs.entry(job).or_insert_with(|| watch::channel(()).0).subscribe()
    }

    /// Tells the watchers of jobs that these changed.
    pub(crate) fn changed(&self, changed: &[JobId]) {
        let jobs = self.jobs();
        if jobs.is_empty() {
            return;
        }
        for sender in changed.iter().filter_map(|job| jobs.get(job)) {
            sender.send_replace(());
        }
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, watch::Sender<()>>> {
        // A panic under the lock leaves no partial change.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
