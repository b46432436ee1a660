//! The users of docs/redis.md, on a real server: each does its work, and reaches nothing else.

use std::time::Duration;

use darkroom_queue::{TaskQueue as _, redis::RedisQueue, task::Completion};
use darkroom_suites::queue::{card, done, pool, task};
use darkroom_test_servers::redis::Redis;

use super::support::{options, worker};

const PAGE: &str = include_str!("../../../../docs/redis.md");
const MINE: &str = "2f1c6b1e-0000-4000-8000-000000000001";
const OTHER: &str = "2f1c6b1e-0000-4000-8000-000000000002";

/// Makes the page's users for a farm.
fn add_users(redis: &Redis) {
    let lines: Vec<&str> = PAGE.lines().filter(|line| line.starts_with("user ")).collect();
    assert_eq!(lines.len(), 3, "the page's users");
    for line in lines {
        let line = line.replace("FARM", MINE).replace("PASSWORD", "s3cret");
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        redis.must(&[&["ACL", "SETUSER"], words.as_slice()].concat());
    }
}

fn url(redis: &Redis, user: &str) -> String {
    format!("redis://{user}:s3cret@127.0.0.1:{}/", redis.port())
}

/// The queue of a farm as one of the users.
async fn queue(redis: &Redis, user: &str, farm: &str) -> RedisQueue {
    RedisQueue::connect(&url(redis, user), farm, options()).await.expect("connects")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_user_does_its_work() {
    let redis = Redis::start();
    add_users(&redis);
    let coordinator = queue(&redis, "coordinator", MINE).await;
    coordinator.claim_farm("database").await.expect("claims");
    for (user, stage) in [("base-worker", "base"), ("encoder", "encode")] {
        let (member, pool) = (queue(&redis, user, MINE).await, pool(stage));
        member.expect_farm(Duration::ZERO).await.expect("finds the mark");
        coordinator.add(&pool, vec![task(1), task(2)]).await.expect("adds");
        assert!(
            member
                .wait_for_tasks(std::slice::from_ref(&pool), Duration::from_secs(5))
                .await
                .expect("waits")
        );
        let held =
            member.lease(&pool, &worker(user), 9, Duration::from_secs(5)).await.expect("leases");
        let ids: Vec<_> = held.iter().map(|lease| lease.id.clone()).collect();
        assert!(member.heartbeat(&pool, &worker(user), &ids).await.expect("renews").is_empty());
        member.hand_back(&pool, &worker(user), &ids[..1]).await.expect("hands back");
        let result = vec![(held[1].id.clone(), done(&held[1]))];
        let completed = member.complete(&pool, &worker(user), result).await.expect("completes");
        assert_eq!(completed, [Completion::Recorded]);
        member.announce(card(user)).await.expect("announces");
        coordinator.ask_to_drain(&worker(user)).await.expect("asks");
        assert!(member.announce(card(user)).await.expect("announces").drain);
        member.withdraw(&worker(user)).await.expect("withdraws");
        let results =
            coordinator.results(&pool, "c", 9, Duration::from_secs(5)).await.expect("reads");
        let acknowledged: Vec<_> = results.iter().map(|entry| entry.id.clone()).collect();
        coordinator.acknowledge(&pool, &acknowledged).await.expect("acknowledges");
        coordinator.reap(&pool, Duration::from_secs(9)).await.expect("reaps");
        assert_eq!(coordinator.entries(&pool).await.expect("lists").len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_user_reaches_another_farm_or_another_stage() {
    let redis = Redis::start();
    add_users(&redis);
    let other = RedisQueue::connect(&redis.url(), OTHER, options()).await.expect("connects");
    other.claim_farm("theirs").await.expect("claims");
    for user in ["coordinator", "base-worker", "encoder"] {
        let refused = RedisQueue::connect(&url(&redis, user), OTHER, options()).await;
        let refused = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.contains("refuses the user"), "{user}: {refused}");
    }
    let sr256 = pool("sr256");
    let coordinator = queue(&redis, "coordinator", MINE).await;
    coordinator.add(&sr256, vec![task(1)]).await.expect("adds");
    for (user, own) in [("base-worker", "base"), ("encoder", "encode")] {
        let member = queue(&redis, user, MINE).await;
        for stage in ["base", "sr256", "encode"] {
            let leased = member.lease(&pool(stage), &worker(user), 9, Duration::ZERO).await;
            assert_eq!(leased.is_ok(), stage == own, "{user} {stage}: {leased:?}");
            let added = member.add(&pool(stage), vec![task(7)]).await;
            assert_eq!(added.is_ok(), stage == own, "{user} {stage}: {added:?}");
        }
    }
    assert_eq!(coordinator.entries(&sr256).await.expect("lists").len(), 1, "untouched");
}
