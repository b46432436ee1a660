//! Where searches that are repeated began last.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often rows are looked for from the first one on.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Hints kept, those that are old not counted.
const REMEMBERED: usize = 1024;

/// Where the first row was found, by what was looked for: a hint, so that a search does not walk
/// through the entries of those that came before, which stay until a vacuum, or while somebody
/// holds an old snapshot.
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

    /// There is one before the first.
    pub(super) fn lower(&self, of: &K, to: i64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((from, _)) = known.get_mut(of) {
            *from = to.min(*from);
        }
    }
}
