//! Object storage in memory that a test can obstruct: before each request it does what the test says,
//! such as refusing it, or holding it back.

use std::{
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use futures::{
    StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory,
    path::Path,
};

/// A request to storage, with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// An object is read.
    Get(String),
    /// An object is stored.
    Put(String),
    /// An object is deleted.
    Delete(String),
}

/// What happens before a request: nothing, or an error in its place.
type Obstacle = Arc<dyn Fn(Request) -> BoxFuture<'static, io::Result<()>> + Send + Sync>;

/// The storage. Clones share its content and its obstacle.
#[derive(Clone, Default)]
pub struct Obstructed {
    inner: Arc<InMemory>,
    obstacle: Arc<Mutex<Option<Obstacle>>>,
}

impl Obstructed {
    /// From now on, this comes before each request.
    pub fn obstruct(
        &self,
        obstacle: impl Fn(Request) -> BoxFuture<'static, io::Result<()>> + Send + Sync + 'static,
    ) {
        *self.obstacle.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(obstacle));
    }

    /// From now on, requests for which this is true are refused with this error.
    pub fn refuse(
        &self,
        error: io::ErrorKind,
        which: impl Fn(&Request) -> bool + Send + Sync + 'static,
    ) {
        self.obstruct(move |request| {
            let answer = if which(&request) { Err(error.into()) } else { Ok(()) };
            Box::pin(std::future::ready(answer))
        });
    }

    /// The same storage, for others in whose way nothing is.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), obstacle: Arc::default() }
    }

    /// Nothing is in the way any more.
    pub fn clear(&self) {
        *self.obstacle.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn pass(&self, request: Request) -> Result<()> {
        let obstacle = self.obstacle.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(obstacle) = obstacle else { return Ok(()) };
        let passed = obstacle(request).await;
        passed.map_err(|error| Error::Generic { store: "Obstructed", source: Box::new(error) })
    }
}

impl fmt::Debug for Obstructed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Obstructed")
    }
}

impl fmt::Display for Obstructed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Obstructed")
    }
}

#[async_trait]
impl ObjectStore for Obstructed {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.pass(Request::Put(path.to_string())).await?;
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.pass(Request::Put(path.to_string())).await?;
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.pass(Request::Get(path.to_string())).await?;
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let deleted = paths.then(move |path| {
            let this = this.clone();
            async move {
                let path = path?;
                this.pass(Request::Delete(path.to_string())).await?;
                let one = stream::once(std::future::ready(Ok(path.clone())));
                let mut deleted = this.inner.delete_stream(one.boxed());
                deleted.next().await.unwrap_or(Ok(path))
            }
        });
        deleted.boxed()
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
