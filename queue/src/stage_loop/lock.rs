//! Locks whose changes are complete in themselves.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is complete in itself, so a panic elsewhere leaves no
    // half-done change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
