//! Faults of a server: it dies, is flushed, returns to an old state, refuses writes.

use std::{sync::Arc, time::Duration};

use darkroom_queue::{
    Error, TaskQueue as _,
    redis::RedisQueue,
    task::{Completion, Lease, PoolId},
};
use darkroom_suites::queue::{pool, task};
use darkroom_test_servers::redis::Redis;
use tokio::{task::JoinHandle, time::sleep};

use super::support::{
    LEASE, PATIENCE, add, complete, eventually, ids, indices, lease, queue_on, until_blocked,
    worker,
};

fn lease_in_background(
    queue: &Arc<RedisQueue>,
    pool: &PoolId,
    name: &str,
) -> JoinHandle<Vec<Lease>> {
    let (queue, pool, name) = (Arc::clone(queue), pool.clone(), worker(name));
    tokio::spawn(async move {
        queue.lease(&pool, &name, 5, PATIENCE).await.expect("retries until it works")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_waits_takes_work_again_after_the_server_was_killed() {
    let mut redis = Redis::start();
    let (queue, dispatcher, pool) = (queue_on(&redis).await, queue_on(&redis).await, pool("base"));
    for round in 0..3 {
        let leasing = lease_in_background(&queue, &pool, "w");
        until_blocked(&redis, 1).await;
        redis.kill();
        let refused = dispatcher.add(&pool, vec![task(round)]).await.expect_err("nobody is there");
        assert!(refused.retryable(), "{refused}");
        redis.restart();
        eventually("a task is added", async || {
            dispatcher.add(&pool, vec![task(round)]).await.is_ok()
        })
        .await;
        let leases = leasing.await.expect("no panic");
        assert_eq!(indices(&leases), [round]);
        assert_eq!(complete(&queue, &pool, &leases).await, [Completion::Recorded]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_waited_for() {
    let redis = Redis::start();
    let (queue, dispatcher, pool) = (queue_on(&redis).await, queue_on(&redis).await, pool("base"));
    let leasing = lease_in_background(&queue, &pool, "w");
    until_blocked(&redis, 1).await;
    redis.pause();
    let refused = dispatcher.add(&pool, vec![task(0)]).await.expect_err("no answer in time");
    assert!(refused.retryable(), "{refused}");
    redis.resume();
    eventually("a task is added", async || dispatcher.add(&pool, vec![task(1)]).await.is_ok())
        .await;
    assert!(!leasing.await.expect("no panic").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_flush_leases_are_lost_and_new_tasks_flow() {
    let redis = Redis::start();
    let (queue, pool) = (queue_on(&redis).await, pool("base"));
    add(&queue, &pool, 0..4).await;
    let held = lease(&queue, &pool, "w", 2).await;
    redis.flush();
    let lost = queue.heartbeat(&pool, &worker("w"), &ids(&held)).await.expect("answered");
    assert_eq!(lost, ids(&held));
    assert_eq!(complete(&queue, &pool, &held).await, [Completion::LeaseLost; 2]);
    queue.hand_back(&pool, &worker("w"), &ids(&held)).await.expect("nothing to hand back");
    queue.acknowledge(&pool, &ids(&held)).await.expect("nothing to forget");
    sleep(LEASE).await;
    assert!(queue.reap(&pool, LEASE).await.expect("answered").is_empty());
    assert!(queue.entries(&pool).await.expect("answered").is_empty());
    add(&queue, &pool, 4..6).await;
    let held = lease(&queue, &pool, "w", 5).await;
    assert_eq!(indices(&held), [4, 5]);
    assert_eq!(complete(&queue, &pool, &held).await, [Completion::Recorded; 2]);
    assert_eq!(queue.results(&pool, "c", 5, Duration::ZERO).await.expect("results").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_waits_outlives_a_flush_of_everything() {
    let redis = Redis::start();
    let (queue, pool) = (queue_on(&redis).await, pool("base"));
    let leasing = lease_in_background(&queue, &pool, "w");
    until_blocked(&redis, 1).await;
    redis.flush();
    redis.flush_scripts();
    add(&queue, &pool, 0..1).await;
    assert_eq!(indices(&leasing.await.expect("no panic")), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_that_were_flushed_are_loaded_again() {
    let redis = Redis::start();
    let (queue, pool) = (queue_on(&redis).await, pool("base"));
    add(&queue, &pool, 0..2).await;
    redis.flush_scripts();
    let held = lease(&queue, &pool, "w", 1).await;
    redis.flush_scripts();
    assert!(queue.heartbeat(&pool, &worker("w"), &ids(&held)).await.expect("answered").is_empty());
    redis.flush_scripts();
    assert_eq!(complete(&queue, &pool, &held).await, [Completion::Recorded]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_younger_than_the_snapshot_are_lost_and_its_tasks_come_again() {
    let mut redis = Redis::start();
    let (queue, pool) = (queue_on(&redis).await, pool("base"));
    add(&queue, &pool, 0..4).await;
    let old = lease(&queue, &pool, "w", 1).await;
    let snapshot = redis.snapshot();
    let young = lease(&queue, &pool, "w", 2).await;
    assert_eq!(complete(&queue, &pool, &old).await, [Completion::Recorded]);
    redis.restart_from_snapshot(&snapshot);
    let beat = async || queue.heartbeat(&pool, &worker("w"), &ids(&young)).await;
    eventually("the server is back", async || beat().await.is_ok()).await;
    assert_eq!(beat().await.expect("answered"), ids(&young));
    assert_eq!(complete(&queue, &pool, &young).await, [Completion::LeaseLost; 2]);
    assert_eq!(indices(&lease(&queue, &pool, "w", 9).await), [1, 2, 3]);
    // Its result was lost with the server. SQL never saw it, and the snapshot does not have it.
    assert_eq!(complete(&queue, &pool, &old).await, [Completion::Recorded]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_reaped_within_one_lease_after_a_restart() {
    let mut redis = Redis::start_with(&["appendonly yes", "appendfsync always"]);
    let (queue, pool) = (queue_on(&redis).await, pool("base"));
    add(&queue, &pool, 0..2).await;
    let live = lease(&queue, &pool, "live", 1).await;
    let dead = lease(&queue, &pool, "dead", 1).await;
    redis.kill();
    sleep(LEASE).await;
    redis.restart();
    let reap = async || queue.reap(&pool, LEASE).await;
    eventually("the server is back", async || queue.entries(&pool).await.is_ok()).await;
    assert!(
        reap().await.expect("answered").is_empty(),
        "both were silent for more than a lease, because the server was away"
    );
    assert!(
        queue.heartbeat(&pool, &worker("live"), &ids(&live)).await.expect("answered").is_empty()
    );
    let mut reaped = Vec::new();
    eventually("the dead worker is reaped", async || {
        assert!(
            queue
                .heartbeat(&pool, &worker("live"), &ids(&live))
                .await
                .expect("answered")
                .is_empty()
        );
        reaped.extend(reap().await.expect("answered"));
        !reaped.is_empty()
    })
    .await;
    assert_eq!(reaped, dead);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_takes_nothing_until_it_is_promoted() {
    let (redis, primary) = (Redis::start(), Redis::start());
    let (queue, pool) = (queue_on(&redis).await, pool("base"));
    redis.must(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    let refused = queue.add(&pool, vec![task(0)]).await.expect_err("read-only");
    assert!(refused.retryable() && refused.to_string().contains("replica"), "{refused}");
    redis.must(&["REPLICAOF", "NO", "ONE"]);
    eventually("it is promoted", async || queue.add(&pool, vec![task(0)]).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_refuses_tasks_and_results_and_keeps_leases() {
    let redis = Redis::start();
    let (queue, pool) = (queue_on(&redis).await, pool("base"));
    add(&queue, &pool, 0..2).await;
    let held = lease(&queue, &pool, "w", 1).await;
    redis.must(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = queue.add(&pool, vec![task(2)]).await.expect_err("out of memory");
    assert!(refused.retryable() && refused.to_string().contains("maxmemory"), "{refused}");
    let results = vec![(held[0].id.clone(), darkroom_suites::queue::done(&held[0]))];
    queue.complete(&pool, &worker("w"), results).await.expect_err("out of memory");
    assert!(queue.heartbeat(&pool, &worker("w"), &ids(&held)).await.expect("answered").is_empty());
    redis.must(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(complete(&queue, &pool, &held).await, [Completion::Recorded]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_refuses_more_and_results_count() {
    let redis = Redis::start();
    let options = darkroom_queue::redis::Options { pool_limit: 2, ..super::support::options() };
    let queue = RedisQueue::connect(&redis.url(), "farm", options).await.expect("connects");
    let pool = pool("base");
    add(&queue, &pool, 0..2).await;
    let refused = queue.add(&pool, vec![task(2)]).await.unwrap_err();
    assert!(matches!(refused, Error::Full { limit: 2, .. }), "{refused:?}");
    let held = lease(&queue, &pool, "w", 1).await;
    complete(&queue, &pool, &held).await;
    queue.add(&pool, vec![task(2)]).await.expect_err("the result still counts as an entry");
    let results = queue.results(&pool, "c", 10, Duration::ZERO).await.unwrap();
    queue.acknowledge(&pool, &[results[0].id.clone()]).await.unwrap();
    queue.add(&pool, vec![task(2)]).await.expect("room again");
}
