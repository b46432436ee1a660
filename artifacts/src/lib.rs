//! Artifacts: the files that outlive a stage, in object storage.
//!
//! Bytes under a key never change, because a key ends in their SHA-256. This crate knows object
//! stores, file formats and hashes; it never knows SQL, queues, gRPC or models.

mod answer;
pub mod blob;
pub mod cascade_bundle;
pub mod cascade_cache;
pub mod cascade_store;
pub mod check;
pub mod error;
mod exif_tags;
pub mod input;
pub mod manifest;
mod model_files;
pub mod open;
mod palette;
pub mod picture;
mod private;
mod seal;
pub mod sheet;
mod stage_config;
pub mod tensor;
pub mod verify;

pub use blob::ArtifactStore;
pub use cascade_bundle::CascadeBundle;
pub use cascade_cache::CascadeCache;
pub use error::{Error, NO_SPACE};

#[cfg(test)]
mod test_pictures;
#[cfg(test)]
mod test_stores;
