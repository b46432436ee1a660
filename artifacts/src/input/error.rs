//! What is wrong with a file that was sent.

/// What is wrong with a file. The text follows the file's name: "cat.png" + " " + this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub(super) String);
