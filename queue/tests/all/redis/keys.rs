//! What is stored in Redis: bounded, separate from other farms, and deleted if unreadable.

use std::time::Duration;

use darkroom_queue::{
    TaskQueue as _,
    redis::{Options, RedisQueue},
    task::Completion,
};
use darkroom_suites::queue::{card, pool};
use darkroom_test_servers::redis::Redis;
use tokio::time::sleep;

use super::support::{
    LEASE, add, complete, eventually, ids, indices, key, lease, options, queue_on,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_through_leaves_nothing_behind() {
    const TASKS: u64 = 10_000;
    const BATCH: u64 = 250;
    let redis = Redis::start();
    let (queue, pool) = (queue_on(&redis).await, pool("base"));
    let pass = async |range: std::ops::Range<u64>| {
        add(&queue, &pool, range).await;
        let held = lease(&queue, &pool, "w", 500).await;
        complete(&queue, &pool, &held).await;
        let read = queue.results(&pool, "c", 500, Duration::ZERO).await.expect("read");
        let read: Vec<_> = read.into_iter().map(|entry| entry.id).collect();
        queue.acknowledge(&pool, &read).await.expect("forgotten");
        assert_eq!(read.len(), BATCH as usize);
    };
    let size = || -> u64 {
        let names = ["tasks", "head", "bell", "results", "rung"];
        let sizes = names.iter().map(|name| redis.must(&["MEMORY", "USAGE", &key(&pool, name)]));
        sizes
            .filter_map(|answer| {
                answer.strip_prefix(':').and_then(|bytes| bytes.parse::<u64>().ok())
            })
            .sum()
    };
    pass(0..BATCH).await;
    let before = size();
    for batch in 1..TASKS / BATCH {
        pass(batch * BATCH..(batch + 1) * BATCH).await;
    }
    assert!(
        size() <= before + 4096,
        "{before} bytes after {BATCH} tasks, {} after {TASKS}",
        size()
    );
    assert!(size() < 16_384, "{} bytes", size());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_farms_on_one_redis_do_not_see_each_other() {
    let redis = Redis::start();
    let one = queue_on(&redis).await;
    let other = RedisQueue::connect(&redis.url(), "farm-2", options()).await.expect("connects");
    let pool = pool("base");
    add(&one, &pool, 0..1).await;
    one.announce(card("w")).await.expect("announced");
    assert!(lease(&other, &pool, "w", 5).await.is_empty());
    assert!(other.entries(&pool).await.expect("entries").is_empty());
    assert!(other.workers(Duration::from_secs(60)).await.expect("workers").is_empty());
    let held = lease(&one, &pool, "w", 5).await;
    complete(&one, &pool, &held).await;
    assert!(other.results(&pool, "c", 5, Duration::ZERO).await.expect("results").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_cannot_be_read_are_counted_and_deleted() {
    let redis = Redis::start();
    let (queue, pool) = (queue_on(&redis).await, pool("base"));
    let tasks = key(&pool, "tasks");
    let good_key = format!("i.{}.7.1.1", "0".repeat(32));
    redis.must(&["XADD", &tasks, "*", "x", "y"]);
    redis.must(&["XADD", &tasks, "*", "k", "what", "t", "{}"]);
    redis.must(&["XADD", &tasks, "*", "k", &good_key, "t", "not json"]);
    redis.must(&["XADD", &tasks, "*", "k", &good_key, "z", "{}"]);
    add(&queue, &pool, 0..2).await;
    redis.must(&["XADD", &tasks, "*", "k", "what", "s", "{}"]);
    assert_eq!(indices(&lease(&queue, &pool, "w", 9).await), [0, 1]);
    assert!(lease(&queue, &pool, "w", 9).await.is_empty());
    assert_eq!(queue.malformed_entries(), 5);
    assert_eq!(redis.must(&["XLEN", &tasks]), ":2");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_cannot_be_read_are_counted_and_deleted() {
    let redis = Redis::start();
    let (queue, pool) = (queue_on(&redis).await, pool("base"));
    let results = key(&pool, "results");
    redis.must(&["XADD", &results, "*", "x", "y"]);
    redis.must(&["XADD", &results, "*", "k", &format!("i.{}.7.1.1", "0".repeat(32)), "r", "{}"]);
    assert!(queue.results(&pool, "c", 9, Duration::ZERO).await.expect("read").is_empty());
    assert_eq!(queue.malformed_entries(), 2);
    assert_eq!(redis.must(&["XLEN", &results]), ":0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_and_the_reaper_delete_what_they_cannot_read() {
    let redis = Redis::start();
    let (queue, pool) = (queue_on(&redis).await, pool("base"));
    let tasks = key(&pool, "tasks");
    redis.must(&["XADD", &tasks, "*", "x", "y"]);
    redis.must(&["XADD", &tasks, "*", "k", &format!("i.{}.7.1.1", "0".repeat(32)), "t", "{}"]);
    assert_eq!(queue.entries(&pool).await.expect("entries").len(), 1);
    assert_eq!(queue.malformed_entries(), 1);
    redis.must(&["XGROUP", "CREATE", &tasks, "farm", "0"]);
    redis.must(&["XREADGROUP", "GROUP", "farm", "w", "STREAMS", &tasks, ">"]);
    sleep(LEASE).await;
    assert!(queue.reap(&pool, LEASE).await.expect("reaped").is_empty());
    assert_eq!(queue.malformed_entries(), 2);
    assert_eq!(redis.must(&["XLEN", &tasks]), ":0");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_consumers_are_removed_and_those_with_leases_never() {
    let redis = Redis::start();
    let eager = Options {
        tidy_every: Duration::ZERO,
        consumer_idle: Duration::from_millis(50),
        ..options()
    };
    let queue = RedisQueue::connect(&redis.url(), "farm", eager.clone()).await.expect("connects");
    let pool = pool("base");
    add(&queue, &pool, 0..20).await;
    for number in 0..19 {
        let held = lease(&queue, &pool, &format!("w{number}"), 1).await;
        complete(&queue, &pool, &held).await;
    }
    let held = lease(&queue, &pool, "holder", 1).await;
    let consumers = || redis.must(&["XINFO", "CONSUMERS", &key(&pool, "tasks"), "farm"]);
    assert_eq!(consumers(), "*20");
    eventually("they are removed", async || {
        let lost = queue.heartbeat(&pool, &held[0].worker, &ids(&held)).await.expect("answered");
        assert!(lost.is_empty());
        sleep(eager.consumer_idle).await;
        assert!(queue.reap(&pool, LEASE).await.expect("reaped").is_empty());
        consumers() == "*1"
    })
    .await;
    assert_eq!(complete(&queue, &pool, &held).await, [Completion::Recorded]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_pool_that_nobody_reaps_go_in_the_end() {
    let redis = Redis::start();
    let (queue, pool) = (queue_on(&redis).await, pool("base"));
    add(&queue, &pool, 0..1).await;
    assert_eq!(redis.must(&["TTL", &key(&pool, "tasks")]), ":-1");
    sleep(LEASE).await;
    queue.reap(&pool, LEASE).await.expect("reaped");
    let left = redis.must(&["TTL", &key(&pool, "tasks")]);
    assert!(left.trim_start_matches(':').parse::<i64>().is_ok_and(|left| left > 3600), "{left}");
}
