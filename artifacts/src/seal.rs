//! Which of a cascade's stored files were read completely once and had the right hash:
//! `cascades/{digest}/seals/{sha256}.json`.
//!
//! Reading gigabytes of weights at every start would take minutes, and a size alone proves little.
//! So a process that has uploaded a file, or read all of it, records the mark that the store gave
//! it (its ETag, which other content does not get, or the time of writing). While the mark is the
//! same, the store has not changed the file.

use std::collections::BTreeMap;

use darkroom_core::{artifact::ArtifactRef, digest::Digest, error::UserError};
use futures::{StreamExt, TryStreamExt};
use sha2::{Digest as _, Sha256};

use crate::{
    blob::{ArtifactStore, Listed, MAX_CANDIDATES, MAX_RECORD, find::Candidate},
    error::Error,
};

/// Marks by key.
pub(crate) type Seal = BTreeMap<String, String>;

/// The marks recorded so far; unreadable records are ignored.
pub(crate) async fn read(store: &ArtifactStore, digest: Digest) -> Result<Seal, UserError> {
    let found = store.candidates(&prefix(digest), "json", MAX_RECORD).await;
    let mut sealed = Seal::new();
    let mut found = found.map_err(|error| error.to_user())?;
    // If a file has two marks, the later one is more likely to be right.
    found.sort_by_key(|found| found.modified_unix_seconds);
    for Candidate { artifact, .. } in found {
        match store.get(&artifact).await {
            Ok(bytes) => sealed.extend(serde_json::from_slice::<Seal>(&bytes).unwrap_or_default()),
            Err(error) if error.retryable() => return Err(error.to_user()),
            Err(_) => {}
        }
    }
    Ok(sealed)
}

/// Records marks, and deletes the earlier records.
pub(crate) async fn write(store: &ArtifactStore, digest: Digest, seal: &Seal) -> Result<(), Error> {
    let text = serde_json::to_vec(seal).unwrap_or_default();
    let written = store.put_content(&prefix(digest), "json", text.into()).await?;
    let listed: Vec<Listed> =
        store.list(&prefix(digest)).take(MAX_CANDIDATES).try_collect().await?;
    for old in listed.iter().filter(|listed| listed.key != written.key) {
        store.delete(&old.key).await?;
    }
    Ok(())
}

/// Reads an artifact to its end; returns whether its hash is right.
pub(crate) async fn is_whole(store: &ArtifactStore, artifact: &ArtifactRef) -> Result<bool, Error> {
    let mut hasher = Sha256::new();
    let mut chunks = std::pin::pin!(store.read(artifact, 0));
    loop {
        match chunks.try_next().await {
            Ok(Some(chunk)) => hasher.update(&chunk),
            Ok(None) => return Ok(Digest(hasher.finalize().into()) == artifact.sha256),
            Err(Error::Corrupt { .. } | Error::Missing { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

fn prefix(digest: Digest) -> String {
    format!("cascades/{digest}/seals/")
}
