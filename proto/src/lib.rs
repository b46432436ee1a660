//! The wire: Darkroom's gRPC messages, client and server stubs, and the mapping of errors to
//! statuses.
//!
//! The only copy of the protocol. It knows `core`'s words and converts them; it never knows SQL,
//! queues or models.

pub mod bounds;
pub mod calls;
pub mod codec;
pub mod hidden;
pub mod json;
pub mod problem;
pub mod settings;
pub mod status;
mod walk;

/// Messages and services of `darkroom.v1`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated from the .proto files, which carry the docs"
)]
pub mod v1 {
    include!("generated/darkroom.v1.rs");
}

/// The encoded file descriptor set of `darkroom.v1`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/darkroom.v1.bin");
