//! The worker: runs diffusion stages, leased from the queue, on a GPU or CPU.
//!
//! It reads embeddings and low-resolution inputs from object storage and writes tensors and pictures there. It never
//! knows SQL, and of gRPC only how a process joins a farm; of jobs it knows only tasks. Without feature `torch` it holds the fake renderer alone, which
//! makes deterministic pictures and costs nothing: for tests of the farm's control and for load tests.

pub mod batch;
pub mod fake_renderer;
#[cfg(feature = "torch")]
pub mod model_cache;
mod pictures;
pub mod process;
pub mod renderer;
pub mod service;
pub mod stage;
#[cfg(feature = "torch")]
pub mod torch_renderer;

pub use darkroom_queue::stage_loop::{Busy, Handle};
pub use fake_renderer::{FakeOptions, FakeRenderer};
pub use renderer::{Machine, Renderer};
#[cfg(feature = "torch")]
pub use service::start;
pub use service::{Options, Times, start_fake, start_noop, start_with};
