//! The encoder service. It runs stage `encode`, which turns each distinct text into one embedding
//! that is kept for ever, and serves gRPC `Encoder.Encode` for clients that want embeddings
//! directly.
//!
//! It never knows SQL or images. Without feature `torch` it has only the fake encoder.

pub mod api;
pub mod encoder;
pub mod fake_encoder;
mod machine;
mod notes;
#[cfg(feature = "cluster")]
pub mod process;
pub mod service;
pub mod stage;
mod thread;
#[cfg(feature = "torch")]
pub mod torch_encoder;

pub use encoder::{EncodeError, Encoded, Encoder};
pub use fake_encoder::FakeEncoder;
pub use machine::Machine;
#[cfg(feature = "torch")]
pub use service::start;
pub use service::{Handle, Options, Times, start_fake, start_with};
