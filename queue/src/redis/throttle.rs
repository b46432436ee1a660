//! Limits how often something is done.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// When something was last done, by name. There are few names: pools and committers.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<HashMap<String, Instant>>);

impl Throttle {
    /// Whether `every` has passed since this last returned true for that name.
    pub(super) fn is_due(&self, name: &str, every: Duration) -> bool {
        let now = Instant::now();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.get(name).is_none_or(|last| now.duration_since(*last) >= every);
        if due {
            last.insert(name.to_owned(), now);
        }
        due
    }
}
