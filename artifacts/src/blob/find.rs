//! Finds artifacts: what lies under a prefix, and how large it is.

use bytes::Bytes;
use darkroom_core::artifact::ArtifactRef;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;

use super::{ArtifactStore, Listed, MAX_CANDIDATES, path};
use crate::error::Error;

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

    /// The artifacts under a prefix that ends in `/`, in no order.
    pub fn list(&self, prefix: &str) -> impl Stream<Item = Result<Listed, Error>> + Send + 'static {
        let name = prefix.to_owned();
        let listed = match path(prefix) {
            Ok(path) => self.store().list(Some(&path)).left_stream(),
            Err(_) => futures::stream::empty().right_stream(),
        };
        listed.map_err(move |error| Error::of_store(&name, &error)).map_ok(|meta| Listed {
            key: meta.location.to_string(),
            size: meta.size,
            modified_unix_seconds: meta.last_modified.timestamp(),
            mark: meta.e_tag.unwrap_or_else(|| meta.last_modified.timestamp_micros().to_string()),
        })
    }

    /// Finds an artifact that an earlier run left under `prefix`: the first one, by key, with the
    /// extension and with bytes that match the hash in its name. Returns its bytes too, because
    /// they were read for the check.
    ///
    /// # Errors
    /// A temporary fault; damaged artifacts are skipped.
    pub async fn find_content(
        &self,
        prefix: &str,
        extension: &str,
    ) -> Result<Option<(ArtifactRef, Bytes)>, Error> {
        let mut found: Vec<Listed> = self.list(prefix).take(MAX_CANDIDATES).try_collect().await?;
        found.sort_by(|a, b| a.key.cmp(&b.key));
        for listed in found {
            let name =
                listed.key.strip_prefix(prefix).and_then(|name| name.strip_suffix(extension));
            let Some(sha256) = name.and_then(|name| name.strip_suffix('.')?.parse().ok()) else {
                continue;
            };
            let artifact = ArtifactRef { key: listed.key, sha256, size: listed.size };
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
}
