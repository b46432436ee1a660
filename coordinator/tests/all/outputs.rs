//! Jobs with other output formats: their tasks, the answers about their pictures, and the work that
//! they share.

use std::{collections::BTreeSet, sync::Arc};

use crate::support::{Act, Farm, prompt, spec};
use darkroom_artifacts::{ArtifactStore, manifest};
use darkroom_coordinator::store::postgres::{Options, PostgresStore};
use darkroom_core::output::Output;
use darkroom_proto::{status::from_status, v1};
use darkroom_queue::task::{RenderBody, Task, TaskBody};
use darkroom_test_servers::postgres::Postgres;

fn stored(output: v1::Output) -> v1::JobSpec {
    let settings = v1::Settings { output: Some(output), ..v1::Settings::default() };
    v1::JobSpec { settings: Some(settings), ..spec() }
}

fn jpeg(quality: u32) -> v1::Output {
    let format = v1::PictureFormat::Jpeg.into();
    v1::Output { format, quality: Some(quality), compression_level: None }
}

fn of_format(format: v1::PictureFormat) -> v1::Output {
    v1::Output { format: format.into(), ..v1::Output::default() }
}

fn render(task: &Task) -> Option<&RenderBody> {
    match &task.body {
        TaskBody::Encode(_) => None,
        TaskBody::Render(body) => Some(body),
    }
}

async fn a_job_stores_its_pictures_as_it_was_asked_to(mut farm: Farm) {
    let workers = farm.work(|_| Act::Done);
    let mut prefixes = Vec::new();
    let mut last = BTreeSet::new();
    let outputs = [
        (None, v1::PictureFormat::Png, ".png", ""),
        (Some(of_format(v1::PictureFormat::Png)), v1::PictureFormat::Png, ".png", ""),
        (
            Some(jpeg(80)),
            v1::PictureFormat::Jpeg,
            ".jpg",
            r#""output":{"format":"jpeg","quality":80}"#,
        ),
        (
            Some(of_format(v1::PictureFormat::Webp)),
            v1::PictureFormat::Webp,
            ".webp",
            r#""output":{"format":"webp"}"#,
        ),
    ];
    for (output, format, extension, recipe) in outputs {
        let before = workers.ran().len();
        let spec = output.map_or_else(spec, stored);
        let job = farm.submit(spec, vec![prompt("a cat")]).await;
        let told = job.effective_settings.as_ref().and_then(|settings| settings.output);
        assert_eq!(told.map(|output| output.format()), Some(format), "told at once");
        let job = farm.until_ended(&job.id).await;
        assert_eq!(job.state(), v1::JobState::Done);
        let image = farm.images(&job.id).await.remove(0);
        assert_eq!(image.format(), format);
        assert!(image.key.ends_with(extension), "{}", image.key);

        let request = v1::FetchImageRequest { job_id: job.id.clone(), ..Default::default() };
        let mut chunks = farm.client.fetch_image(request).await.expect("fetched").into_inner();
        let chunk = chunks.message().await.expect("whole").expect("one at least");
        assert_eq!(chunk.format(), format);

        let ran = workers.ran();
        let rendered: Vec<&RenderBody> = ran[before..].iter().filter_map(render).collect();
        assert_eq!(rendered.len(), 3, "one for each stage");
        let (early, [end]) = rendered.split_at(2) else { panic!("three stages") };
        assert!(early.iter().all(|body| body.output == Output::default()), "{early:?}");
        assert_eq!(end.output.format().extension(), &extension[1..]);
        let text = end.picture.as_ref().expect("a recipe");
        let settings = text.iter().find(|(keyword, _)| keyword == "darkroom.settings");
        let settings = &settings.expect("there").1;
        assert!(
            settings.contains(recipe) && settings.contains("output") != recipe.is_empty(),
            "{settings}"
        );
        prefixes.push(early.iter().map(|body| body.prefix.clone()).collect::<Vec<_>>());
        last.insert(end.prefix.clone());
    }
    prefixes.dedup();
    assert_eq!(prefixes.len(), 1, "the stages before the last are shared by all");
    assert_eq!(last.len(), 3, "a plain PNG is a plain PNG, asked for or not");
    farm.shutdown().await;
}

async fn manifest_of(farm: &mut Farm, job: &str) -> (manifest::Header, Vec<manifest::ImageLine>) {
    let bytes = farm.manifest_bytes(job).await;
    let mut lines = Vec::new();
    let (header, _) = manifest::verify(bytes.as_slice(), |line| lines.push(line)).expect("whole");
    (header, lines)
}

async fn prompts_of_one_job_store_their_pictures_in_formats_of_their_own(mut farm: Farm) {
    let workers = farm.work(|_| Act::Done);
    let of = |output: Option<v1::Output>| v1::Prompt {
        seed: Some(7),
        settings: output.map(|output| v1::Settings { output: Some(output), ..Default::default() }),
        ..prompt("a cat")
    };
    let level = v1::Output { compression_level: Some(9), ..of_format(v1::PictureFormat::Png) };
    let outputs =
        [None, Some(jpeg(80)), Some(of_format(v1::PictureFormat::Webp)), Some(level), None];
    let job = farm.submit(spec(), outputs.map(of).into()).await;
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.state(), job.images_done), (v1::JobState::Done, 5));
    let told = job.effective_settings.as_ref().and_then(|settings| settings.output);
    assert_eq!(told.map(|output| output.format()), Some(v1::PictureFormat::Png), "the job's");

    let images = farm.images(&job.id).await;
    let (header, lines) = manifest_of(&mut farm, &job.id).await;
    assert!(!header.settings.to_string().contains("output"), "{}", header.settings);
    assert_eq!((images.len(), lines.len()), (5, 5));
    let expected = [
        (v1::PictureFormat::Png, ".png"),
        (v1::PictureFormat::Jpeg, ".jpg"),
        (v1::PictureFormat::Webp, ".webp"),
        (v1::PictureFormat::Png, ".png"),
        (v1::PictureFormat::Png, ".png"),
    ];
    for (((image, line), output), (format, extension)) in
        images.iter().zip(&lines).zip(&outputs).zip(expected)
    {
        let index = image.index;
        assert_eq!(image.format(), format, "image {index}");
        assert!(image.key.ends_with(extension), "image {index}: {}", image.key);
        let own = image.settings.as_ref().and_then(|settings| settings.output);
        assert_eq!(own, *output, "image {index}");

        assert_eq!((line.index, line.key.as_ref()), (index, Some(&image.key)));
        assert_eq!(line.sha256.map(|sha256| sha256.to_string()), Some(image.sha256.clone()));
        let output = line.settings.as_ref().map(|settings| &settings["output"]);
        let expected = match index {
            1 => Some(serde_json::json!({"format": "jpeg", "quality": 80})),
            2 => Some(serde_json::json!({"format": "webp"})),
            3 => Some(serde_json::json!({"format": "png", "compression_level": 9})),
            _ => None,
        };
        assert_eq!(output, expected.as_ref(), "image {index}");

        let request = v1::FetchImageRequest { job_id: job.id.clone(), index, ..Default::default() };
        let mut chunks = farm.client.fetch_image(request).await.expect("fetched").into_inner();
        let chunk = chunks.message().await.expect("whole").expect("one at least");
        assert_eq!((chunk.format(), &chunk.sha256), (format, &image.sha256), "image {index}");
    }
    let folder = |image: &v1::Image| image.key.rsplit_once('/').expect("a folder").0.to_owned();
    let folders: Vec<_> = images.iter().map(folder).collect();
    assert_eq!(folders[0], folders[4], "what is equal is shared");
    let distinct: BTreeSet<_> = folders.iter().collect();
    assert_eq!(distinct.len(), 4, "each format is a task of its own: {folders:?}");
    let ran = workers.stop().await;
    let early = ran.iter().filter_map(render).filter(|body| body.picture.is_none());
    let early: BTreeSet<_> = early.map(|body| body.prefix.clone()).collect();
    assert_eq!(early.len(), 2, "the stages before the last are shared by all formats");
    farm.shutdown().await;
}

async fn farm_on(server: &Postgres) -> Farm {
    let url = server.create_database();
    let options = Options { connections: 8, ..Options::default() };
    let store = PostgresStore::connect(&url, options).await.expect("opens");
    Farm::join(Arc::new(store), &Arc::default(), &ArtifactStore::in_memory()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    a_job_stores_its_pictures_as_it_was_asked_to(Farm::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres() {
    let server = Postgres::shared();
    a_job_stores_its_pictures_as_it_was_asked_to(farm_on(&server).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_store_in_formats_of_their_own_on_sqlite() {
    prompts_of_one_job_store_their_pictures_in_formats_of_their_own(Farm::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_store_in_formats_of_their_own_on_postgres() {
    let server = Postgres::shared();
    let farm = farm_on(&server).await;
    prompts_of_one_job_store_their_pictures_in_formats_of_their_own(farm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_cannot_be_is_refused_by_its_field() {
    let mut farm = Farm::start().await;
    let level = |format: v1::PictureFormat, level: u32| v1::Output {
        compression_level: Some(level),
        ..of_format(format)
    };
    for (output, message) in [
        (jpeg(0), "spec.settings.output.quality is 0; accepted: 1 to 100"),
        (
            level(v1::PictureFormat::Png, 10),
            "spec.settings.output.compression_level is 10; accepted: 0 to 9",
        ),
        (
            v1::Output { quality: Some(80), ..of_format(v1::PictureFormat::Webp) },
            "spec.settings.output.quality is 80, but the format is webp; accepted: no quality, since WebPs are stored \
             lossless",
        ),
        (
            v1::Output { format: 9, ..v1::Output::default() },
            "spec.settings.output.format is \"9\"; accepted: png, jpeg or webp",
        ),
    ] {
        let request =
            v1::SubmitJobRequest { spec: Some(stored(output)), prompts: vec![prompt("a cat")] };
        let error = from_status(&farm.client.submit_job(request).await.expect_err(message));
        assert_eq!(error.message, message);
        assert_eq!(error.field.as_deref(), message.split(' ').next());
    }
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipe_without_room_in_its_format_is_refused_when_it_is_submitted() {
    let mut farm = Farm::start().await;
    let text = "\u{1F642}".repeat(4096);
    let long = v1::Prompt { negative: text.clone(), style: text.clone(), ..prompt(&text) };
    // With this many timesteps, the settings use the remaining room.
    let stages = [("base", 1000), ("sr256", 900), ("sr1024", 1000)];
    let stages = stages.map(|(stage, timesteps)| v1::StageSettings {
        stage: stage.to_owned(),
        sampler: Some("ddpm".to_owned()),
        timesteps: (0..timesteps).rev().collect(),
        ..v1::StageSettings::default()
    });
    let request = |output: Option<v1::Output>, prompts: Vec<v1::Prompt>| {
        let mut spec = output.map_or_else(spec, stored);
        let settings = spec.settings.get_or_insert_default();
        settings.stages = stages.to_vec();
        v1::SubmitJobRequest { spec: Some(spec), prompts }
    };
    for output in [jpeg(90), of_format(v1::PictureFormat::Webp)] {
        let refused = request(Some(output), vec![prompt("a cat"), long.clone()]);
        let error = from_status(&farm.client.submit_job(refused).await.expect_err("too long"));
        assert_eq!(error.field.as_deref(), Some("prompts[1].text"));
        assert!(error.message.contains("has room for 59000; accepted: shorter texts"), "{error}");
        let short = request(Some(output), vec![prompt("a cat")]);
        farm.client.submit_job(short).await.expect("it has room");
    }
    let png = request(None, vec![prompt("a cat"), long]);
    farm.client.submit_job(png).await.expect("a PNG has room");
    farm.shutdown().await;
}
