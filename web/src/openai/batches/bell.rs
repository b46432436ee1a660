//! Wakes this process's batch runner.

use tokio::sync::Notify;

/// Rung when there may be a step to take.
#[derive(Default)]
pub(crate) struct Bell(Notify);

impl Bell {
    /// There may be something to do.
    pub(super) fn ring(&self) {
        self.0.notify_one();
    }

    /// Waits until it is rung.
    pub(super) async fn rung(&self) {
        self.0.notified().await;
    }
}
