//! A queue in memory whose calls a test watches, and delays if it likes.

use std::time::Duration;

use async_trait::async_trait;
use darkroom_core::id::WorkerId;
use darkroom_queue::{
    Error, Leased, TaskQueue,
    memory::MemoryQueue,
    task::{
        Completion, EntryId, EntrySummary, Lease, Orders, PoolId, ResultEntry, Task, TaskKey,
        TaskResult, WorkerCard,
    },
};

/// What is done around some of the calls; nothing unless a test says otherwise.
#[async_trait]
pub trait Watch: Send + Sync + 'static {
    /// Before tasks are added.
    async fn adding(&self, _pool: &PoolId) {}

    /// Before this many results are stored.
    async fn completing(&self, _results: usize) {}

    /// After results were read.
    async fn read(&self, _results: &[ResultEntry]) {}

    /// Before results are removed.
    async fn acknowledging(&self, _pool: &PoolId, _results: &[EntryId]) {}

    /// After all entries of a pool were listed.
    async fn listed(&self, _pool: &PoolId) {}
}

/// A queue and who watches it.
#[derive(Debug)]
pub struct Watched<W> {
    /// Unwatched.
    pub queue: MemoryQueue,
    /// Who watches.
    pub watch: W,
}

impl<W> Watched<W> {
    /// An empty queue.
    #[must_use]
    pub fn new(watch: W) -> Self {
        Self { queue: MemoryQueue::default(), watch }
    }
}

#[async_trait]
impl<W: Watch> TaskQueue for Watched<W> {
    async fn add(&self, pool: &PoolId, tasks: Vec<Task>) -> Result<(), Error> {
        self.watch.adding(pool).await;
        self.queue.add(pool, tasks).await
    }

    async fn wait_for_tasks(&self, pools: &[PoolId], wait: Duration) -> Result<bool, Error> {
        self.queue.wait_for_tasks(pools, wait).await
    }

    async fn lease(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<Lease>, Error> {
        self.queue.lease(pool, worker, max, wait).await
    }

    async fn heartbeat(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        leases: &[EntryId],
    ) -> Result<Vec<EntryId>, Error> {
        self.queue.heartbeat(pool, worker, leases).await
    }

    async fn complete(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        results: Vec<(EntryId, TaskResult)>,
    ) -> Result<Vec<Completion>, Error> {
        self.watch.completing(results.len()).await;
        self.queue.complete(pool, worker, results).await
    }

    async fn hand_back(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        leases: &[EntryId],
    ) -> Result<(), Error> {
        self.queue.hand_back(pool, worker, leases).await
    }

    async fn results(
        &self,
        pool: &PoolId,
        committer: &str,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<ResultEntry>, Error> {
        let results = self.queue.results(pool, committer, max, wait).await?;
        self.watch.read(&results).await;
        Ok(results)
    }

    async fn acknowledge(&self, pool: &PoolId, results: &[EntryId]) -> Result<(), Error> {
        self.watch.acknowledging(pool, results).await;
        self.queue.acknowledge(pool, results).await
    }

    async fn remove(
        &self,
        pool: &PoolId,
        tasks: &[TaskKey],
        leased: Leased,
    ) -> Result<Vec<TaskKey>, Error> {
        self.queue.remove(pool, tasks, leased).await
    }

    async fn reap(&self, pool: &PoolId, lease: Duration) -> Result<Vec<Lease>, Error> {
        self.queue.reap(pool, lease).await
    }

    async fn entries(&self, pool: &PoolId) -> Result<Vec<EntrySummary>, Error> {
        let entries = self.queue.entries(pool).await?;
        self.watch.listed(pool).await;
        Ok(entries)
    }

    async fn announce(&self, card: WorkerCard) -> Result<Orders, Error> {
        self.queue.announce(card).await
    }

    async fn ask_to_drain(&self, worker: &WorkerId) -> Result<(), Error> {
        self.queue.ask_to_drain(worker).await
    }

    async fn set_aside(
        &self,
        pools: &[PoolId],
        workers: &[(WorkerId, Duration)],
    ) -> Result<(), Error> {
        self.queue.set_aside(pools, workers).await
    }

    async fn withdraw(&self, worker: &WorkerId) -> Result<(), Error> {
        self.queue.withdraw(worker).await
    }

    async fn workers(&self, since: Duration) -> Result<Vec<WorkerCard>, Error> {
        self.queue.workers(since).await
    }
}
