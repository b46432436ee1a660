//! Leasing tasks: a queue between the coordinator and the workers.
//!
//! The queue is a hint, never the truth: SQL knows what was dispatched, and whatever a queue loses, the
//! coordinator's sweep finds and hands out again. It never knows SQL, gRPC, models or object storage; a task's body
//! is what the worker needs, already resolved.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod error;
pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;
pub mod stage_loop;
pub mod task;

use std::time::Duration;

use async_trait::async_trait;
use darkroom_core::id::WorkerId;

pub use error::Error;
use task::{
    Completion, EntryId, EntrySummary, Lease, Orders, PoolId, ResultEntry, Task, TaskKey, TaskResult,
    WorkerCard,
};

/// A queue of tasks, one line per pool, and of their results.
///
/// Delivery is at least once in both directions. What must hold for every backend is stated on the methods and
/// tested by the suite in `conformance` (feature `conformance`).
#[async_trait]
pub trait TaskQueue: Send + Sync + 'static {
    /// Appends tasks to a pool's line, in order. Creates the pool if it is new.
    async fn add(&self, pool: &PoolId, tasks: Vec<Task>) -> Result<(), Error>;

    /// Waits up to `wait` until one of the pools may have a task in line, and says whether one may: a hint, after
    /// which [`lease`](Self::lease) may still find nothing. Takes nothing, so it may be dropped at any time.
    async fn wait_for_tasks(&self, pools: &[PoolId], wait: Duration) -> Result<bool, Error>;

    /// Leases up to `max` tasks from the head of the line, in order, waiting up to `wait` for the first; empty when
    /// none came. A suspect task comes alone, and nothing behind it is taken with it. Tasks of several compatibility
    /// keys may come together: a worker runs them apart. A leased task is given to nobody else until it is reaped,
    /// handed back or removed.
    async fn lease(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<Lease>, Error>;

    /// Renews leases that are still this worker's and returns those that are not: lost, removed, or reaped. Never
    /// takes a lease back from another worker.
    async fn heartbeat(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        leases: &[EntryId],
    ) -> Result<Vec<EntryId>, Error>;

    /// Ends leases with their results, each in one step: the result is queued and the task gone, or the lease was not
    /// this worker's any more and nothing changes. Says which, in order.
    async fn complete(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        results: Vec<(EntryId, TaskResult)>,
    ) -> Result<Vec<Completion>, Error>;

    /// Hands leases back unharmed (drain): the tasks go to the head of the line at once. Those not this worker's are
    /// left alone.
    async fn hand_back(&self, pool: &PoolId, worker: &WorkerId, leases: &[EntryId]) -> Result<(), Error>;

    /// Reads up to `max` results, oldest first, waiting up to `wait` for the first. A committer is given a result
    /// once; while it is not acknowledged it is given again to a committer of another name, after the backend's
    /// takeover time. So a committer takes a fresh name whenever its process is replaced, and holds on to what it
    /// read until it has committed it.
    async fn results(
        &self,
        pool: &PoolId,
        committer: &str,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<ResultEntry>, Error>;

    /// Forgets results that were committed.
    async fn acknowledge(&self, pool: &PoolId, results: &[EntryId]) -> Result<(), Error>;

    /// Removes tasks, leased ones too when `leased` says so (their workers' next heartbeat reports them lost).
    /// Returns the keys that were found and removed.
    async fn remove(&self, pool: &PoolId, tasks: &[TaskKey], leased: Leased) -> Result<Vec<TaskKey>, Error>;

    /// Takes leases that were not renewed for `lease` back and returns their tasks, gone from the queue. Only the
    /// leading coordinator calls it; it decides what becomes of them (a dead worker's tasks are suspect).
    async fn reap(&self, pool: &PoolId, lease: Duration) -> Result<Vec<Lease>, Error>;

    /// Every entry of a pool, tasks and results, for the sweep that compares it with SQL. O(workers), since the
    /// coordinator keeps queues short.
    async fn entries(&self, pool: &PoolId) -> Result<Vec<EntrySummary>, Error>;

    /// Says that a worker is here and what it serves; repeated as its sign of life. Answers with what is wished of it.
    async fn announce(&self, card: WorkerCard) -> Result<Orders, Error>;

    /// Wishes that a worker drains: it is told so whenever it announces itself, and is listed as draining from now on.
    /// Idempotent; forgotten when the worker withdraws, or has not been seen for an hour. A hint like all that a queue
    /// holds: one that is flushed before the worker has heard of it is to be wished again (the leading coordinator does).
    async fn ask_to_drain(&self, worker: &WorkerId) -> Result<(), Error>;

    /// Gives these workers, and no others, nothing from these pools for so long, and lists them as set aside; what they
    /// hold they keep. It ends by itself. Every call names all that are set aside, so it is repeated after a flush.
    async fn set_aside(&self, pools: &[PoolId], workers: &[(WorkerId, Duration)]) -> Result<(), Error>;

    /// Removes a worker that leaves.
    async fn withdraw(&self, worker: &WorkerId) -> Result<(), Error>;

    /// Workers announced within `since`.
    async fn workers(&self, since: Duration) -> Result<Vec<WorkerCard>, Error>;
}

/// Whether [`TaskQueue::remove`] takes leased tasks too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leased {
    /// Leased tasks stay with their workers (pause).
    Keep,
    /// Leased tasks go as well (cancel).
    Remove,
}
