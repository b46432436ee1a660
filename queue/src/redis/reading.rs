//! Results that committers of this process have read and not yet acknowledged.
//!
//! If an answer is lost on its way, results are pending for a committer that never saw them. So a
//! committer also looks for old results in its own name, and this records which of them it already
//! has.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::throttle::Throttle;
use crate::task::EntryId;

/// By stream of results.
#[derive(Debug, Default)]
pub(super) struct Readings {
    streams: Mutex<HashMap<String, Reading>>,
    scans: Throttle,
}

#[derive(Debug, Default)]
struct Reading {
    /// The committer that was given an entry.
    in_hand: HashMap<EntryId, String>,
    /// Acknowledged by their committer, but not yet confirmed by Redis.
    owed: HashSet<EntryId>,
}

impl Readings {
    /// Gives an entry to a committer; false if the committer has it already.
    pub(super) fn hand_out(&self, stream: &str, committer: &str, id: &EntryId) -> bool {
        let mut streams = self.streams();
        let reading = streams.entry(stream.to_owned()).or_default();
        let before = reading.in_hand.insert(id.clone(), committer.to_owned());
        before.is_none_or(|before| before != committer) && !reading.owed.contains(id)
    }

    /// Whether it is time to look for results of silent committers again.
    pub(super) fn scan_is_due(&self, stream: &str, committer: &str, every: Duration) -> bool {
        self.scans.is_due(&format!("{stream}/{committer}"), every)
    }

    /// Remembers what was committed until Redis confirms it.
    pub(super) fn owe(&self, stream: &str, ids: &[EntryId]) {
        self.streams().entry(stream.to_owned()).or_default().owed.extend(ids.iter().cloned());
    }

    pub(super) fn owed(&self, stream: &str) -> Vec<EntryId> {
        self.streams()
            .get(stream)
            .map(|reading| reading.owed.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Redis has confirmed it.
    pub(super) fn paid(&self, stream: &str, ids: &[EntryId]) {
        if let Some(reading) = self.streams().get_mut(stream) {
            for id in ids {
                reading.owed.remove(id);
                reading.in_hand.remove(id);
            }
        }
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<String, Reading>> {
        // Every change under the lock is complete in itself, so a panic elsewhere leaves no
        // half-done change.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
