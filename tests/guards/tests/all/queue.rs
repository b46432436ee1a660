//! The guards of the queue on Redis. Each is a line of a script.

use std::{sync::Arc, time::Duration};

use darkroom_core::{guard::Guard, id::WorkerId};
use darkroom_guards::red;
use darkroom_queue::{
    TaskQueue as _,
    memory::MemoryQueue,
    redis::{Options, RedisQueue},
    task::{Completion, EntryId, EntryState, Lease},
};
use darkroom_suites::queue::{self, Harness, done, pool, task};
use darkroom_test_servers::redis::Redis;
use tokio::time::{Instant, sleep};

const LEASE: Duration = Duration::from_millis(500);

fn options() -> Options {
    Options {
        pool_limit: 1000,
        takeover: LEASE,
        command: Duration::from_secs(1),
        longest_pause: Duration::from_millis(100),
        ..Options::default()
    }
}

async fn queue_on(redis: &Redis, options: Options) -> Arc<RedisQueue> {
    let queue = RedisQueue::connect(&redis.url(), "farm", options).await.expect("connects");
    // For a full lease after it first met the server, the queue reaps nothing.
    sleep(LEASE).await;
    Arc::new(queue)
}

async fn harness() -> Harness {
    let redis = Redis::start();
    let queue = queue_on(&redis, options()).await;
    Harness {
        queue,
        lease: LEASE,
        takeover: LEASE + Duration::from_millis(20),
        keep: Box::new(redis),
    }
}

fn worker(name: &str) -> WorkerId {
    WorkerId(name.to_owned())
}

fn ids(leases: &[Lease]) -> Vec<EntryId> {
    leases.iter().map(|lease| lease.id.clone()).collect()
}

async fn lease(queue: &RedisQueue, name: &str, most: usize) -> Vec<Lease> {
    queue.lease(&pool("base"), &worker(name), most, Duration::ZERO).await.expect("leased")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_that_does_not_ask_whose_the_lease_is_steals_it() {
    red(Guard::HeartbeatOwner, "another worker's", || async {
        queue::a_heartbeat_never_takes_a_lease_back(harness().await).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_that_does_not_ask_whose_the_lease_is_doubles_a_result() {
    red(Guard::CompleteOwner, "left: Recorded", || async {
        queue::only_the_holder_completes_and_only_once(harness().await).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_back_that_does_not_ask_whose_the_lease_is_takes_anothers() {
    red(Guard::HandBackOwner, "heartbeat", || async {
        queue::only_the_holder_hands_back(harness().await).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reaper_that_does_not_look_at_the_idle_time_robs_the_living() {
    red(Guard::ReapIdle, "left: [Lease", || async {
        queue::a_heartbeat_keeps_a_lease_from_the_reaper(harness().await).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_that_is_not_kept_alone_has_company() {
    red(Guard::SuspectAlone, "left: [0, 1", || async {
        queue::a_suspect_task_is_leased_alone(harness().await).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reaper_that_does_not_wait_after_a_restart_robs_the_living() {
    red(Guard::ReapPause, "both are alive", || async {
        let mut redis = Redis::start_with(&["appendonly yes", "appendfsync always"]);
        let queue = queue_on(&redis, options()).await;
        queue.add(&pool("base"), vec![task(0)]).await.expect("added");
        let held = lease(&queue, "live", 1).await;
        redis.kill();
        sleep(LEASE).await;
        redis.restart();
        let began = Instant::now();
        while queue.entries(&pool("base")).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "the server does not come back");
            sleep(Duration::from_millis(5)).await;
        }
        let reaped = queue.reap(&pool("base"), LEASE).await.expect("answered");
        assert!(reaped.is_empty(), "both are alive, and could not renew");
        assert!(
            queue
                .heartbeat(&pool("base"), &worker("live"), &ids(&held))
                .await
                .expect("beats")
                .is_empty()
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_deleted_with_its_leases_loses_them() {
    red(Guard::ConsumerEmpty, "the lease is forgotten", || async {
        let redis = Redis::start();
        let idle = Duration::from_millis(50);
        let options = Options { tidy_every: Duration::ZERO, consumer_idle: idle, ..options() };
        let queue = queue_on(&redis, options).await;
        queue.add(&pool("base"), vec![task(0)]).await.expect("added");
        assert_eq!(lease(&queue, "slow", 1).await.len(), 1);
        sleep(idle * 3).await;
        let reaped = queue.reap(&pool("base"), LEASE).await.expect("answered");
        assert!(reaped.is_empty(), "its lease is not over");
        let entries = queue.entries(&pool("base")).await.expect("answered");
        assert_eq!(entries[0].state, EntryState::Leased(worker("slow")), "the lease is forgotten");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_made_at_the_end_passes_over_what_waits() {
    red(Guard::GroupAtStart, "what waits is passed over", || async {
        let redis = Redis::start();
        let queue = queue_on(&redis, options()).await;
        // The queue's first task comes before its group exists, as do tasks from an old snapshot or
        // another version.
        queue.add(&pool("base"), vec![task(0), task(1)]).await.expect("added");
        assert_eq!(lease(&queue, "w", 5).await.len(), 2, "what waits is passed over");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_without_a_limit_takes_everything() {
    red(Guard::PoolLimit, "it takes more than it may", || async {
        let redis = Redis::start();
        let queue = queue_on(&redis, Options { pool_limit: 2, ..options() }).await;
        queue.add(&pool("base"), vec![task(0), task(1)]).await.expect("added");
        assert!(
            queue.add(&pool("base"), vec![task(2)]).await.is_err(),
            "it takes more than it may"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_type_stops_the_farm() {
    red(Guard::WrongTypeDeleted, "nothing is leased", || async {
        let redis = Redis::start();
        let queue = queue_on(&redis, options()).await;
        let stream = format!("darkroom:{{farm:base@{}}}:tasks", pool("base").digest);
        redis.must(&["SET", &stream, "no stream"]);
        // The first call finds it, and the caller tries again.
        let _ = queue.add(&pool("base"), vec![task(0)]).await;
        let _ = queue.add(&pool("base"), vec![task(0)]).await;
        let leases = queue.lease(&pool("base"), &worker("w"), 1, Duration::ZERO).await;
        assert!(leases.is_ok_and(|leases| leases.len() == 1), "nothing is leased");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_worker_of_the_same_name_renews_its_dead_twins_leases() {
    red(Guard::FreshWorker, "the dead one's lease is renewed", || async {
        let queue = MemoryQueue::default();
        let dead = WorkerId::fresh("host");
        queue.add(&pool("base"), vec![task(0)]).await.expect("added");
        let held = queue.lease(&pool("base"), &dead, 1, Duration::ZERO).await.expect("leased");
        let restarted = WorkerId::fresh("host");
        let lost = queue.heartbeat(&pool("base"), &restarted, &ids(&held)).await.expect("answered");
        assert_eq!(lost, ids(&held), "the dead one's lease is renewed");
        let result = vec![(held[0].id.clone(), done(&held[0]))];
        let completed = queue.complete(&pool("base"), &restarted, result).await.expect("answered");
        assert_eq!(completed, [Completion::LeaseLost]);
    })
    .await;
}
