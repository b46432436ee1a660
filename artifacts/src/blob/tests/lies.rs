//! A store that states wrong sizes, or whose answers do not end.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    PutMultipartOptions, PutOptions, PutResult, Result,
};

use super::*;
use crate::{cascade_store, seal, tensor};

/// Bytes of one piece of an answer that does not end.
const PIECE: u64 = 1 << 20;
/// Bytes after which it ends all the same, so that a test that fails does not fill the memory.
const ENOUGH: u64 = 64 << 20;

/// States this size of each object, where there is one, and answers every read with zeros.
#[derive(Debug, Default)]
struct Lying {
    inner: InMemory,
    size: Option<u64>,
    /// Lists each object again and again.
    again: bool,
    /// Bytes that it has sent.
    sent: Arc<AtomicU64>,
}

impl Lying {
    fn about(&self, meta: ObjectMeta) -> ObjectMeta {
        ObjectMeta { size: self.size.unwrap_or(meta.size), ..meta }
    }
}

impl fmt::Display for Lying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lying")
    }
}

#[async_trait]
impl ObjectStore for Lying {
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
        let is_head = options.head;
        let found = self.inner.get_opts(path, options).await?;
        if is_head {
            return Ok(found);
        }
        let sent = Arc::clone(&self.sent);
        let pieces = stream::iter(0..ENOUGH / PIECE).map(move |_| {
            sent.fetch_add(PIECE, Ordering::Relaxed);
            Ok(Bytes::from(vec![0; PIECE as usize]))
        });
        let meta = self.about(found.meta.clone());
        Ok(GetResult { meta, payload: GetResultPayload::Stream(pieces.boxed()), ..found })
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let size = self.size;
        let stated = move |meta: ObjectMeta| ObjectMeta { size: size.unwrap_or(meta.size), ..meta };
        let listed = self.inner.list(prefix).map_ok(stated);
        if !self.again {
            return listed.boxed();
        }
        let again = |meta: ObjectMeta| stream::iter((0..1_000_000).map(move |_| Ok(meta.clone())));
        listed.map_ok(again).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A store that states this size, and the number of bytes that it has sent.
fn lying(size: Option<u64>) -> (ArtifactStore, Arc<AtomicU64>) {
    let sent = Arc::default();
    let store = Lying { size, sent: Arc::clone(&sent), ..Lying::default() };
    (ArtifactStore::over(Arc::new(store)), sent)
}

#[tokio::test]
async fn what_is_too_big_to_be_an_artifact_is_not_read() {
    let digest = Digest::of(b"cascade");
    let bytes = Bytes::from_static(b"{}");
    for size in [MAX_WHOLE + 1, 20 << 30, u64::MAX] {
        let (store, sent) = lying(Some(size));
        for extension in ["png", tensor::EXTENSION] {
            store.put_content("t/1/", extension, bytes.clone()).await.unwrap();
            assert_eq!(store.find_content("t/1/", extension).await.unwrap(), None, "{extension}");
        }
        for folder in ["record", "seals"] {
            let prefix = format!("cascades/{digest}/{folder}/");
            store.put_content(&prefix, "json", bytes.clone()).await.unwrap();
        }
        cascade_store::describe(&store, digest).await.expect_err("no record that is read");
        assert!(seal::read(&store, digest).await.unwrap().is_empty());
        // As a member may report it, and a record may have it.
        let stored = store.put_content("t/2/", "png", bytes.clone()).await.unwrap();
        let error = store.get(&ArtifactRef { size, ..stored }).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }) && !error.retryable(), "{error}");
        assert_eq!(sent.load(Ordering::Relaxed), 0, "{size}");
    }
    // A picture is smaller than a tensor may be, and a record still smaller.
    let (store, sent) = lying(Some(MAX_FILE_BYTES + 1));
    store.put_content("t/1/", "png", bytes.clone()).await.unwrap();
    assert_eq!(store.find_content("t/1/", "png").await.unwrap(), None);
    store.put_content(&format!("cascades/{digest}/seals/"), "json", bytes.clone()).await.unwrap();
    seal::read(&store, digest).await.unwrap();
    assert_eq!(sent.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_read_as_far_as_it_should_go() {
    let (store, sent) = lying(None);
    let bytes = Bytes::from_static(b"0123456789");
    let artifact = store.put_content("t/", "png", bytes).await.unwrap();
    // Two pieces are taken before the sizes are compared, in every try.
    let tries = u64::from(ATTEMPTS) * 2 * PIECE;
    for part in [false, true] {
        let read =
            if part { store.get_range(&artifact, 2..5).await } else { store.get(&artifact).await };
        let error = read.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        let sent = sent.swap(0, Ordering::Relaxed);
        assert!(sent <= tries, "{part}: {sent} bytes");
    }
    assert_eq!(store.find_content("t/", "png").await.unwrap(), None);
    assert!(sent.swap(0, Ordering::Relaxed) <= tries);
    let error = store.read_mark(&artifact.key).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(sent.swap(0, Ordering::Relaxed) <= 2 * PIECE);
    let error = store.check().await.unwrap_err();
    assert_eq!(error.reason, "ARTIFACTS_UNFAITHFUL", "{error}");
    assert!(sent.load(Ordering::Relaxed) <= 2 * PIECE);
}

#[tokio::test]
async fn of_objects_without_end_only_some_are_looked_at() {
    let store = ArtifactStore::over(Arc::new(Lying { again: true, ..Lying::default() }));
    store.put_content("t/", "png", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(store.candidates("t/", "png", MAX_WHOLE).await.unwrap().len(), MAX_CANDIDATES);
}
