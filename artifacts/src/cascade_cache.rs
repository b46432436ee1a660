//! Cascades fetched from object storage by digest, kept in a folder that several processes of one machine may share.
//!
//! `{digest}/` is a complete cascade, `incoming/{digest}/` one on its way, `locks/` what keeps processes apart, and
//! `trash/` what is being deleted. Every file is hashed each time a cascade is fetched, so nothing here needs to be
//! durable: what a crash or a bad disk left is found and fetched again.

mod download;
mod room;

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use darkroom_core::{
    cascade::FILE_NAME,
    digest::Digest,
    error::{Code, UserError},
};
use futures::{StreamExt, TryStreamExt};
use tokio::task::spawn_blocking;

use crate::{
    blob::ArtifactStore,
    cascade_bundle::{CascadeBundle, hash_all},
    cascade_store::{self, Record, RecordFile, is_spec},
};

/// Files fetched at once.
const PARALLEL: usize = 2;
/// How often a lock that another process holds is looked at.
const LOCK_POLL: Duration = Duration::from_millis(50);
/// Name of the record in a cascade's folder.
const RECORD: &str = ".record.json";

/// A folder of fetched cascades, bounded in size.
#[derive(Clone, Debug)]
pub struct CascadeCache {
    folder: PathBuf,
    max_bytes: u64,
}

impl CascadeCache {
    /// A cache in `folder`, created if absent, that holds `max_bytes` at most.
    ///
    /// # Errors
    /// If the folder cannot be created or written to.
    pub fn new(folder: &Path, max_bytes: u64) -> Result<Self, UserError> {
        let cache = Self { folder: folder.to_owned(), max_bytes };
        let folders = [cache.locks(), cache.incoming(), cache.trash()];
        folders.iter().try_for_each(std::fs::create_dir_all).map_err(|error| cache.failed(&error, None))?;
        Ok(cache)
    }

    /// The cascade of this digest: from the folder if it is there and whole, else from the store, file by file, going
    /// on where an earlier fetch ended. While a clone of the bundle lives, in whatever process, the cascade is not
    /// evicted; keep one as long as its files are read.
    ///
    /// # Errors
    /// One sentence: the cascade was never published, a file in the store is missing or damaged, the disk is full,
    /// the cascade does not fit into the cache, or the store cannot be reached.
    pub async fn fetch(&self, store: &ArtifactStore, digest: Digest) -> Result<CascadeBundle, UserError> {
        let in_use = self.lock(&format!("{digest}.use"), Lock::Shared).await?;
        // Eviction goes by this time. If it cannot be set, the cascade is only evicted sooner.
        let _ = in_use.set_modified(SystemTime::now());
        let _turn = self.lock(&format!("{digest}.fetch"), Lock::Exclusive).await?;
        let complete = self.folder.join(digest.to_string());
        let record = match read_record(&complete, digest) {
            Some(record) => record,
            None => cascade_store::find(store, digest).await?,
        };
        if record.files.is_empty() {
            return Ok(CascadeBundle::without_files(record.cascade));
        }
        let incoming = self.incoming().join(digest.to_string());
        let is_new = !complete.is_dir();
        let target = if is_new { &incoming } else { &complete };
        self.reserve(target, digest, &record).await?;
        let absent = absent_files(target.clone(), record.files.clone()).await?;
        let bytes: u64 = absent.iter().map(|file| file.size).sum();
        let files = absent.len();
        futures::stream::iter(absent)
            .map(|file| download::file(self, store, digest, target, file))
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await?;
        check_toml(target, &record)?;
        if is_new {
            std::fs::rename(&incoming, &complete).map_err(|error| self.failed(&error, None))?;
        }
        if files > 0 {
            tracing::info!(cascade.digest = %digest, files, bytes, "cascade fetched");
        }
        Ok(CascadeBundle::in_cache(complete, record.cascade, in_use))
    }

    /// Makes room for the whole cascade and leaves its record where others see how much it will need.
    async fn reserve(&self, target: &Path, digest: Digest, record: &Record) -> Result<(), UserError> {
        let lock = self.lock("room", Lock::Exclusive).await?;
        let (cache, target, record) = (self.clone(), target.to_owned(), record.clone());
        joined(spawn_blocking(move || {
            let _lock = lock;
            room::make(&cache, digest, &record)?;
            write_record(&target, &record).map_err(|error| cache.failed(&error, Some(RECORD)))
        }))
        .await
    }

    /// Takes a lock that ends with the returned file, or with the process.
    async fn lock(&self, name: &str, kind: Lock) -> Result<File, UserError> {
        loop {
            match self.try_lock(name, kind) {
                Ok(Some(file)) => return Ok(file),
                // The system can only wait for it in a thread that cannot be told to stop.
                Ok(None) => tokio::time::sleep(LOCK_POLL).await,
                Err(error) => return Err(self.failed(&error, None)),
            }
        }
    }

    fn try_lock(&self, name: &str, kind: Lock) -> io::Result<Option<File>> {
        let file = File::options().create(true).append(true).open(self.locks().join(name))?;
        let locked = match kind {
            Lock::Shared => file.try_lock_shared(),
            Lock::Exclusive => file.try_lock(),
        };
        match locked {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn locks(&self) -> PathBuf {
        self.folder.join("locks")
    }

    fn incoming(&self) -> PathBuf {
        self.folder.join("incoming")
    }

    fn trash(&self) -> PathBuf {
        self.folder.join("trash")
    }

    fn failed(&self, error: &io::Error, file: Option<&str>) -> UserError {
        let cache = self.folder.display();
        let during = file.map_or_else(String::new, |file| format!(" while {file} was written"));
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => UserError::new(
                Code::ResourceExhausted,
                "CASCADE_CACHE_DISK_FULL",
                format!("the disk of the cascade cache {cache} is full{during}; make room or move the cache"),
            ),
            _ => UserError::new(
                Code::FailedPrecondition,
                "CASCADE_CACHE_UNUSABLE",
                format!("the cascade cache {cache} cannot be used{during}: {error}"),
            ),
        }
    }
}

#[derive(Clone, Copy)]
enum Lock {
    Shared,
    Exclusive,
}

/// The record beside a cascade's files, if it is whole and of this digest.
fn read_record(folder: &Path, digest: Digest) -> Option<Record> {
    let bytes = std::fs::read(folder.join(RECORD)).ok()?;
    Record::parse(&bytes, digest).ok()
}

fn write_record(folder: &Path, record: &Record) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let text = serde_json::to_vec(record)?;
    let path = folder.join(RECORD);
    if std::fs::read(&path).is_ok_and(|found| found == text) {
        return Ok(());
    }
    let part = folder.join(format!("{RECORD}.part"));
    std::fs::write(&part, text)?;
    std::fs::rename(part, path)
}

/// The files that are not there whole, by hash.
async fn absent_files(folder: PathBuf, files: Vec<RecordFile>) -> Result<Vec<RecordFile>, UserError> {
    joined(spawn_blocking(move || {
        let has_size = |file: &&RecordFile| {
            std::fs::metadata(folder.join(&file.path))
                .is_ok_and(|found| found.is_file() && found.len() == file.size)
        };
        let paths: Vec<_> = files.iter().filter(has_size).map(|file| file.path.clone()).collect();
        let hashes = hash_all(&folder, &paths)?;
        Ok(files.into_iter().filter(|file| hashes.get(&file.path) != Some(&file.sha256)).collect())
    }))
    .await
}

/// The digest says nothing of `cascade.toml`'s own bytes, so they are compared with what it does speak of.
fn check_toml(folder: &Path, record: &Record) -> Result<(), UserError> {
    let text = std::fs::read_to_string(folder.join(FILE_NAME)).unwrap_or_default();
    if is_spec(&text, &record.cascade.spec) {
        return Ok(());
    }
    let message =
        format!("the {FILE_NAME} of cascade {} is not the one of its record", record.cascade.digest());
    Err(UserError::new(Code::FailedPrecondition, "CASCADE_DAMAGED", message))
}

async fn joined<T>(task: tokio::task::JoinHandle<Result<T, UserError>>) -> Result<T, UserError> {
    task.await.unwrap_or_else(|_| {
        Err(UserError::new(
            Code::Internal,
            "PANIC",
            "the cascade cache's work on files panicked or was stopped",
        ))
    })
}

#[cfg(test)]
mod tests;
