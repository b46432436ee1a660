//! A job's life over gRPC: submit, stages, manifest, pictures; pause, cancel, retry; failures.

use std::{
    collections::BTreeSet,
    io::Cursor,
    sync::{Arc, Mutex},
};

use crate::support::{self, Act, Farm, eventually, failed, index, prompt, prompts, spec};
use darkroom_artifacts::manifest::{self, ImageOutcome};
use darkroom_core::{artifact::ArtifactRef, picture_text::Recipe};
use darkroom_proto::v1;
use darkroom_queue::task::{Outcome, Subject, Task, TaskBody};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;

fn is_encode(task: &Task) -> bool {
    matches!(task.body, TaskBody::Encode(_))
}

fn job(task: &Task) -> Option<String> {
    match task.key.subject {
        Subject::Image(image) => Some(image.job.to_string()),
        Subject::Text(_) => None,
    }
}

/// Each flow on a SQLite file and on Postgres.
macro_rules! flows {
    ($($flow:ident)+) => {
        mod on_sqlite {
            use crate::support::Farm;

            $(#[tokio::test(flavor = "multi_thread")]
            async fn $flow() {
                super::$flow(Farm::start().await).await;
            })+
        }

        mod on_postgres {
            use std::sync::Arc;

            use darkroom_artifacts::ArtifactStore;
            use darkroom_coordinator::store::postgres::{Options, PostgresStore};
            use darkroom_test_servers::postgres::Postgres;

            use crate::support::Farm;

            $(#[tokio::test(flavor = "multi_thread")]
            async fn $flow() {
                let server = Postgres::shared();
                let url = server.create_database();
                let options = Options { connections: 8, ..Options::default() };
                let store = PostgresStore::connect(&url, options).await.expect("opens");
                let farm = Farm::join(Arc::new(store), &Arc::default(), &ArtifactStore::in_memory()).await;
                super::$flow(farm).await;
            })+
        }
    };
}

flows! {
    a_job_passes_every_stage_and_its_manifest_proves_itself
    a_picture_is_fetched_in_chunks_from_any_offset
    a_poison_image_fails_alone_after_five_tries_and_a_retry_runs_only_it
    a_dead_workers_tasks_run_again_and_cost_no_failure
    interruptions_count_against_nobody_however_many
    a_missing_input_rewinds_the_stage_that_made_it
    a_text_that_cannot_be_encoded_fails_its_images_only
    notes_reach_the_job_each_once_and_later_jobs_too
    pause_takes_back_what_is_not_leased_and_what_runs_commits
    a_cancelled_job_takes_no_result_and_a_retry_brings_it_back
    a_job_that_cannot_run_says_why
    a_flood_of_one_tenant_does_not_starve_another
    interactive_work_goes_before_a_batch_that_waits_already
    a_flood_over_hundreds_of_jobs_does_not_starve_another
    interactive_work_waits_for_the_line_and_no_longer
    no_job_is_left_to_the_sweep
}

fn stage(task: &Task) -> &str {
    match &task.body {
        TaskBody::Encode(_) => "encode",
        TaskBody::Render(body) => body.settings.stage.as_str(),
    }
}

async fn a_job_passes_every_stage_and_its_manifest_proves_itself(mut farm: Farm) {
    let workers = farm.work(|_| Act::Done);
    let spec = v1::JobSpec { images_per_prompt: 2, ..spec() };
    let job = farm.submit(spec, vec![prompt("A Cat "), prompt("a dog"), prompt("a cat")]).await;
    assert_eq!((job.images, job.state()), (6, v1::JobState::Active));
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.state(), job.images_done, job.generation), (v1::JobState::Done, 6, 1));
    for stage in &job.stages {
        let total = if stage.stage == "encode" { 3 } else { 6 };
        assert_eq!(
            (stage.done, stage.total, stage.dispatched),
            (total, total, 0),
            "{}",
            stage.stage
        );
    }

    let images = farm.images(&job.id).await;
    let seeds: Vec<u64> = images.iter().map(|image| image.seed).collect();
    assert_eq!(seeds, [7, 8, 9, 10, 11, 12]);
    for image in &images {
        assert_eq!((image.state(), image.dispatches), (v1::ImageState::Done, 3));
        assert_eq!(image.stage_seconds.len(), 3);
        assert!(image.key.starts_with("tasks/") && image.key.ends_with(".png"), "{}", image.key);
        assert_eq!(image.device_class, "fake");
    }

    let reference = ArtifactRef {
        key: job.manifest_key.clone(),
        sha256: job.manifest_sha256.parse().expect("a hash"),
        size: farm.artifacts.size_of(&job.manifest_key).await.expect("there"),
    };
    let bytes = farm.artifacts.get(&reference).await.expect("verified");
    let mut lines = Vec::new();
    let (header, totals) =
        manifest::verify(Cursor::new(bytes), |image| lines.push(image)).expect("whole");
    assert_eq!((header.job, totals.images, totals.done), (job.id.clone(), 6, 6));
    for (line, image) in lines.iter().zip(&images) {
        assert_eq!(line.key.as_deref(), Some(image.key.as_str()));
        assert_eq!(line.seconds.len(), 3);
        assert_eq!(line.state, ImageOutcome::Done);
    }

    let ran = workers.stop().await;
    let texts: Vec<_> = ran.iter().filter(|task| is_encode(task)).collect();
    assert_eq!(texts.len(), 3, "two distinct prompts and the empty negative text, each once");
    let last = ran.iter().find(|task| stage(task) == "sr1024").expect("ran");
    let TaskBody::Render(body) = &last.body else { panic!("renders") };
    let pairs = body.picture.as_ref().expect("the last stage's");
    let recipe =
        Recipe::from_pairs(pairs.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    assert_eq!(recipe.expect("complete").settings.size(), 1024);
    assert!(body.negative.is_none(), "sr1024 is not guided");
    farm.shutdown().await;
}

async fn a_picture_is_fetched_in_chunks_from_any_offset(mut farm: Farm) {
    let workers = farm.work(|_| Act::Done);
    let job = farm.submit(spec(), vec![prompt(&"long ".repeat(700))]).await;
    let job = farm.until_ended(&job.id).await;
    let image = &farm.images(&job.id).await[0];
    let mut whole = Vec::new();
    for offset in [0, 100] {
        let request =
            v1::FetchImageRequest { job_id: job.id.clone(), offset, ..Default::default() };
        let mut chunks = farm.client.fetch_image(request).await.expect("starts").into_inner();
        let mut bytes = Vec::new();
        let mut first = true;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.expect("a chunk");
            assert!(chunk.data.len() <= 64 << 10);
            if first {
                assert_eq!(
                    (chunk.total_bytes, chunk.sha256.as_str()),
                    (image.size_bytes, image.sha256.as_str())
                );
            }
            first = false;
            bytes.extend(chunk.data);
        }
        if offset == 0 {
            assert_eq!(bytes.len() as u64, image.size_bytes);
            whole = bytes;
        } else {
            assert_eq!(bytes, whole[100..]);
        }
    }
    let beyond =
        v1::FetchImageRequest { job_id: job.id.clone(), offset: 1 << 40, ..Default::default() };
    let status = farm.client.fetch_image(beyond).await.expect_err("refused");
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    workers.stop().await;
    farm.shutdown().await;
}

async fn a_poison_image_fails_alone_after_five_tries_and_a_retry_runs_only_it(mut farm: Farm) {
    let workers = farm.work(|task| {
        if index(task) == Some(2) && stage(task) == "sr256" { failed() } else { Act::Done }
    });
    let job = farm.submit(spec(), prompts(5)).await;
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.state(), job.images_done, job.images_dead), (v1::JobState::Failed, 4, 1));
    let request = v1::ListImagesRequest {
        job_id: job.id.clone(),
        states: vec![v1::ImageState::Dead as i32],
        ..Default::default()
    };
    let dead = farm.client.list_images(request).await.expect("listed").into_inner().images;
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].index, dead[0].failures, dead[0].stage.as_str()), (2, 5, "sr256"));
    assert_eq!(dead[0].error_code, "non_finite");
    let ran = workers.stop().await;
    let tries = ran.iter().filter(|task| index(task) == Some(2) && stage(task) == "sr256");
    let suspects: Vec<bool> = tries.map(|task| task.suspect).collect();
    assert!(suspects.len() <= 6 && suspects[1..].iter().all(|suspect| *suspect), "{suspects:?}");

    let workers = farm.work(|_| Act::Done);
    let request = v1::RetryJobRequest { id: job.id.clone(), ..Default::default() };
    let again = farm.client.retry_job(request).await.expect("retried").into_inner();
    assert_eq!((again.state(), again.generation), (v1::JobState::Active, 2));
    let job = farm.until(&job.id, "done", |job| job.state() == v1::JobState::Done).await;
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.images_done, job.images_dead), (5, 0));
    let ran = workers.stop().await;
    let stages: Vec<_> = ran.iter().map(|task| (index(task), stage(task))).collect();
    assert_eq!(stages, [(Some(2), "sr256"), (Some(2), "sr1024")], "from the last stored stage");
    farm.shutdown().await;
}

async fn a_dead_workers_tasks_run_again_and_cost_no_failure(mut farm: Farm) {
    let died = Arc::new(Mutex::new(BTreeSet::new()));
    let workers = farm.work({
        let died = Arc::clone(&died);
        move |task| {
            let first = died.lock().expect("died").insert(stage(task).to_owned());
            if first { Act::Die } else { Act::Done }
        }
    });
    let job = farm.submit(spec(), prompts(3)).await;
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.state(), job.images_done), (v1::JobState::Done, 3));
    assert!(farm.images(&job.id).await.iter().all(|image| image.failures == 0));
    assert!(farm.handle.counters().leases_expired.get() >= 4);
    let ran = workers.stop().await;
    assert!(ran.iter().any(|task| task.suspect));
    farm.shutdown().await;
}

async fn interruptions_count_against_nobody_however_many(mut farm: Farm) {
    let left = Arc::new(Mutex::new(30));
    let workers = farm.work({
        let left = Arc::clone(&left);
        move |_| {
            let mut left = left.lock().expect("left");
            if *left == 0 {
                return Act::Done;
            }
            *left -= 1;
            Act::End(Outcome::Interrupted { reason: "drained".to_owned() })
        }
    });
    let job = farm.submit(spec(), prompts(1)).await;
    let job = farm.until_ended(&job.id).await;
    assert_eq!(job.state(), v1::JobState::Done);
    assert_eq!(farm.images(&job.id).await[0].failures, 0);
    workers.stop().await;
    farm.shutdown().await;
}

async fn a_missing_input_rewinds_the_stage_that_made_it(mut farm: Farm) {
    let missing = Arc::new(Mutex::new(0));
    let workers = farm.work({
        let missing = Arc::clone(&missing);
        move |task| {
            let TaskBody::Render(body) = &task.body else { return Act::Done };
            let mut missing = missing.lock().expect("missing");
            let key = match (*missing, stage(task)) {
                (0, "base") => body.text.key.clone(),
                (1, "sr1024") => body.low_res.as_ref().expect("an input").key.clone(),
                _ => return Act::Done,
            };
            *missing += 1;
            Act::End(Outcome::InputMissing { key })
        }
    });
    let job = farm.submit(spec(), prompts(1)).await;
    let job = farm.until_ended(&job.id).await;
    assert_eq!(job.state(), v1::JobState::Done);
    let image = &farm.images(&job.id).await[0];
    assert_eq!((image.generation, image.failures), (3, 0));
    let ran = workers.stop().await;
    let count = |name: &str| ran.iter().filter(|task| stage(task) == name).count();
    assert_eq!((count("encode"), count("base"), count("sr256"), count("sr1024")), (3, 2, 2, 2));
    farm.shutdown().await;
}

async fn a_text_that_cannot_be_encoded_fails_its_images_only(mut farm: Farm) {
    let workers = farm.work(|task| match &task.body {
        TaskBody::Encode(body) if body.text == "bad" => failed(),
        _ => Act::Done,
    });
    let job = farm.submit(spec(), vec![prompt("bad"), prompt("good"), prompt("Bad")]).await;
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.state(), job.images_done, job.images_dead), (v1::JobState::Failed, 1, 2));
    assert_eq!(farm.images(&job.id).await[2].error_code, "non_finite");
    workers.stop().await;
    let workers = farm.work(|_| Act::Done);
    farm.client
        .retry_job(v1::RetryJobRequest { id: job.id.clone(), ..Default::default() })
        .await
        .expect("retried");
    let job = farm.until(&job.id, "done", |job| job.state() == v1::JobState::Done).await;
    farm.until_ended(&job.id).await;
    workers.stop().await;
    farm.shutdown().await;
}

async fn notes_reach_the_job_each_once_and_later_jobs_too(mut farm: Farm) {
    let workers = farm
        .work(|task| if is_encode(task) { Act::Note("unknown word: flurb") } else { Act::Done });
    for _ in 0..2 {
        let prompts = vec![v1::Prompt { line: 3, ..prompt("a flurb") }, prompt("flurb flurb")];
        let job = farm.submit(spec(), prompts).await;
        let job = farm.until_ended(&job.id).await;
        assert_eq!(
            job.notes,
            [
                "image 0 (line 3): unknown word: flurb",
                "image 0 (line 3) and 1 other: negative prompt: unknown word: flurb",
                "image 1: unknown word: flurb",
            ]
        );
    }
    workers.stop().await;
    farm.shutdown().await;
}

async fn pause_takes_back_what_is_not_leased_and_what_runs_commits(mut farm: Farm) {
    let go = CancellationToken::new();
    let workers = farm.work({
        let go = go.clone();
        move |task| if stage(task) == "base" { Act::Hold(go.clone()) } else { Act::Done }
    });
    let job = farm.submit(spec(), prompts(20)).await;
    // Eight are dispatched (two batches). At most four are leased, fewer if fewer were queued when
    // the worker asked.
    farm.until(&job.id, "held", |job| job.stages[1].dispatched == 8).await;
    eventually("leased", async || workers.ran().iter().any(|task| stage(task) == "base")).await;
    let request = v1::PauseJobRequest { id: job.id.clone() };
    let paused = farm.client.pause_job(request.clone()).await.expect("paused").into_inner();
    assert_eq!((paused.state(), paused.waiting_for.as_str()), (v1::JobState::Paused, "paused"));
    let held = paused.stages[1].dispatched;
    assert!((1..=4).contains(&held), "{held} stay with their worker");
    farm.client.pause_job(request).await.expect("twice is once");
    go.cancel();
    let quiet = farm.until(&job.id, "committed", |job| job.stages[1].done == held).await;
    assert_eq!(quiet.stages[1].dispatched + quiet.stages[2].dispatched, 0);
    farm.audit(&job.id).await;
    let resumed = v1::ResumeJobRequest { id: job.id.clone() };
    farm.client.resume_job(resumed).await.expect("resumed");
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.state(), job.images_done), (v1::JobState::Done, 20));
    workers.stop().await;
    farm.shutdown().await;
}

async fn a_cancelled_job_takes_no_result_and_a_retry_brings_it_back(mut farm: Farm) {
    let go = CancellationToken::new();
    let workers = farm.work({
        let go = go.clone();
        move |task| if stage(task) == "sr256" { Act::Hold(go.clone()) } else { Act::Done }
    });
    let job = farm.submit(spec(), prompts(6)).await;
    farm.until(&job.id, "held", |job| job.stages[2].dispatched == 6).await;
    let request = v1::CancelJobRequest { id: job.id.clone() };
    let cancelled = farm.client.cancel_job(request.clone()).await.expect("cancelled").into_inner();
    assert_eq!(cancelled.state(), v1::JobState::Cancelled);
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.images_cancelled, job.images_done), (6, 0));
    go.cancel();
    farm.client.cancel_job(request).await.expect("twice is once");
    let retry = v1::RetryJobRequest { id: job.id.clone(), ..Default::default() };
    farm.client.retry_job(retry.clone()).await.expect("retried");
    let job = farm.until(&job.id, "done", |job| job.state() == v1::JobState::Done).await;
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.images_done, job.images_cancelled, job.generation), (6, 0, 2));
    let ran = workers.stop().await;
    assert_eq!(ran.iter().filter(|task| stage(task) == "base").count(), 6, "base was stored");
    let status = farm.client.retry_job(retry).await.expect_err("done jobs have nothing to retry");
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    farm.shutdown().await;
}

async fn a_job_that_cannot_run_says_why(mut farm: Farm) {
    let job = farm.submit(spec(), prompts(1)).await;
    assert_eq!(job.waiting_for, "no worker serves stage encode of cascade tiny");
    let workers = farm.work_on(&["encode", "base"], "host", |_| Act::Done);
    let stuck = farm.until(&job.id, "stuck", |job| job.waiting_for.contains("sr256")).await;
    assert_eq!(stuck.waiting_for, "no worker serves stage sr256 of cascade tiny");
    let page = farm.client.list_jobs(v1::ListJobsRequest::default()).await.expect("listed");
    assert_eq!(page.into_inner().jobs[0].waiting_for, stuck.waiting_for, "listings say it, too");
    let watch = farm.client.watch_farm(v1::WatchFarmRequest::default()).await.expect("watches");
    let event = watch.into_inner().message().await.expect("an event").expect("an event");
    assert_eq!(event.jobs[0].waiting_for, stuck.waiting_for, "and events");
    let listed =
        farm.client.list_workers(v1::ListWorkersRequest {}).await.expect("listed").into_inner();
    assert_eq!((listed.workers.len(), listed.workers[0].stages.len()), (1, 2));
    let others = farm.work_on(&["sr256", "sr1024"], "other", |_| Act::Done);
    farm.until_ended(&job.id).await;
    workers.stop().await;
    others.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_behind_another_says_how_many_tasks_go_first() {
    // No lease may expire, because the second job would use the freed room.
    let options = darkroom_coordinator::Options { lease: support::DEADLINE, ..support::options() };
    let mut farm = Farm::start_with(options).await;
    let go = CancellationToken::new();
    let workers = farm.work({
        let go = go.clone();
        move |task| if stage(task) == "base" { Act::Hold(go.clone()) } else { Act::Done }
    });
    let first = farm.submit(spec(), prompts(20)).await;
    let encoded = |job: &v1::Job| job.stages[0].done == job.stages[0].total;
    let full = |job: &v1::Job| encoded(job) && job.stages[1].dispatched == 8;
    let first = farm.until(&first.id, "the queue is full", full).await;
    assert_eq!((first.waiting_for.as_str(), first.tasks_ahead), ("", 0), "it advances");

    let second = farm.submit(spec(), vec![prompt("prompt 0")]).await;
    let second = farm.until(&second.id, "it waits", |job| !job.waiting_for.is_empty()).await;
    assert_eq!(second.waiting_for, "waiting behind 8 tasks of other jobs in stage base");
    let page = farm.client.list_jobs(v1::ListJobsRequest::default()).await.expect("listed");
    assert!(page.into_inner().jobs.iter().all(|job| job.waiting_for.is_empty()), "not in listings");
    assert_eq!(
        second.tasks_ahead, 8,
        "only the dispatched ones; the 12 ready ones take turns with it"
    );
    let urgent = v1::JobSpec { priority: v1::Priority::Interactive as i32, ..spec() };
    farm.submit(urgent, vec![prompt("prompt 1"), prompt("prompt 2"), prompt("prompt 3")]).await;
    assert_eq!(farm.get(&second.id).await.tasks_ahead, 11, "and the more urgent ones");

    go.cancel();
    let second = farm.until_ended(&second.id).await;
    assert_eq!((second.waiting_for.as_str(), second.tasks_ahead), ("", 0));
    workers.stop().await;
    farm.shutdown().await;
}

/// Number of tasks of other jobs' first stage that ran before this job's last one.
fn of_others_before_the_last_of(id: &str, ran: &[Task]) -> usize {
    let base: Vec<_> = ran.iter().filter(|task| stage(task) == "base").collect();
    let own = |task: &&Task| job(task).as_deref() == Some(id);
    let last = base.iter().rposition(own).expect("it ran");
    base[..last].iter().filter(|task| !own(task)).count()
}

async fn a_flood_of_one_tenant_does_not_starve_another(mut farm: Farm) {
    let tenant = |name: &str| v1::JobSpec { tenant: name.to_owned(), ..spec() };
    for number in 0..10 {
        let flood = (0..20).map(|image| prompt(&format!("flood {number} {image}"))).collect();
        farm.submit(tenant("flood"), flood).await;
    }
    let quiet = farm.submit(tenant("quiet"), prompts(10)).await;
    let workers = farm.work(|_| Act::Done);
    let quiet = farm.until_ended(&quiet.id).await;
    let ran = workers.stop().await;
    let flooded = of_others_before_the_last_of(&quiet.id, &ran);
    assert!(flooded < 100, "the quiet tenant's 10 images waited for {flooded} of 200");
    farm.shutdown().await;
}

async fn interactive_work_goes_before_a_batch_that_waits_already(mut farm: Farm) {
    let batch = farm.submit(spec(), prompts(200)).await;
    let urgent = v1::JobSpec { priority: v1::Priority::Interactive as i32, ..spec() };
    let urgent = farm.submit(urgent, vec![prompt("now")]).await;
    let workers = farm.work(|_| Act::Done);
    farm.until_ended(&urgent.id).await;
    assert!(
        farm.get(&batch.id).await.images_done < 100,
        "the batch was there first and is far from done"
    );
    workers.stop().await;
    farm.shutdown().await;
}

async fn a_flood_over_hundreds_of_jobs_does_not_starve_another(mut farm: Farm) {
    let tenant = |name: &str| v1::JobSpec { tenant: name.to_owned(), ..spec() };
    for _ in 0..500 {
        farm.submit(tenant("flood"), vec![prompt("flood")]).await;
    }
    let quiet = farm.submit(tenant("quiet"), prompts(10)).await;
    let workers = farm.work(|_| Act::Done);
    let quiet = farm.until_ended(&quiet.id).await;
    let ran = workers.stop().await;
    let flooded = of_others_before_the_last_of(&quiet.id, &ran);
    assert!(flooded < 100, "the quiet tenant's 10 images waited for {flooded} of 500");
    farm.shutdown().await;
}

async fn interactive_work_waits_for_the_line_and_no_longer(mut farm: Farm) {
    let batch = farm.submit(spec(), prompts(400)).await;
    let workers = farm.work(|_| {
        std::thread::sleep(std::time::Duration::from_millis(3));
        Act::Done
    });
    farm.until(&batch.id, "well under way", |job| {
        job.stages[1].done >= 40 && job.stages[0].done > 390
    })
    .await;
    let urgent = v1::JobSpec { priority: v1::Priority::Interactive as i32, ..spec() };
    let before = workers.ran().len();
    // Its text is already encoded, so it is ready at once.
    let urgent = farm.submit(urgent, vec![prompt("prompt 0")]).await;
    farm.until_ended(&urgent.id).await;
    let ran = workers.stop().await;
    let base: Vec<_> = ran.iter().skip(before).filter(|task| stage(task) == "base").collect();
    let ahead =
        base.iter().position(|task| job(task).as_deref() == Some(&urgent.id)).expect("it ran");
    // Two batches of four are queued, or four times as many if they take less time than the
    // dispatcher's pass. The rest was taken during the submit.
    assert!(ahead <= 48, "{ahead} of the batch's 360 tasks went first");
    farm.shutdown().await;
}

async fn no_job_is_left_to_the_sweep(mut farm: Farm) {
    let workers = farm.work(|_| Act::Done);
    for _ in 0..5 {
        let job = farm.submit(spec(), prompts(8)).await;
        farm.until_ended(&job.id).await;
    }
    assert_eq!(farm.handle.counters().jobs_overlooked.get(), 0, "a job ends with its last image");
    workers.stop().await;
    farm.shutdown().await;
}
