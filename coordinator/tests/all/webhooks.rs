//! Events on their way from a farm to receivers.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::support::{Act, Farm, eventually, failed, options, prompts, spec};
use darkroom_artifacts::ArtifactStore;
use darkroom_coordinator::{
    Options,
    store::{Store, postgres::PostgresStore},
};
use darkroom_core::webhook::EventType;
use darkroom_farm_api::Caller;
use darkroom_proto::v1;
use darkroom_test_servers::{
    postgres::Postgres,
    receiver::{Answer, Received, Receiver},
};
use serde_json::{Value, json};

/// Sends to loopback, and again after milliseconds.
fn sending() -> Options {
    Options {
        webhook_private_addresses: true,
        webhook_answer: Duration::from_secs(5),
        webhook_pauses: vec![Duration::from_millis(20)],
        ..options()
    }
}

fn always(status: u16) -> impl Fn(usize, &Received) -> Answer + Send + Sync + 'static {
    move |_, _| Answer::Status(status)
}

async fn hook(farm: &Farm, url: String, types: &[&str]) -> (v1::Webhook, String) {
    let event_types = types.iter().map(|name| (*name).to_owned()).collect();
    let request = v1::CreateWebhookRequest { url, event_types, ..Default::default() };
    let made = farm.handle.calls().create_webhook(&Caller::open(), request).await.expect("made");
    (made.webhook.expect("a webhook"), made.secret)
}

async fn state(farm: &Farm, id: &str) -> v1::Webhook {
    let request = v1::ListWebhooksRequest::default();
    let listed = farm.handle.calls().list_webhooks(&Caller::open(), request).await.expect("listed");
    listed.webhooks.into_iter().find(|webhook| webhook.id == id).expect("the webhook")
}

async fn happen(farm: &Farm, data: &str) {
    let added = farm.store.add_event("default", EventType::BatchCompleted, data).await;
    assert!(added.expect("added") > 0);
}

/// Waits until this many requests came.
async fn received(receiver: &Receiver, count: usize) -> Vec<Received> {
    eventually("requests", async || receiver.received().len() >= count).await;
    receiver.received()
}

fn event(request: &Received) -> Value {
    serde_json::from_str(&request.body).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_each_job_is_sent_to_the_webhooks_of_its_type() {
    let mut farm = Farm::start_with(sending()).await;
    let all = Receiver::start(always(200));
    let (webhook, _) = hook(&farm, all.url("127.0.0.1", "/all?key=1"), &[]).await;
    let failures = Receiver::start(always(204));
    hook(&farm, failures.url("localhost", "/"), &["job.failed", "batch.failed"]).await;
    let workers = farm.work(|_| Act::Done);
    let done = farm.submit(spec(), prompts(1)).await.id;
    let told = received(&all, 1).await;
    workers.stop().await;
    let told = &told[0];
    assert_eq!(told.path, "/all?key=1");
    assert_eq!(told.headers["content-type"], "application/json");
    let body = event(told);
    assert_eq!((&body["object"], &body["type"]), (&json!("event"), &json!("job.completed")));
    assert_eq!(body["data"], json!({ "id": done }));
    assert_eq!(body["id"], told.headers["webhook-id"].as_str());
    // The receiver may fetch the manifest at once.
    assert_eq!(farm.get(&done).await.manifest(), v1::ManifestState::Written);

    let workers = farm.work(|_| failed());
    let dead = farm.submit(spec(), prompts(1)).await.id;
    farm.until_ended(&dead).await;
    workers.stop().await;
    let cancelled = farm.submit(spec(), prompts(1)).await.id;
    farm.client
        .cancel_job(v1::CancelJobRequest { id: cancelled.clone() })
        .await
        .expect("cancelled");
    let told: BTreeSet<_> =
        received(&all, 3).await.iter().map(|one| event(one)["type"].to_string()).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    let only = received(&failures, 1).await;
    assert_eq!(event(&only[0])["data"]["id"], dead.as_str());
    eventually("no more waits", async || state(&farm, &webhook.id).await.events_waiting == 0).await;
    let state = state(&farm, &webhook.id).await;
    assert!(state.last_success.is_some() && state.last_failure.is_none(), "{state:?}");
    assert_eq!(all.received().len(), 3, "each once");
    assert_eq!(failures.received().len(), 1);
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_not_taken_is_sent_again_with_the_same_id() {
    let farm = Farm::start_with(sending()).await;
    let receiver = Receiver::start(|before, _| Answer::Status([500, 404, 200][before.min(2)]));
    let (webhook, _) = hook(&farm, receiver.url("127.0.0.1", "/"), &[]).await;
    happen(&farm, "one").await;
    let told = received(&receiver, 3).await;
    let ids: BTreeSet<_> = told.iter().map(|one| one.headers["webhook-id"].clone()).collect();
    let bodies: BTreeSet<_> = told.iter().map(|one| one.body.clone()).collect();
    assert_eq!((ids.len(), bodies.len()), (1, 1));
    eventually("delivered", async || state(&farm, &webhook.id).await.events_waiting == 0).await;
    let state = state(&farm, &webhook.id).await;
    assert!(state.last_error.ends_with("answered 404; accepted: 2xx"), "{state:?}");
    assert!(!state.last_error.contains("key"), "{state:?}");
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let farm = Farm::start_with(sending()).await;
    let other = Receiver::start(always(200));
    let to = other.url("127.0.0.1", "/");
    let receiver = Receiver::start(move |_, _| Answer::Redirect(to.clone()));
    let (webhook, _) = hook(&farm, receiver.url("127.0.0.1", "/"), &[]).await;
    happen(&farm, "one").await;
    eventually("told", async || !state(&farm, &webhook.id).await.last_error.is_empty()).await;
    let error = state(&farm, &webhook.id).await.last_error;
    assert!(error.contains("answered 307, a redirect, and redirects are not followed"), "{error}");
    received(&receiver, 2).await;
    assert!(other.received().is_empty());
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_resolves_to_loopback_is_not_connected_to() {
    let options = Options { webhook_private_addresses: false, ..sending() };
    let farm = Farm::start_with(options).await;
    let receiver = Receiver::start(always(200));
    let (webhook, _) = hook(&farm, receiver.url("localhost", "/"), &[]).await;
    let literal =
        v1::CreateWebhookRequest { url: receiver.url("127.0.0.1", "/"), ..Default::default() };
    let refused = farm.handle.calls().create_webhook(&Caller::open(), literal).await;
    assert_eq!(refused.expect_err("an address").field.as_deref(), Some("url"));
    happen(&farm, "one").await;
    eventually("told", async || !state(&farm, &webhook.id).await.last_error.is_empty()).await;
    let error = state(&farm, &webhook.id).await.last_error;
    assert!(error.contains("has no public address"), "{error}");
    assert!(receiver.received().is_empty());
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_does_not_answer_holds_up_no_other_and_is_suspended() {
    let options = Options { webhook_answer: Duration::from_millis(500), ..sending() };
    let farm = Farm::start_with(options).await;
    let silent = Receiver::start(|_, _| Answer::Nothing);
    let (webhook, _) = hook(&farm, silent.url("127.0.0.1", "/"), &[]).await;
    let quick = Receiver::start(always(200));
    hook(&farm, quick.url("127.0.0.1", "/"), &[]).await;
    for number in 0..20 {
        happen(&farm, &number.to_string()).await;
    }
    let told = received(&quick, 20).await;
    let events: BTreeSet<_> = told.iter().map(|one| one.headers["webhook-id"].clone()).collect();
    assert_eq!(events.len(), 20);
    let suspended = async || state(&farm, &webhook.id).await.suspended_until.is_some();
    eventually("suspended", suspended).await;
    let state = state(&farm, &webhook.id).await;
    assert_eq!(state.events_waiting, 20);
    assert!(state.last_error.contains("did not answer within"), "{state:?}");
    assert!(silent.received().len() < 12, "{}", silent.received().len());
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_coordinator_had_not_sent_another_one_sends() {
    let quiet = Options { sends_webhooks: false, ..sending() };
    let mut farm = Farm::start_with(quiet).await;
    let receiver = Receiver::start(always(200));
    hook(&farm, receiver.url("127.0.0.1", "/"), &[]).await;
    let workers = farm.work(|_| Act::Done);
    let id = farm.submit(spec(), prompts(1)).await.id;
    farm.until_ended(&id).await;
    workers.stop().await;
    assert!(receiver.received().is_empty());
    let folder = Arc::clone(&farm.folder);
    farm.shutdown().await;
    let farm = Farm::start_over(sending(), folder, ArtifactStore::in_memory()).await;
    assert_eq!(event(&received(&receiver, 1).await[0])["data"]["id"], id.as_str());
    farm.shutdown().await;
}

async fn send_with_two(one: Arc<dyn Store>, other: Arc<dyn Store>) {
    let (queue, artifacts) = (Arc::default(), ArtifactStore::in_memory());
    let first = Farm::join_with(sending(), one, &queue, &artifacts).await;
    let second = Farm::join_with(sending(), other, &queue, &artifacts).await;
    let receiver = Receiver::start(always(200));
    let (webhook, secret) = hook(&first, receiver.url("127.0.0.1", "/"), &[]).await;
    assert!(secret.starts_with("whsec_"));
    for number in 0..40 {
        happen(&first, &number.to_string()).await;
    }
    received(&receiver, 40).await;
    let none = async || state(&second, &webhook.id).await.events_waiting == 0;
    eventually("delivered", none).await;
    let told = receiver.received();
    let events: BTreeSet<_> = told.iter().map(|one| one.headers["webhook-id"].clone()).collect();
    assert_eq!((told.len(), events.len()), (40, 40), "each once, whoever sent it");
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_coordinators_send_each_event_once() {
    let server = Postgres::shared();
    let url = server.create_database();
    let connect = async || {
        let store = PostgresStore::connect(&url, Default::default()).await.expect("opens");
        Arc::new(store) as Arc<dyn Store>
    };
    send_with_two(connect().await, connect().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_receiver() {
    let farm = Farm::start_with(Options { webhook_answer: Duration::from_secs(600), ..sending() });
    let farm = farm.await;
    let silent = Receiver::start(|_, _| Answer::Nothing);
    hook(&farm, silent.url("127.0.0.1", "/"), &[]).await;
    happen(&farm, "one").await;
    received(&silent, 1).await;
    let began = Instant::now();
    farm.shutdown().await;
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cleaner_forgets_events_by_its_clock() {
    let farm = Farm::start_with(sending()).await;
    let receiver = Receiver::start(always(200));
    let (webhook, _) = hook(&farm, receiver.url("127.0.0.1", "/"), &[]).await;
    happen(&farm, "one").await;
    received(&receiver, 1).await;
    eventually("delivered", async || state(&farm, &webhook.id).await.events_waiting == 0).await;
    farm.handle.clean(Duration::from_secs(23 * 3600)).await.expect("cleans");
    assert_eq!(count(&farm).await, 1);
    farm.handle.clean(Duration::from_secs(25 * 3600)).await.expect("cleans");
    assert_eq!(count(&farm).await, 0);
    farm.shutdown().await;
}

async fn count(farm: &Farm) -> i64 {
    use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
    let file = crate::support::database(farm.folder.path());
    let options = SqliteConnectOptions::new().filename(file);
    let mut record = SqliteConnection::connect_with(&options).await.expect("opens");
    let count = sqlx::query_scalar("SELECT count(*) FROM webhook_events");
    count.fetch_one(&mut record).await.expect("counts")
}
