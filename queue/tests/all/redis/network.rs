//! Faults of a network: it is cut, hangs, and loses answers.

use std::{sync::Arc, time::Duration};

use darkroom_queue::{
    TaskQueue as _,
    redis::{Options, RedisQueue},
    task::Completion,
};
use darkroom_suites::queue::pool;
use darkroom_test_servers::{proxy::Proxy, redis::Redis};
use tokio::time::sleep;

use super::support::{
    LEASE, PATIENCE, add, complete, eventually, ids, index, indices, key, lease, options, queue_at,
    queue_on, until_blocked, worker,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_longer_than_any_timeout_does_not_end_a_worker_that_waits() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.port());
    let (queue, dispatcher, pool) =
        (queue_at(&redis.url_through(proxy.port())).await, queue_on(&redis).await, pool("base"));
    let leasing = {
        let (queue, pool) = (Arc::clone(&queue), pool.clone());
        tokio::spawn(async move {
            queue.lease(&pool, &worker("w"), 5, PATIENCE).await.expect("retries until it works")
        })
    };
    until_blocked(&redis, 1).await;
    proxy.cut();
    until_blocked(&redis, 0).await;
    sleep(options().command * 2).await;
    add(&dispatcher, &pool, 0..1).await;
    proxy.heal();
    assert_eq!(indices(&leasing.await.expect("no panic")), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallows_everything_is_given_up_and_tried_anew() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.port());
    let short = Options {
        block: Duration::from_millis(200),
        command: Duration::from_millis(400),
        ..options()
    };
    let queue = RedisQueue::connect(&redis.url_through(proxy.port()), "farm", short)
        .await
        .expect("connects");
    let (queue, dispatcher, pool) = (Arc::new(queue), queue_on(&redis).await, pool("base"));
    let leasing = {
        let (queue, pool) = (Arc::clone(&queue), pool.clone());
        tokio::spawn(async move {
            queue.lease(&pool, &worker("w"), 5, PATIENCE).await.expect("retries until it works")
        })
    };
    until_blocked(&redis, 1).await;
    let before = proxy.accepted();
    proxy.stall();
    eventually("new connections are tried", async || proxy.accepted() > before + 1).await;
    add(&dispatcher, &pool, 0..1).await;
    proxy.heal();
    assert_eq!(indices(&leasing.await.expect("no panic")), [0]);
}

/// Makes the proxy drop the next long answer. The first replies of a connection pass; two tasks or
/// results do not.
async fn next_answer_is_lost(proxy: &Proxy, queue: &RedisQueue) {
    proxy.cut();
    // Waits until the queue has noticed that its connection is gone, so that the next call need
    // not.
    eventually("the cut is known", async || queue.health().await.is_err()).await;
    proxy.close_after_bytes(Some(300));
    proxy.heal();
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_leased_by_an_answer_that_was_lost_come_again_at_once() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.port());
    let (queue, pool) = (queue_at(&redis.url_through(proxy.port())).await, pool("base"));
    add(&queue, &pool, 0..5).await;
    let first = lease(&queue, &pool, "w", 1).await;
    next_answer_is_lost(&proxy, &queue).await;
    queue.lease(&pool, &worker("w"), 2, Duration::ZERO).await.expect_err("the answer is lost");
    assert_eq!(
        redis.must(&["XPENDING", &key(&pool, "tasks"), "farm", "-", "+", "9"]),
        "*3",
        "it leased them anyway"
    );
    proxy.close_after_bytes(None);
    let again = lease(&queue, &pool, "w", 3).await;
    assert_eq!(indices(&again), [1, 2, 3], "in their old order, before the rest");
    let held: Vec<_> = first.into_iter().chain(again).collect();
    assert!(queue.heartbeat(&pool, &worker("w"), &ids(&held)).await.expect("answered").is_empty());
    assert_eq!(complete(&queue, &pool, &held).await, [Completion::Recorded; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_in_an_answer_that_was_lost_are_read_again() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.port());
    let (queue, pool) = (queue_at(&redis.url_through(proxy.port())).await, pool("base"));
    add(&queue, &pool, 0..3).await;
    let held = lease(&queue, &pool, "w", 3).await;
    complete(&queue, &pool, &held).await;
    let first = queue.results(&pool, "c", 1, Duration::ZERO).await.expect("read");
    next_answer_is_lost(&proxy, &queue).await;
    queue.results(&pool, "c", 9, Duration::ZERO).await.expect_err("the answer is lost");
    assert_eq!(
        redis.must(&["XPENDING", &key(&pool, "results"), "farm", "-", "+", "9"]),
        "*3",
        "it read them anyway"
    );
    proxy.close_after_bytes(None);
    let rest = queue.results(&pool, "c", 9, PATIENCE).await.expect("read");
    let seen: Vec<u64> = first.iter().chain(&rest).map(|entry| index(&entry.result.key)).collect();
    assert_eq!(seen, [0, 1, 2], "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_that_failed_is_made_up_for() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.port());
    let (queue, pool) = (queue_at(&redis.url_through(proxy.port())).await, pool("base"));
    add(&queue, &pool, 0..2).await;
    let held = lease(&queue, &pool, "w", 2).await;
    complete(&queue, &pool, &held).await;
    let read = queue.results(&pool, "c", 9, Duration::ZERO).await.expect("read");
    let read: Vec<_> = read.into_iter().map(|entry| entry.id).collect();
    proxy.cut();
    queue.acknowledge(&pool, &read).await.expect_err("cut");
    proxy.heal();
    eventually("the network is back", async || queue.health().await.is_ok()).await;
    assert!(queue.results(&pool, "c", 9, Duration::ZERO).await.expect("read").is_empty());
    assert_eq!(redis.must(&["XLEN", &key(&pool, "results")]), ":0");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_reaped_within_one_lease_after_a_cut() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.port());
    let (leader, pool) = (queue_at(&redis.url_through(proxy.port())).await, pool("base"));
    add(&leader, &pool, 0..1).await;
    let held = lease(&leader, &pool, "w", 1).await;
    sleep(LEASE).await;
    proxy.cut();
    eventually("the cut is known", async || leader.health().await.is_err()).await;
    proxy.heal();
    eventually("the network is back", async || leader.health().await.is_ok()).await;
    assert!(leader.reap(&pool, LEASE).await.expect("answered").is_empty());
    let mut reaped = Vec::new();
    eventually("it is reaped in the end", async || {
        reaped.extend(leader.reap(&pool, LEASE).await.expect("answered"));
        !reaped.is_empty()
    })
    .await;
    assert_eq!(reaped, held);
}
