//! The cache's folder: its parts, the locks between processes, and the record beside a cascade's
//! files.

use std::{
    fs::{File, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use darkroom_core::{
    digest::Digest,
    error::{Code, UserError},
    shown::shown_path,
};
use nix::fcntl::OFlag;
use uuid::Uuid;

use crate::cascade_store::Record;

/// How often to look at a lock that another process holds.
const LOCK_POLL: Duration = Duration::from_millis(50);
/// Name of the record in a cascade's folder.
pub(super) const RECORD: &str = ".record.json";

/// A folder of fetched cascades, bounded in size.
#[derive(Clone, Debug)]
pub struct CascadeCache {
    pub(super) folder: PathBuf,
    pub(super) max_bytes: u64,
}

impl CascadeCache {
    /// A cache in `folder`, created if absent, that holds at most `max_bytes`.
    ///
    /// # Errors
    /// If the folder cannot be created or written to.
    pub fn new(folder: &Path, max_bytes: u64) -> Result<Self, UserError> {
        let cache = Self { folder: folder.to_owned(), max_bytes };
        let folders = [cache.locks(), cache.incoming(), cache.trash()];
        folders
            .iter()
            .try_for_each(std::fs::create_dir_all)
            .map_err(|error| cache.failed(&error, None))?;
        Ok(cache)
    }

    /// Takes a lock that ends when the returned file is dropped or the process ends.
    pub(super) async fn lock(&self, name: &str, kind: Lock) -> Result<File, UserError> {
        loop {
            match self.try_lock(name, kind) {
                Ok(Some(file)) => return Ok(file),
                // The system can wait for it only in a thread that cannot be interrupted.
                Ok(None) => tokio::time::sleep(LOCK_POLL).await,
                Err(error) => return Err(self.failed(&error, None)),
            }
        }
    }

    pub(super) fn try_lock(&self, name: &str, kind: Lock) -> io::Result<Option<File>> {
        let file = File::options()
            .create(true)
            .append(true)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(self.locks().join(name))?;
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

    pub(super) fn locks(&self) -> PathBuf {
        self.folder.join("locks")
    }

    pub(super) fn incoming(&self) -> PathBuf {
        self.folder.join("incoming")
    }

    pub(super) fn trash(&self) -> PathBuf {
        self.folder.join("trash")
    }

    pub(super) fn failed(&self, error: &io::Error, file: Option<&str>) -> UserError {
        let cache = shown_path(&self.folder);
        let during = file.map_or_else(String::new, |file| format!(" while {file} was written"));
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => UserError::new(
                Code::ResourceExhausted,
                "CASCADE_CACHE_DISK_FULL",
                format!(
                    "the disk of the cascade cache {cache} is full{during}; make room or move the cache"
                ),
            ),
            _ => UserError::new(
                Code::FailedPrecondition,
                "CASCADE_CACHE_UNUSABLE",
                format!("the cascade cache {cache} cannot be used{during}: {error}"),
            ),
        }
    }
}

/// How a lock is held.
#[derive(Clone, Copy)]
pub(super) enum Lock {
    Shared,
    Exclusive,
}

/// The record beside a cascade's files, if it is intact and has this digest.
pub(super) fn read_record(folder: &Path, digest: Digest) -> Option<Record> {
    let bytes = read_bounded(&folder.join(RECORD)).ok()?;
    Record::parse(&bytes, digest).ok()
}

/// A record that lies on the disk. None has more bytes.
pub(super) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    const MOST: u64 = 64 << 20;
    let mut bytes = Vec::new();
    File::options()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)?
        .take(MOST)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn write_record(folder: &Path, record: &Record) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let text = serde_json::to_vec(record)?;
    let path = folder.join(RECORD);
    if read_bounded(&path).is_ok_and(|found| found == text) {
        return Ok(());
    }
    let part = folder.join(format!("{RECORD}.{}.part", Uuid::new_v4()));
    let written = File::create_new(&part).and_then(|mut file| file.write_all(&text));
    let named = written.and_then(|()| std::fs::rename(&part, path));
    if named.is_err() {
        let _ = std::fs::remove_file(part);
    }
    named
}

/// The result of a task on files.
pub(super) async fn joined<T>(
    task: tokio::task::JoinHandle<Result<T, UserError>>,
) -> Result<T, UserError> {
    task.await.unwrap_or_else(|_| {
        Err(UserError::new(
            Code::Internal,
            "PANIC",
            "the cascade cache's work on files panicked or was stopped",
        ))
    })
}
