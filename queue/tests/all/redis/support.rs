//! A server, queues on it, and short times.

use std::{sync::Arc, time::Duration};

use darkroom_core::id::WorkerId;
use darkroom_queue::{
    TaskQueue as _,
    redis::{Options, RedisQueue},
    task::{EntryId, Lease, PoolId, Subject, TaskKey},
};
use darkroom_suites::queue::{done, task};
use darkroom_test_servers::redis::Redis;
use tokio::time::{Instant, sleep};

/// Lease that tests reap by.
pub(crate) const LEASE: Duration = Duration::from_millis(500);
/// Time after which another committer is given results.
pub(crate) const TAKEOVER: Duration = Duration::from_millis(500);
/// Most time that anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn options() -> Options {
    Options {
        pool_limit: 1000,
        takeover: TAKEOVER,
        command: Duration::from_secs(1),
        longest_pause: Duration::from_millis(100),
        ..Options::default()
    }
}

pub(crate) async fn queue_at(url: &str) -> Arc<RedisQueue> {
    Arc::new(RedisQueue::connect(url, "farm", options()).await.expect("connects"))
}

pub(crate) async fn queue_on(redis: &Redis) -> Arc<RedisQueue> {
    queue_at(&redis.url()).await
}

pub(crate) fn worker(name: &str) -> WorkerId {
    WorkerId(name.to_owned())
}

pub(crate) fn index(key: &TaskKey) -> u64 {
    match key.subject {
        Subject::Image(image) => image.index,
        Subject::Text(_) => panic!("tasks of these tests are images"),
    }
}

pub(crate) fn ids(leases: &[Lease]) -> Vec<EntryId> {
    leases.iter().map(|lease| lease.id.clone()).collect()
}

pub(crate) fn indices(leases: &[Lease]) -> Vec<u64> {
    leases.iter().map(|lease| index(&lease.task.key)).collect()
}

pub(crate) async fn add(queue: &RedisQueue, pool: &PoolId, range: std::ops::Range<u64>) {
    queue.add(pool, range.map(task).collect()).await.expect("added");
}

pub(crate) async fn lease(queue: &RedisQueue, pool: &PoolId, name: &str, max: usize) -> Vec<Lease> {
    queue.lease(pool, &worker(name), max, Duration::ZERO).await.expect("leased")
}

/// Completes what one worker leased.
pub(crate) async fn complete(
    queue: &RedisQueue,
    pool: &PoolId,
    leases: &[Lease],
) -> Vec<darkroom_queue::task::Completion> {
    let results = leases.iter().map(|lease| (lease.id.clone(), done(lease))).collect();
    queue.complete(pool, &leases[0].worker, results).await.expect("completed")
}

/// Waits until `holds`.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Name of a pool's key in farm `farm`.
pub(crate) fn key(pool: &PoolId, name: &str) -> String {
    format!("darkroom:{{farm:{}@{}}}:{name}", pool.stage, pool.digest)
}

/// Waits until this many clients wait in a blocking read.
pub(crate) async fn until_blocked(redis: &Redis, clients: usize) {
    let line = format!("blocked_clients:{clients}\r");
    eventually("clients wait", async || redis.must(&["INFO", "clients"]).contains(&line)).await;
}

/// Calls of scripts since the statistics were reset.
pub(crate) fn script_calls(redis: &Redis) -> u64 {
    let stats = redis.must(&["INFO", "commandstats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    line.and_then(|line| line.split(',').next()).map_or(0, |calls| calls.parse().expect("a number"))
}
