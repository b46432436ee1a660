//! Finds artifacts: what lies under a prefix, and how large it is.

use bytes::Bytes;
use darkroom_core::artifact::ArtifactRef;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;

use super::{ArtifactStore, Listed, MAX_CANDIDATES, MAX_WHOLE, path, sorted};
use crate::{error::Error, picture::MAX_FILE_BYTES, tensor};

impl ArtifactStore {
    /// Size of a stored artifact, without reading it.
    ///
    /// # Errors
    /// `Missing`, or a temporary fault.
    pub async fn size_of(&self, key: &str) -> Result<u64, Error> {
        let meta =
            self.store().head(&path(key)?).await.map_err(|error| Error::of_store(key, &error))?;
        Ok(meta.size)
    }

    /// What storage says of an artifact, without reading it; `None` if there is none.
    ///
    /// # Errors
    /// A temporary fault.
    pub(crate) async fn look_up(&self, key: &str) -> Result<Option<Listed>, Error> {
        match self.store().head(&path(key)?).await {
            Ok(meta) => Ok(Some(meta.into())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(Error::of_store(key, &error)),
        }
    }

    /// The artifacts under a prefix that ends in `/`, in no order.
    pub fn list(&self, prefix: &str) -> impl Stream<Item = Result<Listed, Error>> + Send + 'static {
        let name = prefix.to_owned();
        let listed = match path(prefix) {
            Ok(path) => self.store().list(Some(&path)).left_stream(),
            Err(_) => futures::stream::empty().right_stream(),
        };
        listed.map_err(move |error| Error::of_store(&name, &error)).map_ok(Listed::from)
    }

    /// The artifacts under a prefix whose keys come after `after`, in the order of their keys.
    pub fn list_after(
        &self,
        prefix: &str,
        after: &str,
    ) -> impl Stream<Item = Result<Listed, Error>> + Send + 'static {
        if let Some(folder) = self.folder() {
            return sorted::list(folder, prefix, after).left_stream();
        }
        let (Ok(below), Ok(offset)) = (path(prefix), path(after)) else {
            return self.list(prefix).left_stream().right_stream();
        };
        let name = prefix.to_owned();
        let listed = self.store().list_with_offset(Some(&below), &offset);
        let listed = listed.map_err(move |error| Error::of_store(&name, &error));
        listed.map_ok(Listed::from).right_stream().right_stream()
    }

    /// Finds an artifact that an earlier run left under `prefix`: the first one, by key, with the
    /// extension and with bytes that match the hash in its name. Returns its bytes too, because
    /// they were read for the check. What is too big to be one (a picture with more than 256 MiB, a
    /// tensor with more than 1 GiB) is not read.
    ///
    /// # Errors
    /// A temporary fault; damaged artifacts are skipped.
    pub async fn find_content(
        &self,
        prefix: &str,
        extension: &str,
    ) -> Result<Option<(ArtifactRef, Bytes)>, Error> {
        let most = if extension == tensor::EXTENSION { MAX_WHOLE } else { MAX_FILE_BYTES };
        for Candidate { artifact, .. } in self.candidates(prefix, extension, most).await? {
            match self.get(&artifact).await {
                Ok(bytes) => return Ok(Some((artifact, bytes))),
                Err(error) if error.retryable() => return Err(error),
                Err(error) => {
                    tracing::warn!(
                        artifact.key,
                        error.code = error.code(),
                        "an artifact was skipped"
                    )
                }
            }
        }
        Ok(None)
    }

    /// Objects under `prefix` that are named like artifacts with this extension, in the order of
    /// their keys. Others may write to storage too, so only the first [`MAX_CANDIDATES`] that are
    /// listed are looked at, and those with more than `most` bytes are left out: callers read them
    /// whole.
    ///
    /// # Errors
    /// A temporary fault.
    pub(crate) async fn candidates(
        &self,
        prefix: &str,
        extension: &str,
        most: u64,
    ) -> Result<Vec<Candidate>, Error> {
        let listed: Vec<Listed> = self.list(prefix).take(MAX_CANDIDATES).try_collect().await?;
        let named = |listed: Listed| {
            let name = listed.key.strip_prefix(prefix)?.strip_suffix(extension)?;
            let sha256 = name.strip_suffix('.')?.parse().ok()?;
            if listed.size > most {
                tracing::warn!(
                    artifact.key = listed.key,
                    artifact.size = listed.size,
                    accepted = most,
                    "an artifact is too big and was not read"
                );
                return None;
            }
            Some(Candidate {
                artifact: ArtifactRef { key: listed.key, sha256, size: listed.size },
                modified_unix_seconds: listed.modified_unix_seconds,
            })
        };
        let mut found: Vec<Candidate> = listed.into_iter().filter_map(named).collect();
        found.sort_by(|a, b| a.artifact.key.cmp(&b.artifact.key));
        Ok(found)
    }
}

/// An object that may be an artifact. Its size and its name are what the store states.
pub(crate) struct Candidate {
    pub(crate) artifact: ArtifactRef,
    /// When it was written, seconds since 1970.
    pub(crate) modified_unix_seconds: i64,
}
