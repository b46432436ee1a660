//! Makes the corpora: inputs that are accepted, from the repository's own files and from what our
//! own code writes. Run after a format has changed (`make fuzz ARGS=seeds`), and look at the diff.
//!
//! Files that were added by hand stay.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use darkroom_artifacts::{
    manifest::{Header, ImageLine, ImageOutcome, Writer},
    picture::{encode_rgb, encode_rgba, encode_to},
    tensor::FloatTensor,
};
use darkroom_core::{
    artifact::ArtifactRef,
    cascade::CascadeSpec,
    digest::Digest,
    error::{Code, UserError},
    id::{ImageId, JobId, StageName, WorkerId},
    key::{Key, RANDOM_BYTES},
    output::Output,
    picture_text::Recipe,
    settings::{Settings, SettingsRequest},
};
use darkroom_proto::{json, status::to_status, v1};
use darkroom_queue::{
    redis::fuzzed,
    signing::{Mac, Signature},
    task::{
        EncodeBody, Outcome, PoolId, RenderBody, ServedPool, Subject, Task, TaskBody, TaskKey,
        TaskResult, WorkerCard,
    },
};
use prost::Message as _;
use uuid::Uuid;

use crate::{
    corpus::corpora,
    mutation::{Form, Messages},
    targets,
};

/// Writes every corpus.
///
/// # Errors
/// If a file cannot be read or written.
///
/// # Panics
/// If our own code does not write what it should.
pub fn write() -> io::Result<()> {
    full_messages()?;
    texts()?;
    checks()?;
    prompts()?;
    pictures()?;
    models()?;
    tensors()?;
    manifest()?;
    keys()?;
    webhooks()?;
    queue()
}

/// A key that belongs to no farm, and its id.
fn keys() -> io::Result<()> {
    let key = Key::of_random(&[7; RANDOM_BYTES]);
    put("keys", "key", key.expose())?;
    put("keys", "id", key.id().as_str())
}

/// Addresses of webhooks.
fn webhooks() -> io::Result<()> {
    for (name, text) in [
        ("https", "https://hooks.example.com/darkroom?key=1"),
        ("http", "http://example.com:8080"),
        ("address", "http://8.8.8.8/"),
        ("address6", "http://[2606:4700::1111]:80/a"),
        ("loopback", "http://0x7f.1/"),
        ("international", "https://b\u{fc}cher.example/\u{e9}"),
        ("id", "wh_0123456789abcdef0123456789abcdef"),
        ("refused-user", "https://user:password@example.com/"),
    ] {
        put("webhooks", name, text)?;
    }
    Ok(())
}

fn put(target: &str, name: &str, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let folder = corpora().join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A message of every type, with a value in every field.
fn full_messages() -> io::Result<()> {
    for name in ["requests", "answers"] {
        let Some(Form::Message(types)) = targets::find(name).map(|target| target.form) else {
            continue;
        };
        let types: &Messages = types();
        for number in 0..=u8::MAX {
            let Some(message) = types.full(number) else { break };
            put(name, &format!("{number:02}-{}", types.name(number)), message)?;
        }
    }
    Ok(())
}

const SUBMIT: &str = r#"{"spec":{"client_request_id":"r-1","cascade":"demo","name":"a name","tenant":"team","priority":"interactive","settings":{"size":256,"stages":[{"stage":"base","sampler":"ddim","steps":10,"guidance_scale":2.0,"eta":0.5},{"stage":"sr256","noise_level":50,"thresholding":"dynamic:99.5:1.5"}],"output":{"format":"jpeg","quality":90}},"images_per_prompt":2,"seed":7,"max_workers":3,"max_failed_images":1,"labels":{"set":"a"}},"prompts":[{"text":"a red circle","negative":"blur","images":3,"seed":1,"style":"ink","custom_id":"a/1","labels":{"k":"v"},"line":4},{"text":"two","settings":{"stages":[{"stage":"base","steps":5}]}}]}"#;

/// JSON of requests, statuses, tokens, captions.
fn texts() -> io::Result<()> {
    for (name, document) in [
        ("SubmitJobRequest", SUBMIT),
        (
            "ListJobsRequest",
            r#"{"page_size":5,"states":["active","done"],"labels":{"a":"b"},"created_from":"2026-01-31T12:00:00Z","oldest_first":true}"#,
        ),
        (
            "ListImagesRequest",
            r#"{"job_id":"0190a000-0000-7000-8000-000000000000","states":["dead"],"changed_since":"18446744073709551615"}"#,
        ),
        (
            "CancelImagesRequest",
            r#"{"job_id":"x","filter":{"ranges":[{"first":1,"last":9}],"states":["ready"],"error_codes":["torch"],"text":"cat"},"dry_run":true}"#,
        ),
        ("UploadInputChunk", r#"{"data":"AP8Q"}"#),
        ("SubmitJobChunk", r#"{"prompts":{"prompts":[{"text":"b"}]}}"#),
        (
            "CreateWebhookRequest",
            r#"{"url":"https://example.com/","event_types":["job.completed"],"name":"a"}"#,
        ),
        ("RetryJobRequest", r#"{"id":"x","deadline":1764378000.5}"#),
    ] {
        put("json-requests", name, format!("{name}\n\n{document}"))?;
    }
    let quota = UserError::new(Code::ResourceExhausted, "QUOTA", "too much");
    let wait = UserError { retry_after: Some(std::time::Duration::from_millis(2500)), ..quota };
    for (name, error) in
        [("field", UserError::invalid("spec.name", "spec.name is 3; accepted: 4")), ("wait", wait)]
    {
        let status = to_status(&error);
        put("statuses", name, [&[status.code() as u8], status.details()].concat())?;
    }
    for (name, text) in [
        ("index", "i5"),
        ("version", "v3.2"),
        ("version-alone", "v7"),
        ("jobs", "42"),
        ("within", "42.7"),
        ("cursor", "c.0190a000.12.3"),
        ("listed", "l.0190a000.12.3"),
        ("usage", "2026-01-31.team"),
    ] {
        put("page-tokens", name, text)?;
    }
    for (name, text) in [
        ("plain", "A red circle above a blue square, 4k, trending"),
        ("links", "see https://example.com/a.jpg or www.shop.org/x?y=1 #12345 (c) me@x.org"),
        (
            "markup",
            "<b class=\"x\">bold</b> &amp; &lt;i&gt; <!-- gone --> 1.2.3.4 <a href='http://x'>y</a>",
        ),
        (
            "shop",
            "NEW!! free shipping, download here: file_name-12345678.png ... 50x70 cm -- page 3",
        ),
        (
            "scripts",
            "\u{72d7}\u{1f642} \u{201c}quoted\u{201d} e\u{301} \u{fb01}ne \u{2014} caf\u{e9}\\n",
        ),
    ] {
        put("captions", name, text)?;
    }
    Ok(())
}

fn parsed<F: serde::de::DeserializeOwned>(text: &str) -> F {
    json::read(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Requests that the coordinator accepts.
fn checks() -> io::Result<()> {
    let put = |number: u8, name: &str, bytes: Vec<u8>| {
        put("checks", name, [&[number], &bytes[..]].concat())
    };
    put(
        0,
        "submit",
        v1::SubmitJobRequest::from(parsed::<json::SubmitJobRequest>(SUBMIT)).encode_to_vec(),
    )?;
    let plain = r#"{"spec":{},"prompts":[{"text":"a"}]}"#;
    put(
        1,
        "submit-plain",
        v1::SubmitJobRequest::from(parsed::<json::SubmitJobRequest>(plain)).encode_to_vec(),
    )?;
    let jobs = r#"{"page_size":5,"states":["active"],"tenant":"team","name":"a","text":"b","labels":{"a":"b"},"created_from":1000.0,"created_to":2000.0}"#;
    put(
        3,
        "list-jobs",
        v1::ListJobsRequest::from(parsed::<json::ListJobsRequest>(jobs)).encode_to_vec(),
    )?;
    let images = r#"{"page_size":5,"states":["dead"],"text":"b","labels":{"a":"b"},"changed_since":5,"page_token":"v5.3"}"#;
    put(
        4,
        "list-images",
        v1::ListImagesRequest::from(parsed::<json::ListImagesRequest>(images)).encode_to_vec(),
    )?;
    let usage = r#"{"tenant":"team","from_day":"2026-01-01","to_day":"2026-01-31","page_size":7}"#;
    put(
        5,
        "usage",
        v1::ListUsageRequest::from(parsed::<json::ListUsageRequest>(usage)).encode_to_vec(),
    )?;
    let history = r#"{"from":1764370000.0,"to":1764378000.0,"step_seconds":60,"stage":"base"}"#;
    put(
        6,
        "history",
        v1::FarmHistoryRequest::from(parsed::<json::FarmHistoryRequest>(history)).encode_to_vec(),
    )?;
    let filter = r#"{"ranges":[{"first":1,"last":9},{"first":5,"last":70}],"states":["ready"],"error_codes":["torch"],"labels":{"a":"b"},"text":"cat"}"#;
    put(7, "filter", v1::ImageFilter::from(parsed::<json::ImageFilter>(filter)).encode_to_vec())?;
    let retry = r#"{"id":"x","deadline":1964378000.5}"#;
    put(
        8,
        "retry",
        v1::RetryJobRequest::from(parsed::<json::RetryJobRequest>(retry)).encode_to_vec(),
    )
}

fn prompts() -> io::Result<()> {
    let table = "prompt,negative,images,seed,custom_id,settings.base.steps,tag\n\"a, \"\"red\"\" circle\",blur,3,7,a/1,12,x\ntwo,,,,,,\"y\nz\"\n";
    let lines = "{\"prompt\": \"a\", \"labels\": {\"k\": 1}, \"seed\": 3}\n\"two\"\n{\"prompt\": \"c\", \"settings\": {\"size\": 64, \"stages\": {}}}\n";
    let lines = lines.replace(", \"stages\": {}", "");
    let array = "[\"one\", {\"prompt\": \"two\", \"images\": 4, \"style\": \"ink\"}]";
    let coco = r#"{"info": {"a": [1]}, "images": [{"id": 7}], "annotations": [{"image_id": 7, "id": 1, "caption": "A cat."}, {"image_id": 8, "id": 2, "caption": "A dog."}]}"#;
    let utf16: Vec<u8> =
        "\u{feff}one\r\ntwo \u{1f642}\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let gz = |plain: &str| -> io::Result<Vec<u8>> {
        use io::Write as _;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(plain.as_bytes())?;
        packed.finish()
    };
    let files: [(&str, u8, Vec<u8>); 10] = [
        ("text", 1, b"a red circle\n\ntwo\r\nthree\r# four\n".to_vec()),
        ("utf16", 0x81, utf16),
        ("jsonl", 2, lines.clone().into_bytes()),
        ("csv", 0x83, table.as_bytes().to_vec()),
        ("tsv", 4, table.replace(',', "\t").replace("a\t ", "a ").into_bytes()),
        ("json", 5, array.as_bytes().to_vec()),
        ("coco", 0x85, coco.as_bytes().to_vec()),
        ("coco-sample", 0x45, coco.as_bytes().to_vec()),
        ("csv-gz", 6, gz(table)?),
        ("jsonl-zst", 7, zstd::encode_all(lines.as_bytes(), 3)?),
    ];
    for (name, options, file) in files {
        put("prompts", name, [&[options], &file[..]].concat())?;
    }
    Ok(())
}

fn demo() -> io::Result<CascadeSpec> {
    let text = fs::read_to_string(repository().join("models/demo/cascade.toml"))?;
    CascadeSpec::parse(&text).map_err(io::Error::other)
}

fn recipe() -> io::Result<Recipe> {
    let settings =
        Settings::resolve(&SettingsRequest::default(), &demo()?).map_err(io::Error::other)?;
    Ok(Recipe {
        prompt: "a red circle \u{1f642}".to_owned(),
        negative: "blur".to_owned(),
        style: None,
        image: None,
        mask: None,
        seed: 7,
        cascade: "demo".to_owned(),
        cascade_digest: Digest::of(b"demo"),
        settings,
    })
}

/// Pictures of ours of each format, and ones that a user could send.
fn pictures() -> io::Result<()> {
    let edge = 12;
    let data = (0..3 * edge * edge).map(|at| (at % 97) as f32 / 48.5 - 1.0).collect();
    let tensor = FloatTensor { shape: vec![3, edge, edge], data };
    let text = recipe()?.to_pairs();
    let mut ours = Vec::new();
    for (name, output) in [
        ("png", Output::Png { level: None }),
        ("png-9", Output::Png { level: Some(9) }),
        ("jpeg", Output::Jpeg { quality: 80 }),
        ("webp", Output::WebP),
    ] {
        let picture = encode_to(output, &tensor, &text).map_err(io::Error::other)?;
        put("pictures", name, &picture)?;
        ours.push((name, picture));
    }
    for (name, picture) in ours.iter().filter(|(name, _)| *name != "png-9") {
        put("inputs", name, picture)?;
    }
    let clear: Vec<u8> = (0..4 * 64_u32).map(|at| (at * 37 % 256) as u8).collect();
    put("inputs", "rgba", encode_rgba(8, 8, &clear).map_err(io::Error::other)?)?;
    let white = vec![255; 3 * 64];
    put("inputs", "white", encode_rgb(8, 8, &white, &[]).map_err(io::Error::other)?)?;
    let (_, jpeg) = ours.iter().find(|(name, _)| *name == "jpeg").ok_or(io::ErrorKind::NotFound)?;
    put("inputs", "turned", turned(jpeg))
}

/// A JPEG with an orientation in front.
fn turned(jpeg: &[u8]) -> Vec<u8> {
    let tag = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let length = (tag.len() as u16 + 2).to_be_bytes();
    [b"\xff\xd8\xff\xe1", &length[..], tag, jpeg.get(2..).unwrap_or_default()].concat()
}

/// Files of the demo cascade, of the tests' cascades and of published ones.
fn models() -> io::Result<()> {
    let fixtures = "diffusion/tests/fixtures";
    for (target, name, head, path) in [
        ("cascades", "demo", "", "models/demo/cascade.toml".to_owned()),
        ("cascades", "tiny", "", "tests/cascades/tiny/cascade.toml".to_owned()),
        ("networks", "demo-base", "unet\n\n", "models/demo/base/unet/config.json".to_owned()),
        (
            "networks",
            "demo-sr256",
            "efficient\n\n",
            "models/demo/sr256/unet/config.json".to_owned(),
        ),
        ("networks", "demo-t5", "t5\n\n", "models/demo/text_encoder/config.json".to_owned()),
        ("networks", "refused-if", "unet\n\n", format!("{fixtures}/hub/if-i/unet/config.json")),
        ("networks", "refused-deep", "unet\n\n", format!("{fixtures}/deep/sr/unet/config.json")),
        (
            "networks",
            "refused-odd-t5",
            "t5\n\n",
            format!("{fixtures}/odd/text_encoder/config.json"),
        ),
        ("schedulers", "demo", "", "models/demo/base/scheduler/scheduler_config.json".to_owned()),
        (
            "schedulers",
            "noising",
            "",
            "models/demo/sr256/image_noising_scheduler/scheduler_config.json".to_owned(),
        ),
        ("schedulers", "odd", "", format!("{fixtures}/odd/base/scheduler/scheduler_config.json")),
        (
            "schedulers",
            "trained",
            "",
            format!("{fixtures}/odd/efficient/scheduler/scheduler_config.json"),
        ),
        (
            "schedulers",
            "solver",
            "",
            format!("{fixtures}/odd/solver/scheduler/scheduler_config.json"),
        ),
        ("tokenizers", "demo", "", "models/demo/tokenizer/tokenizer.json".to_owned()),
        ("tokenizers", "example", "", format!("{fixtures}/example/tokenizer/tokenizer.json")),
        ("tokenizers", "odd", "", format!("{fixtures}/odd/tokenizer/tokenizer.json")),
        ("sentencepiece", "symbols", "", format!("{fixtures}/spiece/symbols.model")),
        ("sentencepiece", "blank-behind", "", format!("{fixtures}/spiece/blank-behind.model")),
        ("sentencepiece", "no-blank-added", "", format!("{fixtures}/spiece/no-blank-added.model")),
        ("sentencepiece", "bytes", "", format!("{fixtures}/spiece/bytes.model")),
    ] {
        let bytes = fs::read(repository().join(path))?;
        put(target, name, [head.as_bytes(), &bytes[..]].concat())?;
    }
    Ok(())
}

fn tensors() -> io::Result<()> {
    let metadata = BTreeMap::from([("stage".to_owned(), "base".to_owned())]);
    let tensor = FloatTensor { shape: vec![3, 2, 2], data: (0..12).map(|at| at as f32).collect() };
    let ours = tensor.to_bytes(&metadata).map_err(io::Error::other)?;
    put("tensors", "ours", &ours)?;
    put("weights", "ours", &ours)?;
    let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[1],"data_offsets":[8,10]},"c":{"dtype":"F64","shape":[],"data_offsets":[10,18]},"d":{"dtype":"I64","shape":[0],"data_offsets":[18,18]}}"#;
    let several = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 18]].concat();
    put("weights", "several", several)
}

fn manifest() -> io::Result<()> {
    let line = |index: u64, state| ImageLine {
        index,
        prompt: "a \"red\" circle\n".to_owned(),
        negative: String::new(),
        style: None,
        image: None,
        mask: Some(Digest::of(b"mask")),
        custom_id: Some("a/1".to_owned()),
        labels: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        line: Some(3),
        settings: None,
        seed: u64::MAX - index,
        state,
        key: Some("tasks/x/y.png".to_owned()),
        size: Some(100 + index),
        sha256: Some(Digest::of(b"picture")),
        removed: None,
        device_class: "fake".to_owned(),
        dispatches: 3,
        worker: "w".to_owned(),
        seconds: BTreeMap::from([("base".to_owned(), 0.25)]),
        error: None,
    };
    let header = Header {
        format: 1,
        job: "0190a000-0000-7000-8000-000000000000".to_owned(),
        generation: 1,
        cascade: "demo".to_owned(),
        cascade_digest: Digest::of(b"demo"),
        labels: BTreeMap::from([("set".to_owned(), "a".to_owned())]),
        settings: serde_json::json!({"stages": []}),
    };
    for (name, states) in [
        ("three", &[ImageOutcome::Done, ImageOutcome::Dead, ImageOutcome::Cancelled][..]),
        ("none", &[]),
    ] {
        let mut writer = Writer::new(Vec::new(), &header).map_err(io::Error::other)?;
        for (index, state) in (0..).zip(states) {
            writer.image(line(index, *state)).map_err(io::Error::other)?;
        }
        put("manifests", name, writer.finish().map_err(io::Error::other)?.0)?;
    }
    Ok(())
}

/// Tasks, results and a card.
fn queue() -> io::Result<()> {
    let settings =
        Settings::resolve(&SettingsRequest::default(), &demo()?).map_err(io::Error::other)?;
    let stage = settings.stages.last().cloned().ok_or(io::ErrorKind::NotFound)?;
    let artifact =
        |key: &str| ArtifactRef { key: key.to_owned(), sha256: Digest::of(b"x"), size: 9 };
    let image = ImageId { job: JobId(Uuid::from_u128(7)), index: 3 };
    let key = |subject| TaskKey { subject, generation: 1, dispatch: 2 };
    let render = TaskBody::Render(Box::new(RenderBody {
        settings: stage,
        seed: 7,
        text: artifact("texts/a.safetensors"),
        negative: Some(artifact("texts/b.safetensors")),
        low_res: Some(artifact("tasks/c.safetensors")),
        image: None,
        mask: None,
        fit: None,
        prefix: "tasks/d/".to_owned(),
        picture: Some(recipe()?.to_pairs().into_iter().take(3).collect()),
        output: Output::Jpeg { quality: 80 },
    }));
    let encode =
        TaskBody::Encode(EncodeBody { text: "a circle".to_owned(), prefix: "t/".to_owned() });
    for (name, subject, body) in [
        ("render", Subject::Image(image), render),
        ("encode", Subject::Text(Digest::of(b"text")), encode),
    ] {
        let task = Task {
            key: key(subject),
            compatibility: "same".to_owned(),
            suspect: name == "encode",
            body,
            traceparent: Some("00-1-2-01".to_owned()),
            warrant: Some(Mac::from([1; 32])),
            seal: Some(Mac::from([2; 32])),
        };
        put("entries", name, entry(fuzzed::fields_of_task(&task))?)?;
    }
    for (name, outcome) in [
        ("done", Outcome::Done { artifact: artifact("t/x"), notes: vec!["a note".to_owned()] }),
        ("missing", Outcome::InputMissing { key: "t/x".to_owned() }),
        ("interrupted", Outcome::Interrupted { reason: "drained".to_owned() }),
    ] {
        let result = TaskResult {
            key: key(Subject::Image(image)),
            worker: WorkerId("w".to_owned()),
            place: "host/fake".to_owned(),
            device_class: "fake".to_owned(),
            alone: true,
            seconds: 0.5,
            batch: 1,
            outcome,
            warrant: Some(Mac::from([1; 32])),
            signature: Some(Signature {
                key: "k".to_owned(),
                expires: 1_800_000_000,
                mac: Mac::from([3; 32]),
            }),
        };
        put("entries", name, entry(fuzzed::fields_of_result(&result))?)?;
    }
    let stage = StageName::try_from("base".to_owned()).map_err(io::Error::other)?;
    let pool = PoolId { stage, digest: Digest::of(b"pool") };
    let served = ServedPool {
        pool: pool.clone(),
        batch_cap: 8,
        seconds_per_image: 0.5,
        seconds_per_pass: 0.1,
        running: 0,
        mean_batch: 0.0,
    };
    let card = WorkerCard {
        id: WorkerId("w".to_owned()),
        host: "gpu-7".to_owned(),
        device: "cuda:0 NVIDIA H100".to_owned(),
        device_class: "cuda".to_owned(),
        pools: BTreeMap::from([(pool.to_string(), served)]),
        leased: 3,
        done: 9,
        busy: 0.75,
        state: serde_json::from_str("\"working\"").or_else(|_| serde_json::from_str("\"idle\""))?,
        trouble: String::new(),
        failed: 0,
        memory: None,
        version: "0.1.0".to_owned(),
        seen_seconds_ago: 0.0,
    };
    put("cards", "worker", serde_json::to_string(&card)?)
}

/// Field, key and body, as the target takes them.
fn entry(fields: Option<Vec<Vec<u8>>>) -> io::Result<Vec<u8>> {
    let fields = fields.ok_or(io::ErrorKind::InvalidData)?;
    match fields.as_slice() {
        [_, key, field, body] => Ok([&field[..], key, body].join(&b'\n')),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
