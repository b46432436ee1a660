//! The whole farm over gRPC: its changes, its queue, its history, and the tenants' usage.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::support::{self, Act, DEADLINE, Farm, STAGES, database, prompts, spec};
use darkroom_artifacts::ArtifactStore;
use darkroom_coordinator::{
    Options,
    store::{
        postgres::{self, PostgresStore},
        roles::Agreed as _,
        sqlite::SqliteStore,
    },
};
use darkroom_proto::v1;
use darkroom_queue::{TaskQueue as _, memory::MemoryQueue, task::EntryState};
use darkroom_test_servers::postgres::Postgres;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

async fn watch(farm: &mut Farm, tenant: &str, cursor: &str) -> Streaming<v1::FarmEvent> {
    let request = v1::WatchFarmRequest { tenant: tenant.to_owned(), cursor: cursor.to_owned() };
    farm.client.watch_farm(request).await.expect("watches").into_inner()
}

async fn next(events: &mut Streaming<v1::FarmEvent>) -> v1::FarmEvent {
    let event = tokio::time::timeout(DEADLINE, events.next()).await.expect("in time");
    event.expect("it never ends").expect("fine")
}

/// The jobs that a watcher knows, at their latest versions.
#[derive(Default)]
struct Known {
    jobs: BTreeMap<String, v1::Job>,
    cursor: String,
    workers: Option<Vec<v1::Worker>>,
    caught_up: bool,
}

impl Known {
    fn take(&mut self, event: v1::FarmEvent) {
        if event.reset {
            self.jobs.clear();
        }
        for job in event.jobs {
            let before = self.jobs.get(&job.id).map_or(0, |known| known.version);
            assert!(job.version >= before, "{} after {before}", job.version);
            self.jobs.insert(job.id.clone(), job);
        }
        self.workers = event.workers.map(|all| all.workers).or_else(|| self.workers.take());
        (self.cursor, self.caught_up) = (event.cursor, event.caught_up);
    }

    /// Whether the watcher knows that these jobs have ended.
    fn written(&self, ids: &[String]) -> bool {
        let written = |job: &v1::Job| job.manifest() == v1::ManifestState::Written;
        ids.iter().all(|id| self.jobs.get(id).is_some_and(written))
    }
}

async fn submit_as(farm: &mut Farm, tenant: &str, count: usize) -> v1::Job {
    farm.submit(v1::JobSpec { tenant: tenant.to_owned(), ..spec() }, prompts(count)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_of_the_farm_that_reconnects_after_every_event_misses_nothing() {
    let mut farm = Farm::start().await;
    let early = submit_as(&mut farm, "a", 3).await;
    let workers = farm.work(|_| Act::Done);
    let mut known = Known::default();
    let mut submitted = vec![early.id];
    while submitted.len() < 6 || !(known.written(&submitted) && known.caught_up) {
        let mut events = watch(&mut farm, "", &known.cursor).await;
        let event = next(&mut events).await;
        assert_eq!(event.reset, known.cursor.is_empty(), "only the first time");
        assert!(event.workers.is_some(), "each stream begins with the workers");
        assert!(!event.cursor.is_empty());
        known.take(event);
        drop(events);
        if submitted.len() < 6 {
            submitted.push(submit_as(&mut farm, "b", 2).await.id);
        }
    }
    submitted.sort();
    assert_eq!(known.jobs.keys().cloned().collect::<Vec<_>>(), submitted);
    for (id, job) in &known.jobs {
        let now = farm.get(id).await;
        assert_eq!((job.version, job.state, job.images_done), (now.version, now.state, now.images));
        // Each image passes three stages, and each task takes a thousandth of a second.
        let expected = now.images as f64 * STAGES.len() as f64 * 0.001;
        assert!((job.device_seconds - expected).abs() < 1e-9, "{} s", job.device_seconds);
        assert_eq!(now.device_seconds, job.device_seconds);
    }
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_watch_sees_all_changes_and_another_those_of_its_tenant() {
    let mut farm = Farm::start().await;
    let ended = submit_as(&mut farm, "b", 1).await;
    farm.client.cancel_job(v1::CancelJobRequest { id: ended.id }).await.expect("cancels");
    let present = submit_as(&mut farm, "a", 1).await;
    let mut all = watch(&mut farm, "", "").await;
    let mut of_b = watch(&mut farm, "b", "").await;
    let (mut known, mut known_b) = (Known::default(), Known::default());
    while !(known.caught_up) {
        known.take(next(&mut all).await);
    }
    assert!(known.jobs.contains_key(&present.id), "the present state");
    assert_eq!(known.workers, Some(Vec::new()), "nobody works");
    while !known_b.caught_up {
        known_b.take(next(&mut of_b).await);
    }
    assert!(!known_b.jobs.contains_key(&present.id), "another tenant's");
    let workers = farm.work(|_| Act::Done);
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(submit_as(&mut farm, "b", 30).await.id);
    }
    while !known_b.written(&ids) {
        let event = next(&mut of_b).await;
        assert!(event.jobs.iter().all(|job| job.spec.as_ref().is_some_and(|s| s.tenant == "b")));
        known_b.take(event);
    }
    ids.push(present.id);
    while !(known.written(&ids) && known.workers.as_ref().is_some_and(|all| all.len() == 1)) {
        known.take(next(&mut all).await);
    }
    workers.stop().await;
    while known.workers.as_ref().is_none_or(|all| !all.is_empty()) {
        known.take(next(&mut all).await);
    }
    farm.shutdown().await;
    let mut last = all.next().await;
    while let Some(Ok(_)) = last {
        last = all.next().await;
    }
    let status = last.expect("a reason").expect_err("it ends with the coordinator");
    assert!(status.message().contains("last cursor"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_is_told_the_rest_when_it_does() {
    let mut farm = Farm::start().await;
    let mut events = watch(&mut farm, "", "").await;
    let mut known = Known::default();
    known.take(next(&mut events).await);
    // Far more changes than are kept for a watcher, which stops reading.
    let workers = farm.work(|_| Act::Done);
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(farm.submit(spec(), prompts(3)).await.id);
    }
    for id in &ids {
        farm.until_ended(id).await;
    }
    while !known.written(&ids) {
        known.take(next(&mut events).await);
    }
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_watch_of_the_farm_repeats_its_cursor_and_strange_cursors_begin_anew() {
    let options = Options { watch_repeat: Duration::from_millis(50), ..support::options() };
    let mut farm = Farm::start_with(options).await;
    let job = farm.submit(spec(), prompts(1)).await;
    let mut events = watch(&mut farm, "", "").await;
    let mut known = Known::default();
    let mut quiet = 0;
    while quiet < 3 {
        let event = next(&mut events).await;
        quiet += u32::from(event.jobs.is_empty() && event.caught_up && event.workers.is_none());
        known.take(event);
    }
    assert_eq!(known.jobs.len(), 1);
    let mut resumed = watch(&mut farm, "", &known.cursor).await;
    known.caught_up = false;
    while !known.caught_up {
        let event = next(&mut resumed).await;
        assert!(!event.reset && event.jobs.is_empty(), "{event:?}");
        known.take(event);
    }
    drop(resumed);
    // A cursor of a watch of something else, and one that no farm has made.
    let mut others = watch(&mut farm, "b", "").await;
    let of_another = next(&mut others).await.cursor;
    drop(others);
    let other = if known.cursor.starts_with('A') { "B" } else { "A" };
    let forged = other.to_owned() + &known.cursor[1..];
    for strange in [of_another, forged] {
        let mut events = watch(&mut farm, "", &strange).await;
        let mut event = next(&mut events).await;
        assert!(event.reset, "{event:?}");
        // If the record is slow, events without jobs come first.
        while event.jobs.is_empty() && !event.caught_up {
            event = next(&mut events).await;
        }
        assert!(event.jobs.iter().any(|one| one.id == job.id), "{event:?}");
    }
    for wrong in ["x", "c.1.2", "\u{0}"] {
        let request = v1::WatchFarmRequest { cursor: wrong.to_owned(), ..Default::default() };
        let status = farm.client.watch_farm(request).await.expect_err(wrong);
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().contains("cursor is"), "{status:?}");
    }
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_catches_up_with_what_others_did_is_told_how_far_it_is() {
    let options = Options { watch_repeat: Duration::ZERO, ..support::options() };
    let mut farm = Farm::start_with(options).await;
    let mut events = watch(&mut farm, "b", "").await;
    let mut known = Known::default();
    while !known.caught_up {
        known.take(next(&mut events).await);
    }
    drop(events);
    // More jobs than are read at once.
    for _ in 0..150 {
        submit_as(&mut farm, "a", 1).await;
    }
    let mut events = watch(&mut farm, "b", &known.cursor).await;
    let mut cursors = Vec::new();
    loop {
        let event = next(&mut events).await;
        assert!(!event.reset && event.jobs.is_empty(), "{event:?}");
        if event.caught_up {
            break;
        }
        cursors.push(event.cursor);
    }
    let last = cursors.last().expect("events before it has caught up");
    assert_ne!(*last, known.cursor, "a watch that resumes from here does not begin again");
    farm.shutdown().await;
}

async fn queue(farm: &mut Farm) -> Vec<v1::QueuePool> {
    let request = v1::DescribeQueueRequest {};
    farm.client.describe_queue(request).await.expect("answers").into_inner().pools
}

#[tokio::test(flavor = "multi_thread")]
async fn every_coordinator_tells_the_same_of_the_queue() {
    let server = Postgres::shared();
    let url = server.create_database();
    let open = async || {
        Arc::new(PostgresStore::connect(&url, postgres::Options::default()).await.expect("opens"))
    };
    let (queue_of_both, artifacts) = (Arc::new(MemoryQueue::default()), ArtifactStore::in_memory());
    // The tests' workers renew only one of their leases.
    open().await.set_lease(None, Duration::from_secs(60)).await.expect("agreed");
    let mut farm = Farm::join(open().await, &queue_of_both, &artifacts).await;
    let mut other = Farm::join(open().await, &queue_of_both, &artifacts).await;
    let pools = queue(&mut farm).await;
    let stages: Vec<_> = pools.iter().map(|pool| pool.stage.as_str()).collect();
    assert_eq!(stages, ["encode", "base", "sr256", "sr1024"]);
    assert!(pools.iter().all(|pool| pool.cascade == "tiny" && pool.ready == 0));
    let job = farm.submit(spec(), prompts(20)).await;
    let waiting = queue(&mut farm).await;
    assert_eq!((waiting[0].ready, waiting[0].workers), (21, 0), "texts, the empty one among them");
    assert!(waiting[0].oldest_seconds.is_some() && waiting[0].work_seconds.is_none());
    let go = CancellationToken::new();
    let held = go.clone();
    let workers = farm.work(move |task| match support::index(task) {
        Some(_) => Act::Hold(held.clone()),
        None => Act::Done,
    });
    farm.until(&job.id, "its first stage is running", |job| {
        job.stages[0].done == 21 && job.stages[1].dispatched >= 8
    })
    .await;
    // One batch of one to four tasks is held, and the queue behind it is full.
    let held_by_the_worker = async || {
        let entries = queue_of_both.entries(&support::pool("base")).await.expect("entries");
        entries.iter().filter(|entry| matches!(entry.state, EntryState::Leased(_))).count() as u64
    };
    let mut base = queue(&mut farm).await.swap_remove(1);
    support::eventually("the queue is full and measured", async || {
        base = queue(&mut farm).await.swap_remove(1);
        let leased = held_by_the_worker().await;
        leased > 0 && base.leased == leased && base.dispatched == 8 && base.work_seconds.is_some()
    })
    .await;
    assert_eq!((base.ready, base.dispatched, base.workers), (12, 8, 1), "{base:?}");
    assert!((1..=4).contains(&base.leased), "{base:?}");
    // Twenty images of eight network passes, each of 0.05 s.
    let work = base.work_seconds.expect("measured");
    assert!((work - 20.0 * 8.0 * 0.05).abs() < 1e-6, "{work}");
    assert!(base.oldest_seconds.is_some_and(|age| age < 60.0), "{base:?}");
    let encode = queue(&mut farm).await.swap_remove(0);
    assert!(encode.images_per_second > 0.0 && encode.batch_fill.is_some(), "{encode:?}");
    assert_eq!(base.batch_fill, None, "no batch of it has ended");
    let steady = |pools: Vec<v1::QueuePool>| -> Vec<_> {
        let one = |pool| v1::QueuePool { oldest_seconds: None, images_per_second: 0.0, ..pool };
        pools.into_iter().map(one).collect()
    };
    support::eventually("both read the same, as soon as they know the rates", async || {
        steady(queue(&mut farm).await) == steady(queue(&mut other).await)
    })
    .await;
    go.cancel();
    farm.until_ended(&job.id).await;
    let pools = queue(&mut other).await;
    assert!(pools.iter().all(|pool| (pool.ready, pool.dispatched, pool.leased) == (0, 0, 0)));
    assert!(pools[3].images_per_second > 0.0 && pools[3].oldest_seconds.is_none());
    workers.stop().await;
    other.shutdown().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_writes_the_past_and_tenants_find_what_they_used() {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let store = SqliteStore::open(&database(folder.path())).await.expect("a record");
    let options = Options { sweep: Duration::from_millis(20), ..support::options() };
    let mut farm = Farm::start_with_store(options, Arc::clone(&folder), store).await;
    let workers = farm.work(|task| match support::index(task) {
        Some(2) => support::failed(),
        _ => Act::Done,
    });
    let (one, two) = (submit_as(&mut farm, "a", 4).await, submit_as(&mut farm, "b", 2).await);
    let one = farm.until_ended(&one.id).await;
    farm.until_ended(&two.id).await;
    assert_eq!(one.images_dead, 1);
    let asked = v1::FarmHistoryRequest { step_seconds: 600, ..Default::default() };
    let past = farm.client.farm_history(asked.clone()).await.expect("answers").into_inner().pools;
    let sum = |stage: &str, count: fn(&v1::HistoryPoint) -> u64| -> u64 {
        let pool = past.iter().find(|pool| pool.stage == stage).expect("its pool");
        pool.points.iter().map(count).sum()
    };
    assert_eq!(sum("base", |point| point.done), 5);
    let failed = sum("base", |point| point.failed);
    assert!(failed >= 5, "on the only device: {failed}");
    assert_eq!(sum("sr1024", |point| point.done), 5);
    // Four prompts and the empty text. The second tenant seals the farm, so two of the prompts and
    // the empty text are encoded for it too.
    assert_eq!(sum("encode", |point| point.done), 8);
    let noted: u32 = past.iter().flat_map(|pool| &pool.points).map(|point| point.minutes).sum();
    assert!(noted >= 4, "the leader recorded every pool's sizes when it began to lead: {past:?}");
    let of_one = v1::FarmHistoryRequest { stage: "sr256".to_owned(), ..asked };
    let of_one = farm.client.farm_history(of_one).await.expect("answers").into_inner().pools;
    assert_eq!((of_one.len(), of_one[0].stage.as_str()), (1, "sr256"));

    let mut usage = async |tenant: &str, token: &str| {
        let request = v1::ListUsageRequest {
            tenant: tenant.to_owned(),
            page_size: 1,
            page_token: token.to_owned(),
            ..Default::default()
        };
        farm.client.list_usage(request).await.expect("answers").into_inner()
    };
    let page = usage("", "").await;
    let first = page.days[0].clone();
    let second = usage("", &page.next_page_token).await.days[0].clone();
    assert_eq!((first.tenant.as_str(), second.tenant.as_str()), ("a", "b"), "a day's, by tenant");
    assert_eq!((first.tasks_done, second.tasks_done), (9, 6));
    assert_eq!((first.tasks_failed, second.tasks_failed), (failed, 0));
    assert!((first.device_seconds - one.device_seconds).abs() < 1e-9, "{first:?}");
    assert!((second.device_seconds - 0.006).abs() < 1e-9, "{second:?}");
    assert_eq!(usage("b", "").await.days, [second]);
    workers.stop().await;
    farm.shutdown().await;
}
