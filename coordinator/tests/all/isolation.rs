//! A leader that is cut off from the queue gives leadership up to a coordinator that is not.

use crate::support;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use darkroom_artifacts::ArtifactStore;
use darkroom_coordinator::{
    Coordinator, Handle,
    store::{
        Store,
        postgres::{Options, PostgresStore},
    },
};
use darkroom_queue::redis::{self, RedisQueue};
use darkroom_test_servers::{postgres::Postgres, proxy::Proxy, redis::Redis};

/// A coordinator that reaches Redis through a proxy.
async fn coordinator(url: &str, redis: &Redis, proxy: &Proxy) -> Handle {
    let store: Arc<dyn Store> =
        Arc::new(PostgresStore::connect(url, Options::default()).await.expect("opens"));
    let farm = store.farm_id().await.expect("an id").to_string();
    let queue =
        RedisQueue::connect(&redis.url_through(proxy.port()), &farm, redis::Options::default())
            .await;
    let queue = Arc::new(queue.expect("connects"));
    let artifacts = ArtifactStore::in_memory();
    Coordinator::start(support::options(), store, queue, artifacts, vec![support::cascade()])
        .await
        .expect("starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_from_the_queue_gives_way_before_its_term_is_over() {
    let (server, redis) = (Postgres::shared(), Redis::start());
    let url = server.create_database();
    let name = url.rsplit_once('/').expect("a database").1;
    let holder =
        || server.sql(name, "SELECT holder FROM leadership WHERE until > clock_timestamp()");
    let (cut_off, connected) = (Proxy::start(redis.port()), Proxy::start(redis.port()));
    let leader = coordinator(&url, &redis, &cut_off).await;
    let first = holder();
    assert!(!first.is_empty(), "it leads");
    let follower = coordinator(&url, &redis, &connected).await;
    for isolate in [Proxy::cut as fn(&Proxy), Proxy::stall] {
        let before = holder();
        let proxy = if before == first { &cut_off } else { &connected };
        let began = Instant::now();
        isolate(proxy);
        while [before.as_str(), ""].contains(&holder().as_str()) {
            // The term lasts eight seconds; a stalled connection is given up after three.
            assert!(began.elapsed() < Duration::from_secs(7), "the other one does not lead");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        proxy.heal();
    }
    leader.shutdown().await;
    follower.shutdown().await;
}
