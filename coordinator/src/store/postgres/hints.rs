//! Remembers where repeated searches found their first row.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often a search starts from the very beginning.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Most hints, not counting old ones.
const REMEMBERED: usize = 1024;

/// The first row that each search found. It is a hint, so that the next search need not read the
/// index entries of deleted rows before it. Those stay until a vacuum, or while an old snapshot is
/// open.
#[derive(Debug)]
pub(super) struct FoundFrom<K>(Mutex<HashMap<K, (i64, Instant)>>);

impl<K> Default for FoundFrom<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> FoundFrom<K> {
    /// Where to begin; `None` for the beginning.
    pub(super) fn get(&self, of: &K) -> Option<i64> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(of).filter(|(_, counted)| counted.elapsed() < LOOK_AGAIN).map(|(from, _)| *from)
    }

    /// Remembers the first one; `whole` when it was looked for from the beginning.
    pub(super) fn set(&self, of: K, first: i64, whole: bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.retain(|_, (_, counted)| counted.elapsed() < LOOK_AGAIN);
        }
        match known.get_mut(&of) {
            Some((from, _)) if !whole => *from = first,
            _ => drop(known.insert(of, (first, Instant::now()))),
        }
    }

    /// Records a row before the first known one.
    pub(super) fn lower(&self, of: &K, to: i64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((from, _)) = known.get_mut(of) {
            *from = to.min(*from);
        }
    }
}
