//! Pictures to start from: sent, named by prompts, checked before anything is queued, and handed to
//! the stages.

use std::time::{Duration, Instant};

use crate::support::{Act, Farm, STAGES, options, prompt, spec};
use darkroom_artifacts::picture::encode_rgb;
use darkroom_coordinator::Options;
use darkroom_core::{digest::Digest, job_state::JobState};
use darkroom_proto::{status::from_status, v1};
use darkroom_queue::task::{RenderBody, Task, TaskBody};
use tokio_stream::StreamExt as _;
use tonic::Code;

const SQUARE: (u32, u32) = (1024, 1024);

fn png(extent: (u32, u32), pixel: [u8; 3]) -> Vec<u8> {
    let rgb = pixel.repeat((extent.0 * extent.1) as usize);
    encode_rgb(extent.0, extent.1, &rgb, &[]).expect("a picture")
}

fn chunks(bytes: &[u8], length: usize) -> Vec<v1::UploadInputChunk> {
    bytes.chunks(length).map(|part| v1::UploadInputChunk { data: part.to_vec() }).collect()
}

async fn send(farm: &mut Farm, bytes: &[u8]) -> Result<v1::UploadInputResponse, tonic::Status> {
    let sent = farm.client.upload_input(tokio_stream::iter(chunks(bytes, 1000))).await;
    sent.map(tonic::Response::into_inner)
}

/// Uploads a picture of one colour, and returns its hash.
async fn sent(farm: &mut Farm, extent: (u32, u32), pixel: [u8; 3]) -> String {
    send(farm, &png(extent, pixel)).await.expect("stored").sha256
}

async fn sent_bytes(farm: &mut Farm, bytes: &[u8]) -> String {
    send(farm, bytes).await.expect("stored").sha256
}

/// The header of a JPEG with more pixels than fit into memory.
const VAST: &[u8] = b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x11\0\x02\x11\0\x03\x11\0";

/// No mask.
fn two_colours() -> Vec<u8> {
    let (width, height) = SQUARE;
    let pixel = |at: u32| if at.is_multiple_of(2) { [255, 0, 0] } else { [0, 0, 255] };
    encode_rgb(width, height, &(0..width * height).flat_map(pixel).collect::<Vec<_>>(), &[])
        .expect("a picture")
}

/// Four uploads that send a byte now and then hold no turn, and are given up.
#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_trickle_delay_nobody_and_end() {
    let idle = Duration::from_secs(5);
    let mut farm = Farm::start_with(Options { upload_idle: idle, ..options() }).await;
    let begun = Instant::now();
    let trickling: Vec<_> = (0..4)
        .map(|_| {
            let mut client = farm.client.clone();
            tokio::spawn(async move {
                let byte = || v1::UploadInputChunk { data: vec![0] };
                let ticks = tokio::time::interval(Duration::from_millis(100));
                let bytes = tokio_stream::wrappers::IntervalStream::new(ticks);
                client.upload_input(bytes.map(move |_| byte())).await
            })
        })
        .collect();
    // Some bytes of each have arrived.
    tokio::time::sleep(Duration::from_millis(500)).await;
    sent(&mut farm, (96, 32), [1, 2, 3]).await;
    assert!(trickling.iter().all(|upload| !upload.is_finished()), "{:?}", begun.elapsed());
    for upload in trickling {
        let status = upload.await.expect("no panic").expect_err("it never ends by itself");
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert_eq!(from_status(&status).reason, "UPLOAD_STALLED", "{status}");
    }
    farm.shutdown().await;
}

fn settings(start: v1::Start) -> v1::Settings {
    let mut settings = v1::Settings::default();
    settings.set_start(start);
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_stored_once_under_the_hash_of_its_bytes() {
    let mut farm = Farm::start().await;
    let bytes = png((96, 32), [9, 80, 200]);
    let first = send(&mut farm, &bytes).await.expect("stored");
    assert_eq!(first.sha256, Digest::of(&bytes).to_string());
    assert_eq!(
        (first.width, first.height, first.is_mask),
        (96, 32, true),
        "one colour, as of strokes"
    );
    assert_eq!(first.size_bytes, bytes.len() as u64);
    assert_eq!(
        (&first.canonical_sha256, first.orientation),
        (&first.sha256, 1),
        "it is already canonical"
    );
    assert_eq!(farm.artifacts.size_of(&first.key).await.expect("lies there"), first.size_bytes);
    assert_eq!(send(&mut farm, &bytes).await.expect("stored again"), first);
    // A lost picture is stored again by another upload.
    farm.artifacts.delete(&first.key).await.expect("deleted");
    assert_eq!(send(&mut farm, &bytes).await.expect("stored again"), first);
    assert_eq!(farm.artifacts.size_of(&first.key).await.expect("lies there"), first.size_bytes);
    assert!(send(&mut farm, &png((8, 8), [255; 3])).await.expect("stored").is_mask);

    let long = tokio_stream::iter(chunks(&vec![0; 70_000], 70_000));
    for (what, status) in [
        ("70000 bytes", farm.client.upload_input(long).await.expect_err("a long chunk")),
        ("is a GIF", send(&mut farm, b"GIF89a").await.expect_err("no PNG")),
        ("damaged", send(&mut farm, &bytes[..bytes.len() / 2]).await.expect_err("half")),
        ("is empty", send(&mut farm, b"").await.expect_err("nothing")),
        ("has 65535x65535 pixels", send(&mut farm, VAST).await.expect_err("vast")),
    ] {
        let error = from_status(&status);
        assert_eq!(
            (status.code(), error.field.as_deref()),
            (Code::InvalidArgument, Some("data")),
            "{error}"
        );
        assert!(error.message.contains(what) && error.message.contains("accepted:"), "{error}");
    }
    farm.shutdown().await;
}

/// A change that makes a valid submit of a masked job invalid.
type Spoil = fn(&mut v1::Settings, &mut v1::Prompt, &Sent);

/// The uploaded pictures.
struct Sent {
    small: String,
    wide: String,
    colour: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_cannot_start_from_is_refused_by_field_before_anything_is_queued() {
    let mut farm = Farm::start().await;
    let image = sent(&mut farm, SQUARE, [9, 80, 200]).await;
    let mask = sent(&mut farm, SQUARE, [255; 3]).await;
    let others = Sent {
        small: sent(&mut farm, (512, 512), [255; 3]).await,
        wide: sent(&mut farm, (2048, 1024), [9, 80, 200]).await,
        colour: sent_bytes(&mut farm, &two_colours()).await,
    };
    let cases: Vec<(&str, Code, &str, Spoil)> = vec![
        (
            "prompts[0].image",
            Code::InvalidArgument,
            "the picture that the mask belongs to",
            |_, p, _| {
                p.image.clear();
            },
        ),
        ("prompts[0].mask", Code::InvalidArgument, "SHA-256", |_, p, _| p.mask.clear()),
        ("prompts[0].image", Code::InvalidArgument, "64 hexadecimal", |_, p, _| {
            p.image = "cat.png".to_owned()
        }),
        ("prompts[0].image", Code::NotFound, "does not have", |_, p, _| p.image = "00".repeat(32)),
        ("prompts[0].mask", Code::NotFound, "does not have", |_, p, _| p.mask = "00".repeat(32)),
        (
            "prompts[0].image",
            Code::InvalidArgument,
            "2048x1024 pixels, and settings.fit is exact",
            |s, p, sent| {
                s.set_fit(v1::Fit::Exact);
                p.image.clone_from(&sent.wide);
            },
        ),
        ("spec.settings.fit", Code::InvalidArgument, "crop, pad, stretch, exact", |s, _, _| {
            s.fit = 9
        }),
        ("spec.settings.fit", Code::InvalidArgument, "starts from noise", |s, p, _| {
            s.set_start(v1::Start::Noise);
            s.set_fit(v1::Fit::Pad);
            (p.image, p.mask) = Default::default();
        }),
        ("prompts[0].mask", Code::InvalidArgument, "as many as its picture", |_, p, sent| {
            p.mask.clone_from(&sent.small);
        }),
        (
            "prompts[0].mask",
            Code::InvalidArgument,
            "strokes in white or one colour",
            |_, p, sent| p.mask.clone_from(&sent.colour),
        ),
        ("prompts[0].image", Code::InvalidArgument, "starts from noise", |s, _, _| {
            s.set_start(v1::Start::Noise)
        }),
        ("prompts[0].mask", Code::InvalidArgument, "starts from picture", |s, _, _| {
            s.set_start(v1::Start::Picture)
        }),
        ("spec.settings.start", Code::InvalidArgument, "masked", |s, _, _| s.start = 9),
        ("spec.settings.start_stage", Code::InvalidArgument, "one of the two", |s, _, _| {
            s.start_stage = "sr256".to_owned();
        }),
        ("spec.settings.height", Code::InvalidArgument, "multiples of", |s, _, _| s.height = 1000),
        ("spec.settings.width", Code::InvalidArgument, "quarter", |s, _, _| {
            (s.width, s.height) = (9000, 1024)
        }),
        (
            "prompts[0].style",
            Code::InvalidArgument,
            "super-resolution stages, and none runs",
            |s, p, _| {
                s.size = 64;
                p.style = "ink".to_owned();
            },
        ),
        ("spec.settings.stages[0].strength", Code::InvalidArgument, "above 0", |s, _, _| {
            strength(s, 0.0)
        }),
        ("spec.settings.stages[0].strength", Code::InvalidArgument, "above 0", |s, _, _| {
            strength(s, f64::NAN)
        }),
        ("spec.settings.stages.strength", Code::InvalidArgument, "0.25 to 1", |s, _, _| {
            strength(s, 0.2)
        }),
        ("spec.settings.stages[0].strength", Code::InvalidArgument, "no picture", |s, p, _| {
            strength(s, 0.5);
            s.set_start(v1::Start::Noise);
            (p.image, p.mask) = Default::default();
        }),
    ];
    let good = v1::Prompt { image, mask, ..prompt("a cat") };
    for (field, code, says, spoil) in cases {
        let (mut settings, mut prompt) = (settings(v1::Start::Masked), good.clone());
        spoil(&mut settings, &mut prompt, &others);
        let spec = v1::JobSpec { settings: Some(settings), ..spec() };
        let request = v1::SubmitJobRequest { spec: Some(spec), prompts: vec![prompt] };
        let status = farm.client.submit_job(request).await.expect_err(says);
        let error = from_status(&status);
        assert_eq!((status.code(), error.field.as_deref()), (code, Some(field)), "{status:?}");
        assert!(
            error.message.contains(says) && error.message.contains("accepted:"),
            "{says:?}: {error}"
        );
        assert!(!error.message.contains('\n'), "one sentence: {error}");
    }
    for state in [JobState::Receiving, JobState::Active] {
        assert_eq!(
            farm.store.count(state).await.expect("counts"),
            0,
            "nothing is kept of a refused submit"
        );
    }
    farm.submit(v1::JobSpec { settings: Some(settings(v1::Start::Masked)), ..spec() }, vec![good])
        .await;
    farm.shutdown().await;
}

fn strength(settings: &mut v1::Settings, strength: f64) {
    settings.stages.push(v1::StageSettings {
        stage: "base".to_owned(),
        strength: Some(strength),
        ..v1::StageSettings::default()
    });
}

fn rendered(ran: &[Task]) -> Vec<&RenderBody> {
    let body = |task| match task {
        &Task { body: TaskBody::Render(ref body), .. } => Some(&**body),
        _ => None,
    };
    ran.iter().filter_map(body).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn picture_mask_and_style_reach_the_stages_they_are_for() {
    let mut farm = Farm::start().await;
    let image = sent(&mut farm, (2048, 1024), [9, 80, 200]).await;
    let mask = sent(&mut farm, (2048, 1024), [255; 3]).await;
    let mut settings = settings(v1::Start::Masked);
    (settings.width, settings.height) = (1024, 512);
    let spec = v1::JobSpec { settings: Some(settings), ..spec() };
    let brings = v1::Prompt {
        image: image.clone(),
        mask: mask.clone(),
        style: "Ink".to_owned(),
        ..prompt("a cat")
    };
    let job = farm.submit(spec, vec![brings]).await;
    assert_eq!(job.stages[0].total, 3, "the prompt, the empty text, the style");
    let workers = farm.work(|_| Act::Done);
    farm.until_ended(&job.id).await;
    let ran = workers.stop().await;
    let bodies = rendered(&ran);
    let stages: Vec<&str> = bodies.iter().map(|body| body.settings.stage.as_str()).collect();
    assert_eq!(stages, STAGES);
    let extents: Vec<String> =
        bodies.iter().map(|body| body.settings.extent().to_string()).collect();
    assert_eq!(extents, ["64x32", "256x128", "1024x512"]);
    let strengths: Vec<_> = bodies.iter().map(|body| body.settings.sampling.strength).collect();
    assert_eq!(strengths, [Some(1.0), Some(0.8), Some(0.8)]);
    let hash = |input: &Option<darkroom_core::artifact::ArtifactRef>| {
        input.as_ref().map(|input| input.sha256.to_string())
    };
    for body in &bodies {
        assert_eq!(
            (hash(&body.image), hash(&body.mask)),
            (Some(image.clone()), Some(mask.clone()))
        );
    }
    assert_ne!(bodies[0].text, bodies[1].text, "the style is for super-resolution");
    assert_eq!(bodies[1].text, bodies[2].text);
    let text = bodies[2].picture.as_ref().expect("the last stage makes the picture");
    let told = |keyword: &str| {
        text.iter().find(|(name, _)| name == keyword).map(|(_, text)| text.as_str())
    };
    assert_eq!(told("darkroom.image_sha256"), Some(image.as_str()));
    assert_eq!(told("darkroom.mask_sha256"), Some(mask.as_str()));
    assert_eq!(told("darkroom.style"), Some("Ink"));
    let row = farm.images(&job.id).await.remove(0);
    assert_eq!((row.image, row.mask, row.style.as_str()), (image.clone(), mask, "Ink"));
    let mut manifest = farm
        .client
        .fetch_manifest(v1::FetchManifestRequest { job_id: job.id.clone(), offset: 0 })
        .await
        .expect("a manifest")
        .into_inner();
    let manifest = manifest.message().await.expect("read").expect("a chunk").data;
    let manifest = String::from_utf8(manifest).expect("text");
    assert!(manifest.contains(&format!("\"image\":\"{image}\"")), "{manifest}");
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_super_resolution_begins_with_the_picture_and_another_picture_is_another_task() {
    let mut farm = Farm::start().await;
    let mut prompts = Vec::new();
    for colour in [[9, 80, 200], [200, 80, 9], [9, 80, 200]] {
        let image = sent(&mut farm, (256, 384), colour).await;
        prompts.push(v1::Prompt { image, seed: Some(1), ..prompt("a cat") });
    }
    let settings =
        v1::Settings { height: 1536, start_stage: "sr1024".to_owned(), ..v1::Settings::default() };
    let job =
        farm.submit(v1::JobSpec { settings: Some(settings), ..spec() }, prompts.clone()).await;
    let told = job.effective_settings.clone().expect("settings");
    assert_eq!((told.start(), told.start_stage.as_str()), (v1::Start::LowRes, "sr1024"));
    assert_eq!((told.width, told.height), (1024, 1536));
    let workers = farm.work(|_| Act::Done);
    let job = farm.until_ended(&job.id).await;
    assert_eq!((job.images_done, job.stages.len()), (3, 2), "encode and sr1024");
    let ran = workers.stop().await;
    let bodies = rendered(&ran);
    assert!(
        bodies
            .iter()
            .all(|body| body.low_res.is_none() && body.image.is_some() && body.mask.is_none())
    );
    let prefix = |index: usize| {
        let name = &prompts[index].image;
        let mut of = bodies
            .iter()
            .filter(|body| body.image.as_ref().is_some_and(|i| i.sha256.to_string() == *name));
        of.next().expect("ran").prefix.clone()
    };
    assert_eq!(prefix(0), prefix(2), "equal inputs, equal work");
    assert_ne!(prefix(0), prefix(1));
    let mut square = v1::Settings { start_stage: "sr1024".to_owned(), ..v1::Settings::default() };
    square.set_fit(v1::Fit::Exact);
    let spec = v1::JobSpec { settings: Some(square), ..spec() };
    let request = v1::SubmitJobRequest { spec: Some(spec), prompts };
    let status = farm.client.submit_job(request).await.expect_err("256x384 is not 256x256");
    assert!(
        status.message().contains(
            "settings.fit is exact; accepted: 256x256, the size of the preceding stage's output"
        ),
        "{status:?}"
    );
    farm.shutdown().await;
}

/// A JPEG as a phone writes it: turned by EXIF.
fn photo(width: u32, height: u32) -> Vec<u8> {
    let rgb: Vec<u8> =
        (0..width * height).flat_map(|at| [(at % width) as u8, (at / width) as u8, 90]).collect();
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new(&mut bytes);
    let written = image::ImageEncoder::write_image(
        encoder,
        &rgb,
        width,
        height,
        image::ExtendedColorType::Rgb8,
    );
    written.expect("a JPEG");
    let exif =
        b"\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    [&bytes[..2], exif, &bytes[2..]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_is_decoded_once_and_prompts_may_name_it_by_either_hash() {
    let mut farm = Farm::start().await;
    let bytes = photo(400, 300);
    let first = send(&mut farm, &bytes).await.expect("stored");
    assert_eq!(first.sha256, Digest::of(&bytes).to_string());
    assert_ne!(first.canonical_sha256, first.sha256);
    assert_eq!((first.width, first.height, first.orientation), (300, 400, 6));
    assert_eq!(first.notes, ["is turned as its EXIF orientation 6 says: 400x300 becomes 300x400"]);
    assert!(first.key.contains(&first.canonical_sha256) && !first.is_mask);
    let stored = farm.artifacts.size_of(&first.key).await.expect("lies there");
    assert_eq!(stored, first.size_bytes);
    assert_eq!(send(&mut farm, &bytes).await.expect("again"), first);

    let settings = settings(v1::Start::Picture);
    let spec = v1::JobSpec { settings: Some(settings), ..spec() };
    let prompts = [&first.sha256, &first.canonical_sha256].map(|image| v1::Prompt {
        image: image.clone(),
        seed: Some(1),
        ..prompt("a cat")
    });
    let job = farm.submit(spec, prompts.to_vec()).await;
    for row in farm.images(&job.id).await {
        assert_eq!(row.image, first.canonical_sha256, "listings tell what is stored");
    }
    let workers = farm.work(|_| Act::Done);
    farm.until_ended(&job.id).await;
    let ran = workers.stop().await;
    let bodies = rendered(&ran);
    for body in &bodies {
        let fitting = body.fit.expect("a fit");
        assert_eq!(
            (fitting.fit, fitting.extent),
            (darkroom_core::fit::Fit::Crop, body.settings.extent())
        );
        assert_eq!(
            body.image.as_ref().map(|image| image.sha256.to_string()),
            Some(first.canonical_sha256.clone())
        );
    }
    let prefixes: std::collections::BTreeSet<&str> =
        bodies.iter().map(|body| body.prefix.as_str()).collect();
    assert_eq!(prefixes.len(), STAGES.len(), "either hash is the same work");
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_first_decoder_made_of_a_file_stays_and_an_older_row_is_brought_up_to_date() {
    let mut farm = Farm::start().await;
    let bytes = photo(40, 30);
    // At another coordinator, another decoder returned other pixels.
    let other = png((30, 40), [1, 2, 3]);
    let stored =
        farm.artifacts.put_content("inputs/", "png", other.clone().into()).await.expect("stored");
    let row = |canonical| darkroom_coordinator::store::records::Input {
        sha256: Digest::of(&bytes),
        size: bytes.len() as u64,
        canonical,
        extent: darkroom_core::extent::Extent { width: 30, height: 40 },
        is_mask: false,
        orientation: 6,
        notes: Vec::new(),
        mark: 0,
    };
    let canonical = darkroom_coordinator::store::records::Canonical {
        sha256: stored.sha256,
        size: stored.size,
    };
    farm.store.add_input("default", &row(Some(canonical))).await.expect("noted");
    let answer = send(&mut farm, &bytes).await.expect("known");
    assert_eq!(answer.canonical_sha256, Digest::of(&other).to_string());
    // If it is lost, the upload is decoded again.
    farm.artifacts.delete(&stored.key).await.expect("deleted");
    let again = send(&mut farm, &bytes).await.expect("stored");
    assert_ne!(again.canonical_sha256, answer.canonical_sha256);
    assert_eq!(send(&mut farm, &bytes).await.expect("stored"), again);
    // A row from before the canonical form existed.
    farm.store.add_input("default", &row(None)).await.expect("noted");
    assert_eq!(send(&mut farm, &bytes).await.expect("stored"), again);
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_fit_is_another_task_and_pictures_for_super_resolution_are_fitted_too() {
    let mut farm = Farm::start().await;
    let image = sent(&mut farm, (1000, 750), [9, 80, 200]).await;
    let mut prefixes = Vec::new();
    for (fit, start_stage) in [
        (v1::Fit::Unspecified, ""),
        (v1::Fit::Crop, ""),
        (v1::Fit::Pad, ""),
        (v1::Fit::Stretch, ""),
        (v1::Fit::Pad, "sr1024"),
    ] {
        let mut settings =
            v1::Settings { start_stage: start_stage.to_owned(), ..v1::Settings::default() };
        if start_stage.is_empty() {
            settings.set_start(v1::Start::Picture);
        }
        settings.set_fit(fit);
        let brings = v1::Prompt { image: image.clone(), seed: Some(1), ..prompt("a cat") };
        let job =
            farm.submit(v1::JobSpec { settings: Some(settings), ..spec() }, vec![brings]).await;
        let told = job.effective_settings.clone().expect("settings").fit();
        assert_eq!(told, if fit == v1::Fit::Unspecified { v1::Fit::Crop } else { fit });
        let workers = farm.work(|_| Act::Done);
        farm.until_ended(&job.id).await;
        let ran = workers.stop().await;
        let bodies = rendered(&ran);
        let extents: Vec<String> =
            bodies.iter().filter_map(|body| Some(body.fit?.extent.to_string())).collect();
        let expected: &[&str] =
            if start_stage.is_empty() { &["64x64", "256x256", "1024x1024"] } else { &["256x256"] };
        assert_eq!(extents, expected, "{fit:?} {start_stage}");
        let first = bodies.iter().find(|body| body.fit.is_some()).expect("ran");
        prefixes.push(first.prefix.clone());
    }
    assert_eq!(prefixes[0], prefixes[1], "crop is the default");
    let distinct: std::collections::BTreeSet<&String> = prefixes.iter().collect();
    assert_eq!(distinct.len(), 4);
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_pictures_is_told_by_the_job_with_its_images() {
    let mut farm = Farm::start().await;
    let photo = sent_bytes(&mut farm, &photo(400, 300)).await;
    let wide = sent(&mut farm, (2048, 1024), [9, 80, 200]).await;
    let fine = sent(&mut farm, (2048, 2048), [9, 80, 200]).await;
    let brings = |(line, image): (u64, &String)| v1::Prompt {
        image: image.clone(),
        line,
        ..prompt("a cat")
    };
    let prompts: Vec<_> = (1..).zip([&fine, &wide, &photo, &wide]).map(brings).collect();
    let spec = v1::JobSpec {
        settings: Some(settings(v1::Start::Picture)),
        images_per_prompt: 2,
        ..spec()
    };
    let job = farm.submit(spec.clone(), prompts.clone()).await;
    let told = [
        "image 2 (line 2) and 3 others: the picture is 2048x1024: the 1024x1024 in its middle are used, the rest is cut off \
         (fit crop)",
        "image 4 (line 3) and 1 other: the picture is turned as its EXIF orientation 6 says: 400x300 becomes 300x400",
        "image 4 (line 3) and 1 other: the picture is 300x400: the 300x300 in its middle are used, the rest is cut off (fit \
         crop), and it is enlarged",
    ];
    let sorted = |mut notes: Vec<String>| {
        notes.sort();
        notes
    };
    assert_eq!(sorted(job.notes), sorted(told.map(str::to_owned).to_vec()));
    // Sent in chunks, and read back later.
    let chunk = |prompts: Vec<v1::Prompt>| v1::SubmitJobChunk {
        part: Some(v1::submit_job_chunk::Part::Prompts(v1::PromptChunk { prompts })),
    };
    let first = v1::SubmitJobChunk { part: Some(v1::submit_job_chunk::Part::Spec(spec)) };
    let (head, tail) = prompts.split_at(2);
    let parts = vec![first, chunk(head.to_vec()), chunk(tail.to_vec())];
    let streamed =
        farm.client.submit_job_stream(tokio_stream::iter(parts)).await.expect("accepted");
    let id = streamed.into_inner().job.expect("a job").id;
    let job = farm.client.get_job(v1::GetJobRequest { id }).await.expect("there").into_inner();
    assert_eq!(sorted(job.notes), sorted(told.map(str::to_owned).to_vec()));
    farm.shutdown().await;
}
