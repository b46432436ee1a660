//! Fetches one file of a cascade from the store into the folder: first beside its place, then
//! verified, then renamed.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    error::{Code, UserError},
};
use futures::TryStreamExt;
use nix::fcntl::OFlag;
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;

use super::folder::{CascadeCache, joined};
use crate::{blob::ArtifactStore, cascade_store::RecordFile, error::Error};

/// A wrong hash may come from an earlier fetch or from the network. Only a second wrong hash means
/// that the store's file is damaged.
const ATTEMPTS: usize = 2;

/// A growing file, and the hash of its content.
struct Part {
    file: File,
    hasher: Sha256,
    size: u64,
}

/// Fetches one file into `folder`, and continues an earlier fetch.
pub(super) async fn file(
    cache: &CascadeCache,
    store: &ArtifactStore,
    digest: Digest,
    folder: &Path,
    file: RecordFile,
) -> Result<(), UserError> {
    let artifact = file.artifact(digest);
    let place = folder.join(&file.path);
    let mut part_path = place.clone().into_os_string();
    part_path.push(".part");
    let part_path = PathBuf::from(part_path);
    let failed = |error: io::Error| cache.failed(&error, Some(&file.path));
    let mut found = None;
    for _ in 0..ATTEMPTS {
        let (path, size) = (part_path.clone(), artifact.size);
        let part = joined(spawn_blocking(move || Ok(open(&path, size)))).await?.map_err(failed)?;
        let sha256 = match fill(store, &artifact, part).await {
            Ok(sha256) => sha256.map_err(failed)?,
            Err(error) => return Err(explain(store, digest, &file, &artifact, &error)),
        };
        if sha256 == artifact.sha256 {
            return std::fs::rename(&part_path, &place).map_err(failed);
        }
        found = Some(sha256);
        if std::fs::remove_file(&part_path).is_err() {
            // Another fetch would continue after the wrong bytes, so they are deleted. The error
            // about the bytes is more important than one about the deletion.
            break;
        }
    }
    let reason = found.map_or_else(String::new, |found| format!("its SHA-256 is {found}"));
    let error = Error::Corrupt { key: artifact.key.clone(), reason };
    Err(explain(store, digest, &file, &artifact, &error))
}

/// Opens the unfinished file and hashes its content.
fn open(path: &Path, size: u64) -> io::Result<Part> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = File::options()
        .create(true)
        .read(true)
        .append(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)?;
    let found = file.metadata()?.len();
    if found > size {
        file.set_len(0)?;
    }
    let mut part = Part { file: file.try_clone()?, hasher: Sha256::new(), size: 0 };
    let mut chunk = vec![0; 1 << 20];
    let mut left = if found > size { 0 } else { found };
    while left > 0 {
        let most = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = file.read(&mut chunk[..most])?;
        if read == 0 {
            break;
        }
        part.hasher.update(&chunk[..read]);
        part.size += read as u64;
        left -= read as u64;
    }
    Ok(part)
}

/// Appends the rest of the artifact. Returns the hash of the whole file, or the disk's error.
async fn fill(
    store: &ArtifactStore,
    artifact: &ArtifactRef,
    mut part: Part,
) -> Result<io::Result<Digest>, Error> {
    let mut chunks = std::pin::pin!(store.read(artifact, part.size));
    while let Some(chunk) = chunks.try_next().await? {
        let written = spawn_blocking(move || {
            part.hasher.update(&chunk);
            part.file.write_all(&chunk).map(|()| part)
        });
        part = match written.await {
            Ok(Ok(part)) => part,
            Ok(Err(error)) => return Ok(Err(error)),
            Err(error) => return Ok(Err(io::Error::other(error))),
        };
    }
    Ok(Ok(Digest(part.hasher.finalize().into())))
}

fn explain(
    store: &ArtifactStore,
    digest: Digest,
    file: &RecordFile,
    artifact: &ArtifactRef,
    error: &Error,
) -> UserError {
    let what = match error {
        Error::Missing { .. } => "is missing".to_owned(),
        Error::Corrupt { reason, .. } => {
            format!(
                "is damaged: {reason}, expected {} bytes of SHA-256 {}",
                artifact.size, artifact.sha256
            )
        }
        _ => return error.to_user(),
    };
    let message = format!(
        "{} of cascade {} {what} in the artifact store {} under {}; delete that key and publish the cascade again",
        file.path,
        digest.short(),
        store.name(),
        artifact.key
    );
    UserError::new(Code::FailedPrecondition, "CASCADE_DAMAGED", message)
}
