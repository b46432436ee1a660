//! Prompts with their own settings, over gRPC: their images' stages and settings, and where these
//! are shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::support::{Act, Farm, index, prompt, spec};
use darkroom_artifacts::{ArtifactStore, manifest};
use darkroom_coordinator::store::postgres::{Options, PostgresStore};
use darkroom_proto::v1::{self, submit_job_chunk::Part};
use darkroom_queue::task::{Task, TaskBody};
use darkroom_test_servers::postgres::Postgres;

fn base(change: impl FnOnce(&mut v1::StageSettings)) -> Vec<v1::StageSettings> {
    let mut stage = v1::StageSettings { stage: "base".to_owned(), ..Default::default() };
    change(&mut stage);
    vec![stage]
}

fn with(text: &str, settings: v1::Settings) -> v1::Prompt {
    v1::Prompt { settings: Some(settings), ..prompt(text) }
}

fn sized(size: u32) -> v1::Settings {
    v1::Settings { size, ..Default::default() }
}

/// A job of 256 pixels: one prompt with the job's settings and four with their own, two of which
/// are equal.
fn mixed() -> (v1::JobSpec, Vec<v1::Prompt>) {
    let spec = v1::JobSpec { settings: Some(sized(256)), images_per_prompt: 2, ..spec() };
    let quick = || v1::Settings {
        stages: base(|stage| (stage.steps, stage.guidance_scale) = (Some(2), Some(1.0))),
        ..sized(64)
    };
    let prompts = vec![
        prompt("plain"),
        with("quick", quick()),
        with("large", sized(1024)),
        with("wide", v1::Settings { width: 384, ..Default::default() }),
        with("quick again", quick()),
    ];
    (spec, prompts)
}

async fn lines_of(farm: &mut Farm, job: &str) -> (manifest::Header, Vec<manifest::ImageLine>) {
    let bytes = farm.manifest_bytes(job).await;
    let mut lines = Vec::new();
    let (header, _) =
        manifest::verify(bytes.as_slice(), |line| lines.push(line)).expect("it is whole");
    (header, lines)
}

/// The tasks of each image, in order of their stages.
fn by_image(tasks: &[Task]) -> BTreeMap<u64, Vec<&Task>> {
    let mut images: BTreeMap<u64, Vec<&Task>> = BTreeMap::new();
    for task in tasks {
        if let Some(index) = index(task) {
            images.entry(index).or_default().push(task);
        }
    }
    images
}

async fn images_are_made_with_their_prompts_settings(mut farm: Farm) {
    let workers = farm.work(|_| Act::Done);
    let (spec, prompts) = mixed();
    let job = farm.submit(spec.clone(), prompts.clone()).await;
    let ended = farm.until_ended(&job.id).await;
    farm.audit(&job.id).await;
    assert_eq!((ended.state(), ended.images_done), (v1::JobState::Done, 10));
    let stages: Vec<_> =
        ended.stages.iter().map(|stage| (stage.stage.as_str(), stage.done, stage.total)).collect();
    // Five prompts, and the empty negative text for the guided ones.
    assert_eq!(stages, [("encode", 6, 6), ("base", 10, 10), ("sr256", 6, 6), ("sr1024", 2, 2)]);
    let check = ended.forecast_check;
    assert!(check.is_none_or(|check| check.stages.iter().all(|stage| stage.images <= 10)));

    let images = farm.images(&job.id).await;
    let sizes: Vec<_> = images
        .iter()
        .map(|image| image.settings.as_ref().map(|own| (own.width, own.height)))
        .collect();
    let expected = [None, Some((64, 64)), Some((1024, 1024)), Some((384, 256)), Some((64, 64))];
    assert_eq!(sizes, expected.into_iter().flat_map(|one| [one; 2]).collect::<Vec<_>>());
    let passed: Vec<_> = images.iter().map(|image| image.stage_seconds.len()).collect();
    assert_eq!(passed, [2, 2, 1, 1, 3, 3, 2, 2, 1, 1]);
    assert_eq!(images[4].stage, "sr1024");

    let (header, lines) = lines_of(&mut farm, &job.id).await;
    assert_eq!(header.settings["stages"].as_array().expect("a list").len(), 2);
    for (line, image) in lines.iter().zip(&images) {
        let stages = line.settings.as_ref().map(|own| own["stages"].as_array().expect("a list"));
        assert_eq!(stages.is_some(), image.settings.is_some());
        assert_eq!(stages.map_or(2, Vec::len), image.stage_seconds.len());
        assert_eq!(line.seconds.len(), image.stage_seconds.len());
        assert_eq!(line.sha256.expect("done").to_string(), image.sha256);
    }

    let tasks = workers.ran();
    for (index, tasks) in by_image(&tasks) {
        let guided = ![2, 3, 8, 9].contains(&index);
        let TaskBody::Render(first) = &tasks[0].body else { panic!("an image's task") };
        assert_eq!(first.negative.is_some(), guided, "image {index}");
        let last = tasks.last().expect("one");
        let TaskBody::Render(body) = &last.body else { panic!("an image's task") };
        let recipe = body.picture.as_ref().expect("only the last stage makes a picture");
        let told = recipe.iter().any(|(_, text)| text.contains("\"width\":384"));
        assert_eq!(told, [6, 7].contains(&index), "image {index}: {recipe:?}");
    }
    // Tasks in one batch have equal settings.
    let mut settings: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for task in tasks.iter().filter(|task| index(task).is_some()) {
        let TaskBody::Render(body) = &task.body else { panic!("an image's task") };
        let text = serde_json::to_string(&body.settings).expect("JSON");
        settings.entry(&task.compatibility).or_default().insert(text);
    }
    assert!(settings.values().all(|of_batch| of_batch.len() == 1), "{settings:?}");
    assert_eq!(settings.len(), 7, "{settings:?}");

    // Each picture is the same if it is submitted as a separate job with the settings shown.
    for place in [0, 2, 4, 6, 8] {
        let image = &images[place];
        let effective = image.settings.clone().or(job.effective_settings.clone());
        let again = v1::JobSpec { settings: effective, images_per_prompt: 1, ..spec.clone() };
        let again_prompt = v1::Prompt { seed: Some(image.seed), ..prompt(&image.prompt) };
        let again = farm.submit(again, vec![again_prompt]).await;
        farm.until_ended(&again.id).await;
        let again = farm.images(&again.id).await.remove(0);
        assert_eq!((&again.key, &again.sha256), (&image.key, &image.sha256), "image {place}");
        assert_eq!(again.settings, None, "they are the job's there");
    }
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_made_with_their_prompts_settings_on_sqlite() {
    images_are_made_with_their_prompts_settings(Farm::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_made_with_their_prompts_settings_on_postgres() {
    let server = Postgres::shared();
    let options = Options { connections: 8, ..Options::default() };
    let store = PostgresStore::connect(&server.create_database(), options).await.expect("opens");
    let farm = Farm::join(Arc::new(store), &Arc::default(), &ArtifactStore::in_memory()).await;
    images_are_made_with_their_prompts_settings(farm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_to_encode_are_those_that_the_prompts_settings_need() {
    let mut farm = Farm::start().await;
    let unguided = v1::Settings {
        stages: base(|stage| stage.guidance_scale = Some(1.0)),
        ..Default::default()
    };
    let guided =
        || v1::Settings { stages: base(|stage| stage.guidance_scale = Some(2.0)), ..sized(64) };
    let spec = v1::JobSpec { settings: Some(unguided), ..spec() };
    let texts = |job: v1::Job| job.stages[0].total;
    let plain = farm.submit(spec.clone(), vec![prompt("a"), prompt("b")]).await;
    assert_eq!(texts(plain), 2, "no negative text");
    let negative = |prompt: v1::Prompt| v1::Prompt { negative: "blur".to_owned(), ..prompt };
    let prompts = vec![negative(prompt("a")), negative(with("b", guided()))];
    assert_eq!(texts(farm.submit(spec, prompts).await), 3);
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_each_image_where_it_passes() {
    let mut farm = Farm::start().await;
    let (spec, prompts) = mixed();
    let chunk =
        |prompts: &[v1::Prompt]| Part::Prompts(v1::PromptChunk { prompts: prompts.to_vec() });
    let dry_run = async |client: &mut v1::farm_client::FarmClient<_>| {
        let parts = [Part::Spec(spec.clone()), chunk(&prompts[..2]), chunk(&prompts[2..])];
        let stream = tokio_stream::iter(parts.map(|part| v1::SubmitJobChunk { part: Some(part) }));
        client.forecast_job(stream).await.expect("a forecast").into_inner()
    };
    let workers = farm.work(|_| Act::Done);
    let forecast = loop {
        let answer = dry_run(&mut farm.client).await;
        let forecast = answer.forecast.expect("there is one");
        if forecast.seconds.is_some() {
            break forecast;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    let images: Vec<_> = forecast.stages.iter().map(|stage| stage.images).collect();
    assert_eq!(images, [6, 10, 6, 2]);
    // Eight passes in the guided stage, two in the quick ones, at 0.05 s each.
    let seconds: Vec<_> =
        forecast.stages.iter().map(|stage| stage.device_seconds.expect("measured")).collect();
    for (seconds, passes) in seconds.iter().zip([6.0, 6.0 * 8.0 + 4.0 * 2.0, 6.0 * 2.0, 2.0 * 2.0])
    {
        assert!((seconds - 0.05 * passes).abs() < 1e-9, "{seconds} s for {passes} passes");
    }
    // The same job after it is submitted.
    workers.stop().await;
    let job = farm.submit(spec, prompts).await;
    let left = job.forecast.expect("it has not ended");
    let images: Vec<_> = left.stages.iter().map(|stage| stage.images).collect();
    assert_eq!(images, [6, 10, 6, 2]);
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_prompt_may_not_ask_is_refused_with_its_place_and_nothing_is_kept() {
    let mut farm = Farm::start().await;
    let refusal = |settings: v1::Settings| {
        let prompts = vec![prompt("a"), prompt("b"), with("c", settings)];
        let request = v1::SubmitJobRequest { spec: Some(spec()), prompts };
        let mut client = farm.client.clone();
        async move { client.submit_job(request).await.expect_err("refused").message().to_owned() }
    };
    for (settings, says) in [
        (sized(65), "prompts[2].settings.size is 65; accepted: 64, 256, 1024"),
        (
            v1::Settings { stages: base(|stage| stage.steps = Some(0)), ..Default::default() },
            "prompts[2].settings.stages[0].steps is 0; accepted: 1 to 1000",
        ),
        (
            v1::Settings { start: v1::Start::Picture.into(), ..Default::default() },
            "prompts[2].settings.start is \"picture\"; accepted: none, because all images of a job start alike",
        ),
    ] {
        let message = refusal(settings).await;
        assert!(message.contains(says), "{message}");
    }
    let styled = v1::Prompt { style: "ink".to_owned(), ..with("a", sized(64)) };
    let request = v1::SubmitJobRequest { spec: Some(spec()), prompts: vec![styled] };
    let refused = farm.client.submit_job(request).await.expect_err("no stage for the style");
    assert!(refused.message().contains("prompts[0].style is given"), "{refused}");
    let jobs = farm.client.list_jobs(v1::ListJobsRequest::default()).await.expect("lists");
    assert!(jobs.into_inner().jobs.is_empty());
    farm.shutdown().await;
}
