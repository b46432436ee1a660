//! The worker: runs diffusion stages, leased from the queue, on a GPU or CPU.
//!
//! It reads embeddings and low-resolution inputs from object storage, and writes tensors and
//! pictures there. It never knows SQL. It uses gRPC only to join a farm, and it knows tasks but not
//! jobs. Without feature `torch` it has only the fake renderer, which makes deterministic pictures
//! at no cost: for tests of the farm's control and for load tests.

pub mod batch;
pub mod fake_renderer;
mod kept;
#[cfg(feature = "torch")]
mod loading;
#[cfg(feature = "torch")]
pub mod model_cache;
mod pictures;
#[cfg(feature = "cluster")]
pub mod process;
pub mod renderer;
pub mod served;
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
