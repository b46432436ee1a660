//! Waiting workers are woken, but not all of them for each task.

use std::{sync::Arc, time::Duration};

use darkroom_queue::{
    TaskQueue as _,
    redis::{Options, RedisQueue},
    task::PoolId,
};
use darkroom_suites::queue::pool;
use darkroom_test_servers::redis::Redis;
use futures::future::join_all;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::support::{
    PATIENCE, add, eventually, indices, key, lease, options, queue_on, script_calls, until_blocked,
    worker,
};

/// A queue whose waiters look only when a bell rings.
async fn patient_queue(redis: &Redis) -> Arc<RedisQueue> {
    let options = Options { look_again: Duration::from_secs(3600), ..options() };
    Arc::new(RedisQueue::connect(&redis.url(), "farm", options).await.expect("connects"))
}

/// Leases one task, however long it takes. A short wait would end with its own look at the queue,
/// and find a task without the bell.
fn lease_in_background(queue: &Arc<RedisQueue>, pool: &PoolId, name: &str) -> JoinHandle<Vec<u64>> {
    let (queue, pool, name) = (Arc::clone(queue), pool.clone(), worker(name));
    tokio::spawn(async move {
        let leasing = queue.lease(&pool, &name, 1, PATIENCE * 100);
        indices(&timeout(PATIENCE, leasing).await.expect("in time").expect("leased"))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_wakes_one_worker_of_many() {
    const WORKERS: usize = 40;
    let redis = Redis::start();
    let pool = pool("base");
    let queues = join_all((0..WORKERS).map(|_| patient_queue(&redis))).await;
    let dispatcher = patient_queue(&redis).await;
    redis.must(&["CONFIG", "RESETSTAT"]);
    let waiting: Vec<_> = (queues.iter().enumerate())
        .map(|(number, queue)| lease_in_background(queue, &pool, &format!("w{number}")))
        .collect();
    // A worker begins to listen before its first look, which would count below if it came late.
    eventually("all have looked", async || script_calls(&redis) >= WORKERS as u64).await;
    until_blocked(&redis, WORKERS).await;
    redis.must(&["CONFIG", "RESETSTAT"]);
    add(&dispatcher, &pool, 0..1).await;
    until_blocked(&redis, WORKERS - 1).await;
    // One call adds and the woken worker leases; no other worker moved.
    assert!(script_calls(&redis) <= 3, "{} script calls for one task", script_calls(&redis));
    add(&dispatcher, &pool, 1..WORKERS as u64).await;
    let mut leased: Vec<u64> = Vec::new();
    for one in join_all(waiting).await {
        leased.extend(one.expect("no panic"));
    }
    leased.sort_unstable();
    assert_eq!(leased, (0..WORKERS as u64).collect::<Vec<_>>(), "woken workers wake the others");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_waits_gets_a_task_at_once() {
    let redis = Redis::start();
    let (queue, dispatcher, pool) =
        (patient_queue(&redis).await, patient_queue(&redis).await, pool("base"));
    let mut shortest = Duration::MAX;
    for round in 0..20 {
        let waiting = lease_in_background(&queue, &pool, "w");
        until_blocked(&redis, 1).await;
        let start = Instant::now();
        add(&dispatcher, &pool, round..round + 1).await;
        assert_eq!(waiting.await.expect("no panic"), [round]);
        shortest = shortest.min(start.elapsed());
    }
    assert!(shortest < Duration::from_millis(50), "{shortest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_nobody_wants_any_more_goes_to_another_worker() {
    let redis = Redis::start();
    let (gone, stays, pool) =
        (patient_queue(&redis).await, patient_queue(&redis).await, pool("base"));
    let pools = [pool.clone()];
    let waiting = tokio::spawn(async move {
        // Dropped while its read, which is served first, still blocks.
        drop(
            tokio::time::timeout(Duration::from_millis(100), gone.wait_for_tasks(&pools, PATIENCE))
                .await,
        );
        gone
    });
    until_blocked(&redis, 1).await;
    let _gone = waiting.await.expect("no panic");
    let leasing = lease_in_background(&stays, &pool, "w");
    until_blocked(&redis, 2).await;
    add(&stays, &pool, 0..1).await;
    assert_eq!(leasing.await.expect("no panic"), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_token_was_lost_is_found_by_looking() {
    let redis = Redis::start();
    let (queue, base, other) = (queue_on(&redis).await, pool("base"), pool("sr1024"));
    add(&queue, &other, 0..1).await;
    let leasing = lease_in_background(&queue, &base, "w");
    until_blocked(&redis, 1).await;
    // No bell rings for tasks that arrive this way.
    redis.must(&["RENAME", &key(&other, "tasks"), &key(&base, "tasks")]);
    assert_eq!(leasing.await.expect("no panic"), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bells_stay_short_where_nobody_waits() {
    let redis = Redis::start();
    let (queue, pool) = (queue_on(&redis).await, pool("base"));
    for round in 0..20 {
        add(&queue, &pool, round * 10..round * 10 + 10).await;
    }
    assert_eq!(redis.must(&["LLEN", &key(&pool, "bell")]), ":8");
    assert_eq!(lease(&queue, &pool, "w", 500).await.len(), 200);
    assert!(lease(&queue, &pool, "w", 1).await.is_empty());
    assert_eq!(redis.must(&["LLEN", &key(&pool, "bell")]), ":0", "an empty line needs no tokens");
}
