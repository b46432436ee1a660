//! Reads pictures from object storage and decodes them, within a common memory limit.

use std::sync::Arc;

use darkroom_artifacts::ArtifactStore;
use tokio::sync::Semaphore;

/// Memory for all pictures that are being decoded, in MiB: enough for one of the largest, or many
/// small ones.
pub(crate) const DECODING_MIB: usize = 1024;

/// Object storage, and the memory for pictures from it.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) artifacts: &'a ArtifactStore,
    /// A permit for each MiB.
    pub(crate) decoding: &'a Arc<Semaphore>,
}
