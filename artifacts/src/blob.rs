//! Content-addressed files in an object store: a local folder, memory, or what else `object_store` speaks to.
//!
//! A key is `{prefix}{sha256}.{extension}`. A write is durable when it returns: the local folder syncs the file and
//! the folders that name it. Reading by reference checks size and hash, so a caller never sees other bytes than
//! those that were stored.

use std::{
    fmt,
    io::ErrorKind,
    ops::Range,
    path::Path as FilePath,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    guard::{Guard, stands},
};
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, WriteMultipart, local::LocalFileSystem,
    memory::InMemory, path::Path, signer::Signer,
};
use sha2::{Digest as _, Sha256};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, sleep},
};
use uuid::Uuid;

use crate::error::Error;

/// Bytes of a file read, and of a part uploaded, at a time.
pub(crate) const CHUNK: usize = 8 << 20;
/// Bytes of a body that any line sends in a moment.
const SMALL: u64 = 256 << 10;
/// Parts that a multipart upload may have; S3 allows 10,000.
const MAX_PARTS: u64 = 9000;
/// Parts of one artifact that are on their way at once.
const PARALLEL: usize = 4;
/// How often a call is tried whose answer broke off or was wrong; the backend repeats refused requests by itself.
const ATTEMPTS: u32 = 3;
/// Pause before the second try; each later one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// How long failed calls are tried again, where the backend has no limit of its own.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest life of a signed link: what S3 allows.
const MAX_LINK_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A handle to object storage; clones share it.
#[derive(Clone)]
pub struct ArtifactStore {
    backend: Arc<Backend>,
}

/// What a store is made of.
pub(crate) struct Backend {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The same place, where an answer may take as long as sending a big body does.
    pub(crate) uploads: Arc<dyn ObjectStore>,
    /// Makes links, where the backend can.
    pub(crate) signer: Option<Arc<dyn Signer>>,
    /// Where it is, for people; without secrets.
    pub(crate) name: String,
    /// Bucket or container, if it has one.
    pub(crate) bucket: Option<String>,
    /// Whether it knows "create only if absent".
    pub(crate) creates: bool,
    /// Whether somebody gave it credentials, or it needs none.
    pub(crate) has_credentials: bool,
    /// How long failed calls are tried again.
    pub(crate) patience: Duration,
    /// Whether it keeps every version of an object, deleted ones too; unknown before the first look.
    pub(crate) versions: OnceLock<bool>,
}

/// One listed artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its size, bytes.
    pub size: u64,
    /// When it was written, seconds since 1970.
    pub modified_unix_seconds: i64,
    /// What the store tells it by from other contents under its key: its ETag, or the time of its writing.
    pub mark: String,
}

impl ArtifactStore {
    /// A store in a local folder, created if absent.
    ///
    /// # Errors
    /// If the folder cannot be created or written to, or files in it not renamed.
    pub fn local(folder: &FilePath) -> Result<Self, Error> {
        let name = folder.display().to_string();
        let unusable = |reason: &str| Error::Unusable { folder: name.clone(), reason: reason.to_owned() };
        std::fs::create_dir_all(folder).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                unusable("a file is in its place; choose a folder")
            }
            _ => Error::of_io(&name, &error),
        })?;
        // object_store takes every path for text, and panics where one is not.
        let whole = std::fs::canonicalize(folder).map_err(|error| Error::of_io(&name, &error))?;
        if whole.to_str().is_none() {
            return Err(unusable("its path is not UTF-8; choose a folder of another name"));
        }
        let mount = Mount::look(folder)?;
        let store = LocalFileSystem::new_with_prefix(folder)
            .map_err(|error| Error::of_store(&name, &error))?
            .with_fsync(mount.syncs_folders);
        let store: Arc<dyn ObjectStore> = Arc::new(store);
        let backend = Backend {
            uploads: Arc::clone(&store),
            store,
            signer: None,
            name,
            bucket: None,
            // It is done with a link, so that what is there is never replaced.
            creates: mount.links,
            has_credentials: true,
            patience: PATIENCE,
            versions: OnceLock::new(),
        };
        Ok(Self::of(backend))
    }

    /// A store in memory, for tests.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::over(Arc::new(InMemory::new()))
    }

    /// A store over any backend of `object_store`.
    #[must_use]
    pub fn over(store: Arc<dyn ObjectStore>) -> Self {
        let name = store.to_string();
        Self::of(Backend {
            uploads: Arc::clone(&store),
            store,
            signer: None,
            name,
            bucket: None,
            creates: true,
            has_credentials: true,
            patience: PATIENCE,
            versions: OnceLock::new(),
        })
    }

    pub(crate) fn of(backend: Backend) -> Self {
        Self { backend: Arc::new(backend) }
    }

    /// The same store, sending big bodies through another handle of the same place.
    pub(crate) fn uploading_through(self, other: &Self) -> Self {
        let Backend { store, signer, name, bucket, creates, has_credentials, patience, .. } = &*self.backend;
        Self::of(Backend {
            store: Arc::clone(store),
            uploads: Arc::clone(&other.backend.store),
            signer: signer.clone(),
            name: name.clone(),
            bucket: bucket.clone(),
            creates: *creates,
            has_credentials: *has_credentials,
            patience: *patience,
            versions: OnceLock::new(),
        })
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Where it is, for people: no credentials, no query.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.backend.name
    }

    /// Stores `bytes` at `{prefix}{sha256}.{extension}`, unless they lie there already. What lies there but does not
    /// have the hash its name promises (a damaged disk) is replaced.
    ///
    /// # Errors
    /// If nothing could be stored for sure.
    pub async fn put_content(
        &self,
        prefix: &str,
        extension: &str,
        bytes: Bytes,
    ) -> Result<ArtifactRef, Error> {
        let sha256 = Digest::of(&bytes);
        let artifact =
            ArtifactRef { key: format!("{prefix}{sha256}.{extension}"), sha256, size: bytes.len() as u64 };
        let path = path(&artifact.key)?;
        let payload = PutPayload::from_bytes(bytes);
        if self.tried(|| self.create(&artifact, &path, &payload)).await? {
            return Ok(artifact);
        }
        if let Err(Error::Corrupt { .. } | Error::Missing { .. }) = self.get(&artifact).await {
            tracing::warn!(artifact.key, "damaged artifact replaced");
            let replaced = self.store().put_opts(&path, payload, PutOptions::default()).await;
            replaced.map_err(|error| Error::of_store(&artifact.key, &error))?;
        }
        Ok(artifact)
    }

    /// Whether it was created; otherwise something lies there already.
    async fn create(
        &self,
        artifact: &ArtifactRef,
        path: &Path,
        payload: &PutPayload,
    ) -> Result<bool, Failure> {
        let mode = if !stands(Guard::CreatedOnce) {
            PutMode::Overwrite
        } else if self.backend.creates {
            PutMode::Create
        } else {
            match self.store().head(path).await {
                Ok(_) => return Ok(false),
                Err(object_store::Error::NotFound { .. }) => PutMode::Overwrite,
                Err(error) => return Err(Failure::Last(Error::of_store(&artifact.key, &error))),
            }
        };
        let store = if artifact.size > SMALL { &self.backend.uploads } else { &self.backend.store };
        match store.put_opts(path, payload.clone(), PutOptions::from(mode)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            // A create whose answer was lost is not repeated by the backend; here it is safe, since the key says what
            // lies under it.
            Err(error) => Err(Failure::unless_refused(Error::of_store(&artifact.key, &error))),
        }
    }

    /// As [`put_content`](Self::put_content), from a file too big for memory: it is read twice, in chunks.
    ///
    /// # Errors
    /// If the file cannot be read, changes meanwhile, or cannot be stored.
    pub async fn put_file(
        &self,
        prefix: &str,
        extension: &str,
        file: &FilePath,
    ) -> Result<ArtifactRef, Error> {
        let name = file.display().to_string();
        let mut hasher = Sha256::new();
        let mut size = 0;
        let mut source = open(file, &name).await?;
        while let Some(chunk) = next_chunk(&mut source, &name).await? {
            hasher.update(&chunk);
            size += chunk.len() as u64;
        }
        let sha256 = Digest(hasher.finalize().into());
        let artifact = ArtifactRef { key: format!("{prefix}{sha256}.{extension}"), sha256, size };
        let path = path(&artifact.key)?;
        let failed = |error| Error::of_store(&artifact.key, &error);
        if self.store().head(&path).await.is_ok_and(|meta| meta.size == size) {
            return Ok(artifact);
        }
        if size <= CHUNK as u64 {
            let bytes = tokio::fs::read(file).await.map_err(|error| Error::of_io(&name, &error))?;
            let stored = self.put_content(prefix, extension, bytes.into()).await?;
            return if stored == artifact { Ok(stored) } else { Err(changed(&name)) };
        }
        let part = (size / MAX_PARTS).max(CHUNK as u64);
        let upload = self.backend.uploads.put_multipart(&path).await.map_err(failed)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, usize::try_from(part).unwrap_or(CHUNK));
        match fill(&mut upload, &artifact, file, &name).await {
            Ok(()) => {
                upload.finish().await.map_err(failed)?;
                Ok(artifact)
            }
            Err(error) => {
                // The parts cost money until somebody takes them back; that this fails too changes nothing here.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }

    /// Reads an artifact whole and checks its size and hash.
    ///
    /// # Errors
    /// `Missing`, `Corrupt`, or a fault that may pass.
    pub async fn get(&self, artifact: &ArtifactRef) -> Result<Bytes, Error> {
        let path = path(&artifact.key)?;
        self.tried(|| self.get_once(artifact, &path)).await
    }

    async fn get_once(&self, artifact: &ArtifactRef, path: &Path) -> Result<Bytes, Failure> {
        let key = &artifact.key;
        let found =
            self.store().get(path).await.map_err(|error| Failure::Last(Error::of_store(key, &error)))?;
        let size = found.meta.size;
        if size != artifact.size {
            return Err(Failure::Again(wrong_size(artifact, size)));
        }
        let bytes = found.bytes().await.map_err(|error| Failure::Again(Error::of_store(key, &error)))?;
        let sha256 = Digest::of(&bytes);
        if sha256 != artifact.sha256 && stands(Guard::HashChecked) {
            let reason = format!("its SHA-256 is {sha256}, expected {}", artifact.sha256);
            return Err(Failure::Again(Error::Corrupt { key: key.clone(), reason }));
        }
        Ok(bytes)
    }

    /// Reads part of an artifact, unchecked but for its whole size; the range is cut at its end.
    ///
    /// # Errors
    /// `Missing`, `Corrupt` when its size is not what was stored, or a fault that may pass.
    pub async fn get_range(&self, artifact: &ArtifactRef, range: Range<u64>) -> Result<Bytes, Error> {
        let path = path(&artifact.key)?;
        let range = range.start.min(artifact.size)..range.end.min(artifact.size);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.tried(|| self.get_range_once(artifact, &path, range.clone())).await
    }

    async fn get_range_once(
        &self,
        artifact: &ArtifactRef,
        path: &Path,
        range: Range<u64>,
    ) -> Result<Bytes, Failure> {
        let key = &artifact.key;
        let wanted = range.end - range.start;
        let options = object_store::GetOptions { range: Some(range.into()), ..Default::default() };
        let found = match self.store().get_opts(path, options).await {
            Ok(found) => found,
            Err(error) => {
                // A range that begins behind the end is refused in words that differ from store to store.
                let size = self.store().head(path).await.map(|meta| meta.size);
                return Err(Failure::Last(match size {
                    Ok(size) if size != artifact.size => wrong_size(artifact, size),
                    _ => Error::of_store(key, &error),
                }));
            }
        };
        let size = found.meta.size;
        let bytes = found.bytes().await.map_err(|error| Failure::Again(Error::of_store(key, &error)))?;
        if size != artifact.size || bytes.len() as u64 != wanted {
            return Err(Failure::Again(wrong_size(artifact, size)));
        }
        Ok(bytes)
    }

    /// Reads an artifact too big for memory from byte `from` to its end, in chunks whose contents are unchecked: the
    /// caller hashes them.
    pub fn read(
        &self,
        artifact: &ArtifactRef,
        from: u64,
    ) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
        let (store, artifact) = (self.clone(), artifact.clone());
        let starts = (from..artifact.size).step_by(CHUNK);
        futures::stream::iter(starts)
            .map(move |start| {
                let (store, artifact) = (store.clone(), artifact.clone());
                async move { store.get_range(&artifact, start..start + CHUNK as u64).await }
            })
            .buffered(PARALLEL)
    }

    /// A link under which anyone can fetch the artifact over HTTP until it expires (after a week at most); none where
    /// the backend has no such thing, as a folder.
    ///
    /// # Errors
    /// If the backend's credentials cannot sign.
    pub async fn signed_url(
        &self,
        artifact: &ArtifactRef,
        expires: Duration,
    ) -> Result<Option<String>, Error> {
        let Some(signer) = &self.backend.signer else { return Ok(None) };
        let path = path(&artifact.key)?;
        let signed = signer.signed_url(http::Method::GET, &path, expires.min(MAX_LINK_LIFE)).await;
        signed.map(|url| Some(url.into())).map_err(|error| Error::of_store(&artifact.key, &error))
    }

    /// Size of an artifact as it lies there, without reading it.
    ///
    /// # Errors
    /// `Missing`, or a fault that may pass.
    pub async fn size_of(&self, key: &str) -> Result<u64, Error> {
        let meta = self.store().head(&path(key)?).await.map_err(|error| Error::of_store(key, &error))?;
        Ok(meta.size)
    }

    /// The artifacts under a prefix that ends in `/`, in no order.
    pub fn list(&self, prefix: &str) -> impl Stream<Item = Result<Listed, Error>> + Send + 'static {
        let name = prefix.to_owned();
        let listed = match path(prefix) {
            Ok(path) => self.store().list(Some(&path)).left_stream(),
            Err(_) => futures::stream::empty().right_stream(),
        };
        listed.map_err(move |error| Error::of_store(&name, &error)).map_ok(|meta| Listed {
            key: meta.location.to_string(),
            size: meta.size,
            modified_unix_seconds: meta.last_modified.timestamp(),
            mark: meta.e_tag.unwrap_or_else(|| meta.last_modified.timestamp_micros().to_string()),
        })
    }

    /// Finds an artifact that an earlier run left under `prefix`: the first, by key, that has the extension and whose
    /// bytes have the hash in its name. With its bytes, since they were read to be sure.
    ///
    /// # Errors
    /// A fault that may pass; damaged artifacts are passed over.
    pub async fn find_content(
        &self,
        prefix: &str,
        extension: &str,
    ) -> Result<Option<(ArtifactRef, Bytes)>, Error> {
        let mut found: Vec<Listed> = self.list(prefix).take(MAX_CANDIDATES).try_collect().await?;
        found.sort_by(|a, b| a.key.cmp(&b.key));
        for listed in found {
            let name = listed.key.strip_prefix(prefix).and_then(|name| name.strip_suffix(extension));
            let Some(sha256) = name.and_then(|name| name.strip_suffix('.')?.parse().ok()) else { continue };
            let artifact = ArtifactRef { key: listed.key, sha256, size: listed.size };
            match self.get(&artifact).await {
                Ok(bytes) => return Ok(Some((artifact, bytes))),
                Err(error) if error.retryable() => return Err(error),
                Err(error) => tracing::warn!(artifact.key, error.code = error.code(), "artifact passed over"),
            }
        }
        Ok(None)
    }

    /// Deletes an artifact; one that is not there is as good as deleted.
    ///
    /// # Errors
    /// A fault that may pass.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        match self.store().delete(&path(key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Error::of_store(key, &error)),
        }
    }

    fn store(&self) -> &dyn ObjectStore {
        self.backend.store.as_ref()
    }

    async fn tried<T, F>(&self, once: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        loop {
            match once().await {
                Ok(value) => return Ok(value),
                Err(Failure::Again(error))
                    if attempt < ATTEMPTS && start.elapsed() < self.backend.patience =>
                {
                    tracing::debug!(error.code = error.code(), %error, "storage call repeated");
                }
                Err(Failure::Again(error) | Failure::Last(error)) => return Err(error),
            }
            sleep(pause).await;
            pause *= 2;
            attempt += 1;
        }
    }
}

impl fmt::Debug for ArtifactStore {
    // Not derived: a backend's own text may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArtifactStore").field("name", &self.backend.name).finish_non_exhaustive()
    }
}

/// Why one try failed.
enum Failure {
    /// It may go well the next time.
    Again(Error),
    /// It will not, or the backend has tried it long enough.
    Last(Error),
}

impl Failure {
    fn unless_refused(error: Error) -> Self {
        if matches!(error, Error::Unavailable { .. }) { Self::Again(error) } else { Self::Last(error) }
    }
}

/// Most artifacts looked at under one task's prefix.
pub(crate) const MAX_CANDIDATES: usize = 64;

fn path(key: &str) -> Result<Path, Error> {
    Path::parse(key).map_err(|error| Error::Corrupt { key: key.to_owned(), reason: error.to_string() })
}

fn wrong_size(artifact: &ArtifactRef, size: u64) -> Error {
    let reason = format!("{size} bytes where {} were stored", artifact.size);
    Error::Corrupt { key: artifact.key.clone(), reason }
}

fn changed(name: &str) -> Error {
    Error::Corrupt { key: name.to_owned(), reason: "the file changed while it was stored".to_owned() }
}

/// Uploads a file's bytes, which must still be those that were hashed.
async fn fill(
    upload: &mut WriteMultipart,
    artifact: &ArtifactRef,
    file: &FilePath,
    name: &str,
) -> Result<(), Error> {
    let mut hasher = Sha256::new();
    let mut source = open(file, name).await?;
    while let Some(chunk) = next_chunk(&mut source, name).await? {
        let capacity = upload.wait_for_capacity(PARALLEL).await;
        capacity.map_err(|error| Error::of_store(&artifact.key, &error))?;
        hasher.update(&chunk);
        upload.write(&chunk);
    }
    if Digest(hasher.finalize().into()) == artifact.sha256 { Ok(()) } else { Err(changed(name)) }
}

/// What the file system of a folder can do.
struct Mount {
    links: bool,
    syncs_folders: bool,
}

impl Mount {
    /// Proves that files can be written and renamed in the folder, and tries the rest.
    fn look(folder: &FilePath) -> Result<Self, Error> {
        let name = folder.display().to_string();
        let id = Uuid::new_v4();
        let [probe, other] = ["one", "two"].map(|which| folder.join(format!(".probe-{id}-{which}")));
        let written = std::fs::write(&probe, id.to_string());
        let links = std::fs::hard_link(&probe, &other).is_ok();
        let renamed = std::fs::rename(&probe, &other);
        let syncs_folders = std::fs::File::open(folder).is_ok_and(|folder| folder.sync_all().is_ok());
        // Two names of one file both stay when one is renamed to the other.
        for file in [&probe, &other] {
            let _ = std::fs::remove_file(file);
        }
        written.map_err(|error| Error::of_io(&name, &error))?;
        renamed.map_err(|error| Error::Unusable {
            folder: name,
            reason: format!("its file system cannot rename files ({error}); choose a folder on another"),
        })?;
        Ok(Self { links, syncs_folders })
    }
}

async fn open(file: &FilePath, name: &str) -> Result<tokio::fs::File, Error> {
    tokio::fs::File::open(file).await.map_err(|error| Error::of_io(name, &error))
}

async fn next_chunk(file: &mut tokio::fs::File, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let mut chunk = Vec::with_capacity(1 << 20);
    let read =
        file.take(1 << 20).read_to_end(&mut chunk).await.map_err(|error| Error::of_io(name, &error))?;
    Ok((read > 0).then_some(chunk))
}

#[cfg(test)]
mod tests;
