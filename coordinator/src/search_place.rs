//! Where a look through storage goes on. One look is too short for a large store.

/// A place among what is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The number of the prefix that is listed.
    pub(crate) prefix: usize,
    /// The last object below it that was looked at; empty at its beginning.
    pub(crate) after: String,
    /// Those that were looked at and stay.
    pub(crate) stay: usize,
}
