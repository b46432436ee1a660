//! The coordinator: the farm's calls, job store, dispatcher, result committer, reaper and finisher.
//!
//! SQL is the only truth; the queue and the object store are used but not trusted. This crate never
//! links libtorch, never computes a picture, and never knows the protocol of a call.
//! [`Coordinator`] is the entry point, and [`Handle::calls`] are its calls.

mod api;
mod audit;
mod budget;
mod cleaner;
mod committer;
mod coordinator;
mod counters;
mod credits;
mod crew;
mod decoding;
mod disk_watch;
mod disks;
mod dispatcher;
mod error;
mod events;
mod feed;
mod feeder;
mod finisher;
mod first_key;
mod follower;
mod forecaster;
mod forecasts;
mod held;
mod historian;
mod image_maps;
mod keeper;
mod leadership;
mod limits;
mod losses;
mod old_previews;
mod options;
mod orphan_cursor;
mod pools;
mod previews;
mod quota_reader;
mod quotas;
mod rates;
mod reaper;
mod shared;
pub mod store;
mod stored;
mod tasks;
mod troubles;
mod trust;
mod turns;
mod webhooks;
mod worker_health;

#[doc(hidden)]
pub use api::fuzzed;
pub use api::server_options;
pub use audit::note_own;
pub use cleaner::Cleaned;
pub use coordinator::{Coordinator, Handle, Pools};
pub use counters::Counters;
pub use error::Error;
pub use first_key::{add_first_key, fresh_key};
pub use options::{Budget, Options};
