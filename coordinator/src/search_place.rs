//! Where a look through storage goes on. One look is too short for a large store.

/// A place among what is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Position of the prefix that is listed.
    pub(crate) prefix: usize,
    /// The last key below it that was looked at; empty at its beginning.
    pub(crate) after: String,
    /// Number of objects below it that were looked at and stay in storage.
    pub(crate) stay: usize,
}
