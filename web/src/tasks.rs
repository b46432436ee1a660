//! Work of the site that goes on beside the answers, and how it ends.

use std::time::Duration;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long the work may take to end.
const END: Duration = Duration::from_secs(5);

/// Work that goes on beside the answers: jobs that are submitted even if their client leaves, and
/// those that are cancelled when no client comes back.
///
/// It is told to stop when the site is dropped. What it does not finish is left as it is in the
/// farm's record: a job whose client has left is then rendered to its end.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    pub(crate) stop: CancellationToken,
    pub(crate) tracker: TaskTracker,
}

impl Tasks {
    /// Tells the work to stop.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
    }

    /// Stops the work, and waits until it has ended, for five seconds at most. Call it when no
    /// request is served any more.
    pub async fn end(self) {
        self.stop();
        if tokio::time::timeout(END, self.tracker.wait()).await.is_err() {
            let tasks = self.tracker.len();
            tracing::warn!(tasks, "work for clients that have left did not end in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_is_waited_for_until_it_ends_and_not_for_ever() {
        let tasks = Tasks::default();
        let stop = tasks.stop.clone();
        let ended = tasks.tracker.spawn(async move {
            stop.cancelled().await;
            tokio::time::sleep(END / 2).await;
        });
        tasks.clone().end().await;
        assert!(ended.is_finished(), "it was waited for");
        let tasks = Tasks::default();
        let stuck = tasks.tracker.spawn(std::future::pending::<()>());
        tokio::time::timeout(2 * END, tasks.end()).await.expect("it is given up");
        assert!(!stuck.is_finished());
    }
}
