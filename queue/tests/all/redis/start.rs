//! One clear sentence for each reason not to start.

use darkroom_queue::redis::{Options, RedisQueue, StartError};
use darkroom_test_servers::{process::free_port, redis::Redis};

use super::support::{options, queue_on};

async fn refusal(url: &str, farm: &str) -> StartError {
    RedisQueue::connect(url, farm, options()).await.expect_err("refused")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_named() {
    let port = free_port();
    let error = refusal(&format!("redis://:secret@127.0.0.1:{port}"), "farm").await;
    assert!(error.retryable());
    let text = error.to_string();
    assert!(text.starts_with(&format!("no Redis answers at 127.0.0.1:{port}: ")), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_or_missing_password_is_refused() {
    let redis = Redis::start_with_password("secret");
    queue_on(&redis).await.health().await.expect("the right one will do");
    for url in [
        format!("redis://:wrong@127.0.0.1:{}", redis.port()),
        format!("redis://127.0.0.1:{}", redis.port()),
    ] {
        let error = refusal(&url, "farm").await;
        assert!(matches!(error, StartError::Refused { .. }) && !error.retryable(), "{error:?}");
        assert!(error.to_string().contains("refuses the user or password"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_and_farm_ids_that_make_no_sense_are_refused() {
    for url in ["", "http://localhost", "redis://", "redis+cluster://", "localhost:6379x"] {
        let error = refusal(url, "farm").await;
        assert!(matches!(error, StartError::Url(_)), "{url:?}: {error:?}");
    }
    assert!(matches!(refusal("redis://127.0.0.1", "a}b").await, StartError::FarmId(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_evicts_is_warned_of() {
    let redis = Redis::start_with(&["maxmemory 100mb", "maxmemory-policy allkeys-lru"]);
    let health = queue_on(&redis).await.health().await.expect("health");
    assert_eq!((health.max_memory, health.max_memory_policy.as_str()), (100 << 20, "allkeys-lru"));
    assert!(health.warnings.iter().any(|warning| warning.contains("noeviction")), "{health:?}");
    let redis = Redis::start();
    let health = queue_on(&redis).await.health().await.expect("health");
    assert_eq!(health.warnings, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_number_keeps_data_apart() {
    let redis = Redis::start();
    let url = format!("{}5", redis.url());
    let queue = RedisQueue::connect(&url, "farm", Options::default()).await.expect("connects");
    queue.claim_farm("database").await.expect("claimed");
    assert_eq!(redis.must(&["DBSIZE"]), ":0");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_database_with_the_same_farm_id_is_refused_until_a_flush() {
    let redis = Redis::start();
    let (first, copy) = (queue_on(&redis).await, queue_on(&redis).await);
    first.claim_farm("database 1").await.expect("claimed");
    first.claim_farm("database 1").await.expect("still its own");
    let error = copy.claim_farm("database 2").await.expect_err("refused");
    assert!(!error.retryable());
    assert!(error.to_string().starts_with("two farms share one Redis"), "{error}");
    redis.flush();
    first.claim_farm("database 1").await.expect("set again");
    copy.claim_farm("database 2").await.expect_err("refused again");
}
