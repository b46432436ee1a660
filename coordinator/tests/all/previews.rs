//! Views of stages' outputs: previews, thumbnails, sheets and links. Also one image with its
//! attempts, and the map of all images.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::support::{self, Act, DEADLINE, Farm, STAGES, failed, index, prompts, spec};
use bytes::Bytes;
use darkroom_artifacts::{
    ArtifactStore, open,
    picture::{self, Raster},
    tensor::FloatTensor,
};
use darkroom_core::{artifact::ArtifactRef, digest::Digest};
use darkroom_farm_api::Caller;
use darkroom_proto::{status::from_status, v1};
use darkroom_queue::task::{Outcome, Task, TaskBody};
use darkroom_test_servers::{http_get, s3::S3};
use futures::TryStreamExt as _;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

/// The outputs that a test's workers store: one per stage, the same for every image.
#[derive(Clone)]
struct Shelf {
    outputs: BTreeMap<&'static str, ArtifactRef>,
    tensors: BTreeMap<&'static str, FloatTensor>,
}

/// A picture with some content; a few values are outside −1…1.
fn tensor(edge: usize) -> FloatTensor {
    let value = |i: usize| (i * 7 % 1013) as f32 / 480.0 - 1.05;
    FloatTensor { shape: vec![3, edge, edge], data: (0..3 * edge * edge).map(value).collect() }
}

/// Where tasks stored this output.
async fn stored(artifacts: &ArtifactStore, output: &ArtifactRef) -> Vec<String> {
    let name = format!("/{}.", output.sha256);
    let listed: Vec<String> =
        artifacts.list("tasks/").map_ok(|listed| listed.key).try_collect().await.expect("lists");
    listed.into_iter().filter(|key| key.contains(&name) && *key != output.key).collect()
}

/// Deletes what tasks stored of this output. Returns the keys with their bytes.
async fn lose(artifacts: &ArtifactStore, output: &ArtifactRef) -> Vec<(String, Bytes)> {
    let mut gone = Vec::new();
    for key in stored(artifacts, output).await {
        let stored = ArtifactRef { key: key.clone(), ..output.clone() };
        gone.push((key.clone(), artifacts.get(&stored).await.expect("it is there")));
        artifacts.delete(&key).await.expect("deletes");
    }
    assert!(!gone.is_empty(), "{output:?} is stored");
    gone
}

async fn put_back(artifacts: &ArtifactStore, gone: Vec<(String, Bytes)>) {
    for (key, bytes) in gone {
        let (folder, file) = key.rsplit_once('/').expect("a folder");
        let (_, extension) = file.rsplit_once('.').expect("an extension");
        artifacts.put_content(&format!("{folder}/"), extension, bytes).await.expect("stores");
    }
}

impl Shelf {
    async fn new(artifacts: &ArtifactStore) -> Self {
        let (mut outputs, mut tensors) = (BTreeMap::new(), BTreeMap::new());
        for (stage, edge) in [("base", 64), ("sr256", 256), ("sr1024", 160)] {
            let tensor = tensor(edge);
            let (extension, bytes) = if stage == "sr1024" {
                let text = [("darkroom.prompt".to_owned(), "p".to_owned())];
                ("png", picture::encode(&tensor, &text).expect("a picture"))
            } else {
                ("safetensors", tensor.to_bytes(&BTreeMap::new()).expect("a file"))
            };
            let prefix = format!("tasks/{stage}/");
            let stored = artifacts.put_content(&prefix, extension, bytes.into()).await;
            outputs.insert(stage, stored.expect("stores"));
            tensors.insert(stage, tensor);
        }
        Self { outputs, tensors }
    }

    fn act(&self, task: &Task) -> Act {
        let TaskBody::Render(body) = &task.body else { return Act::Done };
        let artifact = self.outputs[body.settings.stage.as_str()].clone();
        Act::End(Outcome::Done { artifact, notes: Vec::new() })
    }

    fn behave(&self) -> impl Fn(&Task) -> Act + Send + Sync + 'static {
        let shelf = self.clone();
        move |task| shelf.act(task)
    }

    /// The pixels of a stage's output.
    fn pixels(&self, stage: &str) -> Raster {
        Raster::of(&self.tensors[stage]).expect("a picture")
    }
}

/// A farm, its object storage, and a job with this many images that have passed the base stage and
/// wait for the next.
async fn halfway(artifacts: ArtifactStore, images: usize) -> (Farm, Shelf, v1::Job) {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let shelf = Shelf::new(&artifacts).await;
    let mut farm = Farm::start_over(support::options(), folder, artifacts).await;
    let workers = farm.work_on(&["encode", "base"], "host", shelf.behave());
    let job = farm.submit(spec(), prompts(images)).await;
    let all = images as u64;
    let passed =
        |job: &v1::Job| job.stages.iter().any(|stage| stage.stage == "base" && stage.done == all);
    let job = farm.until(&job.id, "base passed", passed).await;
    workers.stop().await;
    (farm, shelf, job)
}

/// Runs the rest of a job.
async fn finish(farm: &mut Farm, shelf: &Shelf, job: &v1::Job) -> v1::Job {
    let workers = farm.work(shelf.behave());
    let job = farm.until_ended(&job.id).await;
    workers.stop().await;
    job
}

fn asked(job: &v1::Job, index: u64, stage: &str, max_edge: u32) -> v1::FetchImageRequest {
    let (job_id, stage) = (job.id.clone(), stage.to_owned());
    v1::FetchImageRequest { job_id, index, stage, max_edge, ..Default::default() }
}

async fn fetch(farm: &Farm, request: v1::FetchImageRequest) -> Result<Vec<u8>, Status> {
    let mut stream = farm.client.clone().fetch_image(request).await?.into_inner();
    let (mut bytes, mut told) = (Vec::new(), None);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        told.get_or_insert((chunk.total_bytes, chunk.sha256));
        bytes.extend(chunk.data);
    }
    assert_eq!(told, Some((bytes.len() as u64, Digest::of(&bytes).to_string())));
    Ok(bytes)
}

fn decoded(png: &[u8]) -> Raster {
    Raster::from(picture::decode(png).expect("a picture"))
}

async fn keys(farm: &Farm, prefix: &str) -> Vec<String> {
    let listed = farm.artifacts.list(prefix).map_ok(|listed| listed.key);
    listed.try_collect().await.expect("lists")
}

fn refused(name: &str, answer: Result<Vec<u8>, Status>, code: Code, reason: &str) -> String {
    let status = answer.expect_err(name);
    let error = from_status(&status);
    assert_eq!((status.code(), error.reason.as_str()), (code, reason), "{name}: {error}");
    error.message
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stage_made_is_there_as_soon_as_the_image_has_passed_it() {
    let (mut farm, shelf, job) = halfway(ArtifactStore::in_memory(), 2).await;
    let png = fetch(&farm, asked(&job, 1, "base", 0)).await.expect("a preview");
    assert_eq!(decoded(&png), shelf.pixels("base"), "the pixels that a final picture would have");
    let said = refused(
        "a stage to come",
        fetch(&farm, asked(&job, 1, "sr256", 0)).await,
        Code::FailedPrecondition,
        "STAGE_NOT_DONE",
    );
    assert!(
        said.contains("image 1 has not passed stage sr256: it is ready in stage sr256"),
        "{said}"
    );
    refused(
        "the final picture",
        fetch(&farm, asked(&job, 1, "", 64)).await,
        Code::FailedPrecondition,
        "IMAGE_NOT_DONE",
    );
    for (stage, edge, field, accepted) in [
        ("base64", 0, "stage", "base, sr256, sr1024"),
        ("encode", 0, "stage", "base, sr256, sr1024"),
        ("base", 100, "max_edge", "16, 32, 64, 128, 256, 512, or 0"),
    ] {
        let status = fetch(&farm, asked(&job, 1, stage, edge)).await.expect_err("refused");
        let error = from_status(&status);
        assert_eq!((status.code(), error.field.as_deref()), (Code::InvalidArgument, Some(field)));
        assert!(error.message.contains(accepted), "{error}");
    }
    let job = finish(&mut farm, &shelf, &job).await;
    let last = fetch(&farm, asked(&job, 1, "", 0)).await.expect("the picture");
    assert_eq!(fetch(&farm, asked(&job, 1, "sr1024", 0)).await.expect("the same"), last);
    assert_eq!(picture::read_text(&last).expect("text").len(), 1, "as it is stored");
    let sr256 = fetch(&farm, asked(&job, 0, "sr256", 0)).await.expect("a preview");
    assert_eq!(decoded(&sr256), shelf.pixels("sr256"));
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thumbnail_is_scaled_down_and_never_up_and_a_broken_stream_goes_on() {
    let (mut farm, shelf, job) = halfway(ArtifactStore::in_memory(), 1).await;
    let job = finish(&mut farm, &shelf, &job).await;
    for (stage, edge, expected) in
        [("base", 32, 32), ("base", 512, 64), ("sr256", 128, 128), ("", 64, 64), ("", 256, 160)]
    {
        let png = fetch(&farm, asked(&job, 0, stage, edge)).await.expect("a thumbnail");
        let made = decoded(&png);
        let name = if stage.is_empty() { "sr1024" } else { stage };
        assert_eq!((made.width, made.height), (expected, expected), "{stage} {edge}");
        assert_eq!(made, shelf.pixels(name).within(edge).expect("scaled"), "{stage} {edge}");
    }
    let whole = fetch(&farm, asked(&job, 0, "sr256", 0)).await.expect("a preview");
    let request = v1::FetchImageRequest { offset: 1000, ..asked(&job, 0, "sr256", 0) };
    let mut stream = farm.client.fetch_image(request).await.expect("goes on").into_inner();
    let mut rest = Vec::new();
    while let Some(chunk) = stream.next().await {
        rest.extend(chunk.expect("a chunk").data);
    }
    assert!(rest == whole[1000..]);
    let beyond = v1::FetchImageRequest { offset: 1 << 40, ..asked(&job, 0, "sr256", 0) };
    let status = farm.client.fetch_image(beyond).await.expect_err("refused");
    assert_eq!(from_status(&status).field.as_deref(), Some("offset"));
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_is_stored_once_however_many_ask_and_made_again_where_it_is_gone() {
    let (farm, shelf, job) = halfway(ArtifactStore::in_memory(), 1).await;
    let many = (0..24).map(|_| fetch(&farm, asked(&job, 0, "base", 32)));
    let pngs: Vec<_> = futures::future::try_join_all(many).await.expect("previews");
    assert!(pngs.iter().all(|png| *png == pngs[0]));
    let sources = stored(&farm.artifacts, &shelf.outputs["base"]).await;
    let [source] = &sources[..] else { panic!("one image has one output: {sources:?}") };
    let stored = keys(&farm, "previews/").await;
    let preview = Digest::of(&pngs[0]);
    let expected = format!("previews/3/{source}/32/{preview}.png");
    assert_eq!(stored, [expected]);
    // The stored preview is used, so the source is no longer needed.
    let gone = lose(&farm.artifacts, &shelf.outputs["base"]).await;
    assert!(fetch(&farm, asked(&job, 0, "base", 32)).await.expect("kept") == pngs[0]);
    farm.artifacts.delete(&stored[0]).await.expect("deletes");
    let said = refused(
        "both are gone",
        fetch(&farm, asked(&job, 0, "base", 32)).await,
        Code::NotFound,
        "PREVIEW_LOST",
    );
    assert!(said.starts_with("the output of stage base of image 0 is gone"), "{said}");
    put_back(&farm.artifacts, gone).await;
    let again = fetch(&farm, asked(&job, 0, "base", 32)).await.expect("made again");
    assert!(again == pngs[0] && keys(&farm, "previews/").await == stored);
    // Another process finds it.
    let folder = Arc::clone(&farm.folder);
    let artifacts = farm.artifacts.clone();
    farm.shutdown().await;
    lose(&artifacts, &shelf.outputs["base"]).await;
    let farm = Farm::start_over(support::options(), folder, artifacts).await;
    assert!(fetch(&farm, asked(&job, 0, "base", 32)).await.expect("found") == again);
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intermediate_that_a_policy_removes_leaves_its_small_preview() {
    let (mut farm, shelf, job) = halfway(ArtifactStore::in_memory(), 1).await;
    finish(&mut farm, &shelf, &job).await;
    let policy = v1::SetRetentionRequest {
        subject: v1::RetentionSubject::Intermediates.into(),
        outcome: v1::JobState::Done.into(),
        seconds: 13 * 3600,
        ..Default::default()
    };
    farm.handle.admin_calls().set_retention(&Caller::open(), policy).await.expect("sets it");
    farm.handle.clean(Duration::from_secs(14 * 3600)).await.expect("cleans");
    for stage in ["base", "sr256"] {
        assert_eq!(stored(&farm.artifacts, &shelf.outputs[stage]).await, [""; 0], "{stage}");
        let small = fetch(&farm, asked(&job, 0, stage, 64)).await.expect("kept");
        assert_eq!(decoded(&small).width, 64, "{stage}");
    }
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_of_a_lost_output_is_refused_and_fails_no_image() {
    let (mut farm, shelf, job) = halfway(ArtifactStore::in_memory(), 1).await;
    lose(&farm.artifacts, &shelf.outputs["base"]).await;
    for edge in [0, 64] {
        refused(
            "lost",
            fetch(&farm, asked(&job, 0, "base", edge)).await,
            Code::NotFound,
            "PREVIEW_LOST",
        );
    }
    let before = farm.images(&job.id).await;
    assert_eq!((before[0].state(), before[0].failures), (v1::ImageState::Ready, 0));
    let job = finish(&mut farm, &shelf, &job).await;
    assert_eq!((job.images_done, job.images_dead), (1, 0));
    lose(&farm.artifacts, &shelf.outputs["sr256"]).await;
    refused(
        "a stage whose output is gone",
        fetch(&farm, asked(&job, 0, "sr256", 0)).await,
        Code::NotFound,
        "PREVIEW_LOST",
    );
    assert_eq!(farm.get(&job.id).await.version, job.version, "looking changes nothing");
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_picture_has_no_preview() {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let mut farm = Farm::start_over(support::options(), folder, ArtifactStore::in_memory()).await;
    // These workers store a few bytes of text.
    let workers = farm.work(|_| Act::Done);
    let job = farm.submit(spec(), prompts(1)).await;
    let job = farm.until_ended(&job.id).await;
    workers.stop().await;
    for (stage, edge) in [("base", 0), ("base", 64), ("", 64)] {
        let answer = fetch(&farm, asked(&job, 0, stage, edge)).await;
        refused("text", answer, Code::NotFound, "PREVIEW_LOST");
    }
    assert_eq!(keys(&farm, "previews/").await, Vec::<String>::new());
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_has_a_link_where_storage_has_links() {
    let s3 = S3::start();
    let environment = s3.environment().into_iter().collect();
    let options = open::Options { environment, ..open::Options::default() };
    let store = ArtifactStore::open(&s3.url_under("pictures"), &options).expect("a store");
    let (mut farm, shelf, job) = halfway(store, 1).await;
    let request = v1::SignImageRequest {
        job_id: job.id.clone(),
        stage: "base".to_owned(),
        max_edge: 32,
        link_seconds: 60,
        ..Default::default()
    };
    let link = farm.client.sign_image(request.clone()).await.expect("signed").into_inner();
    let (status, bytes) = http_get(&link.url);
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&bytes));
    assert_eq!(decoded(&bytes), shelf.pixels("base").within(32).expect("scaled"));
    assert_eq!(
        (link.size_bytes, link.sha256),
        (bytes.len() as u64, Digest::of(&bytes).to_string())
    );
    // A link to a deleted output would be useless.
    for key in keys(&farm, "previews/").await {
        farm.artifacts.delete(&key).await.expect("deletes");
    }
    let link = farm.client.sign_image(request).await.expect("signed").into_inner();
    assert_eq!(http_get(&link.url).0, 200, "made again");
    farm.shutdown().await;

    let folder = tempfile::tempdir().expect("a folder");
    let store = ArtifactStore::local(folder.path()).expect("a store");
    let (mut farm, _, job) = halfway(store, 1).await;
    let request = v1::SignImageRequest {
        job_id: job.id.clone(),
        stage: "base".to_owned(),
        ..Default::default()
    };
    let status = farm.client.sign_image(request).await.expect_err("refused");
    assert_eq!(from_status(&status).reason, "STORAGE_HAS_NO_LINKS");
    assert_eq!(keys(&farm, "previews/").await, Vec::<String>::new(), "nothing is made in vain");
    farm.shutdown().await;
}

/// A sheet: its header, width, height and RGBA pixels.
async fn sheet(
    farm: &mut Farm,
    request: v1::FetchSheetRequest,
) -> Result<(v1::Sheet, image::RgbaImage), Status> {
    let mut stream = farm.client.fetch_sheet(request).await?.into_inner();
    let (mut png, mut told) = (Vec::new(), None);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        assert!(chunk.data.len() <= 64 << 10);
        if let Some(sheet) = chunk.sheet {
            assert!(told.is_none(), "once");
            told = Some((sheet, chunk.total_bytes, chunk.sha256));
        }
        png.extend(chunk.data);
    }
    let (sheet, total, sha256) = told.expect("what it shows");
    assert_eq!((total, sha256), (png.len() as u64, Digest::of(&png).to_string()));
    Ok((sheet, image::load_from_memory(&png).expect("a PNG").to_rgba8()))
}

/// The content of a tile: its pixels, or transparent.
fn tile(sheet: &v1::Sheet, pixels: &image::RgbaImage, position: u32) -> Option<Vec<u8>> {
    let edge = sheet.tile;
    let (left, top) = (position % sheet.columns * edge, position / sheet.columns * edge);
    let view = image::imageops::crop_imm(pixels, left, top, edge, edge).to_image();
    if view.pixels().all(|pixel| pixel[3] == 0) {
        return None;
    }
    assert!(view.pixels().all(|pixel| pixel[3] == 255));
    Some(view.pixels().flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sheet_shows_the_images_of_a_range_that_have_pictures() {
    use v1::SheetTile::{Empty, Filled};
    let (mut farm, shelf, job) = halfway(ArtifactStore::in_memory(), 5).await;
    let workers = farm.work(|_| failed());
    // A second job has none.
    let none = farm.submit(spec(), prompts(2)).await;
    farm.until(&none.id, "given up", |job| job.images_dead == 2).await;
    workers.stop().await;
    let request = |job: &v1::Job, first_index, count, tile| v1::FetchSheetRequest {
        job_id: job.id.clone(),
        first_index,
        count,
        tile,
        ..Default::default()
    };
    let (told, pixels) = sheet(&mut farm, request(&none, 0, 9, 16)).await.expect("a sheet");
    assert_eq!((told.tiles, told.columns, told.rows), (vec![i32::from(Empty); 2], 2, 1));
    assert!(pixels.pixels().all(|pixel| pixel[3] == 0), "a tile without a picture is transparent");
    let job = farm.get(&job.id).await;
    let (told, pixels) = sheet(&mut farm, request(&job, 1, 100, 64)).await.expect("a sheet");
    assert_eq!((told.first_index, told.tile, told.columns, told.rows), (1, 64, 2, 2));
    assert_eq!(pixels.dimensions(), (128, 128));
    assert!(told.version >= job.version);
    for position in 0..4 {
        assert_eq!(told.tiles[position as usize], i32::from(Filled));
        assert_eq!(tile(&told, &pixels, position), Some(shelf.pixels("base").rgb));
    }
    for (wrong, field) in [
        (request(&job, 5, 1, 64), "first_index"),
        (request(&job, 0, 0, 64), "count"),
        (request(&job, 0, 1, 15), "tile"),
        (v1::FetchSheetRequest { columns: 9, ..request(&job, 0, 1, 64) }, "columns"),
        (v1::FetchSheetRequest { stage: "x".to_owned(), ..request(&job, 0, 1, 64) }, "stage"),
    ] {
        let status = sheet(&mut farm, wrong).await.expect_err("refused");
        let error = from_status(&status);
        assert_eq!((status.code(), error.field.as_deref()), (Code::InvalidArgument, Some(field)));
    }
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sheet_takes_the_first_stage_that_is_as_large_as_a_tile() {
    let (mut farm, shelf, job) = halfway(ArtifactStore::in_memory(), 1).await;
    let request = |tile, stage: &str| v1::FetchSheetRequest {
        job_id: job.id.clone(),
        count: 1,
        tile,
        stage: stage.to_owned(),
        ..Default::default()
    };
    let of = |stage: &str, edge| shelf.pixels(stage).scaled(edge).expect("scaled").rgb;
    let (told, pixels) = sheet(&mut farm, request(128, "")).await.expect("a sheet");
    assert_eq!(tile(&told, &pixels, 0), Some(of("base", 128)), "there is no better one yet");
    let (told, _) = sheet(&mut farm, request(128, "sr256")).await.expect("a sheet");
    assert_eq!(told.tiles, [i32::from(v1::SheetTile::Empty)], "it has not passed this stage");
    finish(&mut farm, &shelf, &job).await;
    // Large outputs are reduced by way of a preview that is kept.
    let small = |stage: &str, preview, edge| {
        let preview = shelf.pixels(stage).within(preview).expect("scaled");
        preview.scaled(edge).expect("scaled").rgb
    };
    for (tile_edge, stage, expected) in [
        (64, "", of("base", 64)),
        (20, "", of("base", 20)),
        (128, "", small("sr256", 128, 128)),
        (100, "sr256", small("sr256", 128, 100)),
        (64, "sr1024", of("sr1024", 64)),
    ] {
        let (told, pixels) = sheet(&mut farm, request(tile_edge, stage)).await.expect("a sheet");
        assert!(tile(&told, &pixels, 0) == Some(expected), "{tile_edge} {stage}");
    }
    let previews = keys(&farm, "previews/").await;
    assert_eq!(previews.len(), 1, "no preview of a small output is kept: {previews:?}");
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sheet_that_changes_no_more_is_stored_and_what_is_lost_is_told() {
    use v1::SheetTile::{Filled, Lost};
    let (mut farm, shelf, job) = halfway(ArtifactStore::in_memory(), 3).await;
    let request = |tile| v1::FetchSheetRequest {
        job_id: job.id.clone(),
        count: 3,
        tile,
        ..Default::default()
    };
    let before = sheet(&mut farm, request(64)).await.expect("a sheet");
    assert_eq!(keys(&farm, "sheets/").await, Vec::<String>::new(), "it may change");
    finish(&mut farm, &shelf, &job).await;
    let made = sheet(&mut farm, request(64)).await.expect("a sheet");
    assert!(made.1 == before.1, "the same pictures");
    let stored = keys(&farm, "sheets/").await;
    assert_eq!(stored.len(), 1, "{stored:?}");
    let mut gone = Vec::new();
    for output in shelf.outputs.values() {
        gone.extend(lose(&farm.artifacts, output).await);
    }
    assert!(sheet(&mut farm, request(64)).await.expect("stored") == made);
    let (told, pixels) = sheet(&mut farm, request(32)).await.expect("a sheet");
    assert_eq!(told.tiles, vec![i32::from(Lost); 3]);
    assert!(pixels.pixels().all(|pixel| pixel[3] == 0));
    assert_eq!(keys(&farm, "sheets/").await, stored, "an incomplete sheet is not stored");
    put_back(&farm.artifacts, gone).await;
    let (told, _) = sheet(&mut farm, request(32)).await.expect("a sheet");
    assert_eq!(told.tiles, vec![i32::from(Filled); 3], "they are back");
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_tells_of_its_attempts() {
    let mut farm = Farm::start().await;
    let fails_twice = move |task: &Task| match (index(task), task.key.dispatch) {
        (Some(1), 1 | 2) => failed(),
        _ => Act::Done,
    };
    let workers = farm.work(fails_twice);
    let job = farm.submit(spec(), prompts(2)).await;
    let job = farm.until_ended(&job.id).await;
    workers.stop().await;
    let request = |index| v1::GetImageRequest { job_id: job.id.clone(), index };
    let told = farm.client.get_image(request(1)).await.expect("an image").into_inner();
    let image = told.image.expect("an image");
    assert_eq!(image, farm.images(&job.id).await[1], "as it is listed");
    let attempts: Vec<_> =
        told.attempts.iter().map(|one| (one.stage.as_str(), one.outcome())).collect();
    let (failed, done) = (v1::AttemptOutcome::Failed, v1::AttemptOutcome::Done);
    let mut expected = vec![("base", failed), ("base", failed)];
    expected.extend(STAGES.map(|stage| (stage, done)));
    assert_eq!(attempts, expected);
    let first = &told.attempts[0];
    assert_eq!((first.reason.as_str(), first.place.as_str()), ("non_finite", "host"));
    assert!(first.worker.starts_with("host") && first.ended_at.is_some(), "{first:?}");
    let told = farm.client.get_image(request(0)).await.expect("an image").into_inner();
    assert!(told.attempts.iter().all(|one| one.outcome() == done && one.seconds > 0.0));
    let status = farm.client.get_image(request(2)).await.expect_err("there is none");
    assert_eq!(status.code(), Code::NotFound);
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_is_whole_at_first_and_then_tells_of_changes() {
    let (mut farm, shelf, job) = halfway(ArtifactStore::in_memory(), 6).await;
    let request = |first_index, since_version| v1::GetImageMapRequest {
        job_id: job.id.clone(),
        first_index,
        since_version,
    };
    let map = farm.client.get_image_map(request(0, 0)).await.expect("a map").into_inner();
    assert_eq!(map.stages, STAGES);
    assert!(map.whole && map.next_index == 0 && map.skips.is_empty() && map.images == 6);
    assert_eq!((&map.codes[..], &map.lengths[..]), (&[2 + 8][..], &[6][..]), "ready for sr256");
    let changes = request(0, map.version);
    let none = farm.client.get_image_map(changes.clone()).await.expect("none").into_inner();
    assert_eq!((none.whole, none.codes.len(), none.version), (false, 0, map.version));
    let ended = finish(&mut farm, &shelf, &job).await;
    let told = farm.client.get_image_map(changes).await.expect("changes").into_inner();
    assert_eq!((&told.codes[..], &told.lengths[..], told.whole), (&[4][..], &[6][..], false));
    assert!(told.version >= ended.version - 1, "{} {}", told.version, ended.version);
    // A map from within the last second may be used again.
    let give_up = std::time::Instant::now() + DEADLINE;
    let rest = loop {
        let rest = farm.client.get_image_map(request(4, 0)).await.expect("a part").into_inner();
        if rest.version >= told.version {
            break rest;
        }
        assert!(std::time::Instant::now() < give_up, "{rest:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((rest.first_index, &rest.lengths[..]), (4, &[2][..]));
    for (wrong, field) in [(request(7, 0), "first_index"), (request(0, u64::MAX), "since_version")]
    {
        let status = farm.client.get_image_map(wrong).await.expect_err("refused");
        assert_eq!(from_status(&status).field.as_deref(), Some(field));
    }
    farm.shutdown().await;
}
