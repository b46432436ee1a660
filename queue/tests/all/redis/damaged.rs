//! What somebody else wrote into this farm's keys: unreadable cards, keys of another type, entries
//! that are none. Nothing of it stops the farm.

use std::time::Duration;

use darkroom_queue::{
    TaskQueue as _,
    redis::RedisQueue,
    task::{Completion, EntryState, PoolId},
};
use darkroom_suites::queue::{card, pool};
use darkroom_test_servers::redis::Redis;

use super::support::{add, complete, eventually, ids, indices, key, lease, queue_on, worker};

const FARM: [&str; 5] = ["owner", "cards", "seen", "drain", "aside"];
const POOL: [&str; 7] = ["tasks", "head", "bell", "suspect", "aside", "results", "rung"];

/// Runs a command whose values have bytes that are no text, as Lua writes them.
fn lua(redis: &Redis, command: &str, key: &str) {
    redis.must(&["EVAL", &format!("redis.call({command}); return 1"), "1", key]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cards_that_cannot_be_read_hide_no_other() {
    let redis = Redis::start();
    let queue = queue_on(&redis).await;
    queue.announce(card("good")).await.expect("announced");
    let (cards, seen) = ("darkroom:{farm}:cards", "darkroom:{farm}:seen");
    let copy = redis.must(&["HGET", cards, "good"]);
    let when = redis.must(&["ZSCORE", seen, "good"]);
    for (name, value) in [
        ("'bytes'", "'\\255\\254'"),
        ("'text'", "'no card'"),
        ("'json'", "'{}'"),
        ("'\\255name'", "'{}'"),
        ("'empty'", "''"),
    ] {
        lua(&redis, &format!("'HSET', KEYS[1], {name}, {value}"), cards);
        lua(&redis, &format!("'ZADD', KEYS[1], {when}, {name}"), seen);
    }
    // A worker's card in another worker's place, as of one that speaks in its name.
    redis.must(&["HSET", cards, "other", &copy]);
    redis.must(&["ZADD", seen, &when, "other"]);
    let listed = queue.workers(Duration::from_secs(60)).await.expect("listed");
    let names: Vec<_> = listed.iter().map(|card| card.id.0.as_str()).collect();
    assert_eq!(names, ["good"]);
}

/// Everything that a farm does with its keys, once.
async fn works(queue: &RedisQueue, pool: &PoolId, index: u64) -> bool {
    let done = async {
        queue.claim_farm("database").await.ok()?;
        queue.expect_farm(Duration::ZERO).await.ok()?;
        queue.announce(card("w")).await.ok()?;
        queue.ask_to_drain(&worker("d")).await.ok()?;
        queue
            .set_aside(std::slice::from_ref(pool), &[(worker("a"), Duration::from_secs(9))])
            .await
            .ok()?;
        queue.withdraw(&worker("d")).await.ok()?;
        queue.add(pool, vec![darkroom_suites::queue::suspect(index)]).await.ok()?;
        let held = queue.lease(pool, &worker("w"), 9, Duration::ZERO).await.ok()?;
        queue.hand_back(pool, &worker("w"), &ids(&held)).await.ok()?;
        let held = queue.lease(pool, &worker("w"), 9, Duration::ZERO).await.ok()?;
        queue.heartbeat(pool, &worker("w"), &ids(&held)).await.ok()?;
        let results =
            held.iter().map(|lease| (lease.id.clone(), darkroom_suites::queue::done(lease)));
        queue.complete(pool, &worker("w"), results.collect()).await.ok()?;
        let results = queue.results(pool, "c", 99, Duration::ZERO).await.ok()?;
        let acknowledged: Vec<_> = results.iter().map(|entry| entry.id.clone()).collect();
        queue.acknowledge(pool, &acknowledged).await.ok()?;
        queue.reap(pool, Duration::from_secs(9)).await.ok()?;
        let left = queue.entries(pool).await.ok()?.is_empty();
        let seen = queue.workers(Duration::from_secs(9)).await.ok()?.len() == 1;
        (results.len() == 1 && left && seen).then_some(())
    };
    done.await.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_type_is_deleted_and_rebuilt() {
    let redis = Redis::start();
    let (queue, pool) = (queue_on(&redis).await, pool("base"));
    assert!(works(&queue, &pool, 0).await, "at first");
    let farm = FARM.map(|name| format!("darkroom:{{farm}}:{name}"));
    let all = farm.into_iter().chain(POOL.map(|name| key(&pool, name)));
    for (number, name) in all.enumerate() {
        for wrong in ["SADD", "SET"] {
            if name.ends_with(":owner") && wrong == "SET" {
                // That is another farm's mark.
                continue;
            }
            redis.must(&["DEL", &name]);
            redis.must(&[wrong, &name, "x"]);
            let mut index = 1000 * number as u64;
            eventually(&format!("{name} after {wrong}"), async || {
                index += 1;
                let worked = works(&queue, &pool, index).await;
                if !worked {
                    // What the sweep does with what a failed call left.
                    for key in queue.entries(&pool).await.unwrap_or_default() {
                        let keys = [key.key];
                        let _ = queue.remove(&pool, &keys, darkroom_queue::Leased::Remove).await;
                    }
                }
                worked
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_of_suspects_that_is_none_is_ignored() {
    let redis = Redis::start();
    let (queue, pool) = (queue_on(&redis).await, pool("base"));
    add(&queue, &pool, 0..1).await;
    redis.must(&["SET", &key(&pool, "suspect"), "x"]);
    assert_eq!(indices(&lease(&queue, &pool, "w", 9).await), [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bell_of_another_type_rings_again() {
    let redis = Redis::start();
    let (queue, pool) = (queue_on(&redis).await, pool("base"));
    redis.must(&["SADD", &key(&pool, "bell"), "x"]);
    let hint = queue.wait_for_tasks(std::slice::from_ref(&pool), Duration::from_secs(2));
    assert!(!hint.await.expect("answered"));
    assert_eq!(redis.must(&["TYPE", &key(&pool, "bell")]), "+none");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_cannot_be_read_block_nothing_behind_them() {
    let redis = Redis::start();
    let (queue, pool) = (queue_on(&redis).await, pool("base"));
    add(&queue, &pool, 0..1).await;
    let held = lease(&queue, &pool, "w", 1).await;
    let damaged = [
        "'XADD', KEYS[1], '*', 'x', 'y'",
        "'XADD', KEYS[1], '*', 'k', '\\255', 't', '{}'",
        "'XADD', KEYS[1], '*', 'k', 'i.0.0.0.0', 'r', '\\255'",
        "'XADD', KEYS[1], '*', 'k', 't.00.0.0', 't', '{}', 'more', 'fields'",
        "'XADD', KEYS[1], '*', 'k', 'i.00000000000000000000000000000007.1.1.1', 't', '{'",
        "'XADD', KEYS[1], '*', 'k', 'i.00000000000000000000000000000007.1.1.1', 'r', 'null'",
    ];
    for command in damaged {
        lua(&redis, command, &key(&pool, "tasks"));
        lua(&redis, command, &key(&pool, "results"));
    }
    add(&queue, &pool, 1..2).await;
    assert_eq!(complete(&queue, &pool, &held).await, [Completion::Recorded]);
    let results = queue.results(&pool, "c", 99, Duration::ZERO).await.expect("results");
    assert_eq!(results.len(), 1, "{results:?}");
    let next = lease(&queue, &pool, "w", 99).await;
    assert_eq!(indices(&next), [1]);
    let acknowledged: Vec<_> = results.iter().map(|entry| entry.id.clone()).collect();
    queue.acknowledge(&pool, &acknowledged).await.expect("acknowledged");
    let left = queue.entries(&pool).await.expect("listed");
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].state, EntryState::Leased(worker("w")));
    assert_eq!(queue.malformed_entries(), 2 * damaged.len() as u64, "each is counted once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_reads_entries_whose_keys_are_no_text() {
    let redis = Redis::start();
    let (queue, pool) = (queue_on(&redis).await, pool("base"));
    add(&queue, &pool, 0..2).await;
    lua(&redis, "'XADD', KEYS[1], '*', 'k', '\\255', 't', '{}'", &key(&pool, "tasks"));
    // It also makes the group.
    assert!(queue.wait_for_tasks(std::slice::from_ref(&pool), Duration::ZERO).await.expect("asks"));
    // Somebody leases by a name that is no text.
    lua(
        &redis,
        "'XREADGROUP', 'GROUP', 'farm', '\\255', 'COUNT', 1, 'STREAMS', KEYS[1], '>'",
        &key(&pool, "tasks"),
    );
    let entries = queue.entries(&pool).await.expect("listed");
    assert_eq!(entries.len(), 2, "{entries:?}");
    eventually("the lease of nobody ends", async || {
        !queue.reap(&pool, super::support::LEASE).await.expect("reaps").is_empty()
    })
    .await;
}
