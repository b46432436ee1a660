//! The cleaner when something goes wrong: an older record, a full store, storage that fails
//! half-way, several passes, several leaders, and a queue that is flushed.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use darkroom_artifacts::ArtifactStore;
use darkroom_coordinator::{
    Budget, Options,
    store::postgres::{self, PostgresStore},
};
use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::Caller;
use darkroom_proto::{status::from_status, v1};
use darkroom_queue::{TaskQueue as _, memory::MemoryQueue};
use darkroom_suites::obstacles::{Obstructed, Request};
use darkroom_test_servers::postgres::Postgres;
use futures::TryStreamExt as _;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::support::{Act, Farm, database, eventually, options, pool, prompts, spec};

const EPOCH: &str = "cleaner/epoch.json";
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

async fn farm_on(storage: &Obstructed) -> Farm {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    Farm::start_over(options(), folder, ArtifactStore::over(Arc::new(storage.clone()))).await
}

async fn stored(farm: &Farm, prefix: &str) -> BTreeSet<String> {
    farm.artifacts.list(prefix).map_ok(|one| one.key).try_collect().await.expect("lists")
}

async fn done(farm: &mut Farm, seed: u64) -> String {
    let spec = v1::JobSpec { seed: Some(seed), ..spec() };
    let job = farm.submit(spec, prompts(2)).await.id;
    assert_eq!(farm.until_ended(&job).await.state(), v1::JobState::Done);
    job
}

async fn delete(farm: &mut Farm, id: &str) {
    let request = v1::DeleteJobRequest { id: id.to_owned(), cancel: false };
    assert!(farm.client.delete_job(request).await.expect("deletes").into_inner().deleted);
}

/// Every picture of the job can be fetched.
async fn is_whole(farm: &mut Farm, id: &str) {
    for index in 0..2 {
        let request = v1::FetchImageRequest { job_id: id.to_owned(), index, ..Default::default() };
        farm.client.fetch_image(request).await.expect("its picture is there");
    }
    farm.audit(id).await;
}

/// Storage says that so many removals were made.
async fn say(farm: &Farm, removals: u64) {
    let id = farm.store.farm_id().await.expect("an id");
    let database = farm.store.database_identity().await.expect("an identity");
    let mark = format!(r#"{{"farm":"{id}","database":"{database}","removals":{removals}}}"#);
    farm.artifacts.write_mark(EPOCH, mark.into()).await.expect("stores");
}

async fn noted(farm: &Farm) -> Option<u64> {
    let mark = farm.artifacts.read_mark(EPOCH).await.expect("reads")?;
    let mark = String::from_utf8(mark.to_vec()).expect("text");
    let (_, count) = mark.rsplit_once("\"removals\":").expect("a count");
    count.trim_end_matches('}').parse().ok()
}

async fn clean(farm: &Farm, restored: bool) -> Result<v1::CleanFarmResponse, UserError> {
    let request = v1::CleanFarmRequest { restored, ..Default::default() };
    farm.handle.admin_calls().clean_farm(&Caller::open(), request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_the_record_marks_nothing_and_is_accepted_only_once() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let mut jobs = Vec::new();
    for seed in 0..4 {
        jobs.push(done(&mut farm, seed).await);
    }
    let kept = done(&mut farm, 0).await;
    let (before, needed) = (stored(&farm, "tasks/").await, keys(&mut farm, &kept).await);
    say(&farm, 2).await;
    for job in &jobs {
        delete(&mut farm, job).await;
    }
    // Each pass that marked something would raise the record's count towards storage's.
    for _ in 0..6 {
        let refused = farm.handle.clean(2 * MINUTE).await.expect_err("storage is ahead").to_user();
        assert_eq!(refused.reason, "RECORD_RESTORED");
    }
    assert_eq!(farm.store.removal_count().await.expect("counts"), 0, "the copy catches up");
    assert_eq!(stored(&farm, "tasks/").await, before);
    clean(&farm, true).await.expect("it is accepted");
    let left = stored(&farm, "tasks/").await;
    assert!(left.is_superset(&needed) && left.len() < before.len(), "{left:?}");
    is_whole(&mut farm, &kept).await;
    assert_eq!(noted(&farm).await, Some(farm.store.removal_count().await.expect("counts")));
    // The next one is not accepted by that.
    say(&farm, 1000).await;
    delete(&mut farm, &kept).await;
    let refused = clean(&farm, false).await.expect_err("storage is ahead");
    assert_eq!(refused.reason, "RECORD_RESTORED");
    assert_eq!(stored(&farm, "tasks/").await, left);
    workers.stop().await;
    farm.shutdown().await;
}

async fn keys(farm: &mut Farm, id: &str) -> BTreeSet<String> {
    farm.images(id).await.into_iter().map(|image| image.key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acceptance_that_fails_is_kept_and_one_that_is_not_needed_is_void() {
    let storage = Obstructed::default();
    let farm = farm_on(&storage).await;
    // The cleaner's own first pass is over by then, so only the passes below ask for anything.
    tokio::time::sleep(Duration::from_millis(500)).await;
    say(&farm, 7).await;
    // The mark cannot be written.
    storage.refuse(ErrorKind::PermissionDenied, |request| *request == Request::Put(EPOCH.into()));
    let refused = clean(&farm, true).await.expect_err("storage refuses the mark");
    assert_eq!(refused.reason, "ARTIFACTS_NO_PERMISSION");
    storage.clear();
    say(&farm, 100).await;
    clean(&farm, false).await.expect("it was accepted before");
    assert!(noted(&farm).await > Some(100));
    clean(&farm, true).await.expect("nothing is to be accepted");
    say(&farm, 1000).await;
    farm.store
        .suspect(term(&farm).await, 0, &[candidate("tasks/a/b.png")])
        .await
        .expect("takes it");
    let refused = clean(&farm, false).await.expect_err("that acceptance was void");
    assert_eq!(refused.reason, "RECORD_RESTORED");
    farm.shutdown().await;
}

fn candidate(key: &str) -> darkroom_coordinator::store::removal::Candidate {
    darkroom_coordinator::store::removal::Candidate::output(key.to_owned())
}

async fn term(farm: &Farm) -> darkroom_coordinator::store::records::Term {
    farm.store.lead("any").await.expect("asks").expect("there is one process")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_is_too_long_or_no_mark_stops_the_cleaner_with_a_sentence() {
    let farm = Farm::start().await;
    for mark in [vec![b'x'; 100 << 10], b"{".to_vec()] {
        farm.artifacts.write_mark(EPOCH, mark.into()).await.expect("stores");
        farm.store
            .suspect(term(&farm).await, 0, &[candidate("tasks/a/b.png")])
            .await
            .expect("takes it");
        let refused = clean(&farm, false).await.expect_err("it cannot be read");
        assert_eq!(refused.reason, "CLEANER_MARK");
        assert!(refused.message.contains("delete it if this farm alone"), "{refused}");
    }
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_emptied_and_the_mark_is_written_as_soon_as_there_is_room() {
    let storage = Obstructed::default();
    let mut farm = farm_on(&storage).await;
    let workers = farm.work(|_| Act::Done);
    let (kept, gone) = (done(&mut farm, 1).await, done(&mut farm, 2).await);
    let needed = keys(&mut farm, &kept).await;
    workers.stop().await;
    // There is no room until something was deleted.
    let (asked, room) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&asked);
    storage.obstruct(move |request| {
        let answer = match &request {
            Request::Put(_) if !room.load(Ordering::SeqCst) => Err(ErrorKind::StorageFull.into()),
            Request::Delete(_) => {
                room.store(true, Ordering::SeqCst);
                Ok(())
            }
            _ => Ok(()),
        };
        told.lock().expect("the list").push((request, answer.is_ok()));
        Box::pin(std::future::ready(answer))
    });
    delete(&mut farm, &gone).await;
    farm.handle.clean(2 * MINUTE).await.expect("it goes on");
    let left = stored(&farm, "tasks/").await;
    assert!(left.is_superset(&needed));
    assert_eq!(left.len(), 6, "three stages of two images");
    is_whole(&mut farm, &kept).await;
    assert_eq!(noted(&farm).await, Some(farm.store.removal_count().await.expect("counts")));
    // One object made the room, then storage was told of the removals, then the rest went.
    let asked = asked.lock().expect("the list").clone();
    let steps: Vec<_> = asked
        .iter()
        .filter_map(|(request, passed)| match request {
            Request::Put(key) if key == EPOCH => Some(if *passed { "noted" } else { "full" }),
            Request::Delete(key) if key.starts_with("tasks/") => Some("deleted"),
            _ => None,
        })
        .collect();
    let refused = steps.iter().take_while(|step| **step == "full").count();
    // Previews go first, but here are none, so the first pass makes no room.
    assert!((1..=3).contains(&refused), "{steps:?}");
    assert_eq!(steps[refused..refused + 3], ["deleted", "noted", "deleted"], "{steps:?}");
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_fails_half_way_is_tried_again_and_loses_nothing() {
    let storage = Obstructed::default();
    let mut farm = farm_on(&storage).await;
    let workers = farm.work(|_| Act::Done);
    let kept = done(&mut farm, 1).await;
    let before = stored(&farm, "tasks/").await;
    let gone = done(&mut farm, 2).await;
    // The same pictures as the kept one's.
    let twin = done(&mut farm, 1).await;
    let every_other = Arc::new(AtomicBool::new(false));
    storage.refuse(ErrorKind::PermissionDenied, move |request| {
        matches!(request, Request::Delete(_)) && every_other.fetch_xor(true, Ordering::SeqCst)
    });
    for job in [&gone, &twin] {
        delete(&mut farm, job).await;
    }
    let cleaned = farm.handle.clean(2 * MINUTE).await.expect("cleans");
    assert!(cleaned.failed > 0 && cleaned.deleted > 0, "{cleaned:?}");
    assert!(farm.store.leavings().await.expect("counts").failing > 0);
    is_whole(&mut farm, &kept).await;
    // And once more nothing at all answers.
    storage.refuse(ErrorKind::TimedOut, |_| true);
    farm.handle.clean(HOUR).await.expect_err("storage is away");
    storage.clear();
    farm.handle.clean(2 * HOUR).await.expect("cleans");
    assert_eq!(stored(&farm, "tasks/").await, before);
    let leavings = farm.store.leavings().await.expect("counts");
    assert_eq!((leavings.candidates, leavings.marked, leavings.failing), (0, 0, 0));
    is_whole(&mut farm, &kept).await;
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleaner_that_was_stopped_looks_again_before_it_deletes() {
    let storage = Obstructed::default();
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let options = Options { clean_stale: Duration::from_secs(1), ..options() };
    let artifacts = ArtifactStore::over(Arc::new(storage.clone()));
    let mut farm = Farm::start_over(options, Arc::clone(&folder), artifacts).await;
    let workers = farm.work(|_| Act::Done);
    let job = done(&mut farm, 1).await;
    workers.stop().await;
    let before = stored(&farm, "tasks/").await;
    // It has read what it will delete, and is about to note that in storage.
    let held = storage.hold(|request| *request == Request::Put(EPOCH.to_owned()));
    delete(&mut farm, &job).await;
    tokio::time::timeout(MINUTE, held.reached()).await.expect("a pass begins");
    // Meanwhile another one went on, and there is good reason for the objects.
    let record = SqliteConnectOptions::new().filename(database(folder.path()));
    let mut record = SqliteConnection::connect_with(&record).await.expect("opens");
    let marked = "DELETE FROM removals WHERE state = 'marked'";
    let marked = sqlx::query(marked).execute(&mut record).await.expect("deletes").rows_affected();
    assert!(marked > 0);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    storage.clear();
    held.let_go();
    // Its turn comes when that pass is over.
    farm.handle.clean(Duration::ZERO).await.expect("cleans");
    assert_eq!(stored(&farm, "tasks/").await, before, "it deletes what it has read before");
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_pass_waits_until_the_first_one_is_over() {
    let storage = Obstructed::default();
    let mut farm = farm_on(&storage).await;
    let workers = farm.work(|_| Act::Done);
    let job = done(&mut farm, 1).await;
    let held = storage.hold(|request| matches!(request, Request::Delete(_)));
    delete(&mut farm, &job).await;
    // The cleaner itself makes the first pass.
    tokio::time::timeout(MINUTE, held.reached()).await.expect("it deletes");
    let mut second = Box::pin(farm.handle.clean(2 * MINUTE));
    let early = tokio::time::timeout(Duration::from_millis(500), &mut second).await;
    assert!(early.is_err(), "two passes at once");
    held.let_go();
    second.await.expect("cleans");
    assert_eq!(stored(&farm, "tasks/").await, BTreeSet::new());
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_leaders_pass_removes_nothing_after_a_takeover_and_a_follower_says_who_cleans() {
    let server = Postgres::shared();
    let url = server.create_database();
    let store = async || {
        let store = PostgresStore::connect(&url, postgres::Options::default()).await;
        Arc::new(store.expect("opens"))
    };
    let (queue, storage) = (Arc::new(MemoryQueue::default()), Obstructed::default());
    let beside = ArtifactStore::over(Arc::new(storage.beside()));
    let mut leader =
        Farm::join(store().await, &queue, &ArtifactStore::over(Arc::new(storage.clone()))).await;
    let workers = leader.work(|_| Act::Done);
    let (kept, gone) = (done(&mut leader, 1).await, done(&mut leader, 2).await);
    let follower = Farm::join(store().await, &queue, &beside).await;
    let refused = clean(&follower, false).await.expect_err("it does not lead");
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "NOT_LEADING"));
    let refused = clean(&follower, true).await.expect_err("it does not lead");
    assert_eq!(refused.reason, "NOT_LEADING");
    let before = stored(&leader, "tasks/").await;

    // The leader's pass stops when it is about to compare storage with the record.
    let held = storage.hold(|request| *request == Request::Get(EPOCH.to_owned()));
    delete(&mut leader, &gone).await;
    tokio::time::timeout(MINUTE, held.reached()).await.expect("a pass begins");
    // Somebody else leads now, for a while.
    let database = url.rsplit_once('/').expect("a database").1;
    server.sql(
        database,
        "UPDATE leadership SET holder = 'another', term = term + 1, until = clock_timestamp() + interval '1 hour'",
    );
    storage.clear();
    held.let_go();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(stored(&leader, "tasks/").await, before, "the old leader's pass deletes");
    let leavings = leader.store.leavings().await.expect("counts");
    assert_eq!((leavings.candidates, leavings.marked, leavings.deleted), (0, 0, 0), "or marks");
    // The next one does it.
    server.sql(database, "UPDATE leadership SET until = '-infinity'");
    eventually("one of the two leads and cleans", async || {
        for farm in [&leader, &follower] {
            drop(farm.handle.clean(2 * MINUTE).await);
        }
        stored(&leader, "tasks/").await.len() < before.len()
    })
    .await;
    is_whole(&mut leader, &kept).await;
    workers.stop().await;
    leader.shutdown().await;
    follower.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followers_acceptance_is_void_when_the_leader_has_nothing_to_accept() {
    let server = Postgres::shared();
    let url = server.create_database();
    let store = async || {
        let store = PostgresStore::connect(&url, postgres::Options::default()).await;
        Arc::new(store.expect("opens"))
    };
    let (queue, storage) = (Arc::default(), Obstructed::default());
    let beside = ArtifactStore::over(Arc::new(storage.beside()));
    let leader = Farm::join(store().await, &queue, &beside).await;
    eventually("it leads", async || clean(&leader, false).await.is_ok()).await;
    // With a policy, each pass compares storage with the record.
    let policy = v1::SetRetentionRequest {
        subject: v1::RetentionSubject::Jobs.into(),
        outcome: v1::JobState::Done.into(),
        seconds: 30 * 24 * 3600,
        ..Default::default()
    };
    let admin = leader.handle.admin_calls();
    admin.set_retention(&Caller::open(), policy).await.expect("sets it");
    let accepting = Options { restored: true, clean: Duration::from_millis(50), ..options() };
    let held = storage.hold(|request| *request == Request::Get(EPOCH.to_owned()));
    let artifacts = ArtifactStore::over(Arc::new(storage.clone()));
    let follower = Farm::join_with(accepting, store().await, &queue, &artifacts).await;
    // A pass in which it does not lead looks at storage, and ends.
    tokio::time::timeout(MINUTE, held.reached()).await.expect("it looks");
    held.let_go();
    tokio::time::sleep(Duration::from_millis(500)).await;
    say(&follower, 1000).await;
    leader.shutdown().await;
    eventually("the follower leads, and refuses", async || {
        let refused = clean(&follower, false).await.err();
        let reason = refused.map(|refused| refused.reason);
        assert_ne!(reason, None, "it accepts what nobody has looked at");
        reason.as_deref() == Some("RECORD_RESTORED")
    })
    .await;
    follower.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_flush_of_the_queue_a_task_is_not_stored_where_something_is_removed() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let gone = done(&mut farm, 1).await;
    let removed = stored(&farm, "tasks/").await;
    workers.stop().await;
    // The same pictures are wanted again, and their tasks are in the queue with these prefixes.
    let idle = farm.wait_beside();
    let again = farm.submit(v1::JobSpec { seed: Some(1), ..spec() }, prompts(2)).await.id;
    eventually("images are dispatched", async || {
        farm.queue.entries(&pool("base")).await.expect("entries").len() == 2
    })
    .await;
    delete(&mut farm, &gone).await;
    farm.handle.clean(2 * MINUTE).await.expect("cleans");
    assert_eq!(stored(&farm, "tasks/").await, BTreeSet::new());
    farm.queue.flush();
    idle.stop().await;
    let workers = farm.work(|_| Act::Done);
    assert_eq!(farm.until_ended(&again).await.state(), v1::JobState::Done);
    let named = keys(&mut farm, &again).await;
    assert!(named.is_disjoint(&removed), "{named:?}");
    // What is deleted once more is not what is needed now.
    for hours in [25, 50, 75] {
        farm.handle.clean(hours * HOUR).await.expect("cleans");
        is_whole(&mut farm, &again).await;
    }
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_submit_of_a_deleted_job_makes_no_second_job() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let spec = v1::JobSpec { client_request_id: "again".to_owned(), ..spec() };
    let job = farm.submit(spec.clone(), prompts(2)).await.id;
    farm.until_ended(&job).await;
    delete(&mut farm, &job).await;
    for _ in 0..2 {
        let request = v1::SubmitJobRequest { spec: Some(spec.clone()), prompts: prompts(2) };
        let told = from_status(&farm.client.submit_job(request).await.expect_err("it was deleted"));
        assert_eq!((told.code, told.reason.as_str()), (Code::NotFound, "DELETED"));
        assert!(told.message.contains(&job), "{told}");
        farm.handle.clean(2 * MINUTE).await.expect("cleans");
    }
    let listed = farm.client.list_jobs(v1::ListJobsRequest::default()).await.expect("lists");
    assert_eq!(listed.into_inner().jobs, []);
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_takes_no_more_while_the_cleaner_is_refused() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let job = done(&mut farm, 1).await;
    let artifacts = farm.artifacts.clone();
    workers.stop().await;
    let held = farm.artifacts.list("").map_ok(|one| one.size.div_ceil(4096) * 4096);
    let held: u64 = held.try_fold(0, async |sum, size| Ok(sum + size)).await.expect("lists");
    say(&farm, 9).await;
    let folder = Arc::clone(&farm.folder);
    farm.shutdown().await;
    // Just too much is stored: a few intermediates are enough.
    let budget = Budget { bytes: held - 4096, pictures: true };
    let mut taken = Vec::new();
    for _ in 0..3 {
        let options = Options { budget: Some(budget), ..options() };
        let farm = Farm::start_over(options, Arc::clone(&folder), artifacts.clone()).await;
        // Each of them counts anew, and what was taken is still there.
        assert!(farm.handle.stored_bytes(MINUTE).await.is_some_and(|bytes| bytes > budget.bytes));
        eventually("something is to be removed", async || {
            farm.store.leavings().await.expect("counts").candidates > 0
        })
        .await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        farm.handle.clean(MINUTE).await.expect_err("storage is ahead");
        taken.push(farm.store.leavings().await.expect("counts").candidates);
        farm.shutdown().await;
    }
    assert!(taken.iter().all(|count| *count == taken[0]), "it takes more: {taken:?}");
    let mut farm = Farm::start_over(options(), folder, artifacts).await;
    is_whole(&mut farm, &job).await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_whose_removals_fail_says_so_and_takes_no_more_until_they_work() {
    let storage = Obstructed::default();
    let artifacts = ArtifactStore::over(Arc::new(storage.clone()));
    let mut farm = farm_on(&storage).await;
    let workers = farm.work(|_| Act::Done);
    let job = done(&mut farm, 1).await;
    workers.stop().await;
    let held = farm.artifacts.list("").map_ok(|one| one.size.div_ceil(4096) * 4096);
    let held: u64 = held.try_fold(0, async |sum, size| Ok(sum + size)).await.expect("lists");
    let folder = Arc::clone(&farm.folder);
    farm.shutdown().await;

    let budget = Budget { bytes: held - 4096, pictures: false };
    let over = || Options { budget: Some(budget), ..options() };
    storage.refuse(ErrorKind::PermissionDenied, |request| matches!(request, Request::Delete(_)));
    let farm = Farm::start_over(over(), Arc::clone(&folder), artifacts.clone()).await;
    eventually("something is to be removed", async || {
        farm.store.leavings().await.expect("counts").candidates > 0
    })
    .await;
    let cleaned = farm.handle.clean(2 * MINUTE).await.expect("cleans");
    assert!(cleaned.failed > 0 && cleaned.deleted == 0, "{cleaned:?}");
    let taken = farm.store.leavings().await.expect("counts");
    farm.shutdown().await;
    // A farm counts its store at the start, and then every ten minutes.
    let mut farm = Farm::start_over(over(), Arc::clone(&folder), artifacts.clone()).await;
    let mut client = farm.client.clone();
    let mut troubles = async || {
        let farm = client.get_farm(v1::GetFarmRequest {}).await.expect("tells");
        farm.into_inner().troubles
    };
    let says = "objects that are to be removed cannot be deleted; the log says why";
    eventually("the farm tells its operator", async || {
        troubles().await.iter().any(|trouble| trouble.contains(says))
    })
    .await;
    assert_eq!(farm.store.leavings().await.expect("counts"), taken, "it takes more");
    is_whole(&mut farm, &job).await;

    storage.clear();
    farm.handle.clean(HOUR).await.expect("cleans");
    let left = farm.store.leavings().await.expect("counts");
    assert_eq!((left.candidates, left.marked, left.failing), (0, 0, 0));
    farm.shutdown().await;
    let mut farm = Farm::start_over(over(), folder, artifacts).await;
    eventually("it stores no more than it may", async || {
        farm.handle.stored_bytes(MINUTE).await.is_some_and(|bytes| bytes <= budget.bytes)
    })
    .await;
    is_whole(&mut farm, &job).await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_that_storage_lists_without_end_is_left_after_a_while_and_tried_again() {
    let storage = Obstructed::default();
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let options = Options { clean_below: Duration::from_millis(200), ..options() };
    let artifacts = ArtifactStore::over(Arc::new(storage.clone()));
    let mut farm = Farm::start_over(options, folder, artifacts).await;
    let workers = farm.work(|_| Act::Done);
    let job = done(&mut farm, 1).await;
    eventually("it has a manifest", async || !stored(&farm, "manifests/").await.is_empty()).await;
    delete(&mut farm, &job).await;
    storage.list_without_end("manifests/");
    let cleaning = tokio::time::timeout(MINUTE, farm.handle.clean(2 * MINUTE));
    let cleaned = cleaning.await.expect("it ends").expect("cleans");
    assert!(cleaned.failed > 0, "{cleaned:?}");
    assert_eq!(stored(&farm, "tasks/").await, BTreeSet::new());
    assert!(farm.store.leavings().await.expect("counts").failing > 0);
    storage.clear();
    farm.handle.clean(HOUR).await.expect("cleans");
    assert_eq!(stored(&farm, "manifests/").await, BTreeSet::new());
    let left = farm.store.leavings().await.expect("counts");
    assert_eq!((left.candidates, left.marked, left.failing), (0, 0, 0));
    workers.stop().await;
    farm.shutdown().await;
}
