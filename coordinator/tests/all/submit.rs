//! Submits: whole and in chunks, repeated, abandoned, and every refusal by field.

use std::time::Duration;

use crate::support::{Act, Farm, eventually, options, prompt, prompts, spec};
use darkroom_coordinator::Options;
use darkroom_core::job_state::JobState;
use darkroom_proto::{
    status::from_status,
    v1::{self, submit_job_chunk::Part},
};
use tokio::sync::mpsc;
use tokio_stream::{
    StreamExt,
    wrappers::{IntervalStream, ReceiverStream},
};
use tonic::Code;

fn request(id: &str, texts: &[&str]) -> v1::SubmitJobRequest {
    let spec = v1::JobSpec { client_request_id: id.to_owned(), ..spec() };
    v1::SubmitJobRequest {
        spec: Some(spec),
        prompts: texts.iter().map(|text| prompt(text)).collect(),
    }
}

fn chunk(part: Part) -> v1::SubmitJobChunk {
    v1::SubmitJobChunk { part: Some(part) }
}

fn stream(
    spec: v1::JobSpec,
    chunks: Vec<Vec<v1::Prompt>>,
) -> impl tokio_stream::Stream<Item = v1::SubmitJobChunk> {
    let prompts =
        chunks.into_iter().map(|prompts| chunk(Part::Prompts(v1::PromptChunk { prompts })));
    tokio_stream::iter(std::iter::once(chunk(Part::Spec(spec))).chain(prompts).collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_submit_returns_the_first_job_and_other_content_is_refused() {
    let mut farm = Farm::start().await;
    let first =
        farm.client.submit_job(request("once", &["a"])).await.expect("accepted").into_inner();
    let again =
        farm.client.submit_job(request("once", &["a"])).await.expect("accepted").into_inner();
    assert!(!first.existed && again.existed);
    let id = first.job.expect("a job").id;
    assert_eq!(id, again.job.expect("a job").id);
    let other = farm.client.submit_job(request("once", &["b"])).await.expect_err("refused");
    assert_eq!(other.code(), Code::AlreadyExists);
    assert_eq!(from_status(&other).field.as_deref(), Some("spec.client_request_id"));
    // The same prompts in chunks are the same content; other prompts are not.
    let spec = || v1::JobSpec { client_request_id: "once".to_owned(), ..spec() };
    let streamed = farm
        .client
        .submit_job_stream(stream(spec(), vec![vec![prompt("a")]]))
        .await
        .expect("accepted");
    let streamed = streamed.into_inner();
    assert_eq!((streamed.existed, streamed.job.expect("a job").id), (true, id));
    let other =
        farm.client.submit_job_stream(stream(spec(), vec![prompts(2)])).await.expect_err("refused");
    assert_eq!(other.code(), Code::AlreadyExists);
    // Without a request id, every submit is a new job.
    let one = farm.client.submit_job(request("", &["a"])).await.expect("accepted").into_inner();
    let two = farm.client.submit_job(request("", &["a"])).await.expect("accepted").into_inner();
    assert_ne!(one.job.expect("a job").id, two.job.expect("a job").id);
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_submit_at_the_same_time_makes_one_job() {
    let farm = Farm::start().await;
    let submits = (0..8).map(|_| {
        let mut client = farm.client.clone();
        tokio::spawn(async move { client.submit_job(request("race", &["a"])).await })
    });
    let mut ids = std::collections::BTreeSet::new();
    let mut fresh = 0;
    for submit in submits.collect::<Vec<_>>() {
        let answer = submit.await.expect("joins").expect("accepted").into_inner();
        fresh += u32::from(!answer.existed);
        ids.insert(answer.job.expect("a job").id);
    }
    assert_eq!((ids.len(), fresh), (1, 1));
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_job_runs_when_its_last_chunk_is_in() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let (sender, receiver) = mpsc::channel(1);
    let mut client = farm.client.clone();
    let submit =
        tokio::spawn(async move { client.submit_job_stream(ReceiverStream::new(receiver)).await });
    sender.send(chunk(Part::Spec(spec()))).await.expect("open");
    for _ in 0..3 {
        sender
            .send(chunk(Part::Prompts(v1::PromptChunk { prompts: prompts(50) })))
            .await
            .expect("open");
    }
    eventually("begun", async || receiving(&farm).await > 0).await;
    let listed =
        farm.client.list_jobs(v1::ListJobsRequest::default()).await.expect("listed").into_inner();
    assert!(listed.jobs.is_empty(), "a job that is still received is not listed");
    assert!(workers.ran().is_empty(), "nothing runs before the last chunk");
    drop(sender);
    let job = submit.await.expect("joins").expect("accepted").into_inner().job.expect("a job");
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.images, job.images_done, job.stages[0].total), (150, 150, 51));
    let images = farm.images(&job.id).await;
    assert_eq!(images[149].seed, 7 + 149, "seeds count through the chunks");
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_stream_leaves_nothing_behind() {
    let farm = Farm::start().await;
    let (sender, receiver) = mpsc::channel(1);
    let mut client = farm.client.clone();
    let submit =
        tokio::spawn(async move { client.submit_job_stream(ReceiverStream::new(receiver)).await });
    sender.send(chunk(Part::Spec(spec()))).await.expect("open");
    sender.send(chunk(Part::Prompts(v1::PromptChunk { prompts: prompts(5) }))).await.expect("open");
    eventually("begun", async || receiving(&farm).await > 0).await;
    submit.abort();
    eventually("gone", async || receiving(&farm).await == 0).await;
    assert_eq!(farm.store.count(JobState::Active).await.expect("counts"), 0);
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submit_that_is_cancelled_while_it_begins_leaves_no_row() {
    let farm = Farm::start().await;
    // Some are cancelled before the row is made, some while it is, some after.
    for turn in 0..400 {
        if turn >= 100 && farm.handle.counters().submits_abandoned.get() > 0 {
            break;
        }
        let (sender, receiver) = mpsc::channel(1);
        let mut client = farm.client.clone();
        let submit =
            tokio::spawn(
                async move { client.submit_job_stream(ReceiverStream::new(receiver)).await },
            );
        sender.send(chunk(Part::Spec(spec()))).await.expect("open");
        for _ in 0..turn * 20 {
            tokio::task::yield_now().await;
        }
        // On a busy machine the others have not come that far.
        tokio::time::sleep(Duration::from_micros(500) * (turn.max(100) - 100)).await;
        submit.abort();
    }
    // A stream that is heard to its end afterwards: those before it have begun, or never will.
    let (sender, receiver) = mpsc::channel(2);
    sender.send(chunk(Part::Spec(spec()))).await.expect("open");
    sender.send(chunk(Part::Prompts(v1::PromptChunk { prompts: prompts(1) }))).await.expect("open");
    drop(sender);
    let mut client = farm.client.clone();
    client.submit_job_stream(ReceiverStream::new(receiver)).await.expect("accepted");
    eventually("given up", async || farm.handle.counters().submits_abandoned.get() > 0).await;
    eventually("gone", async || receiving(&farm).await == 0).await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_a_dead_process_left_is_swept_and_its_request_id_is_free() {
    let mut farm =
        Farm::start_with(Options { receiving_idle: Duration::from_millis(300), ..options() }).await;
    // The state after a process is killed between two chunks.
    let (sender, receiver) = mpsc::channel(1);
    let mut client = farm.client.clone();
    let submit =
        tokio::spawn(async move { client.submit_job_stream(ReceiverStream::new(receiver)).await });
    let named = v1::JobSpec { client_request_id: "left".to_owned(), ..spec() };
    sender.send(chunk(Part::Spec(named))).await.expect("open");
    let taken =
        farm.client.submit_job(request("left", &["a"])).await.expect("not taken yet").into_inner();
    assert!(!taken.existed);
    eventually("swept", async || farm.handle.counters().submits_abandoned.get() > 0).await;
    drop(sender.send(chunk(Part::Prompts(v1::PromptChunk { prompts: prompts(5) }))).await);
    drop(sender);
    let status = submit.await.expect("joins").expect_err("swept");
    assert_eq!(status.code(), Code::NotFound);
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_that_trickle_end_the_stream_and_steady_ones_do_not() {
    let idle = Duration::from_secs(2);
    let farm = Farm::start_with(Options { submit_idle: idle, ..options() }).await;
    // A chunk of so many prompts each time.
    let stream = |each: usize, pause: Duration, most: usize| {
        let first = tokio_stream::once(chunk(Part::Spec(spec())));
        let more = move |_| chunk(Part::Prompts(v1::PromptChunk { prompts: prompts(each) }));
        let ticks = IntervalStream::new(tokio::time::interval(pause));
        first.chain(ticks.map(more).take(most))
    };
    let pause = Duration::from_millis(100);
    let begun = tokio::time::Instant::now();
    let (mut one, mut two, mut three) =
        (farm.client.clone(), farm.client.clone(), farm.client.clone());
    let (submit, forecast, steady) = tokio::join!(
        one.submit_job_stream(stream(1, pause, usize::MAX)),
        two.forecast_job(stream(1, pause, usize::MAX)),
        // Longer than the limit, and fast enough.
        three.submit_job_stream(stream(100, 5 * pause, 7)),
    );
    let stalled = [submit.map(drop), forecast.map(drop)];
    for status in stalled.map(|call| call.expect_err("it never ends by itself")) {
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert_eq!(from_status(&status).reason, "SUBMIT_STALLED", "{status}");
    }
    assert!(begun.elapsed() > idle);
    let job = steady.expect("accepted").into_inner().job.expect("a job");
    assert_eq!(job.images, 700);
    eventually("gone", async || receiving(&farm).await == 0).await;
    farm.shutdown().await;
}

async fn receiving(farm: &Farm) -> u64 {
    farm.store.count(JobState::Receiving).await.expect("counts")
}

/// A change that makes a valid submit invalid.
type Spoil = fn(&mut v1::SubmitJobRequest);

fn stage(request: &mut v1::SubmitJobRequest, stage: v1::StageSettings) {
    let spec = request.spec.as_mut().expect("a spec");
    let good = v1::StageSettings { stage: "base".to_owned(), ..Default::default() };
    spec.settings = Some(v1::Settings { stages: vec![good, stage], ..Default::default() });
}

fn sr(change: impl FnOnce(&mut v1::StageSettings)) -> v1::StageSettings {
    let mut stage = v1::StageSettings { stage: "sr256".to_owned(), ..Default::default() };
    change(&mut stage);
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_field_is_refused_by_name() {
    let mut farm = Farm::start().await;
    let cases: Vec<(&str, Code, Spoil)> = vec![
        ("spec", Code::InvalidArgument, |r| r.spec = None),
        ("prompts", Code::InvalidArgument, |r| r.prompts.clear()),
        ("prompts", Code::InvalidArgument, |r| r.prompts = prompts(10_001)),
        ("prompts[1].text", Code::InvalidArgument, |r| r.prompts[1].text = " \n ".to_owned()),
        ("prompts[1].text", Code::InvalidArgument, |r| r.prompts[1].text = "\u{FEFF}".to_owned()),
        ("prompts[1].text", Code::InvalidArgument, |r| {
            r.prompts[1].text = "\u{200B}\u{A0}".to_owned()
        }),
        ("prompts[1].text", Code::InvalidArgument, |r| r.prompts[1].text = "x".repeat(4097)),
        ("prompts[1].style", Code::InvalidArgument, |r| r.prompts[1].style = "x".repeat(4097)),
        ("prompts[1].custom_id", Code::InvalidArgument, |r| {
            r.prompts[1].custom_id = "x".repeat(129)
        }),
        ("prompts[1].custom_id", Code::InvalidArgument, |r| {
            r.prompts[1].custom_id = "a\u{7}".to_owned()
        }),
        ("prompts[1].custom_id", Code::InvalidArgument, |r| {
            r.prompts.iter_mut().for_each(|prompt| prompt.custom_id = "same".to_owned());
        }),
        ("prompts[1].labels", Code::InvalidArgument, |r| {
            r.prompts[1].labels = (0..17).map(|key| (key.to_string(), String::new())).collect();
        }),
        ("prompts[1].labels", Code::InvalidArgument, |r| {
            r.prompts[1].labels = (0..9).map(|key| (key.to_string(), "x".repeat(1000))).collect();
        }),
        ("prompts[1].labels[\"k\"]", Code::InvalidArgument, |r| {
            r.prompts[1].labels = [("k".to_owned(), "a\u{0}".to_owned())].into();
        }),
        ("prompts[1].line", Code::InvalidArgument, |r| r.prompts[1].line = u64::MAX),
        ("prompts[1].text", Code::InvalidArgument, |r| r.prompts[1].text = "a\u{7}".to_owned()),
        ("prompts[1].negative", Code::InvalidArgument, |r| {
            r.prompts[1].negative = "x".repeat(4097)
        }),
        ("prompts[1].images", Code::InvalidArgument, |r| r.prompts[1].images = 10_001),
        ("spec.images_per_prompt", Code::InvalidArgument, |r| {
            r.spec.as_mut().expect("a spec").images_per_prompt = 10_001;
        }),
        ("prompts[1000].images", Code::InvalidArgument, |r| {
            r.spec.as_mut().expect("a spec").images_per_prompt = 10_000;
            r.prompts = prompts(1001);
        }),
        ("spec.client_request_id", Code::InvalidArgument, |r| {
            r.spec.as_mut().expect("a spec").client_request_id = "x".repeat(129);
        }),
        ("spec.name", Code::InvalidArgument, |r| {
            r.spec.as_mut().expect("a spec").name = "x".repeat(201)
        }),
        ("spec.tenant", Code::InvalidArgument, |r| {
            r.spec.as_mut().expect("a spec").tenant = "x".repeat(65)
        }),
        ("spec.priority", Code::InvalidArgument, |r| r.spec.as_mut().expect("a spec").priority = 9),
        ("spec.cascade", Code::NotFound, |r| {
            r.spec.as_mut().expect("a spec").cascade = "huge".to_owned()
        }),
        ("spec.settings.size", Code::InvalidArgument, |r| {
            r.spec.as_mut().expect("a spec").settings =
                Some(v1::Settings { size: 300, ..Default::default() });
        }),
        ("spec.settings.stages[1].stage", Code::InvalidArgument, |r| {
            stage(r, sr(|s| s.stage = "sr9".to_owned()))
        }),
        ("spec.settings.stages[1].stage", Code::InvalidArgument, |r| {
            stage(r, sr(|s| s.stage = "base".to_owned()))
        }),
        ("spec.settings.stages[1].steps", Code::InvalidArgument, |r| {
            stage(r, sr(|s| s.steps = Some(0)))
        }),
        ("spec.settings.stages[1].steps", Code::InvalidArgument, |r| {
            stage(r, sr(|s| s.steps = Some(10_001)))
        }),
        ("spec.settings.stages[1].guidance_scale", Code::InvalidArgument, |r| {
            stage(r, sr(|s| s.guidance_scale = Some(f64::NAN)));
        }),
        ("spec.settings.stages[1].guidance_scale", Code::InvalidArgument, |r| {
            stage(r, sr(|s| s.guidance_scale = Some(-1.0)));
        }),
        ("spec.settings.stages[1].noise_level", Code::InvalidArgument, |r| {
            stage(r, sr(|s| s.noise_level = Some(1000)));
        }),
        ("spec.settings.stages[1].sampler", Code::InvalidArgument, |r| {
            stage(r, sr(|s| s.sampler = Some("euler".to_owned())));
        }),
        ("spec.settings.stages[1].preset", Code::InvalidArgument, |r| {
            stage(r, sr(|s| s.preset = Some("fast28".to_owned())));
        }),
        ("spec.settings.stages[1].timesteps", Code::InvalidArgument, |r| {
            stage(r, sr(|s| s.timesteps = (0..1001).collect()));
        }),
        ("spec.settings.stages[1].timesteps", Code::InvalidArgument, |r| {
            stage(r, sr(|s| s.timesteps = vec![900, 3]));
        }),
        ("spec.settings.stages[1].preset", Code::InvalidArgument, |r| {
            stage(r, sr(|s| s.preset = Some("fast27".to_owned())));
        }),
        ("spec.settings.stages[1].steps", Code::InvalidArgument, |r| {
            stage(r, sr(|s| s.steps = Some(901)))
        }),
        ("spec.settings.stages[1].noise_level", Code::InvalidArgument, |r| {
            stage(r, sr(|s| s.noise_level = Some(800)));
        }),
        ("spec.settings.stages[1].spacing", Code::InvalidArgument, |r| {
            stage(r, sr(|s| s.spacing = Some("karras".to_owned())));
        }),
        ("spec.settings.stages[1].eta", Code::InvalidArgument, |r| {
            stage(r, sr(|s| s.eta = Some(2.0)))
        }),
        ("spec.settings.stages[1].guidance_schedule", Code::InvalidArgument, |r| {
            stage(r, sr(|s| s.guidance_schedule = Some("sometimes".to_owned())));
        }),
        ("spec.settings.stages[1].thresholding", Code::InvalidArgument, |r| {
            stage(r, sr(|s| s.thresholding = Some("dynamic:99.5".to_owned())));
        }),
    ];
    for (field, code, spoil) in cases {
        let mut bad = request("", &["a", "b"]);
        spoil(&mut bad);
        let status = farm.client.submit_job(bad).await.expect_err(field);
        let error = from_status(&status);
        assert_eq!((status.code(), error.field.as_deref()), (code, Some(field)), "{status:?}");
        assert!(error.message.contains("accepted:"), "{}", error.message);
        assert!(!error.message.contains('\n'), "one sentence: {}", error.message);
    }
    for state in [JobState::Receiving, JobState::Active] {
        assert_eq!(
            farm.store.count(state).await.expect("counts"),
            0,
            "nothing is kept of a refused submit"
        );
    }
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_streams_and_bad_queries_are_refused_by_field() {
    let mut farm = Farm::start().await;
    let empty =
        farm.client.submit_job_stream(stream(spec(), vec![])).await.expect_err("no prompts");
    assert_eq!(from_status(&empty).field.as_deref(), Some("prompts"));
    let headless =
        tokio_stream::iter([chunk(Part::Prompts(v1::PromptChunk { prompts: prompts(1) }))]);
    let headless = farm.client.submit_job_stream(headless).await.expect_err("no spec");
    assert_eq!(from_status(&headless).field.as_deref(), Some("part"));
    let late = farm
        .client
        .submit_job_stream(stream(spec(), vec![prompts(2), vec![prompt("fine"), prompt("")]]))
        .await
        .expect_err("a bad line");
    assert_eq!(
        from_status(&late).field.as_deref(),
        Some("prompts[3].text"),
        "counted through the chunks"
    );

    let job = farm.submit(spec(), prompts(1)).await;
    let unknown = "00000000-0000-7000-8000-000000000000";
    for (id, code) in [("x", Code::InvalidArgument), (unknown, Code::NotFound)] {
        let id = id.to_owned();
        let get = farm.client.get_job(v1::GetJobRequest { id: id.clone() }).await.expect_err("get");
        let cancel = farm
            .client
            .cancel_job(v1::CancelJobRequest { id: id.clone() })
            .await
            .expect_err("cancel");
        let watch = v1::WatchJobRequest { id: id.clone(), ..Default::default() };
        let watch = farm.client.watch_job(watch).await.expect_err("watch");
        let images = v1::ListImagesRequest { job_id: id, ..Default::default() };
        let images = farm.client.list_images(images).await.expect_err("images");
        assert_eq!([get.code(), cancel.code(), watch.code(), images.code()], [code; 4]);
    }
    let list = |change: fn(&mut v1::ListImagesRequest)| {
        let mut request = v1::ListImagesRequest { job_id: job.id.clone(), ..Default::default() };
        change(&mut request);
        request
    };
    for (field, bad) in [
        ("page_size", list(|request| request.page_size = 1001)),
        ("page_token", list(|request| request.page_token = "zzz".to_owned())),
        ("states", list(|request| request.states = vec![99])),
    ] {
        let status = farm.client.list_images(bad).await.expect_err(field);
        assert_eq!(from_status(&status).field.as_deref(), Some(field));
    }
    let ahead = v1::WatchJobRequest { id: job.id.clone(), after_version: 1 << 40, images: false };
    let status = farm.client.watch_job(ahead).await.expect_err("not there yet");
    assert_eq!(from_status(&status).field.as_deref(), Some("after_version"));
    let resume = farm
        .client
        .retry_job(v1::RetryJobRequest { id: job.id, ..Default::default() })
        .await
        .expect_err("active");
    assert_eq!(resume.code(), Code::FailedPrecondition);
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_jobs_with_lists_of_a_thousand_timesteps_are_read_to_the_end() {
    const JOBS: usize = 60;
    let mut farm = Farm::start().await;
    let listed = |stage: &str, steps: u32| v1::StageSettings {
        stage: stage.to_owned(),
        sampler: Some("ddpm".to_owned()),
        timesteps: (0..steps).rev().collect(),
        ..Default::default()
    };
    let stages = vec![listed("base", 1000), listed("sr256", 900), listed("sr1024", 1000)];
    let settings = v1::Settings { stages, ..Default::default() };
    for number in 0..JOBS {
        let name = format!("job {number}");
        farm.submit(v1::JobSpec { name, settings: Some(settings.clone()), ..spec() }, prompts(1))
            .await;
    }
    let (mut names, mut pages, mut token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let request =
            v1::ListJobsRequest { page_size: 1000, page_token: token, ..Default::default() };
        let page = farm.client.list_jobs(request).await.expect("a page").into_inner();
        let numbers = |job: &v1::Job| -> usize {
            let asked = job.spec.as_ref().and_then(|spec| spec.settings.as_ref());
            let both = asked.into_iter().chain(&job.effective_settings);
            both.flat_map(|settings| &settings.stages).map(|stage| stage.timesteps.len()).sum()
        };
        assert!(page.jobs.iter().all(|job| numbers(job) == 2 * 2900));
        pages.push(page.jobs.iter().map(numbers).sum::<usize>());
        names.extend(page.jobs.into_iter().filter_map(|job| Some(job.spec?.name)));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let expected: Vec<String> = (0..JOBS).rev().map(|number| format!("job {number}")).collect();
    assert_eq!(names, expected, "every job comes once");
    assert!(pages.len() > 1, "a page has its limit in bytes: {pages:?}");
    let most = darkroom_proto::bounds::MAX_ELEMENTS as usize;
    assert!(pages[0] > most, "more numbers on a page than it may have of other things: {pages:?}");
    farm.shutdown().await;
}
