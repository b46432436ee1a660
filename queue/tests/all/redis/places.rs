//! Addresses where a server may listen: an IPv6 address, a socket.

use darkroom_queue::redis::StartError;
use darkroom_suites::queue::pool;
use darkroom_test_servers::redis::Redis;

use super::support::{add, complete, indices, lease, options, queue_at};

async fn works_at(url: &str) {
    let (queue, pool) = (queue_at(url).await, pool("base"));
    add(&queue, &pool, 0..2).await;
    let leases = lease(&queue, &pool, "w", 5).await;
    assert_eq!(indices(&leases), [0, 1], "{url}");
    complete(&queue, &pool, &leases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_ipv6_is_reached() {
    let redis = Redis::start_with(&["bind 127.0.0.1 ::1"]);
    works_at(&format!("redis://[::1]:{}/", redis.port())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_a_socket_is_reached_and_one_that_is_gone_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("redis.sock");
    let url = format!("unix://{}", socket.to_str().expect("UTF-8"));
    let mut redis =
        Redis::start_with(&[&format!("unixsocket {}", socket.to_str().expect("UTF-8"))]);
    works_at(&url).await;
    redis.stop();
    let error = darkroom_queue::redis::RedisQueue::connect(&url, "farm", options())
        .await
        .expect_err("nobody is there");
    assert!(matches!(error, StartError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("redis.sock"), "{error}");
}
