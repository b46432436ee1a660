//! The encoder service: stage `encode`, which turns each distinct text into one embedding for ever, and gRPC
//! `Encoder.Encode` for those who want embeddings directly.
//!
//! It never knows SQL or images. Without feature `torch` it holds the fake encoder alone.

pub mod api;
pub mod encoder;
pub mod fake_encoder;
mod notes;
pub mod process;
pub mod service;
pub mod stage;
mod thread;
#[cfg(feature = "torch")]
pub mod torch_encoder;

pub use encoder::{EncodeError, Encoded, Encoder};
pub use fake_encoder::FakeEncoder;
#[cfg(feature = "torch")]
pub use service::start;
pub use service::{Handle, Machine, Options, Times, start_fake, start_with};
