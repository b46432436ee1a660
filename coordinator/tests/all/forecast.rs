//! The cost of a job, over gRPC: before it is submitted, while it runs, and after its end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::support::{self, Act, Farm, options, prompts, spec};
use darkroom_coordinator::Options;
use darkroom_proto::{status::from_status, v1};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// Network passes of an image in the stages of the tests' cascade: the first one is guided.
const PASSES: [f64; 3] = [8.0, 2.0, 2.0];
/// Seconds per pass that the tests' workers report.
const PASS: f64 = 0.05;

async fn dry_run(farm: &mut Farm, spec: v1::JobSpec, count: usize) -> v1::ForecastJobResponse {
    use v1::submit_job_chunk::Part;
    let half = count / 2;
    let chunk =
        |prompts: &[v1::Prompt]| Part::Prompts(v1::PromptChunk { prompts: prompts.to_vec() });
    let all = prompts(count);
    let parts = [Part::Spec(spec), chunk(&all[..half]), chunk(&all[half..])];
    let stream = tokio_stream::iter(parts.map(|part| v1::SubmitJobChunk { part: Some(part) }));
    farm.client.forecast_job(stream).await.expect("a forecast").into_inner()
}

async fn until_known(farm: &mut Farm, spec: &v1::JobSpec, count: usize) -> v1::Forecast {
    for _ in 0..5000 {
        let forecast = dry_run(farm, spec.clone(), count).await.forecast.expect("there is one");
        if forecast.seconds.is_some() {
            return forecast;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the workers were not seen");
}

fn near(one: Option<f64>, other: f64) -> bool {
    one.is_some_and(|one| (one - other).abs() < 1e-9 * other.abs().max(1.0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_a_job_would_take_and_keeps_nothing() {
    let mut farm = Farm::start().await;
    let unknown = dry_run(&mut farm, spec(), 4).await.forecast.expect("there is one");
    assert_eq!(
        (unknown.device_seconds, unknown.seconds),
        (None, None),
        "nobody ever measured anything"
    );
    let workers = farm.work(|_| Act::Done);
    // Four prompts and the empty negative text, which the guided stage needs.
    let forecast = until_known(&mut farm, &spec(), 4).await;
    let images: Vec<_> = forecast.stages.iter().map(|stage| stage.images).collect();
    assert_eq!(images, [5, 4, 4, 4]);
    for (stage, passes) in forecast.stages.iter().zip([1.0].into_iter().chain(PASSES)) {
        assert!(near(stage.seconds_per_image, passes * PASS), "{stage:?}");
        assert!(near(stage.device_seconds, passes * PASS * stage.images as f64), "{stage:?}");
        assert_eq!((stage.classes.len(), stage.classes[0].workers), (1, 1), "{stage:?}");
    }
    assert!(near(forecast.device_seconds, (5.0 + 4.0 * 12.0) * PASS));
    assert!(
        near(forecast.seconds, (5.0 + 4.0 * 12.0) * PASS),
        "one worker does it all, one after another"
    );

    let steps = |steps| v1::Settings {
        stages: vec![v1::StageSettings {
            stage: "base".to_owned(),
            steps: Some(steps),
            ..Default::default()
        }],
        ..Default::default()
    };
    let longer = v1::JobSpec { settings: Some(steps(8)), ..spec() };
    let longer = dry_run(&mut farm, longer, 4).await.forecast.expect("there is one");
    assert!(
        near(longer.stages[1].seconds_per_image, 2.0 * PASSES[0] * PASS),
        "twice the steps, twice the time"
    );

    let refused = v1::JobSpec { settings: Some(steps(0)), ..spec() };
    let part = v1::submit_job_chunk::Part::Spec(refused);
    let stream = tokio_stream::iter([v1::SubmitJobChunk { part: Some(part) }]);
    let refused = farm.client.forecast_job(stream).await.expect_err("no job could be so");
    assert!(refused.message().contains("spec.settings.stages[0].steps is 0"), "{refused}");
    let jobs =
        farm.client.list_jobs(v1::ListJobsRequest::default()).await.expect("lists").into_inner();
    assert!(jobs.jobs.is_empty() && workers.ran().is_empty(), "nothing was submitted");
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forecast_is_there_before_shrinks_and_in_the_end_its_error_is_told() {
    let mut farm = Farm::start().await;
    let (go, held) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
    let workers = farm.work({
        let (go, held) = (go.clone(), Arc::clone(&held));
        move |task| match support::index(task) {
            Some(5) => {
                held.store(true, Ordering::SeqCst);
                Act::Hold(go.clone())
            }
            _ => Act::Done,
        }
    });
    until_known(&mut farm, &spec(), 6).await;
    let job = farm.submit(spec(), prompts(6)).await;
    let first = job.first_forecast.clone().expect("made before anything ran");
    assert!(near(first.device_seconds, (7.0 + 6.0 * 12.0) * PASS), "{first:?}");
    assert!(job.eta.is_some() && job.forecast_check.is_none());

    let job = farm.until(&job.id, "all but one are done", |job| job.images_done == 5).await;
    assert!(held.load(Ordering::SeqCst));
    let left = job.forecast.clone().expect("it runs");
    assert!(near(left.device_seconds, 12.0 * PASS), "one image is left: {left:?}");
    let kept = job.first_forecast.clone().expect("kept");
    assert_eq!((&kept.stages, kept.seconds), (&first.stages, first.seconds), "the first one stays");
    go.cancel();
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.forecast.clone(), job.first_forecast.clone()), (None, Some(kept)));
    let check = job.forecast_check.clone().expect("it has ended");
    let names: Vec<_> =
        check.stages.iter().map(|stage| (stage.stage.as_str(), stage.images)).collect();
    assert_eq!(names, [("base", 6), ("sr256", 6), ("sr1024", 6)]);
    // The workers reported 0.05 s a pass, but then a thousandth of a second for every task.
    assert!(near(Some(check.forecast_device_seconds), 6.0 * 12.0 * PASS), "{check:?}");
    assert!(near(Some(check.device_seconds), 18.0 * 0.001), "{check:?}");
    assert!(near(check.device_seconds_ratio, 0.018 / 3.6), "{check:?}");
    assert!(
        check.seconds.is_some_and(|seconds| seconds > 0.0) && check.seconds_ratio.is_some(),
        "{check:?}"
    );
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_images_are_not_forecast_in_any_stage() {
    let mut farm = Farm::start().await;
    let go = CancellationToken::new();
    let workers = farm.work({
        let go = go.clone();
        move |task| support::index(task).map_or(Act::Done, |_| Act::Hold(go.clone()))
    });
    until_known(&mut farm, &spec(), 4).await;
    // Images 0 and 1 end with the first stage; 2 and 3 pass all three.
    let mut prompts = prompts(4);
    for prompt in &mut prompts[..2] {
        prompt.settings = Some(v1::Settings { size: 64, ..Default::default() });
    }
    let job = farm.submit(spec(), prompts).await;
    let images = |job: &v1::Job| -> Vec<u64> {
        let forecast = job.forecast.as_ref().expect("it runs");
        forecast.stages.iter().skip(1).map(|stage| stage.images).collect()
    };
    assert_eq!(images(&job), [4, 2, 2]);
    let filter = v1::ImageFilter {
        ranges: vec![v1::IndexRange { first: 2, last: 3 }],
        ..Default::default()
    };
    let request = v1::CancelImagesRequest {
        job_id: job.id.clone(),
        filter: Some(filter),
        ..Default::default()
    };
    farm.client.cancel_images(request).await.expect("recorded");
    let job = farm.until(&job.id, "two are cancelled", |job| job.images_cancelled == 2).await;
    assert_eq!(images(&job), [2, 0, 0], "two images are left, and they pass one stage");
    let stopped: Vec<_> = job.stages.iter().map(|stage| stage.stopped).collect();
    assert_eq!(stopped, [0, 2, 2, 2]);
    let left = job.forecast.as_ref().and_then(|forecast| forecast.device_seconds);
    let of_texts = job.forecast.as_ref().map_or(0, |forecast| forecast.stages[0].images);
    assert!(near(left, (of_texts as f64 + 2.0 * PASSES[0]) * PASS), "{:?}", job.forecast);
    let queue = farm.client.describe_queue(v1::DescribeQueueRequest {}).await.expect("told");
    let queued = |stage: &str| -> u64 {
        let pools = queue.get_ref().pools.iter().filter(|pool| pool.stage == stage);
        pools.map(|pool| pool.ready + pool.dispatched).sum()
    };
    assert_eq!([queued("base"), queued("sr256")], [2, 0], "{:?}", queue.get_ref());
    go.cancel();
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.state(), job.images_done), (v1::JobState::Done, 2));
    farm.audit(&job.id).await;
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_measured_is_known_after_a_restart_without_any_worker() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    until_known(&mut farm, &spec(), 1).await;
    support::eventually("it is recorded", async || {
        farm.store.rates().await.expect("reads").len() == 4
    })
    .await;
    workers.stop().await;
    let (folder, artifacts) = (Arc::clone(&farm.folder), farm.artifacts.clone());
    farm.shutdown().await;

    let mut farm = Farm::start_over(support::options(), folder, artifacts).await;
    let forecast = until_cost_is_known(&mut farm).await;
    assert!(near(forecast.device_seconds, (5.0 + 4.0 * 12.0) * PASS), "{forecast:?}");
    assert_eq!(forecast.seconds, None, "nobody serves the stages");
    farm.shutdown().await;
}

async fn until_cost_is_known(farm: &mut Farm) -> v1::Forecast {
    for _ in 0..5000 {
        let forecast = dry_run(farm, spec(), 4).await.forecast.expect("there is one");
        if forecast.device_seconds.is_some() {
            return forecast;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the recorded rates were not read");
}

/// A forecast under way, and what holds its stream open.
type Held = (JoinHandle<Result<(), Status>>, mpsc::Sender<v1::SubmitJobChunk>);

/// A forecast of chunks of so many prompts, which ends when the sender is dropped.
async fn held(farm: &Farm, sizes: [usize; 2]) -> Held {
    use v1::submit_job_chunk::Part;
    let (sender, receiver) = mpsc::channel(1 + sizes.len());
    let mut texts = (0..).map(|number: u64| v1::Prompt {
        text: format!("prompt {number}"),
        ..v1::Prompt::default()
    });
    let chunks = sizes.map(|size| texts.by_ref().take(size).collect());
    let chunks = chunks.map(|prompts| Part::Prompts(v1::PromptChunk { prompts }));
    for part in [Part::Spec(spec())].into_iter().chain(chunks) {
        sender.send(v1::SubmitJobChunk { part: Some(part) }).await.expect("open");
    }
    let mut client = farm.client.clone();
    let call = async move { client.forecast_job(ReceiverStream::new(receiver)).await.map(drop) };
    (tokio::spawn(call), sender)
}

#[tokio::test(flavor = "multi_thread")]
async fn large_forecasts_of_a_tenant_take_turns_and_small_ones_do_not_wait() {
    let wait = Duration::from_secs(2);
    let mut farm = Farm::start_with(Options { call: wait, ..options() }).await;
    // More than a forecast may remember without a turn.
    let large = [6_000, 6_000];
    let mut holding = Vec::new();
    for _ in 0..5 {
        holding.push(held(&farm, large).await);
    }
    let ended = |holding: &[Held]| holding.iter().position(|(call, _)| call.is_finished());
    support::eventually("one has no turn", async || ended(&holding).is_some()).await;
    let (refused, _) = holding.remove(ended(&holding).expect("one"));
    let refused = refused.await.expect("no panic").expect_err("four have turns");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert_eq!(from_status(&refused).reason, "FORECASTS", "{refused}");
    dry_run(&mut farm, spec(), 4).await;
    let (first, go) = holding.remove(0);
    drop(go);
    first.await.expect("no panic").expect("it had its turn");
    let (next, go) = held(&farm, large).await;
    drop(go);
    next.await.expect("no panic").expect("a turn is free");
    for (large, go) in holding {
        drop(go);
        large.await.expect("no panic").expect("it had its turn");
    }
    farm.shutdown().await;
}
