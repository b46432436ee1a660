//! Errors of a queue, as its callers see them.

/// An error of a queue backend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The backend cannot be reached or is restarting. The call may have had no effect; try again.
    #[error("the queue cannot be reached: {0}")]
    Unavailable(String),
    /// The backend is full. The coordinator must dispatch less.
    #[error("the queue is full: {limit} entries in pool {pool}")]
    Full {
        /// The pool.
        pool: String,
        /// Its limit.
        limit: usize,
    },
    /// An entry that cannot be read.
    #[error("a queue entry cannot be read: {0}")]
    Malformed(String),
}

impl Error {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        !matches!(self, Self::Malformed(_))
    }
}
