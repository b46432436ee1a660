//! Things done from time to time only.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// When something was last done, by name. Names are few: pools and committers.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<HashMap<String, Instant>>);

impl Throttle {
    /// Whether `every` has passed since this last said so for that name.
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
