//! Workers that fail on images that others complete, and workers that must leave.

use std::time::Duration;

use async_trait::async_trait;
use darkroom_core::id::WorkerId;

use crate::store::{error::Error, records::Term, worker_health::Aside};

/// Workers that fail on images that others complete, and workers that must leave.
#[async_trait]
pub trait WorkerHealth: Send + Sync + 'static {
    /// Workers that failed within the last `window` on at least `images` images, which ran alone
    /// and which another worker then completed. Each with that number of images.
    async fn blamed(&self, window: Duration, images: u64) -> Result<Vec<(WorkerId, u64)>, Error>;

    /// Sets a worker aside, longer each time (`darkroom_core::worker_health`). The failures that it
    /// is blamed for are then settled. [`Error::NotLeading`] if the term has ended.
    async fn set_aside(&self, term: Term, worker: &WorkerId, reason: &str) -> Result<(), Error>;

    /// Takes a worker back that was set aside. [`Error::NotLeading`] if the term has ended.
    async fn take_back(&self, term: Term, worker: &WorkerId) -> Result<(), Error>;

    /// The workers that are set aside now, in the order in which that ends.
    async fn asides(&self) -> Result<Vec<Aside>, Error>;

    /// Records that a worker must drain, for
    /// [`DRAIN_KEPT`](crate::store::worker_health::DRAIN_KEPT) from now on. Returns whether it did not
    /// have to before.
    async fn command_drain(&self, worker: &WorkerId) -> Result<bool, Error>;

    /// The ids of workers that must drain.
    async fn drains(&self) -> Result<Vec<WorkerId>, Error>;

    /// Deletes failures older than `window`, workers whose time aside ended more than a day ago,
    /// and drain commands older than [`DRAIN_KEPT`](crate::store::worker_health::DRAIN_KEPT).
    async fn forget_worker_health(&self, window: Duration) -> Result<(), Error>;
}
