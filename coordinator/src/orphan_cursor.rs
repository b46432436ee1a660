//! Where a search for orphans goes on. One search is too short for a large store. (It stands apart
//! from the cleaner, because what all parts share holds it, and the cleaner imports that.)

/// A place in the order in which storage is looked through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OrphanCursor {
    /// Position of the prefix that is listed.
    pub(crate) prefix: usize,
    /// The last key below it that was looked at; empty at its beginning.
    pub(crate) after: String,
}
