//! Content-addressed files in an object store: a local folder, memory, or any other backend of
//! `object_store`.
//!
//! A key is `{prefix}{sha256}.{extension}`. When a write returns, it is durable: the local folder
//! syncs the file and its parent folders. Reading by reference checks size and hash, so a caller
//! never gets bytes other than the stored ones.

pub(crate) mod find;
mod mount;
pub(crate) mod read;
mod sorted;
mod unfinished;
mod write;

use std::{
    fmt,
    io::ErrorKind,
    path::{Path as FilePath, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use darkroom_core::{artifact::ArtifactRef, backoff::Backoff, shown::shown_path};
#[cfg(feature = "cloud")]
use object_store::signer::Signer;
use object_store::{
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload, local::LocalFileSystem,
    memory::InMemory, path::Path,
};
use tokio::time::{Instant, sleep};

use self::mount::Mount;
use crate::{error::Error, private::Private};

/// Bytes per read of a file, and per uploaded part.
pub(crate) const CHUNK: usize = 8 << 20;
/// Most parts of one artifact that are uploaded at the same time.
const PARALLEL: usize = 4;
/// How often a call is tried if its answer broke off or was wrong. The backend itself retries
/// refused requests.
const ATTEMPTS: u32 = 3;
/// Pauses before retries.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
/// How long failed calls are retried if the backend has no limit of its own.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest life of a signed link; S3 allows no more.
#[cfg(feature = "cloud")]
const MAX_LINK_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Most artifacts that are looked at under one task's prefix.
pub(crate) const MAX_CANDIDATES: usize = 64;
/// Most bytes of an artifact that is read whole: more than any stage stores.
pub(crate) const MAX_WHOLE: u64 = 1 << 30;
/// Most bytes of a record of ours in JSON, such as that of a cascade of 10,000 files.
pub(crate) const MAX_RECORD: u64 = 64 << 20;

/// Most bytes of a mark.
const MARK_BYTES: u64 = 64 << 10;

/// A handle to object storage; clones share it.
#[derive(Clone)]
pub struct ArtifactStore {
    backend: Arc<Backend>,
}

/// The parts of a store.
pub(crate) struct Backend {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The same place, with a longer time limit for answers to big bodies.
    pub(crate) uploads: Arc<dyn ObjectStore>,
    /// Makes links, if the backend can.
    #[cfg(feature = "cloud")]
    pub(crate) signer: Option<Arc<dyn Signer>>,
    /// Where it is, for people, without secrets.
    pub(crate) name: String,
    /// Its folder, if it is one.
    pub(crate) folder: Option<PathBuf>,
    /// Bucket or container, if it has one.
    pub(crate) bucket: Option<String>,
    pub(crate) creation: Creation,
    pub(crate) media_types: MediaTypes,
    pub(crate) credentials: Credentials,
    /// How long failed calls are retried.
    pub(crate) patience: Duration,
    /// Whether it keeps every version of an object, even deleted ones; unknown before the first
    /// check.
    pub(crate) versions: OnceLock<bool>,
}

/// Whether a store supports "create only if absent".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Creation {
    /// It refuses to create an object that exists.
    IfAbsent,
    /// It always replaces an object, so whether it exists is asked before.
    Replaces,
}

impl Creation {
    /// How to write an object that must not exist yet.
    pub(crate) fn mode(self) -> PutMode {
        match self {
            Self::IfAbsent => PutMode::Create,
            Self::Replaces => PutMode::Overwrite,
        }
    }
}

/// Whether a store keeps the media type of an object, so that a link shows it in a browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MediaTypes {
    Kept,
    Unsupported,
}

/// Whether a store was configured with credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    GivenOrNotNeeded,
    Missing,
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
    /// A mark by which the store distinguishes contents under one key: its ETag, or the time of
    /// writing.
    pub mark: String,
}

impl From<ObjectMeta> for Listed {
    fn from(meta: ObjectMeta) -> Self {
        Self {
            key: meta.location.to_string(),
            size: meta.size,
            modified_unix_seconds: meta.last_modified.timestamp(),
            mark: meta.e_tag.unwrap_or_else(|| meta.last_modified.timestamp_micros().to_string()),
        }
    }
}

impl ArtifactStore {
    /// A store in a local folder, created if absent.
    ///
    /// # Errors
    /// If the folder cannot be created or written to, or files in it cannot be renamed.
    pub fn local(folder: &FilePath) -> Result<Self, Error> {
        Self::in_folder(folder, |store| Arc::new(store))
    }

    /// The same, but only the owner of its files can read them, whatever the umask is.
    ///
    /// # Errors
    /// As for [`local`](Self::local).
    pub fn private(folder: &FilePath) -> Result<Self, Error> {
        Self::in_folder(folder, |store| Arc::new(Private(store)))
    }

    fn in_folder(
        folder: &FilePath,
        over: impl FnOnce(LocalFileSystem) -> Arc<dyn ObjectStore>,
    ) -> Result<Self, Error> {
        let name = shown_path(folder);
        let unusable =
            |reason: &str| Error::Unusable { folder: name.clone(), reason: reason.to_owned() };
        std::fs::create_dir_all(folder).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                unusable("a file is in its place; choose a folder")
            }
            _ => Error::of_io(&name, &error),
        })?;
        // object_store assumes that paths are text, and panics if one is not.
        let whole = std::fs::canonicalize(folder).map_err(|error| Error::of_io(&name, &error))?;
        if whole.to_str().is_none() {
            return Err(unusable("its path is not UTF-8; choose a folder of another name"));
        }
        let mount = Mount::look(folder)?;
        let store = LocalFileSystem::new_with_prefix(folder)
            .map_err(|error| Error::of_store(&name, &error))?
            .with_fsync(mount.syncs_folders);
        let store = over(store);
        let backend = Backend {
            uploads: Arc::clone(&store),
            store,
            #[cfg(feature = "cloud")]
            signer: None,
            name,
            folder: Some(whole),
            bucket: None,
            // Creation uses a link, so that an existing file is never replaced.
            creation: if mount.links { Creation::IfAbsent } else { Creation::Replaces },
            media_types: MediaTypes::Unsupported,
            credentials: Credentials::GivenOrNotNeeded,
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
            #[cfg(feature = "cloud")]
            signer: None,
            name,
            folder: None,
            bucket: None,
            creation: Creation::IfAbsent,
            media_types: MediaTypes::Kept,
            credentials: Credentials::GivenOrNotNeeded,
            patience: PATIENCE,
            versions: OnceLock::new(),
        })
    }

    pub(crate) fn of(backend: Backend) -> Self {
        Self { backend: Arc::new(backend) }
    }

    /// The same store, with another handle to the same place for big bodies.
    #[cfg(feature = "cloud")]
    pub(crate) fn uploading_through(self, other: &Self) -> Self {
        let Backend {
            store,
            signer,
            name,
            folder,
            bucket,
            creation,
            media_types,
            credentials,
            patience,
            ..
        } = &*self.backend;
        Self::of(Backend {
            store: Arc::clone(store),
            uploads: Arc::clone(&other.backend.store),
            signer: signer.clone(),
            name: name.clone(),
            folder: folder.clone(),
            bucket: bucket.clone(),
            creation: *creation,
            media_types: *media_types,
            credentials: *credentials,
            patience: *patience,
            versions: OnceLock::new(),
        })
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Where it is, for people, without credentials and query.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.backend.name
    }

    /// The folder that holds it, if it is one.
    #[must_use]
    pub fn folder(&self) -> Option<&FilePath> {
        self.backend.folder.as_deref()
    }

    /// A link with which anyone can fetch the artifact over HTTP until it expires (at most a week).
    /// `None` if the backend has no links, like a folder.
    ///
    /// # Errors
    /// If the backend's credentials cannot sign.
    pub async fn signed_url(
        &self,
        artifact: &ArtifactRef,
        expires: Duration,
    ) -> Result<Option<String>, Error> {
        #[cfg(feature = "cloud")]
        if let Some(signer) = &self.backend.signer {
            let path = path(&artifact.key)?;
            let signed =
                signer.signed_url(http::Method::GET, &path, expires.min(MAX_LINK_LIFE)).await;
            return signed
                .map(|url| Some(url.into()))
                .map_err(|error| Error::of_store(&artifact.key, &error));
        }
        // A folder has no links.
        let _ = (artifact, expires);
        Ok(None)
    }

    /// Writes a small object in place of what is there.
    ///
    /// # Errors
    /// If it is not certain that the bytes were stored.
    pub async fn write_mark(&self, key: &str, bytes: Bytes) -> Result<(), Error> {
        let written = self.store().put(&path(key)?, PutPayload::from_bytes(bytes)).await;
        written.map(drop).map_err(|error| Error::of_store(key, &error))
    }

    /// Deletes an artifact. An artifact that does not exist counts as deleted.
    ///
    /// # Errors
    /// A temporary fault.
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
        let mut backoff = PAUSES;
        let mut attempt = 1;
        loop {
            match once().await {
                Ok(value) => return Ok(value),
                Err(Failure::Again(error))
                    if attempt < ATTEMPTS && start.elapsed() < self.backend.patience =>
                {
                    tracing::debug!(error.code = error.code(), %error, "a storage call is retried");
                }
                Err(Failure::Again(error) | Failure::Last(error)) => return Err(error),
            }
            sleep(backoff.pause()).await;
            attempt += 1;
        }
    }
}

impl fmt::Debug for ArtifactStore {
    // Not derived, because a backend's own text may contain credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArtifactStore").field("name", &self.backend.name).finish_non_exhaustive()
    }
}

/// Why one try failed.
enum Failure {
    /// The next try may succeed.
    Again(Error),
    /// A retry is useless, or the backend has retried for long enough.
    Last(Error),
}

impl Failure {
    fn unless_refused(error: Error) -> Self {
        if matches!(error, Error::Unavailable { .. }) {
            Self::Again(error)
        } else {
            Self::Last(error)
        }
    }
}

fn path(key: &str) -> Result<Path, Error> {
    Path::parse(key)
        .map_err(|error| Error::Corrupt { key: key.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests;
