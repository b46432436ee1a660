//! Reads artifacts by reference: a caller never gets bytes other than the stored ones, and reads no
//! more of them than were announced.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    guard::{Guard, stands},
};
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::{GetResult, GetResultPayload, ObjectStoreExt, path::Path};

use super::{ArtifactStore, CHUNK, Failure, MARK_BYTES, MAX_WHOLE, PARALLEL, path};
use crate::error::Error;

impl ArtifactStore {
    /// Reads an artifact whole and checks its size and hash. It must fit into memory: one of more
    /// than 1 GiB is not read.
    ///
    /// # Errors
    /// `Missing`, `Corrupt`, or a temporary fault.
    pub async fn get(&self, artifact: &ArtifactRef) -> Result<Bytes, Error> {
        let path = path(&artifact.key)?;
        if artifact.size > MAX_WHOLE {
            let reason = format!("it has {} bytes; accepted: at most {MAX_WHOLE}", artifact.size);
            return Err(Error::Corrupt { key: artifact.key.clone(), reason });
        }
        self.tried(|| self.get_once(artifact, &path)).await
    }

    async fn get_once(&self, artifact: &ArtifactRef, path: &Path) -> Result<Bytes, Failure> {
        let key = &artifact.key;
        let found = self
            .store()
            .get(path)
            .await
            .map_err(|error| Failure::Last(Error::of_store(key, &error)))?;
        let size = found.meta.size;
        if size != artifact.size {
            return Err(Failure::Again(wrong_size(artifact, size)));
        }
        let bytes = at_most(found, artifact.size)
            .await
            .map_err(|error| Failure::Again(Error::of_store(key, &error)))?;
        let sha256 = Digest::of(&bytes);
        if sha256 != artifact.sha256 && stands(Guard::HashChecked) {
            let reason = format!("its SHA-256 is {sha256}, expected {}", artifact.sha256);
            return Err(Failure::Again(Error::Corrupt { key: key.clone(), reason }));
        }
        Ok(bytes)
    }

    /// Reads part of an artifact. Only its total size is checked. A range beyond the end is cut.
    ///
    /// # Errors
    /// `Missing`, `Corrupt` if the size is not the stored one, or a temporary fault.
    pub async fn get_range(
        &self,
        artifact: &ArtifactRef,
        range: Range<u64>,
    ) -> Result<Bytes, Error> {
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
                // Stores differ in how they refuse a range that begins beyond the end.
                let size = self.store().head(path).await.map(|meta| meta.size);
                return Err(Failure::Last(match size {
                    Ok(size) if size != artifact.size => wrong_size(artifact, size),
                    _ => Error::of_store(key, &error),
                }));
            }
        };
        let size = found.meta.size;
        let bytes = at_most(found, wanted)
            .await
            .map_err(|error| Failure::Again(Error::of_store(key, &error)))?;
        if size != artifact.size || bytes.len() as u64 != wanted {
            return Err(Failure::Again(wrong_size(artifact, size)));
        }
        Ok(bytes)
    }

    /// Reads an artifact that is too big for memory from byte `from` to its end, in chunks. The
    /// contents are not checked; the caller hashes them.
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

    /// Reads a small object that is replaced in place, such as the cleaner's mark; `None` if it
    /// does not exist. Its size is checked before its bytes are read.
    ///
    /// # Errors
    /// A temporary fault, or [`Error::Corrupt`] if it has more than 64 KiB.
    pub async fn read_mark(&self, key: &str) -> Result<Option<Bytes>, Error> {
        let found = match self.store().get(&path(key)?).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(Error::of_store(key, &error)),
        };
        let too_long = |bytes: u64| Error::Corrupt {
            key: key.to_owned(),
            reason: format!("it has {bytes} bytes; a mark has at most {MARK_BYTES}"),
        };
        if found.meta.size > MARK_BYTES {
            return Err(too_long(found.meta.size));
        }
        // A store may send more than it announced.
        let read = at_most(found, MARK_BYTES).await;
        let bytes = read.map_err(|error| Error::of_store(key, &error))?;
        if bytes.len() as u64 > MARK_BYTES {
            return Err(too_long(bytes.len() as u64));
        }
        Ok(Some(bytes))
    }
}

/// Reads an answer to its end, or until it has more than `most` bytes, whatever size it states. Of
/// an answer that goes on, at least one byte too many is returned, so that the caller notices.
pub(crate) async fn at_most(found: GetResult, most: u64) -> object_store::Result<Bytes> {
    let stated = found.range.end.saturating_sub(found.range.start);
    if stated <= most && matches!(found.payload, GetResultPayload::File(..)) {
        // No more of a file is read than is stated.
        return found.bytes().await;
    }
    let mut pieces = found.into_stream();
    let Some(first) = pieces.try_next().await? else { return Ok(Bytes::new()) };
    let Some(second) = pieces.try_next().await? else { return Ok(first) };
    let room = usize::try_from(stated.min(most)).unwrap_or_default();
    let mut read = BytesMut::with_capacity(room);
    read.extend_from_slice(&first);
    read.extend_from_slice(&second);
    while read.len() as u64 <= most
        && let Some(piece) = pieces.try_next().await?
    {
        read.extend_from_slice(&piece);
    }
    Ok(read.freeze())
}

fn wrong_size(artifact: &ArtifactRef, size: u64) -> Error {
    let reason = format!("it has {size} bytes, but {} were stored", artifact.size);
    Error::Corrupt { key: artifact.key.clone(), reason }
}
