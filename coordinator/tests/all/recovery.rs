//! Losses and late results: restarts, flushed queues, stale results, damaged records.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::support::{Act, Farm, database, eventually, options, pool, prompts, spec};
use darkroom_coordinator::{
    Options,
    store::{roles::Maintenance as _, sqlite::SqliteStore},
};
use darkroom_core::{artifact::ArtifactRef, digest::Digest, id::WorkerId};
use darkroom_proto::v1;
use darkroom_queue::{
    Leased, TaskQueue,
    task::{Outcome, Task, TaskBody, TaskResult},
};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_an_empty_queue_finishes_what_was_accepted() {
    let mut farm = Farm::start().await;
    let never = CancellationToken::new();
    let workers = farm.work({
        let never = never.clone();
        move |task| match &task.body {
            TaskBody::Render(body) if body.settings.stage.as_str() == "sr256" => {
                Act::Hold(never.clone())
            }
            _ => Act::Done,
        }
    });
    let job = farm.submit(spec(), prompts(10)).await;
    farm.until(&job.id, "in flight", |job| job.stages[2].dispatched == 8).await;
    let (folder, artifacts) = (Arc::clone(&farm.folder), farm.artifacts.clone());
    // The workers die with the process: their leases and results are gone.
    farm.handle.shutdown().await;
    workers.stop().await;
    farm.shutdown().await;

    let mut farm = Farm::start_over(options(), folder, artifacts).await;
    let workers = farm.work(|_| Act::Done);
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.state(), job.images_done), (v1::JobState::Done, 10));
    let ran = workers.stop().await;
    assert!(
        !ran.iter().any(|task| matches!(task.body, TaskBody::Encode(_))),
        "committed work is not done again"
    );
    assert_eq!(farm.handle.counters().tasks_lost.get(), 8);
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_flushed_again_and_again_loses_nothing() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let job = farm.submit(spec(), prompts(60)).await;
    for _ in 0..5 {
        farm.queue.flush();
        let before = farm.get(&job.id).await.version;
        farm.until(&job.id, "moving", |job| job.version > before + 3 || job.images_done == 60)
            .await;
    }
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.state(), job.images_done, job.images_dead), (v1::JobState::Done, 60, 0));
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_sql_does_not_expect_are_removed() {
    let mut farm = Farm::start().await;
    let go = CancellationToken::new();
    let workers = farm.work({
        let go = go.clone();
        move |task| {
            if matches!(task.body, TaskBody::Render(_)) { Act::Hold(go.clone()) } else { Act::Done }
        }
    });
    let job = farm.submit(spec(), prompts(1)).await;
    farm.until(&job.id, "held", |job| job.stages[1].dispatched == 1).await;
    let mut stale: Task = loop {
        if let Some(task) =
            workers.ran().into_iter().find(|task| matches!(task.body, TaskBody::Render(_)))
        {
            break task;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    stale.key.dispatch = 99;
    farm.store.secret().await.expect("the farm's").seal(&pool("sr1024"), &mut stale);
    // Nobody leases from this pool, so only the sweep can remove the task.
    farm.queue.add(&pool("sr1024"), vec![stale]).await.expect("adds");
    eventually("it is removed", async || farm.handle.counters().entries_unexpected.get() > 0).await;
    go.cancel();
    farm.until_ended(&job.id).await;
    workers.stop().await;
    farm.shutdown().await;
}

/// Completes a task like its worker, but with another key or at another time. The farm sealed it.
async fn report(farm: &Farm, stage: &str, mut task: Task, outcome: Outcome) {
    let worker = WorkerId("ghost-1".to_owned());
    let pool = pool(stage);
    farm.store.secret().await.expect("the farm's").seal(&pool, &mut task);
    let mut result = TaskResult {
        key: task.key,
        worker: worker.clone(),
        place: "ghost".to_owned(),
        device_class: "ghost".to_owned(),
        alone: true,
        seconds: 1.0,
        batch: 1,
        outcome,
        warrant: task.warrant,
        signature: None,
    };
    farm.handle.signer(worker.clone(), vec![pool.clone()]).sign(&pool, &mut result);
    farm.queue.add(&pool, vec![task]).await.expect("adds");
    let lease = farm.queue.lease(&pool, &worker, 1, Duration::ZERO).await.expect("leases");
    farm.queue
        .complete(&pool, &worker, vec![(lease[0].id.clone(), result)])
        .await
        .expect("completes");
}

fn output_of(task: &Task) -> Outcome {
    let sha256 = Digest::of(b"ghost");
    let key = format!("{}{sha256}.safetensors", task.body.prefix());
    let artifact = ArtifactRef { key, sha256, size: 4096 };
    Outcome::Done { artifact, notes: Vec::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_and_foreign_results_change_nothing_and_are_counted() {
    // No sweep, because it would remove this test's entries.
    let mut farm =
        Farm::start_with(Options { sweep: Duration::from_secs(3600), ..options() }).await;
    let go = CancellationToken::new();
    let encoders = farm.work_on(&["encode"], "host", |_| Act::Done);
    let workers = farm.work_on(&["base"], "host", {
        let go = go.clone();
        move |task| {
            if matches!(task.body, TaskBody::Render(_)) { Act::Hold(go.clone()) } else { Act::Done }
        }
    });
    let job = farm.submit(spec(), prompts(1)).await;
    farm.until(&job.id, "held", |job| job.stages[1].dispatched == 1).await;
    let task = loop {
        let ran = workers.ran();
        if let Some(task) = ran.iter().find(|task| matches!(task.body, TaskBody::Render(_))) {
            break task.clone();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    encoders.stop().await;
    let before = farm.images(&job.id).await[0].clone();
    let picture = || output_of(&task);
    let failed = || Outcome::Failed { code: "late".into(), message: "late".to_owned() };
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    let with = |generation: u32, dispatch: u64| {
        let mut stale = task.clone();
        (stale.key.generation, stale.key.dispatch) = (generation, dispatch);
        stale
    };
    for (stage, task, outcome, reason) in [
        ("base", with(2, 1), picture(), "stale_generation"),
        ("base", with(1, 0), picture(), "stale_dispatch"),
        ("base", with(1, 0), failed(), "stale_dispatch"),
        ("base", with(1, 7), Outcome::Interrupted { reason: "late".to_owned() }, "stale_dispatch"),
        ("sr256", with(1, 1), picture(), "other_stage"),
        ("encode", with(1, 1), picture(), "wrong_pool"),
    ] {
        report(&farm, stage, task, outcome).await;
        *expected.entry(reason).or_default() += 1;
        eventually("it is counted", async || farm.handle.counters().discarded() == expected).await;
    }
    assert_eq!(farm.images(&job.id).await[0], before);
    farm.audit(&job.id).await;
    // A second report of the present dispatch is as good as the first.
    report(&farm, "base", with(1, 1), picture()).await;
    farm.until(&job.id, "passed", |job| job.stages[1].done == 1).await;
    // The holder's own report then comes too late.
    go.cancel();
    *expected.entry("other_stage").or_default() += 1;
    eventually("it is counted", async || farm.handle.counters().discarded() == expected).await;
    farm.audit(&job.id).await;
    // After the cancel, the job accepts no result.
    farm.client.cancel_job(v1::CancelJobRequest { id: job.id.clone() }).await.expect("cancelled");
    let job = farm.until_ended(&job.id).await;
    report(&farm, "sr256", with(1, 1), picture()).await;
    *expected.entry("job_not_live").or_default() += 1;
    eventually("it is counted", async || farm.handle.counters().discarded() == expected).await;
    assert_eq!(farm.get(&job.id).await.version, job.version);
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_task_is_ready_again_only_after_two_passes() {
    let mut farm =
        Farm::start_with(Options { sweep: Duration::from_millis(700), ..options() }).await;
    let go = CancellationToken::new();
    let workers = farm.work({
        let go = go.clone();
        move |task| {
            if matches!(task.body, TaskBody::Render(_)) { Act::Hold(go.clone()) } else { Act::Done }
        }
    });
    let job = farm.submit(spec(), prompts(1)).await;
    farm.until(&job.id, "held", |job| job.stages[1].dispatched == 1).await;
    let keys: Vec<_> = farm.store.dispatched(&pool("base")).await.expect("dispatched");
    let began = std::time::Instant::now();
    farm.queue.remove(&pool("base"), &keys, Leased::Remove).await.expect("removed");
    eventually("it is found", async || farm.handle.counters().tasks_lost.get() > 0).await;
    assert!(began.elapsed() > Duration::from_millis(700), "one pass proves nothing");
    go.cancel();
    farm.until_ended(&job.id).await;
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test]
async fn a_damaged_record_is_refused_in_one_sentence_that_names_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = database(folder.path());
    std::fs::write(&path, b"this is no database, whatever its name says").expect("writes");
    let error = SqliteStore::open(&path).await.expect_err("refused").to_string();
    assert!(error.contains("farm.sqlite") && error.contains("restore it"), "{error}");

    std::fs::remove_file(&path).expect("removes");
    SqliteStore::open(&path).await.expect("opens").close().await;
    let mut bytes = std::fs::read(&path).expect("reads");
    let end = bytes.len();
    bytes[4096..end].fill(0xa5);
    std::fs::write(&path, bytes).expect("writes");
    let error = SqliteStore::open(&path).await.expect_err("refused").to_string();
    assert!(error.contains("farm.sqlite") && error.contains("restore it"), "{error}");
}

#[tokio::test]
async fn a_record_of_a_newer_darkroom_is_refused_with_both_versions() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = database(folder.path());
    SqliteStore::open(&path).await.expect("opens").close().await;
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", path.to_str().expect("UTF-8")))
        .await
        .expect("opens");
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (99, 'later', TRUE, x'00', 0)",
    )
    .execute(&pool)
    .await
    .expect("inserts");
    pool.close().await;
    let error = SqliteStore::open(&path).await.expect_err("refused").to_string();
    assert!(error.contains("newer Darkroom (schema 99, this one knows "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_should_have_ended_is_ended_and_counted_for_good() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let job = farm.submit(spec(), prompts(3)).await;
    farm.until_ended(&job.id).await;
    let (folder, artifacts) = (Arc::clone(&farm.folder), farm.artifacts.clone());
    let url = format!("sqlite://{}", database(folder.path()).to_str().expect("UTF-8"));
    let pool = sqlx::SqlitePool::connect(&url).await.expect("opens");
    sqlx::query("UPDATE jobs SET state = 'active', finished_ms = NULL, manifest = NULL, manifest_key = NULL")
        .execute(&pool)
        .await
        .expect("planted");
    pool.close().await;
    farm.until(&job.id, "found", |job| job.state() == v1::JobState::Done).await;
    farm.until_ended(&job.id).await;
    workers.stop().await;
    farm.shutdown().await;

    let mut farm = Farm::start_over(options(), folder, artifacts).await;
    let told = farm.client.get_farm(v1::GetFarmRequest {}).await.expect("answered").into_inner();
    assert_eq!(told.jobs_overlooked, 1);
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_a_submit_in_one_sentence_and_loses_nothing() {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let store = SqliteStore::open_within(&database(folder.path()), 1 << 20).await.expect("opens");
    let mut farm = Farm::start_with_store(options(), folder, store).await;
    let kept = farm.submit(spec(), prompts(5)).await;
    let big = v1::SubmitJobRequest { spec: Some(spec()), prompts: prompts(10_000) };
    let status = farm.client.submit_job(big).await.expect_err("does not fit");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert!(
        status.message().contains("full") && !status.message().contains('\n'),
        "{}",
        status.message()
    );
    farm.audit(&kept.id).await;
    let listed =
        farm.client.list_jobs(v1::ListJobsRequest::default()).await.expect("listed").into_inner();
    assert_eq!(listed.jobs.len(), 1);
    let workers = farm.work(|_| Act::Done);
    farm.until_ended(&kept.id).await;
    workers.stop().await;
    farm.shutdown().await;
}
