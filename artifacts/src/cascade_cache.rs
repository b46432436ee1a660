//! Cascades that were fetched from object storage by digest. They are kept in a folder that several
//! processes of one machine may share.
//!
//! `{digest}/` is a complete cascade, `incoming/{digest}/` one that is being fetched, `locks/` has
//! the locks between processes, and `trash/` what is being deleted. Every file is hashed each time
//! a cascade is fetched, so nothing here needs to be durable: files damaged by a crash or a bad
//! disk are found and fetched again.

mod download;
mod folder;
mod room;

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use darkroom_core::{
    cascade::FILE_NAME,
    digest::Digest,
    error::{Code, UserError},
};
use futures::{StreamExt, TryStreamExt};
use tokio::task::spawn_blocking;

pub use self::folder::CascadeCache;
use self::folder::{Lock, RECORD, joined, read_bounded, read_record, write_record};
use crate::{
    blob::ArtifactStore,
    cascade_bundle::{CascadeBundle, hash_all},
    cascade_store::{self, Record, RecordFile, is_spec},
};

/// Files that are fetched at the same time.
const PARALLEL: usize = 2;

impl CascadeCache {
    /// The cascade with this digest. It comes from the folder if it is there and intact, and
    /// otherwise from the store, file by file, continuing an earlier fetch. While a clone of the
    /// bundle exists in any process, the cascade is not evicted; keep one as long as its files are
    /// read.
    ///
    /// # Errors
    /// One sentence: the cascade was never published, a file in the store is missing or damaged,
    /// the disk is full, the cascade is larger than the cache, or the store cannot be reached.
    pub async fn fetch(
        &self,
        store: &ArtifactStore,
        digest: Digest,
    ) -> Result<CascadeBundle, UserError> {
        let in_use = self.lock(&format!("{digest}.use"), Lock::Shared).await?;
        // Eviction uses this time. If it cannot be set, the cascade is only evicted sooner.
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
        let bytes = absent.iter().fold(0_u64, |sum, file| sum.saturating_add(file.size));
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

    /// Makes room for the whole cascade, and leaves its record so that others see how much room it
    /// will need.
    async fn reserve(
        &self,
        target: &Path,
        digest: Digest,
        record: &Record,
    ) -> Result<(), UserError> {
        let lock = self.lock("room", Lock::Exclusive).await?;
        let (cache, target, record) = (self.clone(), target.to_owned(), record.clone());
        joined(spawn_blocking(move || {
            let _lock = lock;
            room::make(&cache, digest, &record)?;
            write_record(&target, &record).map_err(|error| cache.failed(&error, Some(RECORD)))
        }))
        .await
    }
}

/// The files that are missing or damaged, by hash.
async fn absent_files(
    folder: PathBuf,
    files: Vec<RecordFile>,
) -> Result<Vec<RecordFile>, UserError> {
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

/// The digest does not cover the bytes of `cascade.toml`, so its values are compared with the
/// record, which the digest covers.
fn check_toml(folder: &Path, record: &Record) -> Result<(), UserError> {
    let text = read_bounded(&folder.join(FILE_NAME)).unwrap_or_default();
    let text = String::from_utf8(text).unwrap_or_default();
    if is_spec(&text, &record.cascade.spec) {
        return Ok(());
    }
    let message =
        format!("the {FILE_NAME} of cascade {} differs from its record", record.cascade.digest());
    Err(UserError::new(Code::FailedPrecondition, "CASCADE_DAMAGED", message))
}

#[cfg(test)]
mod tests;
