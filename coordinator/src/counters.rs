//! The coordinator's counters of itself: results, discarded results, and findings of its sweeps.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Counters since start-up.
#[derive(Debug, Default)]
pub struct Counters {
    /// Results that changed their image or text.
    pub committed: Count,
    /// Tasks handed to the queue.
    pub dispatched: Count,
    /// Results that could not be committed even alone. Zero are expected.
    pub unusable: Count,
    /// Leases that ran out.
    pub leases_expired: Count,
    /// Dispatched rows that the queue had lost.
    pub tasks_lost: Count,
    /// Queue entries that SQL did not expect.
    pub entries_unexpected: Count,
    /// Jobs that should have been finished but were not. Zero are expected.
    pub jobs_overlooked: Count,
    /// Streaming submits that were given up.
    pub submits_abandoned: Count,
    discarded: Mutex<BTreeMap<&'static str, u64>>,
}

/// One counter.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

impl Counters {
    /// Results that were discarded, by reason.
    #[must_use]
    pub fn discarded(&self) -> BTreeMap<&'static str, u64> {
        self.discarded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn discard(&self, reason: &'static str) {
        *self
            .discarded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(reason)
            .or_default() += 1;
    }
}
