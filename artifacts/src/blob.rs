//! Content-addressed files in an object store: a local folder, memory, or what else `object_store` speaks to.
//!
//! A key is `{prefix}{sha256}.{extension}`. A write is durable when it returns: the local folder syncs the file and
//! the folders that name it. Reading by reference checks size and hash, so a caller never sees other bytes than
//! those that were stored.

use std::{ops::Range, path::Path as FilePath, sync::Arc};

use bytes::Bytes;
use darkroom_core::{artifact::ArtifactRef, digest::Digest};
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, WriteMultipart, local::LocalFileSystem,
    memory::InMemory, path::Path,
};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt;

use crate::error::Error;

/// Bytes of a file read, and of a part uploaded, at a time.
const CHUNK: usize = 8 << 20;

/// A handle to object storage; clones share it.
#[derive(Clone, Debug)]
pub struct ArtifactStore {
    store: Arc<dyn ObjectStore>,
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
}

impl ArtifactStore {
    /// A store in a local folder, created if absent.
    ///
    /// # Errors
    /// If the folder cannot be created or written to.
    pub fn local(folder: &FilePath) -> Result<Self, Error> {
        let name = folder.display().to_string();
        std::fs::create_dir_all(folder).map_err(|error| Error::of_io(&name, &error))?;
        check_writable(folder).map_err(|error| Error::of_io(&name, &error))?;
        let store = LocalFileSystem::new_with_prefix(folder)
            .map_err(|error| Error::of_store(&name, &error))?
            .with_fsync(true);
        Ok(Self::over(Arc::new(store)))
    }

    /// A store in memory, for tests.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::over(Arc::new(InMemory::new()))
    }

    /// A store over any backend of `object_store`.
    #[must_use]
    pub fn over(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
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
        let created = self.store.put_opts(&path, payload.clone(), PutOptions::from(PutMode::Create)).await;
        match created {
            Ok(_) => Ok(artifact),
            Err(object_store::Error::AlreadyExists { .. }) => {
                if let Err(Error::Corrupt { .. } | Error::Missing { .. }) = self.get(&artifact).await {
                    tracing::warn!(artifact.key, "damaged artifact replaced");
                    let replaced = self.store.put_opts(&path, payload, PutOptions::default()).await;
                    replaced.map_err(|error| Error::of_store(&artifact.key, &error))?;
                }
                Ok(artifact)
            }
            Err(error) => Err(Error::of_store(&artifact.key, &error)),
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
        if self.store.head(&path).await.is_ok_and(|meta| meta.size == size) {
            return Ok(artifact);
        }
        let upload = self.store.put_multipart(&path).await.map_err(failed)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, CHUNK);
        let mut source = open(file, &name).await?;
        while let Some(chunk) = next_chunk(&mut source, &name).await? {
            upload.wait_for_capacity(2).await.map_err(failed)?;
            upload.write(&chunk);
        }
        upload.finish().await.map_err(failed)?;
        Ok(artifact)
    }

    /// Reads an artifact whole and checks its size and hash.
    ///
    /// # Errors
    /// `Missing`, `Corrupt`, or a fault that may pass.
    pub async fn get(&self, artifact: &ArtifactRef) -> Result<Bytes, Error> {
        let failed = |error| Error::of_store(&artifact.key, &error);
        let found = self.store.get(&path(&artifact.key)?).await.map_err(failed)?;
        if found.meta.size != artifact.size {
            let reason = format!("{} bytes where {} were stored", found.meta.size, artifact.size);
            return Err(Error::Corrupt { key: artifact.key.clone(), reason });
        }
        let bytes = found.bytes().await.map_err(failed)?;
        let sha256 = Digest::of(&bytes);
        if sha256 != artifact.sha256 {
            let reason = format!("its SHA-256 is {sha256}, expected {}", artifact.sha256);
            return Err(Error::Corrupt { key: artifact.key.clone(), reason });
        }
        Ok(bytes)
    }

    /// Reads part of an artifact, unchecked but for its whole size; the range is cut at its end.
    ///
    /// # Errors
    /// `Missing`, `Corrupt` when its size is not what was stored, or a fault that may pass.
    pub async fn get_range(&self, artifact: &ArtifactRef, range: Range<u64>) -> Result<Bytes, Error> {
        let failed = |error| Error::of_store(&artifact.key, &error);
        let path = path(&artifact.key)?;
        let range = range.start.min(artifact.size)..range.end.min(artifact.size);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let wanted = range.end - range.start;
        let options = object_store::GetOptions { range: Some(range.into()), ..Default::default() };
        let found = self.store.get_opts(&path, options).await.map_err(failed)?;
        let size = found.meta.size;
        let bytes = found.bytes().await.map_err(failed)?;
        if size != artifact.size || bytes.len() as u64 != wanted {
            let reason = format!("{size} bytes where {} were stored", artifact.size);
            return Err(Error::Corrupt { key: artifact.key.clone(), reason });
        }
        Ok(bytes)
    }

    /// Size of an artifact as it lies there, without reading it.
    ///
    /// # Errors
    /// `Missing`, or a fault that may pass.
    pub async fn size_of(&self, key: &str) -> Result<u64, Error> {
        let meta = self.store.head(&path(key)?).await.map_err(|error| Error::of_store(key, &error))?;
        Ok(meta.size)
    }

    /// The artifacts under a prefix that ends in `/`, in no order.
    pub fn list(&self, prefix: &str) -> impl Stream<Item = Result<Listed, Error>> + Send + 'static {
        let name = prefix.to_owned();
        let listed = match path(prefix) {
            Ok(path) => self.store.list(Some(&path)).left_stream(),
            Err(_) => futures::stream::empty().right_stream(),
        };
        listed.map_err(move |error| Error::of_store(&name, &error)).map_ok(|meta| Listed {
            key: meta.location.to_string(),
            size: meta.size,
            modified_unix_seconds: meta.last_modified.timestamp(),
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
        match self.store.delete(&path(key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Error::of_store(key, &error)),
        }
    }
}

/// Most artifacts looked at under one task's prefix.
const MAX_CANDIDATES: usize = 64;

fn path(key: &str) -> Result<Path, Error> {
    Path::parse(key).map_err(|error| Error::Corrupt { key: key.to_owned(), reason: error.to_string() })
}

fn check_writable(folder: &FilePath) -> std::io::Result<()> {
    let probe = folder.join(format!(".writable-{}", std::process::id()));
    std::fs::write(&probe, b"")?;
    std::fs::remove_file(&probe)
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
mod tests {
    use super::*;

    fn stores() -> (tempfile::TempDir, Vec<ArtifactStore>) {
        let folder = tempfile::tempdir().unwrap();
        let local = ArtifactStore::local(&folder.path().join("artifacts")).unwrap();
        (folder, vec![local, ArtifactStore::in_memory()])
    }

    #[tokio::test]
    async fn content_comes_back_whole_and_in_parts() {
        let (_folder, stores) = stores();
        for store in stores {
            let artifact = store.put_content("t/1/", "bin", Bytes::from_static(b"0123456789")).await.unwrap();
            assert_eq!(artifact.key, format!("t/1/{}.bin", Digest::of(b"0123456789")));
            assert_eq!(store.get(&artifact).await.unwrap(), "0123456789");
            assert_eq!(store.get_range(&artifact, 3..6).await.unwrap(), "345");
            assert_eq!(store.get_range(&artifact, 8..600).await.unwrap(), "89");
            assert!(store.get_range(&artifact, 10..20).await.unwrap().is_empty());
            assert_eq!(store.size_of(&artifact.key).await.unwrap(), 10);
            let again = store.put_content("t/1/", "bin", Bytes::from_static(b"0123456789")).await.unwrap();
            assert_eq!(again, artifact);
            store.delete(&artifact.key).await.unwrap();
            store.delete(&artifact.key).await.expect("deleting twice is harmless");
            assert!(matches!(store.get(&artifact).await, Err(Error::Missing { .. })));
        }
    }

    #[tokio::test]
    async fn wrong_bytes_are_corrupt_and_the_next_put_mends_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::local(folder.path()).unwrap();
        let bytes = Bytes::from_static(b"0123456789");
        let artifact = store.put_content("t/", "bin", bytes.clone()).await.unwrap();
        for damaged in ["01234", "0123456780"] {
            std::fs::write(folder.path().join(&artifact.key), damaged).unwrap();
            let error = store.get(&artifact).await.unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }) && !error.retryable(), "{error}");
            assert_eq!(store.find_content("t/", "bin").await.unwrap(), None, "damaged ones are passed over");
            store.put_content("t/", "bin", bytes.clone()).await.unwrap();
            assert_eq!(store.get(&artifact).await.unwrap(), bytes);
        }
    }

    #[tokio::test]
    async fn an_earlier_run_is_found_by_prefix_and_extension() {
        let (_folder, stores) = stores();
        for store in stores {
            assert_eq!(store.find_content("t/1/", "png").await.unwrap(), None);
            store.put_content("t/1/", "bin", Bytes::from_static(b"other")).await.unwrap();
            store.put_content("t/12/", "png", Bytes::from_static(b"neighbour")).await.unwrap();
            assert_eq!(store.find_content("t/1/", "png").await.unwrap(), None);
            let artifact = store.put_content("t/1/", "png", Bytes::from_static(b"mine")).await.unwrap();
            let (found, bytes) = store.find_content("t/1/", "png").await.unwrap().expect("found");
            assert_eq!((found, bytes), (artifact, Bytes::from_static(b"mine")));
        }
    }

    #[tokio::test]
    async fn a_big_file_is_stored_like_its_bytes() {
        let (folder, stores) = stores();
        let bytes: Vec<u8> = (0..CHUNK as u32 / 2).flat_map(u32::to_le_bytes).collect();
        let file = folder.path().join("big");
        std::fs::write(&file, &bytes).unwrap();
        for store in stores {
            let artifact = store.put_file("m/", "jsonl", &file).await.unwrap();
            assert_eq!(artifact.sha256, Digest::of(&bytes));
            assert_eq!(store.get(&artifact).await.unwrap(), bytes);
            assert_eq!(store.put_file("m/", "jsonl", &file).await.unwrap(), artifact);
        }
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_made_is_said_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = ArtifactStore::local(&file.join("sub")).unwrap_err();
        assert!(error.to_string().contains("file/sub"), "{error}");
    }

    #[test]
    fn a_full_disk_and_a_missing_permission_are_told_apart() {
        let of = |kind: std::io::ErrorKind| {
            let source = Box::new(std::io::Error::from(kind));
            Error::of_store("k", &object_store::Error::Generic { store: "LocalFileSystem", source })
        };
        assert!(matches!(of(std::io::ErrorKind::StorageFull), Error::NoSpace { .. }));
        assert!(matches!(of(std::io::ErrorKind::ReadOnlyFilesystem), Error::Permission { .. }));
        assert!(matches!(of(std::io::ErrorKind::ConnectionReset), Error::Unavailable { .. }));
        assert!(of(std::io::ErrorKind::StorageFull).retryable());
    }
}
