//! Tenants' quotas: what is refused, what is counted, and that the sums are those of the rows.

use std::sync::Arc;

use darkroom_coordinator::store::{
    Error,
    image_commands::LostPicture,
    keys::TenantChange,
    limits::NewDeadline,
    metering::Usage,
    records::{Canonical, Fate, Input, NewJob, Submitted},
};
use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    error::{Code, UserError},
    id::JobId,
    image_command::ImageCommand,
    job_state::JobState,
    quota::{Quota, QuotaChange, Quotas},
};
use darkroom_queue::task::Outcome;
use futures::future::join_all;

use super::{
    bench::{Bench, STAGES},
    image_commands::filter,
    samples::{done, failed, input},
};

/// The tenant of the bench's jobs.
const TENANT: &str = "t";

fn set(quotas: Quotas) -> TenantChange {
    let quotas = QuotaChange { set: quotas, ..QuotaChange::default() };
    TenantChange { quotas, ..TenantChange::default() }
}

fn waiting(most: u64) -> TenantChange {
    set(Quotas { images_waiting: Some(most), ..Quotas::default() })
}

fn cleared() -> TenantChange {
    let quotas = QuotaChange { clear: Quota::ALL.into(), ..QuotaChange::default() };
    TenantChange { quotas, ..TenantChange::default() }
}

/// The refusal by a quota.
fn refused<T: std::fmt::Debug>(done: Result<T, Error>, quota: Quota) -> UserError {
    let Err(Error::Refused(error)) = done else { panic!("{quota:?} does not refuse: {done:?}") };
    assert_eq!((error.code, &error.reason), (Code::ResourceExhausted, &quota.reason()), "{error}");
    error
}

impl Bench {
    async fn quota(&self, change: &TenantChange) {
        self.store.set_tenant(TENANT, change).await.expect("sets");
    }

    async fn usage(&self) -> Usage {
        self.other.standing(TENANT).await.expect("reads").1
    }

    async fn audit_usage(&self) {
        assert_eq!(self.store.audit_usage().await.expect("audits"), Vec::<String>::new());
    }

    async fn submit_images(&self, request: Option<&str>, images: u32) -> Result<Submitted, Error> {
        let prompts = self.prompts(&["one"], images);
        self.store.submit(&self.job(request), &prompts, Digest::of(b"content")).await
    }

    /// A job whose images have all failed for good.
    async fn failed_job(&self, images: u32) -> JobId {
        let job = self.submit(&["one"], images).await;
        self.encode(job).await;
        while let Some(task) = self.dispatch("base", job, 1).await.pop() {
            self.commit("base", task.key, failed()).await;
        }
        assert_eq!(self.store.job(job).await.expect("there").state, JobState::Failed);
        job
    }
}

/// A stage's output of this many bytes.
pub(super) fn of_bytes(name: &str, size: u64) -> Outcome {
    let sha256 = Digest::of(name.as_bytes());
    let artifact = ArtifactRef { key: format!("tasks/{name}"), sha256, size };
    Outcome::Done { artifact, notes: Vec::new() }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_tenant_keeps_its_quotas_until_they_are_changed(bench: &Bench) {
    let of = async |tenant| bench.other.standing(tenant).await.expect("reads").0;
    assert_eq!(of(TENANT).await, Quotas::default(), "no such tenant, no quota");
    let all = Quotas {
        images_waiting: Some(1),
        images_per_day: Some(1 << 50),
        device_seconds_per_day: Some(2.5),
        stored_bytes: Some(0),
        requests_per_second: Some(0.25),
        burst: Some(7),
        workers: Some(3),
        weight: Some(1.5),
    };
    let change =
        async |change: TenantChange| bench.store.set_tenant(TENANT, &change).await.expect("sets");
    let (set_to, changed) = change(set(all.clone())).await;
    assert!(changed && !change(set(all.clone())).await.1, "twice the same");
    assert_eq!((&set_to.quotas, of(TENANT).await), (&all, all.clone()));
    assert_eq!(bench.other.tenant(TENANT).await.expect("there").quotas, all);
    assert_eq!(bench.other.list_tenants("", 9).await.expect("lists")[0].quotas, all);
    let one = TenantChange {
        quotas: QuotaChange {
            set: Quotas { workers: Some(4), ..Quotas::default() },
            clear: [Quota::Burst, Quota::Weight].into(),
        },
        ..TenantChange::default()
    };
    let (set_to, changed) = change(one.clone()).await;
    assert!(changed && !change(one).await.1, "twice the same");
    let expected = Quotas { workers: Some(4), burst: None, weight: None, ..all };
    assert_eq!(set_to.quotas, expected);
    // Of changes at once, none undoes another.
    let stores = [&bench.store, &bench.other];
    let changes = [
        set(Quotas { burst: Some(1), ..Quotas::default() }),
        set(Quotas { weight: Some(2.0), ..Quotas::default() }),
        set(Quotas { workers: Some(5), ..Quotas::default() }),
        set(Quotas { images_waiting: Some(6), ..Quotas::default() }),
    ];
    join_all(changes.iter().zip(stores.into_iter().cycle()).map(async |(change, store)| {
        store.set_tenant(TENANT, change).await.expect("sets");
    }))
    .await;
    let expected = Quotas {
        burst: Some(1),
        weight: Some(2.0),
        workers: Some(5),
        images_waiting: Some(6),
        ..expected
    };
    assert_eq!(of(TENANT).await, expected);
    let (limited, now_ms) = bench.store.limited().await.expect("lists");
    assert_eq!((limited.len(), limited[0].name.as_str()), (1, TENANT));
    assert_eq!(limited[0].quotas, expected);
    assert!(now_ms > 1_700_000_000_000, "{now_ms}");
    bench.quota(&cleared()).await;
    assert_eq!(of(TENANT).await, Quotas::default());
    assert_eq!(bench.store.limited().await.expect("lists").0, []);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_submit_over_a_quota_leaves_nothing_and_a_repeat_is_never_over(bench: &Bench) {
    bench.quota(&waiting(10)).await;
    let first = bench.submit_images(Some("r"), 6).await.expect("six of ten").job.id;
    let error = refused(bench.submit_images(None, 5).await, Quota::ImagesWaiting);
    assert!(error.message.contains("is 10, 6 images wait, and this adds 5"), "{error}");
    assert!(error.retry_after.is_some(), "{error:?}");
    let usage = bench.usage().await;
    assert_eq!((usage.images_waiting, usage.images_today), (6, 6));
    assert_eq!(bench.store.count(JobState::Receiving).await.expect("counts"), 0);
    let repeated = bench.submit_images(Some("r"), 6).await.expect("it is accepted already");
    assert_eq!((repeated.existed, repeated.job.id), (true, first));
    bench.submit_images(None, 4).await.expect("exactly ten");
    bench.audit_usage().await;
    // A quota below what is used stops nothing.
    bench.quota(&waiting(3)).await;
    bench.encode(first).await;
    assert_eq!(bench.dispatch("base", first, 6).await.len(), 6);
    refused(bench.submit_images(None, 1).await, Quota::ImagesWaiting);
    let other = NewJob { tenant: "u".to_owned(), ..bench.job(None) };
    let prompts = bench.prompts(&["one"], 50);
    bench.store.submit(&other, &prompts, Digest::of(b"c")).await.expect("another tenant's");
    bench.store.cancel(first).await.expect("cancels");
    assert_eq!(bench.usage().await.images_waiting, 4, "at once, whatever its rows say yet");
    bench.settle().await;
    bench.audit_usage().await;
    bench.quota(&cleared()).await;
    bench.submit_images(None, 500).await.expect("no quota any more");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn of_submits_at_once_only_those_are_accepted_that_fit(bench: &Bench) {
    for change in [waiting(10), set(Quotas { images_per_day: Some(10), ..Quotas::default() })] {
        bench.quota(&cleared()).await;
        let before = bench.usage().await;
        let room = 12 + before.images_waiting.max(before.images_today);
        let Quotas { images_waiting, images_per_day, .. } = change.quotas.set;
        bench
            .quota(&set(Quotas {
                images_waiting: images_waiting.map(|_| room),
                images_per_day: images_per_day.map(|_| room),
                ..Quotas::default()
            }))
            .await;
        let prompts = bench.prompts(&["one"], 5);
        let stores = [&bench.store, &bench.other];
        let submits = stores.into_iter().cycle().take(8).map(async |store| {
            store.submit(&bench.job(None), &prompts, Digest::of(b"c")).await.is_ok()
        });
        let accepted = join_all(submits).await.into_iter().filter(|accepted| *accepted).count();
        assert_eq!(accepted, 2, "two of five images each fit into {change:?}");
    }
    bench.audit_usage().await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_streamed_submit_is_refused_with_the_chunk_that_is_too_many(bench: &Bench) {
    bench.quota(&waiting(10)).await;
    let all = bench.prompts(&["one", "two", "three"], 5);
    let content = Digest::of(b"content");
    let begin = async |request| {
        let job = bench.job(request);
        bench.store.begin(&job).await.expect("begins");
        job.id
    };
    let long = begin(None).await;
    bench.store.receive(long, &all[..1]).await.expect("five");
    bench.store.receive(long, &all[1..2]).await.expect("ten");
    let error = refused(bench.store.receive(long, &all[2..]).await, Quota::ImagesWaiting);
    assert!(error.message.contains("is 10, 0 images wait, and this adds 15"), "{error}");
    bench.store.abandon(long).await.expect("gives up");
    // Both are received, and one of them fits.
    let (first, second) = (begin(Some("r")).await, begin(None).await);
    let third = begin(Some("r")).await;
    for job in [first, second, third] {
        bench.store.receive(job, &all[..1]).await.expect("five");
    }
    bench.store.receive(first, &all[1..2]).await.expect("ten");
    bench.store.accept(first, content).await.expect("ten fit");
    refused(bench.store.accept(second, content).await, Quota::ImagesWaiting);
    bench.store.abandon(second).await.expect("gives up");
    // It repeats what is accepted by now, so it is not refused.
    bench.store.receive(third, &all[1..2]).await.expect("a repeat");
    let repeated = bench.store.accept(third, content).await.expect("a repeat");
    assert_eq!((repeated.existed, repeated.job.id), (true, first));
    assert_eq!(bench.usage().await.images_waiting, 10);
    bench.audit_usage().await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn what_was_submitted_today_counts_whatever_becomes_of_it(bench: &Bench) {
    bench.quota(&set(Quotas { images_per_day: Some(10), ..Quotas::default() })).await;
    let job = bench.submit_images(None, 6).await.expect("six of ten").job.id;
    bench.store.cancel(job).await.expect("cancels");
    bench.settle().await;
    let error = refused(bench.submit_images(None, 5).await, Quota::ImagesPerDay);
    assert!(error.message.contains("is 10, 6 images were submitted today"), "{error}");
    assert!(error.message.contains("T00:00:00Z"), "{error}");
    let wait = error.retry_after.expect("until midnight").as_secs();
    assert!((1..=86_401).contains(&wait), "{wait}");
    let usage = bench.usage().await;
    assert_eq!((usage.images_waiting, usage.images_today), (0, 6));
    assert!(usage.day_ends_ms() > usage.now_ms && usage.day_ends_ms() % 86_400_000 == 0);
    // A retry submits nothing.
    bench.store.retry(job, NewDeadline::Same).await.expect("retries");
    bench.settle().await;
    assert_eq!(bench.usage().await.images_today, 6);
    bench.submit_images(None, 4).await.expect("exactly ten");
    bench.audit_usage().await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_retry_that_makes_too_many_images_wait_changes_nothing(bench: &Bench) {
    let job = bench.failed_job(4).await;
    let lost = bench.submit(&["one"], 4).await;
    for stage in STAGES {
        for task in bench.dispatch(stage, lost, 4).await {
            assert_eq!(bench.commit(stage, task.key, done(stage)).await, Fate::Applied);
        }
    }
    bench.submit(&["one"], 8).await;
    bench.quota(&waiting(10)).await;
    let before = bench.store.job(job).await.expect("there");
    let retry = bench.store.retry(job, NewDeadline::Same).await;
    let error = refused(retry, Quota::ImagesWaiting);
    assert!(error.message.contains("is 10, 8 images wait, and this adds 4"), "{error}");
    let now = bench.store.job(job).await.expect("there");
    assert_eq!((now.state, now.generation), (before.state, before.generation));
    let command = async |first, last| {
        let some = filter(&[(first, last)], &[], 4);
        let retry = ImageCommand::Retry;
        bench.store.command_images(job, retry, &some, NewDeadline::Same).await
    };
    refused(command(0, 2).await, Quota::ImagesWaiting);
    command(0, 1).await.expect("two of four");
    assert_eq!(bench.usage().await.images_waiting, 10, "before its images have followed it");
    refused(command(3, 3).await, Quota::ImagesWaiting);
    bench.store.follow(1).await.expect("follows");
    assert_eq!(bench.usage().await.images_waiting, 10, "when some have");
    bench.settle().await;
    assert_eq!(bench.usage().await.images_waiting, 10, "when all have");
    let pictures = [LostPicture { index: 0, generation: 1 }];
    let rerender = bench.store.rerender_lost(lost, &pictures, NewDeadline::Same).await;
    refused(rerender, Quota::ImagesWaiting);
    assert_eq!(bench.store.job(lost).await.expect("there").state, JobState::Done);
    bench.quota(&waiting(13)).await;
    bench.store.rerender_lost(lost, &pictures, NewDeadline::Same).await.expect("one more fits");
    bench.store.cancel(job).await.expect("cancels");
    bench.settle().await;
    bench.store.retry(job, NewDeadline::Same).await.expect("four more fit");
    assert_eq!(bench.usage().await.images_waiting, 13, "before they have followed it");
    bench.audit_usage().await;
    bench.settle().await;
    assert_eq!(bench.usage().await.images_waiting, 13);
    for job in [job, lost] {
        bench.audit(job).await;
    }
    bench.audit_usage().await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn what_is_stored_counts_in_full_for_every_job_and_refuses_at_its_limit(bench: &Bench) {
    let stored = async || bench.usage().await.stored_bytes;
    let (one, two) = (bench.submit(&["one"], 2).await, bench.submit(&["one"], 1).await);
    bench.encode(one).await;
    for job in [one, two] {
        for task in bench.dispatch("base", job, 9).await {
            bench.commit("base", task.key, of_bytes("same", 100)).await;
        }
    }
    assert_eq!(stored().await, 300, "three images, though they are one object");
    // A stage that runs again replaces its output.
    let task = bench.dispatch("sr256", two, 1).await.remove(0);
    let missing = Outcome::InputMissing { key: "tasks/same".to_owned() };
    bench.commit("sr256", task.key, missing).await;
    assert_eq!(stored().await, 200, "what is missing is stored no more");
    let task = bench.dispatch("base", two, 1).await.remove(0);
    bench.commit("base", task.key, of_bytes("other", 1000)).await;
    assert_eq!(stored().await, 1200);
    bench.audit_usage().await;
    // An upload counts as what is stored of it, once.
    let canonical = Canonical { sha256: Digest::of(b"png"), size: 40 };
    let png =
        Input { sha256: canonical.sha256, size: 40, canonical: Some(canonical), ..input("x") };
    let jpeg = Input { size: 9, canonical: Some(canonical), ..input("jpeg") };
    for _ in 0..2 {
        bench.store.add_input(TENANT, &png).await.expect("stores");
        bench.store.add_input(TENANT, &jpeg).await.expect("stores");
    }
    bench.store.add_input(TENANT, &input("plain")).await.expect("stores");
    assert_eq!(stored().await, 1249);
    let decoded = Input { canonical: Some(canonical), ..input("plain") };
    bench.store.add_input(TENANT, &decoded).await.expect("stores");
    assert_eq!(stored().await, 1240, "now another picture stands for it");
    bench.store.add_input("u", &png).await.expect("stores");
    assert_eq!(stored().await, 1240, "another tenant's");
    bench.audit_usage().await;

    bench.quota(&set(Quotas { stored_bytes: Some(1248), ..Quotas::default() })).await;
    let error = refused(bench.store.add_input(TENANT, &input("y")).await, Quota::StoredBytes);
    assert!(
        error.message.contains("is 1248 bytes, 1240 bytes are stored, and this adds 9"),
        "{error}"
    );
    let rows = bench.store.inputs(Some(TENANT), &[input("y").sha256]).await.expect("reads");
    assert_eq!(rows, [], "a refused upload leaves nothing");
    bench.store.add_input(TENANT, &png).await.expect("it is stored already");
    bench.submit_images(None, 1).await.expect("there is room");
    bench.quota(&set(Quotas { stored_bytes: Some(1240), ..Quotas::default() })).await;
    let error = refused(bench.submit_images(None, 1).await, Quota::StoredBytes);
    assert!(error.message.contains("is 1240 bytes, 1240 bytes are stored"), "{error}");
    let task = bench.dispatch("sr256", one, 1).await.remove(0);
    assert_eq!(bench.commit("sr256", task.key, done("x")).await, Fate::Applied, "jobs run on");
    bench.audit_usage().await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn device_time_and_workers_are_told_of_those_who_have_a_quota(bench: &Bench) {
    let job = bench.submit(&["one"], 6).await;
    bench.encode(job).await;
    let pool = bench.pool("base");
    let tasks = bench.dispatch("base", job, 4).await;
    assert_eq!(bench.store.in_flight(&pool).await.expect("counts"), [].into(), "no quota");
    let quotas =
        Quotas { device_seconds_per_day: Some(1.0), workers: Some(2), ..Quotas::default() };
    bench.quota(&set(quotas)).await;
    let in_flight = bench.store.in_flight(&pool).await.expect("counts");
    assert_eq!(in_flight, [(TENANT.to_owned(), 4)].into());
    assert_eq!(bench.store.in_flight(&bench.pool("sr256")).await.expect("counts"), [].into());
    let flying = async |tenant| bench.store.jobs_in_flight(tenant).await.expect("lists");
    let idle = bench.submit(&["one"], 1).await;
    assert_eq!((flying(TENANT).await, flying("u").await), (vec![job], vec![]));
    bench.store.cancel(idle).await.expect("cancels");
    let used = async || {
        let (limited, _) = bench.other.limited().await.expect("lists");
        let usage = bench.usage().await.device_seconds_today;
        assert!((limited[0].device_seconds_today - usage).abs() < 1e-9);
        (usage, limited[0].is_out_of_time())
    };
    assert_eq!(used().await, (0.0, false), "texts are everyone's");
    // Each takes half a second, and failures count too. None goes on to the next stage in the
    // commit, because only the dispatcher knows the quotas.
    let report = Bench::report(tasks[0].key, done("a"), true);
    let credit = bench.credit(9);
    let (_, onward) = bench.store.commit_onward(&pool, &[report], &credit).await.expect("commits");
    assert!(onward.is_empty(), "{onward:?}");
    assert_eq!(used().await, (0.5, false));
    bench.commit("base", tasks[1].key, failed()).await;
    assert_eq!(used().await, (1.0, true));
    bench.store.note_history(bench.term, &[]).await.expect("adds up");
    assert_eq!(used().await, (1.0, true), "added up");
    bench.commit("base", tasks[2].key, done("b")).await;
    assert_eq!(used().await, (1.5, true));
    bench.audit_usage().await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn sums_that_the_leader_adds_up_stay_what_they_are(bench: &Bench) {
    bench.store.add_input(TENANT, &input("x")).await.expect("stores");
    for round in 1..=3 {
        let job = bench.submit(&["one"], 2).await;
        bench.encode(job).await;
        for task in bench.dispatch("base", job, 2).await {
            bench.commit("base", task.key, of_bytes("x", 50)).await;
        }
        let before = bench.usage().await;
        assert_eq!((before.images_today, before.stored_bytes), (2 * round, 9 + 100 * round));
        bench.store.note_history(bench.term, &[]).await.expect("adds up");
        assert_eq!(Usage { now_ms: before.now_ms, ..bench.usage().await }, before);
        bench.audit_usage().await;
    }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn coordinators_that_share_a_record_know_of_each_other(bench: &Bench) {
    assert_eq!(bench.store.note_coordinator("a").await.expect("notes"), 1);
    assert_eq!(bench.store.note_coordinator("a").await.expect("notes"), 1, "itself");
    let both = if Arc::ptr_eq(&bench.store, &bench.other) { 1 } else { 2 };
    assert_eq!(bench.other.note_coordinator("b").await.expect("notes"), both);
    assert_eq!(bench.store.note_coordinator("a").await.expect("notes"), both);
}
