//! The encoder service with the fake encoder: encode tasks through the in-memory queue, and gRPC
//! over a real socket.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{sync::Arc, time::Duration};

use darkroom_artifacts::{ArtifactStore, CascadeBundle, tensor::FloatTensor};
use darkroom_core::{digest::Digest, error::Code, id::StageName, prompt};
use darkroom_encoder_service::{Handle, Options, start_fake};
use darkroom_proto::{
    status::from_status,
    v1::{EncodeRequest, encoder_client::EncoderClient},
};
use darkroom_queue::{
    TaskQueue,
    memory::MemoryQueue,
    task::{EncodeBody, Outcome, PoolId, Subject, Task, TaskBody, TaskKey, TaskResult},
};
use darkroom_suites::cascade;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Server};

struct Bench {
    queue: Arc<MemoryQueue>,
    artifacts: ArtifactStore,
    digest: Digest,
    service: Handle,
}

impl Bench {
    async fn start() -> Self {
        let mut cascade = cascade::without_files(1);
        cascade.spec.encoder.max_length = 6;
        let digest = cascade.encoder_digest();
        let bundle = CascadeBundle::without_files(cascade);
        let queue = Arc::new(MemoryQueue::default());
        let artifacts = ArtifactStore::in_memory();
        let shared = Arc::clone(&queue) as Arc<dyn TaskQueue>;
        // Equal encoders are served once.
        let bundles = [bundle.clone(), bundle];
        let (options, stop) = (Options::default(), CancellationToken::new());
        let service = start_fake(options, shared, artifacts.clone(), &bundles, stop).await.unwrap();
        Self { queue, artifacts, digest, service }
    }

    fn pool(&self) -> PoolId {
        PoolId { stage: StageName::encode(), digest: self.digest }
    }

    fn task(&self, text: &str) -> Task {
        let digest = prompt::text_digest(&self.digest, text);
        Task {
            key: TaskKey { subject: Subject::Text(digest), generation: 0, dispatch: 1 },
            compatibility: "encode".to_owned(),
            suspect: false,
            body: TaskBody::Encode(EncodeBody {
                text: text.to_owned(),
                prefix: format!("embeddings/{digest}/"),
            }),
            traceparent: None,
            warrant: None,
            seal: None,
        }
    }

    async fn encode(&self, texts: &[&str]) -> Vec<TaskResult> {
        let pool = self.pool();
        self.queue.add(&pool, texts.iter().map(|text| self.task(text)).collect()).await.unwrap();
        let mut results = Vec::new();
        while results.len() < texts.len() {
            let read = self.queue.results(&pool, "c", 100, Duration::from_secs(20)).await.unwrap();
            assert!(!read.is_empty());
            for entry in read {
                self.queue.acknowledge(&pool, &[entry.id]).await.unwrap();
                results.push(entry.result);
            }
        }
        let place =
            |result: &TaskResult| texts.iter().position(|text| self.task(text).key == result.key);
        results.sort_by_key(place);
        results
    }

    /// A client of the service on a separate socket.
    async fn client(&self) -> EncoderClient<Channel> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = Server::builder().add_routes(self.service.routes());
        tokio::spawn(serve.serve_with_incoming(TcpListenerStream::new(listener)));
        EncoderClient::connect(format!("http://{address}")).await.unwrap()
    }
}

#[tokio::test]
async fn each_text_becomes_one_artifact_and_its_notes_are_told_again() {
    let bench = Bench::start().await;
    let texts = ["a red circle", "a blorp", "one two three four five six seven", ""];
    let results = bench.encode(&texts).await;
    for result in &results {
        let Outcome::Done { artifact, .. } = &result.outcome else { panic!("{result:?}") };
        let (tensor, _) =
            FloatTensor::from_bytes(&bench.artifacts.get(artifact).await.unwrap()).unwrap();
        assert_eq!(tensor.shape, [6, 8]);
    }
    let notes = |result: &TaskResult| match &result.outcome {
        Outcome::Done { notes, .. } => notes.clone(),
        other => panic!("{other:?}"),
    };
    assert!(notes(&results[0]).is_empty());
    assert_eq!(notes(&results[1])[0], "the model does not know: blorp");
    assert!(notes(&results[2])[0].starts_with("a prompt has 8 tokens, the last 2 were cut off"));
    let again = bench.encode(&texts[1..2]).await;
    assert_eq!(again[0].outcome, results[1].outcome, "found, not computed");
    assert!(again[0].seconds == 0.0 && results[1].seconds > 0.0);
    bench.service.shutdown();
    bench.service.join().await.unwrap();
}

#[tokio::test]
async fn a_text_that_cannot_be_encoded_fails_alone() {
    let bench = Bench::start().await;
    let results = bench.encode(&["a circle", "poison", "a star"]).await;
    let failed: Vec<bool> =
        results.iter().map(|result| matches!(result.outcome, Outcome::Failed { .. })).collect();
    assert_eq!(failed, [false, true, false]);
}

#[tokio::test]
async fn grpc_gives_the_embedding_that_the_farm_uses() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    let request = EncodeRequest {
        texts: vec!["  A Red BLORP".to_owned(), String::new()],
        encoder_digest: bench.digest.to_string(),
    };
    let response = client.encode(request).await.unwrap().into_inner();
    assert_eq!(response.encoder_digest, bench.digest.to_string());
    assert_eq!(response.embeddings.len(), 2);
    let first = &response.embeddings[0];
    assert_eq!(
        (first.tokens, first.width, first.unknown_words.as_slice()),
        (6, 8, &["blorp".to_owned()][..])
    );
    let Outcome::Done { artifact, .. } = &bench.encode(&["a red blorp"]).await[0].outcome else {
        panic!("done")
    };
    let (tensor, _) =
        FloatTensor::from_bytes(&bench.artifacts.get(artifact).await.unwrap()).unwrap();
    let bytes: Vec<u8> = tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(first.data, bytes);
}

#[tokio::test]
async fn wrong_requests_are_refused_by_field() {
    let bench = Bench::start().await;
    let mut client = bench.client().await;
    let long = "x".repeat(prompt::MAX_CHARACTERS + 1);
    let cases = [
        (vec![], String::new(), "texts", Code::InvalidArgument),
        (vec!["a".to_owned(); 257], String::new(), "texts", Code::InvalidArgument),
        (vec!["a".to_owned(), long], String::new(), "texts[1]", Code::InvalidArgument),
        (vec!["a".to_owned()], "abc".to_owned(), "encoder_digest", Code::InvalidArgument),
        (
            vec!["a".to_owned()],
            Digest::of(b"x").to_string(),
            "encoder_digest",
            Code::FailedPrecondition,
        ),
    ];
    for (texts, encoder_digest, field, code) in cases {
        let status = client.encode(EncodeRequest { texts, encoder_digest }).await.unwrap_err();
        let error = from_status(&status);
        assert_eq!((error.field.as_deref(), error.code), (Some(field), code), "{error}");
    }
}
