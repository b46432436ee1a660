//! Leasing tasks: a queue between the coordinator and the workers.
//!
//! The queue is a hint, never the truth. SQL knows what was dispatched; whatever a queue loses, the
//! coordinator's sweep finds and dispatches again. The queue never knows SQL, gRPC, models or
//! object storage. A task's body has everything the worker needs, already resolved.

pub mod error;
mod mac;
pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;
pub mod signing;
pub mod stage_loop;
pub mod task;

use std::time::Duration;

use async_trait::async_trait;
use darkroom_core::id::WorkerId;

pub use error::Error;
use task::{
    Completion, EntryId, EntrySummary, Lease, Orders, PoolId, ResultEntry, Task, TaskKey,
    TaskResult, WorkerCard,
};

/// A queue of tasks, one line per pool, and of their results.
///
/// Delivery is at least once in both directions. The docs of the methods state what every backend
/// guarantees, and `queue_suite!` in `tests/suites` tests it.
#[async_trait]
pub trait TaskQueue: Send + Sync + 'static {
    /// Appends tasks to a pool's line, in order. Creates the pool if it is new.
    async fn add(&self, pool: &PoolId, tasks: Vec<Task>) -> Result<(), Error>;

    /// Waits up to `wait` until one of the pools may have a waiting task, and returns whether one
    /// may. This is a hint: [`lease`](Self::lease) may still find nothing. It takes nothing, so the
    /// call may be dropped at any time.
    async fn wait_for_tasks(&self, pools: &[PoolId], wait: Duration) -> Result<bool, Error>;

    /// Leases up to `max` tasks from the head of the line, in order. Waits up to `wait` for the
    /// first one; empty if none came. A suspect task comes alone: no task behind it is taken in the
    /// same call. Tasks with different compatibility keys may come together; the worker runs them
    /// separately. A leased task is given to nobody else until it is reaped, handed back or
    /// removed.
    async fn lease(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<Lease>, Error>;

    /// Renews leases that this worker still has, and returns those that it has lost: removed,
    /// reaped or unknown. Never takes a lease back from another worker.
    async fn heartbeat(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        leases: &[EntryId],
    ) -> Result<Vec<EntryId>, Error>;

    /// Ends leases with their results, each in one step: the result is queued and the task is gone.
    /// If the worker had lost the lease, nothing changes. Returns which of the two happened, in
    /// order.
    async fn complete(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        results: Vec<(EntryId, TaskResult)>,
    ) -> Result<Vec<Completion>, Error>;

    /// Hands leases back without a result (drain). The tasks go to the head of the line at once.
    /// Leases that this worker does not have are ignored.
    async fn hand_back(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        leases: &[EntryId],
    ) -> Result<(), Error>;

    /// Reads up to `max` results, oldest first, waiting up to `wait` for the first. A committer
    /// gets each result once. While a result is not acknowledged, another committer gets it after
    /// the backend's takeover time. So a committer takes a fresh name when its process is replaced,
    /// and keeps what it read until it has committed it.
    async fn results(
        &self,
        pool: &PoolId,
        committer: &str,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<ResultEntry>, Error>;

    /// Deletes results that were committed.
    async fn acknowledge(&self, pool: &PoolId, results: &[EntryId]) -> Result<(), Error>;

    /// Removes tasks, and leased ones too if `leased` says so (the next heartbeat of their workers
    /// reports them lost). Returns the keys that were found and removed.
    async fn remove(
        &self,
        pool: &PoolId,
        tasks: &[TaskKey],
        leased: Leased,
    ) -> Result<Vec<TaskKey>, Error>;

    /// Takes back leases that were not renewed for `lease`, removes their tasks from the queue, and
    /// returns them. Only the leader calls this. It decides what happens to the tasks (those of a
    /// dead worker are suspect).
    async fn reap(&self, pool: &PoolId, lease: Duration) -> Result<Vec<Lease>, Error>;

    /// Every entry of a pool, tasks and results, for the sweep that compares it with SQL.
    /// O(workers), because the coordinator keeps queues short.
    async fn entries(&self, pool: &PoolId) -> Result<Vec<EntrySummary>, Error>;

    /// Announces a worker and what it serves. Repeated as its sign of life. Returns the orders for
    /// this worker.
    async fn announce(&self, card: WorkerCard) -> Result<Orders, Error>;

    /// Asks a worker to drain. From then on its announcements are answered with that order, and it
    /// is listed as draining. Idempotent. Forgotten when the worker withdraws or has not been seen
    /// for an hour. Like everything in a queue this is a hint: after a flush the leader must ask
    /// again.
    async fn ask_to_drain(&self, worker: &WorkerId) -> Result<(), Error>;

    /// Gives these workers, and no others, no tasks of these pools for the given time, and lists
    /// them as set aside. They keep what they hold. It ends by itself. Every call names all workers
    /// that are set aside, so the call is repeated after a flush.
    async fn set_aside(
        &self,
        pools: &[PoolId],
        workers: &[(WorkerId, Duration)],
    ) -> Result<(), Error>;

    /// Removes a worker that leaves.
    async fn withdraw(&self, worker: &WorkerId) -> Result<(), Error>;

    /// Workers that announced themselves within `since`.
    async fn workers(&self, since: Duration) -> Result<Vec<WorkerCard>, Error>;
}

/// Whether [`TaskQueue::remove`] takes leased tasks too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leased {
    /// Leased tasks stay with their workers (used by pause).
    Keep,
    /// Leased tasks are removed too (used by cancel).
    Remove,
}
