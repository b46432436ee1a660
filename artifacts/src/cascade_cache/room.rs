//! Makes room in the cache: deletes unused cascades, starting with the one that was fetched longest
//! ago.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use darkroom_core::{
    digest::Digest,
    error::{Code, UserError},
    shown::shown_path,
};
use uuid::Uuid;

use super::folder::{CascadeCache, Lock, read_record};
use crate::cascade_store::Record;

/// A cascade in the folder, complete or not.
struct Entry {
    folder: PathBuf,
    digest: Digest,
    bytes: u64,
    fetched: SystemTime,
}

/// Evicts until the cascade fits in addition to the others. The caller holds the lock `room`.
pub(super) fn make(cache: &CascadeCache, digest: Digest, record: &Record) -> Result<(), UserError> {
    let failed = |error: io::Error| cache.failed(&error, None);
    clear(&cache.trash());
    let mut entries = entries(cache).map_err(failed)?;
    entries.retain(|entry| entry.digest != digest);
    entries.sort_by_key(|entry| entry.fetched);
    let needed = record.bytes();
    let mut others = entries.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.bytes));
    for entry in entries {
        if needed.saturating_add(others) <= cache.max_bytes || needed > cache.max_bytes {
            break;
        }
        // Users hold this lock shared. Whoever requests it now waits until the deletion is done.
        let name = format!("{}.use", entry.digest);
        let Some(_lock) = cache.try_lock(&name, Lock::Exclusive).map_err(failed)? else { continue };
        let grave = cache.trash().join(Uuid::new_v4().to_string());
        std::fs::rename(&entry.folder, &grave).map_err(failed)?;
        clear(&cache.trash());
        others = others.saturating_sub(entry.bytes);
        tracing::info!(cascade.digest = %entry.digest, bytes = entry.bytes, "cascade evicted");
    }
    if needed.saturating_add(others) <= cache.max_bytes {
        return Ok(());
    }
    let in_use = if needed > cache.max_bytes { 0 } else { others };
    let message = format!(
        "cascade {} needs {needed} bytes, but the cache {} may hold {}, of which running processes use {in_use}; \
         raise its limit",
        record.cascade.spec.name,
        shown_path(&cache.folder),
        cache.max_bytes,
    );
    Err(UserError::new(Code::ResourceExhausted, "CASCADE_CACHE_FULL", message))
}

fn entries(cache: &CascadeCache) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for folder in [cache.folder.clone(), cache.incoming()] {
        for found in std::fs::read_dir(folder)? {
            let folder = found?.path();
            let name = folder.file_name().and_then(|name| name.to_str());
            let Some(digest) = name.and_then(|name| name.parse::<Digest>().ok()) else { continue };
            let lock = cache.locks().join(format!("{digest}.use"));
            let fetched =
                lock.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            // A cascade that is being fetched will need as much as its record says.
            let expected = read_record(&folder, digest).map_or(0, |record| record.bytes());
            let bytes = size_of(&folder).max(expected);
            entries.push(Entry { folder, digest, bytes, fetched });
        }
    }
    Ok(entries)
}

/// Bytes of all files below; files that disappear meanwhile count as nothing.
fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => size_of(&entry.path()),
        Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |meta| meta.len()),
        _ => 0,
    };
    entries.flatten().map(size).sum()
}

/// Empties the trash. What cannot be deleted now is tried again at the next eviction.
fn clear(trash: &Path) {
    let Ok(entries) = std::fs::read_dir(trash) else { return };
    for entry in entries.flatten() {
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(%error, "an evicted cascade cannot be deleted");
        }
    }
}
