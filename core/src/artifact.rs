//! References to files in object storage.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// An artifact that was stored: where, how big, and the hash it must have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ArtifactRef {
    /// Key in the object store, e.g. `tasks/<task digest>/<sha256>.safetensors`.
    pub key: String,
    /// SHA-256 of the bytes.
    pub sha256: Digest,
    /// Number of bytes.
    pub size: u64,
}
