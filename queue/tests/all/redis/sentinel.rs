//! A master that dies, and Sentinels that promote its replica.

use std::sync::Arc;

use darkroom_queue::{
    TaskQueue as _,
    redis::{RedisQueue, StartError},
    task::Completion,
};
use darkroom_suites::queue::{pool, task};
use darkroom_test_servers::{redis::Redis, sentinel::Sentinel};

use super::support::{
    PATIENCE, add, complete, eventually, indices, lease, options, queue_at, until_blocked, worker,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_replica_is_used_by_shared_and_by_waiting_connections() {
    let mut redis = Redis::start();
    let replica = redis.start_replica();
    let mut sentinel = Sentinel::start("farm-queue", &redis);
    sentinel.until_it_knows(1);
    let (queue, pool) = (queue_at(&sentinel.url()).await, pool("base"));
    add(&queue, &pool, 0..1).await;
    let first = lease(&queue, &pool, "w", 5).await;
    assert_eq!(indices(&first), [0]);
    assert_eq!(complete(&queue, &pool, &first).await, [Completion::Recorded]);
    let waiting = {
        let (queue, pool) = (Arc::clone(&queue), pool.clone());
        tokio::spawn(async move {
            queue.lease(&pool, &worker("w"), 5, PATIENCE).await.expect("retries until it works")
        })
    };
    until_blocked(&redis, 1).await;

    redis.kill();
    sentinel.until_master_is(&replica);

    eventually("a task is added", async || queue.add(&pool, vec![task(1)]).await.is_ok()).await;
    let leases = waiting.await.expect("no panic");
    assert_eq!(indices(&leases), [1]);
    assert_eq!(complete(&queue, &pool, &leases).await, [Completion::Recorded]);
    assert!(replica.must(&["INFO", "replication"]).contains("role:master"));
    assert_ne!(replica.must(&["DBSIZE"]), ":0");
    // A promoted server counts as new: nothing is reaped before live workers could renew.
    assert!(queue.health().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_demoted_and_lives_is_left() {
    let redis = Redis::start();
    let replica = redis.start_replica();
    let mut sentinel = Sentinel::start("farm-queue", &redis);
    sentinel.until_it_knows(1);
    let (queue, pool) = (queue_at(&sentinel.url()).await, pool("base"));
    add(&queue, &pool, 0..1).await;
    redis.pause();
    sentinel.until_master_is(&replica);
    redis.resume();
    eventually("the old master follows the new one", async || {
        redis.command(&["INFO", "replication"]).is_ok_and(|said| said.contains("role:slave"))
    })
    .await;
    eventually("a task is added", async || queue.add(&pool, vec![task(1)]).await.is_ok()).await;
    assert!(!lease(&queue, &pool, "w", 5).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_that_do_not_know_the_master_or_do_not_answer_are_named() {
    let redis = Redis::start();
    let sentinel = Sentinel::start("farm-queue", &redis);
    let other = format!("redis+sentinel://127.0.0.1:{}/other", sentinel.port());
    let error = RedisQueue::connect(&other, "farm", options()).await.expect_err("no such master");
    assert!(matches!(error, StartError::NotReady { .. }), "{error:?}");
    assert!(error.to_string().contains("other of the Sentinels at 127.0.0.1:"), "{error}");

    let nobody = "redis+sentinel://:secret@127.0.0.1:1/farm-queue";
    let error = RedisQueue::connect(nobody, "farm", options()).await.expect_err("nobody is there");
    assert!(matches!(error, StartError::Unreachable { .. }), "{error:?}");
    assert!(!error.to_string().contains("secret"), "{error}");

    // A Redis where a Sentinel should be.
    let server = format!("redis+sentinel://127.0.0.1:{}/farm-queue", redis.port());
    let error = RedisQueue::connect(&server, "farm", options()).await.expect_err("no Sentinel");
    assert!(error.to_string().contains("of the Sentinels at"), "{error}");
}
