//! Object storage in memory that a test can obstruct: before each request it does what the test says,
//! such as refusing it, or holding it back.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{
    StreamExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory,
    path::Path,
};
use tokio::sync::Notify;

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
    /// What begins with this is listed without end.
    endless: Arc<Mutex<Option<String>>>,
}

/// A request that is held back.
#[derive(Debug)]
pub struct Held {
    reached: Arc<Notify>,
    go_on: Arc<Notify>,
}

impl Held {
    /// Waits until it is made.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Lets it go on.
    pub fn let_go(&self) {
        self.go_on.notify_one();
    }
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

    /// From now on, the first request for which this is true is held back.
    #[must_use]
    pub fn hold(&self, which: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Held {
        let held = Held { reached: Arc::default(), go_on: Arc::default() };
        let (reached, go_on) = (Arc::clone(&held.reached), Arc::clone(&held.go_on));
        let is_first = AtomicBool::new(true);
        self.obstruct(move |request| {
            let stops = which(&request) && is_first.swap(false, Ordering::SeqCst);
            let (reached, go_on) = (Arc::clone(&reached), Arc::clone(&go_on));
            Box::pin(async move {
                if stops {
                    reached.notify_one();
                    go_on.notified().await;
                }
                Ok(())
            })
        });
        held
    }

    /// From now on, listings below this prefix repeat their first object without end.
    pub fn list_without_end(&self, prefix: &str) {
        *self.endless.lock().unwrap_or_else(PoisonError::into_inner) = Some(prefix.to_owned());
    }

    /// The same storage, for others in whose way nothing is.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), ..Self::default() }
    }

    /// Nothing is in the way any more.
    pub fn clear(&self) {
        *self.obstacle.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.endless.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
        let listed = self.inner.list(prefix);
        let endless = self.endless.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ends =
            |prefix: &Path| !endless.is_some_and(|begins| prefix.as_ref().starts_with(&begins));
        if prefix.is_none_or(ends) {
            return listed;
        }
        let again = |one: ObjectMeta| stream::repeat_with(move || Ok(one.clone()));
        // As an answer from the network would, each one waits.
        let waits = |one| async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            one
        };
        listed.map_ok(again).try_flatten().then(waits).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
