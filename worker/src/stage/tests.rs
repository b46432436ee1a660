//! What a batch reads from storage.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use darkroom_core::{
    id::{ImageId, JobId},
    output::Output,
    settings::{Settings, SettingsRequest},
};
use darkroom_queue::task::{Subject, TaskKey};
use darkroom_suites::cascade;
use futures::{future::join_all, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};
use std::sync::{Mutex, PoisonError};

use super::*;

/// Counts reads by key. A read yields first, so that other tasks run, as in a network read.
#[derive(Clone, Debug, Default)]
struct Counting {
    inner: Arc<InMemory>,
    reads: Arc<Mutex<HashMap<String, u32>>>,
}

impl Counting {
    fn reads(&self, artifact: &ArtifactRef) -> u32 {
        let reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.get(&artifact.key).copied().unwrap_or(0)
    }
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counting")
    }
}

#[async_trait]
impl ObjectStore for Counting {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        *self
            .reads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(path.to_string())
            .or_default() += 1;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

struct Bench {
    store: Counting,
    artifacts: ArtifactStore,
    stage: RenderStage,
    negative: ArtifactRef,
}

/// Bytes of one embedding's values.
const EMBEDDING: u64 = 4 * 8;

impl Bench {
    async fn new(kept: u64) -> Self {
        let store = Counting::default();
        let artifacts = ArtifactStore::over(Arc::new(store.clone()));
        let negative = embedding(&artifacts, 0).await;
        let stage = RenderStage::keeping(artifacts.clone(), kept);
        Self { store, artifacts, stage, negative }
    }

    async fn load(&self, index: u64, text: &ArtifactRef) -> Inputs {
        match self.loaded(index, text).await {
            Ok(Loaded::Ready(inputs)) => inputs,
            _ => panic!("it is all there"),
        }
    }

    async fn loaded(&self, index: u64, text: &ArtifactRef) -> Result<Loaded<Inputs>, Fault> {
        let spec = cascade::spec(1);
        let settings =
            Settings::resolve(&SettingsRequest::default(), &spec).unwrap().stages.remove(0);
        let body = RenderBody {
            settings,
            seed: index,
            text: text.clone(),
            negative: Some(self.negative.clone()),
            low_res: None,
            image: None,
            mask: None,
            fit: None,
            prefix: format!("tasks/{index}/"),
            picture: None,
            output: Output::default(),
        };
        let image = ImageId { job: JobId(uuid::Uuid::from_u128(1)), index };
        let task = Task {
            key: TaskKey { subject: Subject::Image(image), generation: 1, dispatch: 1 },
            compatibility: "same".to_owned(),
            suspect: false,
            body: TaskBody::Render(Box::new(body)),
            traceparent: None,
            warrant: None,
            seal: None,
        };
        let pool = PoolId { stage: spec.stages[0].name.clone(), digest: Digest::of(b"cascade") };
        self.stage.load(&pool, &task).await
    }
}

async fn embedding(artifacts: &ArtifactStore, value: u16) -> ArtifactRef {
    let tensor = FloatTensor { shape: vec![2, 4], data: vec![f32::from(value); 8] };
    let bytes = tensor.to_bytes(&BTreeMap::new()).unwrap();
    artifacts.put_content("embeddings/x/", tensor::EXTENSION, bytes.into()).await.unwrap()
}

#[tokio::test]
async fn an_embedding_that_cannot_be_one_is_encoded_again_and_not_for_ever() {
    let spec = cascade::spec(1);
    let pool = PoolId { stage: spec.stages[0].name.clone(), digest: Digest::of(b"cascade") };
    let mut bench = Bench::new(EMBEDDINGS).await;
    bench.stage = RenderStage::new(bench.artifacts.clone()).expecting([(pool, 2)].into());
    let file = |shape: &[usize], value: f32| {
        let data = vec![value; shape.iter().product()];
        FloatTensor { shape: shape.to_vec(), data }.to_bytes(&BTreeMap::new()).unwrap()
    };
    let unusable = [
        b"no tensor".to_vec(),
        file(&[3, 4], 1.0),
        file(&[8], 1.0),
        file(&[2, 0], 1.0),
        file(&[1, 2, 4], 1.0),
        file(&[2, 4], f32::NAN),
        file(&[2, 4], f32::INFINITY),
    ];
    for bytes in unusable {
        let stored =
            bench.artifacts.put_content("embeddings/x/", tensor::EXTENSION, bytes.into()).await;
        let text = stored.unwrap();
        for _ in 0..TRIES {
            match bench.loaded(1, &text).await {
                Err(Fault::Ends(Outcome::InputMissing { key })) => assert_eq!(key, text.key),
                other => panic!("{other:?}"),
            }
        }
        match bench.loaded(1, &text).await {
            Err(Fault::Ends(Outcome::Failed { code, .. })) => {
                assert_eq!(code, FailureCode::InvalidInput);
            }
            other => panic!("{other:?}"),
        }
    }
    let good = embedding(&bench.artifacts, 1).await;
    bench.load(1, &good).await;
}

#[tokio::test]
async fn a_cold_batch_reads_each_embedding_once() {
    let bench = Bench::new(EMBEDDINGS).await;
    let text = embedding(&bench.artifacts, 1).await;
    let inputs = join_all((0..32).map(|index| bench.load(index, &text))).await;
    assert!(inputs.iter().all(|inputs| inputs.text.data[0] == 1.0));
    assert_eq!((bench.store.reads(&text), bench.store.reads(&bench.negative)), (1, 1));
}

#[tokio::test]
async fn the_negative_text_that_all_share_outlives_many_prompts() {
    let bench = Bench::new(8 * EMBEDDING).await;
    let mut texts = Vec::new();
    for value in 1..100 {
        texts.push(embedding(&bench.artifacts, value).await);
    }
    for (index, text) in (0..).zip(&texts) {
        bench.load(index, text).await;
    }
    assert_eq!(bench.store.reads(&bench.negative), 1);
    bench.load(100, &texts[0]).await;
    assert_eq!(
        bench.store.reads(&texts[0]),
        2,
        "the first prompt's embedding was dropped for lack of room"
    );
}
