//! A user's limits for a job, over gRPC: a deadline, a number of workers, a number of failures.

use std::time::{Duration, SystemTime};

use crate::support::{self, Act, Farm, failed, prompts, spec};
use darkroom_proto::v1;
use darkroom_queue::task::{Task, TaskBody};
use prost_types::Timestamp;
use tokio_util::sync::CancellationToken;

fn in_a_while(time: Duration) -> Option<Timestamp> {
    Some(Timestamp::from(SystemTime::now() + time))
}

fn is_base(task: &Task) -> bool {
    matches!(&task.body, TaskBody::Render(body) if body.settings.stage.as_str() == "base")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_its_job_and_the_retry_needs_a_new_one() {
    let mut farm = Farm::start().await;
    let go = CancellationToken::new();
    let workers = farm.work({
        let go = go.clone();
        move |task| match support::index(task) {
            Some(index) if index >= 2 => Act::Hold(go.clone()),
            _ => Act::Done,
        }
    });
    let past = v1::JobSpec { deadline: Some(Timestamp { seconds: 1, nanos: 0 }), ..spec() };
    let request = v1::SubmitJobRequest { spec: Some(past), prompts: prompts(1) };
    let refused = farm.client.submit_job(request).await.expect_err("it has passed");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("spec.deadline is 1970-01-01T00:00:01"), "{refused}");

    let limited = v1::JobSpec { deadline: in_a_while(Duration::from_secs(4)), ..spec() };
    let job = farm.submit(limited, prompts(6)).await;
    let job = farm.until(&job.id, "two are done", |job| job.images_done == 2).await;
    assert_eq!(job.state(), v1::JobState::Active);
    assert!(
        job.end_reason.is_empty() && job.spec.as_ref().is_some_and(|spec| spec.deadline.is_some())
    );
    let job = farm.until_ended(&job.id).await;
    assert_eq!(
        (job.state(), job.images_done, job.images_cancelled),
        (v1::JobState::Cancelled, 2, 4)
    );
    assert_eq!(job.end_code, "deadline");
    assert!(
        job.end_reason.contains("2 of 6 images are done; retry with a new deadline"),
        "{}",
        job.end_reason
    );
    let pool = support::pool("base");
    support::eventually("nothing of it is in the queue", async || {
        farm.store.dispatched(&pool).await.expect("lists").is_empty()
            && darkroom_queue::TaskQueue::entries(&*farm.queue, &pool)
                .await
                .expect("lists")
                .is_empty()
    })
    .await;

    go.cancel();
    let retry = v1::RetryJobRequest { id: job.id.clone(), ..Default::default() };
    let refused = farm.client.retry_job(retry.clone()).await.expect_err("it would end at once");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    let both = v1::RetryJobRequest {
        deadline: in_a_while(Duration::from_secs(60)),
        no_deadline: true,
        ..retry.clone()
    };
    assert_eq!(
        farm.client.retry_job(both).await.expect_err("both").code(),
        tonic::Code::InvalidArgument
    );
    let later = v1::RetryJobRequest { deadline: in_a_while(Duration::from_secs(600)), ..retry };
    let retried = farm.client.retry_job(later).await.expect("retried").into_inner();
    assert!(retried.end_code.is_empty() && retried.end_reason.is_empty());
    farm.until(&job.id, "done", |job| job.state() == v1::JobState::Done).await;
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.images_done, job.generation), (6, 2));
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_will_be_missed_is_told() {
    let mut farm = Farm::start().await;
    let go = CancellationToken::new();
    let workers = farm.work({
        let go = go.clone();
        move |_| Act::Hold(go.clone())
    });
    // At the reported 0.05 s a pass: a text, and 8, 2 and 2 passes per image.
    let soon = v1::JobSpec { deadline: in_a_while(Duration::from_secs(40)), ..spec() };
    let soon = farm.submit(soon, prompts(200)).await;
    let late = farm.until(&soon.id, "estimated", |job| job.eta.is_some()).await;
    let missed = late.deadline_missed_by.expect("130 s of work in 40 s");
    assert!((85..120).contains(&missed.seconds), "{missed:?}");
    let enough = v1::JobSpec { deadline: in_a_while(Duration::from_secs(86_400)), ..spec() };
    let enough = farm.submit(enough, prompts(3)).await;
    let in_time = farm.until(&enough.id, "estimated", |job| job.eta.is_some()).await;
    assert_eq!(in_time.deadline_missed_by, None);
    go.cancel();
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_too_many_failures_ends_at_once() {
    // A sweep comes only once an hour here.
    let options =
        darkroom_coordinator::Options { sweep: Duration::from_secs(3600), ..support::options() };
    let mut farm = Farm::start_with(options).await;
    let workers = farm.work(|task| if is_base(task) { failed() } else { Act::Done });
    let limited = v1::JobSpec { max_failed_images: Some(3), ..spec() };
    let job = farm.submit(limited, prompts(40)).await;
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.state(), job.end_code.as_str()), (v1::JobState::Failed, "failures"));
    assert_eq!(
        job.end_reason,
        "more than 3 images failed, last: non_finite: a value is not finite"
    );
    assert!((4..40).contains(&job.images_dead), "{}", job.images_dead);
    assert_eq!(job.images_dead + job.images_cancelled, 40);
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_workers_holds_in_each_stage_for_images_with_any_settings() {
    let mut farm = Farm::start().await;
    let (base, sr256) = (CancellationToken::new(), CancellationToken::new());
    let work = |host: &str| {
        let (base, sr256) = (base.clone(), sr256.clone());
        farm.work_on(&["encode", "base", "sr256"], host, move |task| match &task.body {
            TaskBody::Render(body) if body.settings.stage.as_str() == "base" => {
                Act::Hold(base.clone())
            }
            TaskBody::Render(_) => Act::Hold(sr256.clone()),
            TaskBody::Encode(_) => Act::Done,
        })
    };
    let workers = [work("a"), work("b"), work("c"), work("d")];
    let sized = |size: u32| Some(v1::Settings { size, ..Default::default() });
    // Two thirds of the images end after `base`, by two settings of their own.
    let mut prompts = prompts(60);
    for (position, prompt) in prompts.iter_mut().enumerate().filter(|(place, _)| place % 3 > 0) {
        prompt.settings = sized(64);
        if position % 3 == 2 {
            let stage = v1::StageSettings { stage: "base".to_owned(), ..Default::default() };
            let stage = v1::StageSettings { steps: Some(3), ..stage };
            prompt.settings.as_mut().expect("set").stages = vec![stage];
        }
    }
    let limited = v1::JobSpec { max_workers: 2, settings: sized(256), ..spec() };
    let job = farm.submit(limited, prompts).await;
    for (position, stage, go) in [(1, "base", &base), (2, "sr256", &sr256)] {
        let reason = format!("its limit of 2 workers is reached in stage {stage}");
        let held = farm.until(&job.id, "held up", |job| job.waiting_for == reason).await;
        assert_eq!(held.stages[position].dispatched, 8, "two batches of four in {stage}");
        go.cancel();
    }
    let ended = farm.until_ended(&job.id).await;
    let totals: Vec<_> = ended.stages.iter().map(|stage| (stage.done, stage.total)).collect();
    assert_eq!(totals[1..], [(60, 60), (20, 20)]);
    for workers in workers {
        workers.stop().await;
    }
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_never_has_more_in_flight_than_its_workers_take_and_says_so() {
    let mut farm = Farm::start().await;
    let go = CancellationToken::new();
    let work = |host: &str| {
        let go = go.clone();
        farm.work_on(&["encode", "base", "sr256", "sr1024"], host, move |task| {
            if is_base(task) { Act::Hold(go.clone()) } else { Act::Done }
        })
    };
    let workers = [work("a"), work("b"), work("c"), work("d")];
    support::eventually("all are there", async || {
        darkroom_queue::TaskQueue::workers(&*farm.queue, Duration::from_secs(5))
            .await
            .expect("lists")
            .len()
            == 4
    })
    .await;
    let limited = v1::JobSpec { max_workers: 2, ..spec() };
    let limited = farm.submit(limited, prompts(60)).await;
    let held = farm.until(&limited.id, "held up", |job| {
        !job.waiting_for.is_empty() && job.stages[1].dispatched > 0
    });
    let held = held.await;
    assert_eq!(held.waiting_for, "its limit of 2 workers is reached in stage base");
    assert_eq!(held.stages[1].dispatched, 8, "two batches of four");
    let other = farm.submit(spec(), prompts(40)).await;
    let other = farm.until(&other.id, "dispatched", |job| job.stages[1].dispatched == 24).await;
    assert_eq!(other.waiting_for, "", "the other takes the rest of the line");
    go.cancel();
    farm.until_ended(&limited.id).await;
    farm.until_ended(&other.id).await;
    for workers in workers {
        workers.stop().await;
    }
    farm.shutdown().await;
}
