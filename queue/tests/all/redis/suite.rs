//! The suite on one server, and on a cluster of three nodes. A cluster refuses scripts whose keys
//! are in different slots, and keys of another node.

use std::{
    any::Any,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use darkroom_queue::redis::RedisQueue;
use darkroom_suites::queue::Harness;
use darkroom_test_servers::{process::free_port, redis::Redis};

use super::support::{LEASE, TAKEOVER, eventually, options};

/// Nodes of the cluster.
const NODES: u16 = 3;

async fn harness(redis: impl Any + Send, queue: RedisQueue) -> Harness {
    // The queue reaps nothing for one full lease after it first met the server.
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
    let knows_all = |node: &Node| {
        let info = node.0.command(&["CLUSTER", "INFO"]).unwrap_or_default();
        info.contains("cluster_state:ok") && info.contains(&format!("cluster_size:{NODES}"))
    };
    eventually("the cluster is up", async || redis.iter().all(knows_all)).await;
    let url = format!("redis+cluster://127.0.0.1:{}", redis[0].0.port());
    let farm = format!("farm-{}", CHECKS.fetch_add(1, Ordering::Relaxed));
    let queue = RedisQueue::connect(&url, &farm, options()).await.expect("connects");
    harness(redis, queue).await
}

/// The cluster that another check already runs, or a new one: it takes seconds to start.
fn shared_cluster() -> Arc<Vec<Node>> {
    static CLUSTER: Mutex<Weak<Vec<Node>>> = Mutex::new(Weak::new());
    let mut cluster = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
    cluster.upgrade().unwrap_or_else(|| {
        let nodes = Arc::new((0..NODES).map(node).collect::<Vec<_>>());
        for Node(other, bus) in &nodes[1..] {
            let (port, bus) = (other.port().to_string(), bus.to_string());
            nodes[0].0.must(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        *cluster = Arc::downgrade(&nodes);
        nodes
    })
}

/// A server of the cluster, and the port that the other nodes use.
struct Node(Redis, u16);

/// Starts a node with its share of the slots.
fn node(number: u16) -> Node {
    // The default, the server's own port plus 10,000, may not be a valid port.
    let bus = free_port();
    let redis = Redis::start_with(&["cluster-enabled yes", &format!("cluster-port {bus}")]);
    let from = |number: u16| u32::from(number) * 16384 / u32::from(NODES);
    let (first, last) = (from(number).to_string(), (from(number + 1) - 1).to_string());
    redis.must(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
    Node(redis, bus)
}

mod one_server {
    darkroom_suites::queue_suite!(
        #[tokio::test(flavor = "multi_thread")],
        super::on_one_server().await
    );
}

mod cluster {
    darkroom_suites::queue_suite!(
        #[tokio::test(flavor = "multi_thread")],
        super::on_a_cluster().await
    );
}
