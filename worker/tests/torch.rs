//! The real renderer on the small example cascade: an image has the same bytes alone, in a batch,
//! and on another worker.

#![cfg(feature = "torch")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use darkroom_artifacts::{ArtifactStore, CascadeBundle, tensor::FloatTensor};
use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    id::{ImageId, JobId, StageName},
    output::Output,
    settings::{Settings, SettingsRequest},
};
use darkroom_queue::{
    TaskQueue,
    memory::MemoryQueue,
    task::{Outcome, PoolId, RenderBody, Subject, Task, TaskBody, TaskKey},
};
use darkroom_worker::{Machine, Options, start};
use tokio_util::sync::CancellationToken;

const TOML: &str = r#"
    format = 1
    name = "example"
    [encoder]
    folder = "text_encoder"
    tokenizer = "tokenizer"
    max_length = 16
    [[stages]]
    name = "base"
    folder = "base"
    size = 16
    sampler = "ddpm"
    steps = 3
    guidance_scale = 3.0
    [[stages]]
    name = "sr1"
    folder = "sr1"
    size = 32
    sampler = "dpmsolver++"
    steps = 3
    guidance_scale = 2.0
    noise_level = 50
"#;

/// The example's folder with a `cascade.toml` beside its models.
fn example() -> (tempfile::TempDir, CascadeBundle) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../diffusion/tests/fixtures/example");
    let folder = tempfile::tempdir().unwrap();
    for name in ["text_encoder", "tokenizer", "base", "sr1"] {
        copy(&source.join(name), &folder.path().join(name));
    }
    std::fs::write(folder.path().join("cascade.toml"), TOML).unwrap();
    let bundle = CascadeBundle::load(folder.path()).unwrap();
    (folder, bundle)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            drop(std::fs::copy(entry.path(), target))
        }
    }
}

fn width(bundle: &CascadeBundle) -> usize {
    let config = std::fs::read_to_string(bundle.encoder_folder().join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["d_model"].as_u64().unwrap() as usize
}

/// Renders both stages of some images on a separate worker and returns the hashes of the results.
async fn render(
    bundle: &CascadeBundle,
    indices: &[u64],
    batch: usize,
) -> BTreeMap<(usize, u64), Digest> {
    let queue = Arc::new(MemoryQueue::default());
    let artifacts = ArtifactStore::in_memory();
    let width = width(bundle);
    let value = |i: usize| (i * 37 % 101) as f32 / 50.0 - 1.0;
    let text = FloatTensor { shape: vec![16, width], data: (0..16 * width).map(value).collect() };
    let text = text.to_bytes(&BTreeMap::new()).unwrap();
    let text = artifacts.put_content("embeddings/x/", "safetensors", text.into()).await.unwrap();
    let options = Options {
        batch: Some(batch),
        machine: Machine {
            device: Some("cpu".to_owned()),
            dtype: Some("f32".to_owned()),
            ..Machine::default()
        },
        ..Options::default()
    };
    let shared = Arc::clone(&queue) as Arc<dyn TaskQueue>;
    let bundles = std::slice::from_ref(bundle);
    let worker =
        start(options, shared, artifacts.clone(), bundles, CancellationToken::new()).await.unwrap();
    let settings = Settings::resolve(&SettingsRequest::default(), &bundle.cascade().spec).unwrap();
    let mut digests = BTreeMap::new();
    let mut inputs: BTreeMap<u64, Option<ArtifactRef>> =
        indices.iter().map(|index| (*index, None)).collect();
    for (position, stage) in settings.stages.iter().enumerate() {
        let stage_name = StageName::try_from(stage.stage.as_str().to_owned()).unwrap();
        let pool = PoolId { stage: stage_name, digest: bundle.cascade().digest() };
        let task = |(index, low_res): (&u64, &Option<ArtifactRef>)| Task {
            key: TaskKey {
                subject: Subject::Image(ImageId {
                    job: JobId(uuid::Uuid::from_u128(1)),
                    index: *index,
                }),
                generation: 1,
                dispatch: 1,
            },
            compatibility: "same".to_owned(),
            suspect: false,
            body: TaskBody::Render(Box::new(RenderBody {
                settings: stage.clone(),
                seed: 1000 + index,
                text: text.clone(),
                negative: Some(text.clone()),
                low_res: low_res.clone(),
                image: None,
                mask: None,
                fit: None,
                prefix: format!("tasks/{position}-{index}/"),
                picture: (position == 1).then(Vec::new),
                output: Output::default(),
            })),
            traceparent: None,
            warrant: None,
            seal: None,
        };
        queue.add(&pool, inputs.iter().map(task).collect()).await.unwrap();
        let mut read = 0;
        while read < indices.len() {
            let results = queue.results(&pool, "c", 100, Duration::from_secs(120)).await.unwrap();
            assert!(!results.is_empty());
            read += results.len();
            for entry in results {
                let Subject::Image(image) = entry.result.key.subject else { panic!("an image") };
                let Outcome::Done { artifact, .. } = entry.result.outcome else {
                    panic!("{:?}", entry.result)
                };
                digests.insert((position, image.index), artifact.sha256);
                inputs.insert(image.index, Some(artifact));
            }
        }
    }
    worker.shutdown();
    worker.join().await.unwrap();
    digests
}

#[tokio::test]
async fn an_image_has_the_same_bytes_alone_and_in_a_batch() {
    let (_folder, bundle) = example();
    let together = render(&bundle, &[0, 1, 2], 3).await;
    assert_eq!(together.len(), 6);
    let alone = render(&bundle, &[1], 1).await;
    for (key, digest) in &alone {
        assert_eq!(together[key], *digest, "{key:?}");
    }
    assert_ne!(together[&(0, 0)], together[&(0, 1)], "other seeds, other pictures");
}

#[tokio::test]
async fn what_keeps_a_worker_from_starting_is_said_in_a_sentence() {
    let (folder, bundle) = example();
    let refused = |machine: Machine, bundle: CascadeBundle| async move {
        let options = Options { machine, ..Options::default() };
        let queue = Arc::new(MemoryQueue::default());
        let stop = CancellationToken::new();
        start(options, queue, ArtifactStore::in_memory(), &[bundle], stop).await.unwrap_err()
    };
    let machine = |device: &str| Machine { device: Some(device.to_owned()), ..Machine::default() };
    let error = refused(machine("tpu"), bundle.clone()).await;
    assert_eq!(error.field.as_deref(), Some("device"), "{error}");
    let weights = folder.path().join("base/unet/diffusion_pytorch_model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let error = refused(machine("cpu"), bundle).await;
    assert!(error.message.contains("diffusion_pytorch_model.safetensors"), "{error}");
}
