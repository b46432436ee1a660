//! The coordinator: gRPC API, job store, dispatcher, result committer, reaper and finisher.
//!
//! SQL is the only truth; the queue and the object store are read and written, never believed. This crate never
//! links libtorch and never computes a picture. [`service`] is the way in.

mod api;
mod committer;
mod conduct;
mod counters;
mod crew;
mod dispatcher;
mod engine;
mod events;
mod finisher;
mod follower;
mod limits;
mod losses;
mod openings;
pub mod process;
mod rates;
mod reaper;
pub mod service;
pub mod store;
mod tasks;

pub use api::server_options;
pub use counters::Counters;
pub use service::{Coordinator, Handle, Options};
