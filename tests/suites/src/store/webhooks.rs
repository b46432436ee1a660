//! Webhooks and the events on their way to them.

use std::{sync::Arc, time::Duration};

use darkroom_coordinator::store::{
    Error, Store,
    limits::NewDeadline,
    webhooks::{
        AT_ONCE, AT_ONCE_OF_TENANT, Delivery, MOST_WAITING, MOST_WEBHOOKS, NewWebhook,
        SUSPENDED_AFTER, TRIED_FOR, WebhookQuery, WebhookRecord,
    },
};
use darkroom_core::{
    digest::Digest,
    error::Code,
    id::JobId,
    webhook::{EventType, WebhookId},
};

use super::bench::Bench;

const LEASE: Duration = Duration::from_secs(30);
const DAY_MS: i64 = 86_400_000;

fn webhook(tenant: &str, types: &[EventType]) -> NewWebhook {
    NewWebhook {
        id: WebhookId::fresh(),
        tenant: tenant.to_owned(),
        url: "https://example.com/hook?key=1".to_owned(),
        name: "a \"name\"".to_owned(),
        types: types.to_vec(),
    }
}

async fn add(bench: &Bench, tenant: &str, types: &[EventType]) -> WebhookRecord {
    bench.store.add_webhook(&webhook(tenant, types)).await.expect("adds")
}

async fn list(bench: &Bench, tenant: &str) -> Vec<WebhookRecord> {
    let query = WebhookQuery { tenant: Some(tenant.to_owned()), after: 0, limit: 100 };
    bench.other.list_webhooks(&query).await.expect("lists")
}

async fn only(bench: &Bench, tenant: &str) -> WebhookRecord {
    let mut found = list(bench, tenant).await;
    assert_eq!(found.len(), 1);
    found.remove(0)
}

async fn happen(bench: &Bench, tenant: &str, data: &str) -> u64 {
    bench.store.add_event(tenant, EventType::JobCompleted, data).await.expect("adds")
}

async fn take(store: &Arc<dyn Store>, free: u32) -> Vec<Delivery> {
    store.take_events(free, LEASE).await.expect("takes")
}

/// Takes one event and fails to deliver it.
async fn fail(bench: &Bench, pause: Duration) -> Delivery {
    let mut taken = take(&bench.store, 1).await;
    assert_eq!(taken.len(), 1);
    let delivery = taken.remove(0);
    let failed = bench.store.event_not_delivered(&delivery, "it answered 500", pause).await;
    assert!(failed.expect("notes"), "it was this process's");
    delivery
}

fn data(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|one| one.data.as_str()).collect()
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_webhook_is_its_tenants_and_a_tenant_has_a_limited_number(bench: &Bench) {
    let new = webhook("a", &[EventType::JobFailed, EventType::JobCompleted]);
    let made = bench.store.add_webhook(&new).await.expect("adds");
    assert_eq!(
        (made.id, made.url.as_str(), made.name.as_str()),
        (new.id, new.url.as_str(), new.name.as_str())
    );
    assert_eq!(made.types, ["job.completed", "job.failed"]);
    assert_eq!(
        (made.success_ms, made.failure_ms, made.error.as_str(), made.suspended_until_ms),
        (None, None, "", None)
    );
    assert_eq!((made.waiting, made.oldest_waiting_ms, made.given_up), (0, None, 0));
    assert_eq!(only(bench, "a").await, made);
    let other = add(bench, "b", &[]).await;
    assert_eq!(other.types, [""; 0]);
    let all = WebhookQuery { tenant: None, after: 0, limit: 1 };
    let page = bench.store.list_webhooks(&all).await.expect("lists");
    assert_eq!(page, std::slice::from_ref(&made));
    let next = WebhookQuery { after: page[0].seq, ..all };
    let rest = bench.store.list_webhooks(&next).await.expect("lists");
    assert_eq!(rest, std::slice::from_ref(&other));
    // Another tenant's does not exist.
    let refused = bench.store.delete_webhook(other.id, Some("a")).await.expect_err("another's");
    let missing = WebhookId::fresh();
    let nobodys = bench.store.delete_webhook(missing, Some("a")).await.expect_err("nobody's");
    assert_eq!(refused.to_user().code, Code::NotFound);
    let same = refused.to_string().replace(&other.id.to_string(), &missing.to_string());
    assert_eq!(same, nobodys.to_string());
    let ended = bench.store.delete_webhook(made.id, Some("a")).await.expect("ends");
    assert_eq!((ended.tenant.as_str(), ended.dropped), ("a", 0));
    assert!(bench.store.delete_webhook(made.id, None).await.is_err(), "it is gone");
    for _ in 0..MOST_WEBHOOKS {
        add(bench, "a", &[]).await;
    }
    let refused = bench.other.add_webhook(&webhook("a", &[])).await.expect_err("too many");
    assert!(
        matches!(&refused, Error::Refused(error) if error.reason == "MANY_WEBHOOKS"),
        "{refused}"
    );
    add(bench, "c", &[]).await;
}

async fn submit_of(bench: &Bench, tenant: &str) -> JobId {
    let mut job = bench.job(None);
    tenant.clone_into(&mut job.tenant);
    let prompts = bench.prompts(&["one"], 1);
    bench.store.submit(&job, &prompts, Digest::of(b"content")).await.expect("accepted");
    job.id
}

async fn written(bench: &Bench, job: JobId, generation: u32) -> bool {
    let written = bench.store.manifest_written((job, generation), "k", Digest::of(b"m"), None);
    written.await.expect("notes")
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn the_end_of_a_job_is_told_once_with_its_manifest(bench: &Bench) {
    add(bench, "a", &[]).await;
    add(bench, "b", &[]).await;
    add(bench, "c", &[EventType::JobCompleted, EventType::BatchCancelled]).await;
    let jobs = [submit_of(bench, "a").await, submit_of(bench, "c").await];
    for job in jobs {
        bench.store.cancel(job).await.expect("cancels");
    }
    bench.settle().await;
    assert_eq!(bench.store.pending_manifests(9).await.expect("lists").len(), 2);
    assert_eq!(only(bench, "a").await.waiting, 0, "its manifest cannot be fetched yet");
    assert!(!written(bench, jobs[0], 2).await);
    assert_eq!(only(bench, "a").await.waiting, 0, "another generation");
    assert!(written(bench, jobs[0], 1).await && written(bench, jobs[1], 1).await);
    assert!(!written(bench, jobs[0], 1).await);
    let told = only(bench, "a").await;
    assert_eq!(told.waiting, 1);
    assert!(told.oldest_waiting_ms.is_some_and(|at| at >= told.created_ms), "{told:?}");
    assert_eq!(only(bench, "b").await.waiting, 0, "another tenant");
    assert_eq!(only(bench, "c").await.waiting, 0, "another type");
    let taken = take(&bench.other, 10).await;
    assert_eq!(data(&taken), [jobs[0].to_string()]);
    let one = &taken[0];
    assert_eq!((one.kind.as_str(), one.tries, one.webhook), ("job.cancelled", 1, told.id));
    assert!(one.event.starts_with("evt_") && one.event.len() == 36, "{}", one.event);
    // A retry makes another end.
    bench.store.retry(jobs[0], NewDeadline::Same).await.expect("retries");
    bench.settle().await;
    bench.store.cancel(jobs[0]).await.expect("cancels");
    bench.settle().await;
    assert!(written(bench, jobs[0], 2).await);
    let again = take(&bench.store, 10).await;
    assert_eq!(data(&again), [jobs[0].to_string()]);
    assert_ne!(again[0].event, one.event);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn the_end_of_a_job_that_is_deleted_at_once_is_told(bench: &Bench) {
    add(bench, "a", &[]).await;
    let (running, ended, told) =
        (submit_of(bench, "a").await, submit_of(bench, "a").await, submit_of(bench, "a").await);
    for job in [ended, told] {
        bench.store.cancel(job).await.expect("cancels");
    }
    bench.settle().await;
    assert!(written(bench, told, 1).await);
    assert_eq!(only(bench, "a").await.waiting, 1);
    for (job, cancel) in [(running, true), (ended, false), (told, false)] {
        assert!(bench.store.delete_job(job, "me", cancel).await.expect("deletes"));
        assert!(!bench.store.delete_job(job, "me", cancel).await.expect("once"));
    }
    bench.settle().await;
    let mut taken = Vec::new();
    loop {
        let more = take(&bench.store, 10).await;
        if more.is_empty() {
            break;
        }
        for one in &more {
            assert!(bench.store.event_delivered(one).await.expect("notes"));
            assert_eq!(one.kind, "job.cancelled");
        }
        taken.extend(more);
    }
    let mut jobs = data(&taken);
    jobs.sort_unstable();
    let mut expected = [running, ended, told].map(|job| job.to_string());
    expected.sort_unstable();
    assert_eq!(jobs, expected);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn an_event_belongs_to_one_process_until_its_lease_ends(bench: &Bench) {
    add(bench, "a", &[]).await;
    assert_eq!(happen(bench, "a", "one").await, 1);
    assert_eq!(happen(bench, "nobody", "one").await, 0);
    let taken = take(&bench.store, 10).await;
    assert_eq!(data(&taken), ["one"]);
    assert_eq!(take(&bench.other, 10).await, []);
    bench.age(LEASE - Duration::from_secs(5)).await;
    assert_eq!(take(&bench.other, 10).await, []);
    bench.age(Duration::from_secs(6)).await;
    let again = take(&bench.other, 10).await;
    assert_eq!((again[0].event.as_str(), again[0].tries), (taken[0].event.as_str(), 2));
    // The first one comes back.
    assert!(!bench.store.event_delivered(&taken[0]).await.expect("notes"));
    let late = bench.store.event_not_delivered(&taken[0], "no", LEASE).await;
    assert!(!late.expect("notes"));
    let state = only(bench, "a").await;
    assert_eq!((state.waiting, state.success_ms, state.failure_ms), (1, None, None));
    assert!(bench.other.event_delivered(&again[0]).await.expect("notes"));
    assert!(!bench.other.event_delivered(&again[0]).await.expect("once"));
    let state = only(bench, "a").await;
    assert_eq!((state.waiting, state.error.as_str()), (0, ""));
    assert!(state.success_ms.is_some_and(|at| at >= state.created_ms - 60_000), "{state:?}");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn an_event_that_was_not_delivered_is_due_again_after_its_pause(bench: &Bench) {
    add(bench, "a", &[]).await;
    happen(bench, "a", "one").await;
    let first = fail(bench, Duration::from_secs(60)).await;
    let state = only(bench, "a").await;
    assert_eq!((state.waiting, state.error.as_str()), (1, "it answered 500"));
    assert!(state.failure_ms.is_some() && state.suspended_until_ms.is_none(), "{state:?}");
    assert_eq!(take(&bench.store, 10).await, []);
    bench.age(Duration::from_secs(50)).await;
    assert_eq!(take(&bench.store, 10).await, []);
    bench.age(Duration::from_secs(11)).await;
    let again = take(&bench.store, 10).await;
    assert_eq!(again[0].event, first.event, "the same id");
    assert_eq!(again[0].tries, 2);
    // It is older than it is tried for.
    bench.age(TRIED_FOR).await;
    let again = take(&bench.store, 10).await;
    let given_up = bench.store.event_not_delivered(&again[0], "it answered 501", LEASE).await;
    assert!(given_up.expect("notes"));
    let state = only(bench, "a").await;
    assert_eq!((state.waiting, state.given_up), (0, 1));
    assert_eq!(state.error, "it answered 501");
    assert_eq!(take(&bench.store, 10).await, []);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_webhook_that_fails_often_is_suspended_until_a_trial_succeeds(bench: &Bench) {
    add(bench, "a", &[]).await;
    for number in 0..8 {
        happen(bench, "a", &number.to_string()).await;
    }
    for _ in 0..SUSPENDED_AFTER {
        assert_eq!(only(bench, "a").await.suspended_until_ms, None);
        fail(bench, Duration::from_secs(3600)).await;
    }
    assert!(only(bench, "a").await.suspended_until_ms.is_some());
    assert_eq!(take(&bench.store, 10).await, [], "three are due, but it is suspended");
    bench.age(Duration::from_secs(31)).await;
    assert_eq!(only(bench, "a").await.suspended_until_ms, None);
    let trial = take(&bench.store, 10).await;
    assert_eq!(trial.len(), 1, "one as a trial");
    assert_eq!(take(&bench.other, 10).await, []);
    let failed = bench.store.event_not_delivered(&trial[0], "again", Duration::from_secs(3600));
    assert!(failed.await.expect("notes"));
    bench.age(Duration::from_secs(31)).await;
    assert_eq!(take(&bench.store, 10).await, [], "twice as long");
    bench.age(Duration::from_secs(31)).await;
    let trial = take(&bench.store, 10).await;
    assert!(bench.store.event_delivered(&trial[0]).await.expect("notes"));
    // All that has waited is due now.
    let mut left = 0;
    loop {
        let taken = take(&bench.store, 10).await;
        if taken.is_empty() {
            break;
        }
        for one in &taken {
            assert!(bench.store.event_delivered(one).await.expect("notes"));
        }
        left += taken.len();
    }
    assert_eq!(left, 7);
    assert_eq!(only(bench, "a").await.error, "again", "it is still known");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_busy_webhook_or_tenant_leaves_places_to_others(bench: &Bench) {
    for _ in 0..10 {
        add(bench, "busy", &[]).await;
    }
    for number in 0..5 {
        happen(bench, "busy", &number.to_string()).await;
    }
    add(bench, "other", &[]).await;
    happen(bench, "other", "own").await;
    let taken = take(&bench.store, 100).await;
    let busy: Vec<_> = taken.iter().filter(|one| one.data != "own").collect();
    assert_eq!((taken.len() as u32, busy.len() as u32), (AT_ONCE_OF_TENANT + 1, AT_ONCE_OF_TENANT));
    assert_eq!(take(&bench.other, 100).await, []);
    // Whose turn it has been waits for the others.
    for one in &taken {
        assert!(bench.store.event_delivered(one).await.expect("notes"));
    }
    let next = take(&bench.other, 1).await;
    let had: Vec<_> = taken.iter().map(|one| one.webhook).collect();
    assert!(!had.contains(&next[0].webhook), "{next:?}");
    // A single webhook never has more than its share, whoever asks.
    add(bench, "one", &[]).await;
    for number in 0..5 {
        happen(bench, "one", &format!("one {number}")).await;
    }
    let mut all = take(&bench.store, 1).await;
    all.extend(take(&bench.other, 100).await);
    all.extend(take(&bench.store, 100).await);
    let of_one: Vec<_> = all.iter().filter(|one| one.data.starts_with("one ")).collect();
    assert_eq!(of_one.len() as u32, AT_ONCE);
    assert_eq!(take(&bench.store, 0).await, []);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn processes_that_race_stay_within_the_limits_of_webhooks(bench: &Bench) {
    for _ in 1..MOST_WEBHOOKS {
        add(bench, "full", &[]).await;
    }
    let second = bench.second();
    for _ in 0..5 {
        let (one, other) = (webhook("full", &[]), webhook("full", &[]));
        let added = tokio::join!(bench.store.add_webhook(&one), second.store.add_webhook(&other));
        let added: Vec<_> = [added.0, added.1].into_iter().flatten().collect();
        assert_eq!(added.len(), 1, "there was room for one");
        bench.store.delete_webhook(added[0].id, None).await.expect("ends");
    }
    // Events: none twice, and no more at once than a webhook and a tenant may have.
    for webhook in 0..6 {
        add(bench, "busy", &[]).await;
        happen(bench, "busy", &format!("event {webhook}")).await;
    }
    let waiting = async || list(bench, "busy").await.iter().map(|one| one.waiting).sum::<u64>();
    for round in 0.. {
        if waiting().await == 0 {
            break;
        }
        assert!(round < 50, "nobody takes what waits");
        let taken = tokio::join!(take(&bench.store, 100), take(&second.store, 100));
        let taken = [taken.0, taken.1].concat();
        let mut seen: Vec<_> = taken.iter().map(|one| (one.webhook, &one.data)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), taken.len(), "an event is taken once: {taken:?}");
        assert!(taken.len() <= AT_ONCE_OF_TENANT as usize, "{taken:?}");
        for one in &taken {
            let same = taken.iter().filter(|other| other.webhook == one.webhook).count();
            assert!(same <= AT_ONCE as usize, "{taken:?}");
            assert!(bench.store.event_delivered(one).await.expect("notes"));
        }
    }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn of_too_many_events_the_oldest_are_given_up(bench: &Bench) {
    for _ in 0..MOST_WEBHOOKS {
        add(bench, "a", &[]).await;
    }
    let events = MOST_WAITING / MOST_WEBHOOKS;
    for number in 0..events {
        happen(bench, "a", &number.to_string()).await;
    }
    let count = async || {
        let all = list(bench, "a").await;
        let sum = |of: fn(&WebhookRecord) -> u64| all.iter().map(of).sum::<u64>();
        (sum(|one| one.waiting), sum(|one| one.given_up))
    };
    assert_eq!(count().await, (u64::from(MOST_WAITING), 0));
    happen(bench, "a", "last").await;
    assert_eq!(count().await, (u64::from(MOST_WAITING), u64::from(MOST_WEBHOOKS)));
    let taken = take(&bench.store, 100).await;
    assert!(data(&taken).iter().all(|data| *data == "1"), "{:?}", data(&taken));
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn events_are_forgotten_and_those_of_an_ended_webhook_go_with_it(bench: &Bench) {
    let webhook = add(bench, "a", &[]).await;
    for number in ["delivered", "given up", "waits", "sent"] {
        happen(bench, "a", number).await;
    }
    let taken = take(&bench.store, 10).await;
    assert_eq!(data(&taken), ["delivered", "given up"]);
    assert!(bench.store.event_delivered(&taken[0]).await.expect("notes"));
    let now = bench.store.clock_ms().await.expect("a clock");
    let forget = async |ahead: i64| {
        bench.store.forget_events(bench.term, now + ahead, 100).await.expect("forgets")
    };
    assert_eq!(forget(0).await, 0);
    assert_eq!(forget(DAY_MS + 60_000).await, 1, "what was delivered");
    // Three days on, what waits is given up, but not what is being sent at this moment.
    assert_eq!(forget(3 * DAY_MS + 60_000).await, 2);
    let state = only(bench, "a").await;
    assert_eq!((state.waiting, state.given_up), (1, 2));
    let failed = bench.store.event_not_delivered(&taken[1], "no", Duration::from_secs(1)).await;
    assert!(failed.expect("notes"), "it is still under way");
    assert_eq!(forget(3 * DAY_MS + 60_000).await, 1);
    assert_eq!(forget(9 * DAY_MS).await, 0, "given up less than seven days before");
    assert_eq!(forget(10 * DAY_MS + 120_000).await, 3);
    assert_eq!(only(bench, "a").await.given_up, 0);
    let ended = bench.store.lead("bench").await.expect("asks").expect("leads");
    assert_eq!(ended, bench.term);
    // With a webhook go its events, and what comes of them changes nothing.
    for number in 0..3 {
        happen(bench, "a", &number.to_string()).await;
    }
    let taken = take(&bench.store, 1).await;
    let gone = bench.other.delete_webhook(webhook.id, Some("a")).await.expect("ends");
    assert_eq!(gone.dropped, 3);
    assert!(!bench.store.event_delivered(&taken[0]).await.expect("notes"));
    assert!(!bench.store.event_not_delivered(&taken[0], "no", LEASE).await.expect("notes"));
    assert_eq!(take(&bench.store, 10).await, []);
}
