//! The suite on one server, and on a cluster that refuses scripts whose keys lie in different slots.

use std::{sync::Arc, time::Duration};

use darkroom_queue::{conformance::Harness, redis::RedisQueue};
use darkroom_test_servers::redis::Redis;

use crate::support::{LEASE, TAKEOVER, eventually, queue_at, queue_on};

async fn harness(redis: Redis, queue: Arc<RedisQueue>) -> Harness {
    // For a full lease after it met the server, the queue reaps nothing.
    tokio::time::sleep(LEASE).await;
    Harness { queue, lease: LEASE, takeover: TAKEOVER + Duration::from_millis(20), keep: Box::new(redis) }
}

async fn on_one_server() -> Harness {
    let redis = Redis::start();
    let queue = queue_on(&redis).await;
    harness(redis, queue).await
}

async fn on_a_cluster() -> Harness {
    let redis = Redis::start_with(&["cluster-enabled yes"]);
    redis.must(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let is_up = || redis.command(&["CLUSTER", "INFO"]).is_ok_and(|info| info.contains("cluster_state:ok"));
    eventually("the cluster is up", async || is_up()).await;
    let queue = queue_at(&format!("redis+cluster://127.0.0.1:{}", redis.port())).await;
    harness(redis, queue).await
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
