//! How much is stored: the last count, and what was committed since.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::watch;

/// What an object takes of a disk is a multiple of this.
const BLOCK: u64 = 4096;

/// What is stored, and what the budget says to it.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Bytes at the last count; none before the first.
    counted: watch::Sender<Option<u64>>,
    /// Bytes that were committed since that count began.
    since: AtomicU64,
    /// Why more is stored than the budget allows.
    warning: Mutex<Option<String>>,
}

impl Default for Stored {
    fn default() -> Self {
        let counted = watch::Sender::new(None);
        Self { counted, since: AtomicU64::new(0), warning: Mutex::default() }
    }
}

impl Stored {
    /// An output was committed.
    pub(crate) fn committed(&self, bytes: u64) {
        self.since.fetch_add(on_disk(bytes), Ordering::Relaxed);
    }

    /// Bytes that are stored now; none before the first count.
    pub(crate) fn bytes(&self) -> Option<u64> {
        let since = self.since.load(Ordering::Relaxed);
        self.counted.borrow().map(|counted| counted.saturating_add(since))
    }

    /// Bytes that were committed since the last count began.
    pub(crate) fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    /// Takes the result of a count in, before which this much had been committed since the one
    /// before it.
    pub(crate) fn count(&self, bytes: u64, before: u64) {
        self.since.fetch_sub(before, Ordering::Relaxed);
        self.counted.send_replace(Some(bytes));
    }

    /// Waits for the first count.
    pub(crate) async fn counted(&self) {
        // The sender lives as long as this.
        let _ = self.counted.subscribe().wait_for(Option::is_some).await;
    }

    /// The warning that the budget is exceeded.
    pub(crate) fn warning(&self) -> Option<String> {
        self.locked().clone()
    }

    /// Bytes were removed.
    pub(crate) fn removed(&self, bytes: u64) {
        self.counted.send_modify(|counted| {
            *counted = counted.map(|counted| counted.saturating_sub(bytes));
        });
    }

    /// Logs a warning when it begins and when it ends. Numbers that change are no news.
    pub(crate) fn warn(&self, warning: Option<String>) {
        let mut told = self.locked();
        match (told.as_ref(), &warning) {
            (None, Some(warning)) => tracing::warn!("{warning}"),
            (Some(_), None) => tracing::info!("what is stored fits into the disk budget again"),
            _ => {}
        }
        *told = warning;
    }

    fn locked(&self) -> MutexGuard<'_, Option<String>> {
        // A panic under the lock leaves no partial change.
        self.warning.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that an object takes of a disk.
pub(crate) fn on_disk(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK).saturating_mul(BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_is_added_to_the_last_count_and_what_is_removed_is_taken_off() {
        let stored = Stored::default();
        stored.committed(1);
        assert_eq!(stored.bytes(), None, "not counted yet");
        let before = stored.since();
        stored.committed(4097);
        stored.count(100 * BLOCK, before);
        assert_eq!(stored.bytes(), Some(102 * BLOCK), "what came during the count is kept");
        stored.removed(50 * BLOCK);
        assert_eq!(stored.bytes(), Some(52 * BLOCK));
        stored.removed(500 * BLOCK);
        assert_eq!(stored.bytes(), Some(2 * BLOCK));
    }
}
