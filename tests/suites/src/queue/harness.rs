//! A queue under test, and short ways to do things with it.

use std::{any::Any, sync::Arc, time::Duration};

use darkroom_core::id::WorkerId;
use darkroom_queue::{
    TaskQueue,
    task::{Completion, EntryId, Lease, PoolId, Subject, Task, TaskKey},
};

use super::samples::{done, task};

/// A fresh, empty queue to check, and its timings.
pub struct Harness {
    /// The queue.
    pub queue: Arc<dyn TaskQueue>,
    /// The lease that the checks reap by. Heartbeats come much more often.
    pub lease: Duration,
    /// The time after which a backend gives a silent committer's results to another.
    pub takeover: Duration,
    /// Kept alive until the check ends: a server.
    pub keep: Box<dyn Any + Send>,
}

impl Harness {
    pub(super) async fn add(&self, pool: &PoolId, tasks: Vec<Task>) {
        self.queue.add(pool, tasks).await.expect("added");
    }

    pub(super) async fn add_range(&self, pool: &PoolId, range: std::ops::Range<u64>) {
        self.add(pool, range.map(task).collect()).await;
    }

    pub(super) async fn lease(&self, pool: &PoolId, name: &str, max: usize) -> Vec<Lease> {
        self.queue.lease(pool, &worker(name), max, Duration::ZERO).await.expect("leased")
    }

    pub(super) async fn heartbeat(
        &self,
        pool: &PoolId,
        name: &str,
        leases: &[Lease],
    ) -> Vec<EntryId> {
        self.queue.heartbeat(pool, &worker(name), &ids(leases)).await.expect("heartbeat")
    }

    pub(super) async fn complete(&self, pool: &PoolId, lease: &Lease) -> Completion {
        self.complete_all(pool, std::slice::from_ref(lease)).await[0]
    }

    /// All in one call, as the worker of the first lease.
    pub(super) async fn complete_all(&self, pool: &PoolId, leases: &[Lease]) -> Vec<Completion> {
        let results = leases.iter().map(|lease| (lease.id.clone(), done(lease))).collect();
        self.queue.complete(pool, &leases[0].worker, results).await.expect("completed")
    }

    pub(super) async fn results(&self, pool: &PoolId, committer: &str) -> Vec<u64> {
        let results =
            self.queue.results(pool, committer, 100, Duration::ZERO).await.expect("results");
        results.iter().map(|entry| index(&entry.result.key)).collect()
    }
}

pub(super) fn worker(name: &str) -> WorkerId {
    WorkerId(name.to_owned())
}

pub(super) fn ids(leases: &[Lease]) -> Vec<EntryId> {
    leases.iter().map(|lease| lease.id.clone()).collect()
}

pub(super) fn indices(leases: &[Lease]) -> Vec<u64> {
    leases.iter().map(|lease| index(&lease.task.key)).collect()
}

pub(super) fn index(key: &TaskKey) -> u64 {
    match key.subject {
        Subject::Image(image) => image.index,
        Subject::Text(_) => panic!("the suite's tasks are images"),
    }
}
