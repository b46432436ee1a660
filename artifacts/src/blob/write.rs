//! Writes artifacts: bytes in memory, and files that are too big for it.

use std::path::Path as FilePath;

use bytes::Bytes;
use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    guard::{Guard, stands},
    output::Format,
    shown::shown_path,
};
use object_store::{
    Attribute, Attributes, ObjectStoreExt, PutMode, PutOptions, PutPayload, WriteMultipart,
    path::Path,
};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt;

use super::{ArtifactStore, CHUNK, Creation, Failure, MediaTypes, PARALLEL, path};
use crate::error::Error;

/// A body of up to this many bytes is sent quickly on any line.
const SMALL: u64 = 256 << 10;
/// Most parts of a multipart upload; S3 allows 10,000.
const MAX_PARTS: u64 = 9000;

impl ArtifactStore {
    /// Stores `bytes` at `{prefix}{sha256}.{extension}`, unless that exists already. An existing
    /// file with a wrong hash (a damaged disk) is replaced.
    ///
    /// # Errors
    /// If it is not certain that the bytes were stored.
    pub async fn put_content(
        &self,
        prefix: &str,
        extension: &str,
        bytes: Bytes,
    ) -> Result<ArtifactRef, Error> {
        let sha256 = Digest::of(&bytes);
        let artifact = ArtifactRef {
            key: format!("{prefix}{sha256}.{extension}"),
            sha256,
            size: bytes.len() as u64,
        };
        let path = path(&artifact.key)?;
        let payload = PutPayload::from_bytes(bytes);
        if self.tried(|| self.create(&artifact, &path, &payload)).await? {
            return Ok(artifact);
        }
        if let Err(Error::Corrupt { .. } | Error::Missing { .. }) = self.get(&artifact).await {
            tracing::warn!(artifact.key, "damaged artifact replaced");
            let options = self.options(&artifact.key, PutMode::Overwrite);
            let replaced = self.store().put_opts(&path, payload, options).await;
            replaced.map_err(|error| Error::of_store(&artifact.key, &error))?;
        }
        Ok(artifact)
    }

    /// A picture has the media type of its format, where the store keeps one.
    fn options(&self, key: &str, mode: PutMode) -> PutOptions {
        let format = Format::of_key(key).filter(|_| self.backend.media_types == MediaTypes::Kept);
        let attributes = format.map_or_else(Attributes::new, |format| {
            [(Attribute::ContentType, format.content_type())].into_iter().collect()
        });
        PutOptions { mode, attributes, ..PutOptions::default() }
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
        } else if self.backend.creation == Creation::IfAbsent {
            PutMode::Create
        } else {
            match self.store().head(path).await {
                Ok(_) => return Ok(false),
                Err(object_store::Error::NotFound { .. }) => PutMode::Overwrite,
                Err(error) => return Err(Failure::Last(Error::of_store(&artifact.key, &error))),
            }
        };
        let store = if artifact.size > SMALL { &self.backend.uploads } else { &self.backend.store };
        match store.put_opts(path, payload.clone(), self.options(&artifact.key, mode)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            // The backend does not repeat a create whose answer was lost. Here that is safe,
            // because the key determines the content.
            Err(error) => Err(Failure::unless_refused(Error::of_store(&artifact.key, &error))),
        }
    }

    /// Like [`put_content`](Self::put_content), for a file that is too big for memory. The file is
    /// read twice, in chunks.
    ///
    /// # Errors
    /// If the file cannot be read, changes meanwhile, or cannot be stored.
    pub async fn put_file(
        &self,
        prefix: &str,
        extension: &str,
        file: &FilePath,
    ) -> Result<ArtifactRef, Error> {
        let name = shown_path(file);
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
        let mut upload =
            WriteMultipart::new_with_chunk_size(upload, usize::try_from(part).unwrap_or(CHUNK));
        match fill(&mut upload, &artifact, file, &name).await {
            Ok(()) => {
                upload.finish().await.map_err(failed)?;
                Ok(artifact)
            }
            Err(error) => {
                // Abandoned parts cost money until they are removed. If the removal fails too,
                // nothing more can be done here.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }
}

/// Uploads a file's bytes, which must still match their hash.
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

async fn open(file: &FilePath, name: &str) -> Result<tokio::fs::File, Error> {
    tokio::fs::File::open(file).await.map_err(|error| Error::of_io(name, &error))
}

async fn next_chunk(file: &mut tokio::fs::File, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let mut chunk = Vec::with_capacity(1 << 20);
    let read = file
        .take(1 << 20)
        .read_to_end(&mut chunk)
        .await
        .map_err(|error| Error::of_io(name, &error))?;
    Ok((read > 0).then_some(chunk))
}

fn changed(name: &str) -> Error {
    Error::Corrupt {
        key: name.to_owned(),
        reason: "the file changed while it was stored".to_owned(),
    }
}
