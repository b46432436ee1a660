//! A worker with the fake renderer, the in-memory queue and an in-memory store: tasks in, artifacts
//! and results out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod full_disk;
mod inputs;
mod outputs;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use darkroom_artifacts::{ArtifactStore, CascadeBundle, picture, tensor::FloatTensor};
use darkroom_core::{
    artifact::ArtifactRef,
    cascade::{Cascade, CascadeSpec},
    id::{ImageId, JobId, StageName},
    picture_text,
    settings::{Settings, SettingsRequest},
};
use darkroom_queue::{
    TaskQueue,
    memory::MemoryQueue,
    task::{Outcome, PoolId, RenderBody, Subject, Task, TaskBody, TaskKey, TaskResult},
};
use darkroom_suites::cascade;
use darkroom_worker::{FakeOptions, Handle, Options, Times, start_fake};
use tokio_util::sync::CancellationToken;

use full_disk::FullDisk;

/// Two stages whose pictures have a few pixels.
fn small() -> CascadeSpec {
    let mut spec = cascade::spec(2);
    (spec.stages[0].size, spec.stages[1].size) = (8, 16);
    spec
}

struct Farm {
    queue: Arc<MemoryQueue>,
    artifacts: ArtifactStore,
    bundle: CascadeBundle,
    settings: Settings,
    text: ArtifactRef,
    worker: Handle,
}

impl Farm {
    async fn start(fake: FakeOptions) -> Self {
        Self::start_on(ArtifactStore::in_memory(), fake, Duration::ZERO).await
    }

    async fn start_on(artifacts: ArtifactStore, fake: FakeOptions, patience: Duration) -> Self {
        let spec = small();
        let settings = Settings::resolve(&SettingsRequest::default(), &spec).unwrap();
        let tokens = spec.encoder.max_length as usize;
        let bundle = CascadeBundle::without_files(Cascade { spec, files: BTreeMap::new() });
        let queue = Arc::new(MemoryQueue::default());
        let text = FloatTensor { shape: vec![tokens, 4], data: vec![0.5; 4 * tokens] };
        let text = text.to_bytes(&BTreeMap::new()).unwrap();
        let text =
            artifacts.put_content("embeddings/x/", "safetensors", text.into()).await.unwrap();
        let options = Options {
            host: "here".to_owned(),
            batch: Some(4),
            times: Times { storage_patience: Some(patience), ..Times::default() },
            ..Options::default()
        };
        let worker = start_fake(
            options,
            fake,
            Arc::clone(&queue) as Arc<dyn TaskQueue>,
            artifacts.clone(),
            std::slice::from_ref(&bundle),
            CancellationToken::new(),
        )
        .await
        .unwrap();
        Self { queue, artifacts, bundle, settings, text, worker }
    }

    fn pool(&self, stage: &str) -> PoolId {
        let stage = StageName::try_from(stage.to_owned()).unwrap();
        PoolId { stage, digest: self.bundle.cascade().digest() }
    }

    fn task(&self, stage: usize, index: u64, low_res: Option<ArtifactRef>) -> Task {
        let last = stage + 1 == self.settings.stages.len();
        let text = vec![(picture_text::PROMPT.to_owned(), "ein Kreis".to_owned())];
        let body = RenderBody {
            settings: self.settings.stages[stage].clone(),
            seed: 100 + index,
            text: self.text.clone(),
            negative: Some(self.text.clone()),
            low_res,
            image: None,
            mask: None,
            fit: None,
            prefix: format!("tasks/{stage}-{index}/"),
            picture: last.then_some(text),
            output: self.settings.output,
        };
        let image = ImageId { job: JobId(uuid::Uuid::from_u128(1)), index };
        Task {
            key: TaskKey { subject: Subject::Image(image), generation: 1, dispatch: 1 },
            compatibility: "same".to_owned(),
            suspect: false,
            body: TaskBody::Render(Box::new(body)),
            traceparent: None,
            warrant: None,
            seal: None,
        }
    }

    async fn results(&self, pool: &PoolId, count: usize) -> BTreeMap<u64, TaskResult> {
        let mut results = BTreeMap::new();
        while results.len() < count {
            let read = self.queue.results(pool, "c", 100, Duration::from_secs(20)).await.unwrap();
            assert!(!read.is_empty(), "{} of {count} results", results.len());
            for entry in read {
                let Subject::Image(image) = entry.result.key.subject else { panic!("an image") };
                results.insert(image.index, entry.result);
                self.queue.acknowledge(pool, &[entry.id]).await.unwrap();
            }
        }
        results
    }

    async fn end(self) {
        self.worker.shutdown();
        self.worker.join().await.unwrap();
        assert!(self.queue.workers(Duration::from_secs(60)).await.unwrap().is_empty(), "withdrawn");
    }
}

fn artifact(result: &TaskResult) -> ArtifactRef {
    match &result.outcome {
        Outcome::Done { artifact, .. } => artifact.clone(),
        other => panic!("{other:?}"),
    }
}

fn code(result: &TaskResult) -> &str {
    match &result.outcome {
        Outcome::Failed { code, .. } => code.name(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn images_pass_both_stages_and_become_pictures_with_text() {
    let farm = Farm::start(FakeOptions::default()).await;
    let (base, last) = (farm.pool("base"), farm.pool("sr256"));
    farm.queue.add(&base, (0..6).map(|i| farm.task(0, i, None)).collect()).await.unwrap();
    for (index, result) in farm.results(&base, 6).await {
        let low_res = artifact(&result);
        let (tensor, _) =
            FloatTensor::from_bytes(&farm.artifacts.get(&low_res).await.unwrap()).unwrap();
        assert_eq!(tensor.shape, [3, 8, 8]);
        assert!(tensor.data.iter().all(|value| (-1.0..=1.0).contains(value)));
        farm.queue.add(&last, vec![farm.task(1, index, Some(low_res))]).await.unwrap();
    }
    let results = farm.results(&last, 6).await;
    let mut keys = Vec::new();
    for result in results.values() {
        let png = artifact(result);
        assert!(png.key.starts_with("tasks/1-") && png.key.ends_with(".png"), "{}", png.key);
        let picture = picture::decode(&farm.artifacts.get(&png).await.unwrap()).unwrap();
        assert_eq!((picture.width, picture.height), (16, 16));
        assert_eq!(picture.text(picture_text::PROMPT), Some("ein Kreis"));
        assert_eq!(picture.text(picture_text::DEVICE_CLASS), Some("fake"));
        assert_eq!((result.place.as_str(), result.device_class.as_str()), ("here/fake", "fake"));
        keys.push(png.sha256);
    }
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 6, "every seed has a picture of its own");
    let cards = farm.queue.workers(Duration::from_secs(60)).await.unwrap();
    assert_eq!(cards[0].pools.len(), 2);
    farm.end().await;
}

#[tokio::test]
async fn a_poison_image_fails_alone() {
    let fake = FakeOptions {
        panicking_seeds: vec![101],
        failing_seeds: vec![102],
        ..FakeOptions::default()
    };
    let farm = Farm::start(fake).await;
    let base = farm.pool("base");
    farm.queue.add(&base, (0..4).map(|i| farm.task(0, i, None)).collect()).await.unwrap();
    let results = farm.results(&base, 4).await;
    assert_eq!(code(&results[&1]), "panic");
    assert!(results[&1].alone, "the image was judged when it ran alone");
    assert_eq!(code(&results[&2]), "fake");
    artifact(&results[&0]);
    artifact(&results[&3]);
    farm.end().await;
}

#[tokio::test]
async fn a_batch_too_big_for_memory_is_halved_and_remembered() {
    let farm = Farm::start(FakeOptions { memory_rows: Some(1), ..FakeOptions::default() }).await;
    let base = farm.pool("base");
    farm.queue.add(&base, (0..4).map(|i| farm.task(0, i, None)).collect()).await.unwrap();
    farm.results(&base, 4).await.values().for_each(|result| drop(artifact(result)));
    assert_eq!(farm.worker.card().pools[&base.to_string()].batch_cap, 1);
    farm.end().await;
}

#[tokio::test]
async fn a_lost_input_is_named_and_an_earlier_output_is_used_again() {
    let farm = Farm::start(FakeOptions::default()).await;
    let (base, last) = (farm.pool("base"), farm.pool("sr256"));
    farm.queue.add(&base, vec![farm.task(0, 0, None)]).await.unwrap();
    let first = farm.results(&base, 1).await.remove(&0).unwrap();
    assert!(first.seconds > 0.0);
    farm.queue.add(&base, vec![farm.task(0, 0, None)]).await.unwrap();
    let again = farm.results(&base, 1).await.remove(&0).unwrap();
    assert_eq!(artifact(&again), artifact(&first));
    assert!(again.seconds == 0.0, "nothing was rendered");

    let low_res = artifact(&first);
    farm.artifacts.delete(&low_res.key).await.unwrap();
    farm.queue.add(&last, vec![farm.task(1, 0, Some(low_res.clone()))]).await.unwrap();
    let missing = farm.results(&last, 1).await.remove(&0).unwrap();
    assert_eq!(missing.outcome, Outcome::InputMissing { key: low_res.key.clone() });

    let garbage =
        farm.artifacts.put_content("x/", "bin", Bytes::from_static(b"no tensor")).await.unwrap();
    farm.queue.add(&last, vec![farm.task(1, 1, Some(garbage))]).await.unwrap();
    assert_eq!(code(&farm.results(&last, 1).await[&1]), "invalid_input");
    farm.end().await;
}

#[tokio::test]
async fn a_full_disk_interrupts_and_room_made_in_time_saves_the_image() {
    let disk = FullDisk::default();
    let store = ArtifactStore::over(Arc::new(disk.clone()));
    let farm = Farm::start_on(store.clone(), FakeOptions::default(), Duration::ZERO).await;
    let base = farm.pool("base");
    disk.fill(true);
    farm.queue.add(&base, vec![farm.task(0, 0, None)]).await.unwrap();
    let outcome = farm.results(&base, 1).await.remove(&0).unwrap().outcome;
    assert!(
        matches!(&outcome, Outcome::Interrupted { reason } if reason.contains("no space")),
        "{outcome:?}"
    );
    disk.refusal().await;
    disk.fill(false);
    farm.end().await;

    let farm = Farm::start_on(store, FakeOptions::default(), Duration::from_secs(3600)).await;
    disk.fill(true);
    farm.queue.add(&base, vec![farm.task(0, 1, None)]).await.unwrap();
    disk.refusal().await;
    disk.fill(false);
    artifact(&farm.results(&base, 1).await[&1]);
    farm.end().await;
}

#[tokio::test]
async fn an_unknown_stage_is_refused_with_the_known_ones() {
    let spec = small();
    let bundle = CascadeBundle::without_files(Cascade { spec, files: BTreeMap::new() });
    let stages = vec![StageName::try_from("sr9".to_owned()).unwrap()];
    let error = start_fake(
        Options { stages, ..Options::default() },
        FakeOptions::default(),
        Arc::new(MemoryQueue::default()),
        ArtifactStore::in_memory(),
        &[bundle],
        CancellationToken::new(),
    )
    .await
    .unwrap_err();
    assert_eq!(error.message, "stage is \"sr9\"; accepted: base, sr256");
}
