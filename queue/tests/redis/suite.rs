//! The suite on one server, and on a cluster that refuses scripts whose keys lie in different slots.

use std::{
    any::Any,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use darkroom_queue::{conformance::Harness, redis::RedisQueue};
use darkroom_test_servers::redis::Redis;

use crate::support::{LEASE, TAKEOVER, eventually, options};

async fn harness(redis: impl Any + Send, queue: RedisQueue) -> Harness {
    // For a full lease after it met the server, the queue reaps nothing.
    tokio::time::sleep(LEASE).await;
    let takeover = TAKEOVER + Duration::from_millis(20);
    Harness { queue: Arc::new(queue), lease: LEASE, takeover, keep: Box::new(redis) }
}

async fn on_one_server() -> Harness {
    let redis = Redis::start();
    let queue = RedisQueue::connect(&redis.url(), "farm", options()).await.expect("connects");
    harness(redis, queue).await
}

async fn on_a_cluster() -> Harness {
    static CHECKS: AtomicU64 = AtomicU64::new(0);
    let redis = shared_cluster();
    let is_up = || redis.command(&["CLUSTER", "INFO"]).is_ok_and(|info| info.contains("cluster_state:ok"));
    eventually("the cluster is up", async || is_up()).await;
    let url = format!("redis+cluster://127.0.0.1:{}", redis.port());
    let farm = format!("farm-{}", CHECKS.fetch_add(1, Ordering::Relaxed));
    let queue = RedisQueue::connect(&url, &farm, options()).await.expect("connects");
    harness(redis, queue).await
}

/// The cluster that another check has under way, or a new one: it takes seconds to come up.
fn shared_cluster() -> Arc<Redis> {
    static CLUSTER: Mutex<Weak<Redis>> = Mutex::new(Weak::new());
    let mut cluster = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
    cluster.upgrade().unwrap_or_else(|| {
        let redis = Arc::new(Redis::start_with(&["cluster-enabled yes"]));
        redis.must(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        *cluster = Arc::downgrade(&redis);
        redis
    })
}

mod one_server {
    darkroom_queue::conformance_tests!(
        #[tokio::test(flavor = "multi_thread")],
        super::on_one_server().await
    );
}

mod cluster {
    darkroom_queue::conformance_tests!(
        #[tokio::test(flavor = "multi_thread")],
        super::on_a_cluster().await
    );
}
