//! Cascades in object storage: `cascades/{digest}/files/{sha256}.{extension}` and, once all files are there,
//! `cascades/{digest}/record/{sha256}.json`, which says what they are called.
//!
//! Both are named by their content, so that publishing twice, or two at once, stores the same. Two records of one
//! digest may differ in what the digest leaves out (a description); any of them will do.

use std::{collections::BTreeSet, path::Path};

use darkroom_core::{
    artifact::ArtifactRef,
    cascade::{Cascade, CascadeSpec, FILE_NAME},
    digest::Digest,
    error::{Code, UserError},
    guard::{Guard, stands},
};
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use crate::{
    blob::{ArtifactStore, Listed, MAX_CANDIDATES},
    cascade_bundle::{CascadeBundle, check_inside, is_model_file},
    error::Error,
    seal::{self, Seal},
};

/// Version of the record.
const FORMAT: u32 = 1;
/// Files uploaded at once.
const PARALLEL: usize = 4;

/// What a publication did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The cascade's digest, by which it is fetched.
    pub digest: Digest,
    /// Its files.
    pub files: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bytes that were not in the store before.
    pub uploaded_bytes: u64,
}

/// What a cascade in the store consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    format: u32,
    /// The cascade, with the hashes of its model files.
    pub(crate) cascade: Cascade,
    /// Every file to fetch, `cascade.toml` included; none for a fake's cascade.
    pub(crate) files: Vec<RecordFile>,
}

/// One file of a cascade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordFile {
    /// Path below the cascade's folder.
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) sha256: Digest,
}

impl Record {
    /// Reads a record and checks that it is one of this digest, safe to write to disk.
    pub(crate) fn parse(bytes: &[u8], digest: Digest) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if record.format != FORMAT {
            return Err(format!("its format is {}; accepted: {FORMAT}", record.format));
        }
        let found = record.cascade.digest();
        if found != digest {
            return Err(format!("it describes the cascade {found}"));
        }
        let mut paths = BTreeSet::new();
        for file in &record.files {
            let known = match record.cascade.files.get(&file.path) {
                Some(sha256) => *sha256 == file.sha256 && is_model_file(Path::new(&file.path)),
                None => file.path == FILE_NAME,
            };
            if !known || check_inside("path", &file.path).is_err() || !paths.insert(&file.path) {
                return Err(format!("{:?} is no file of this cascade", file.path));
            }
        }
        let complete = record.cascade.files.keys().all(|path| paths.contains(path));
        if !record.files.is_empty() && !complete {
            return Err("it does not list every file".to_owned());
        }
        Ok(record)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

impl RecordFile {
    /// Where it lies in the store.
    pub(crate) fn artifact(&self, digest: Digest) -> ArtifactRef {
        let key = format!("{}{}.{}", files_prefix(digest), self.sha256, extension(&self.path));
        ArtifactRef { key, sha256: self.sha256, size: self.size }
    }
}

/// Uploads every file that the cascade stands for and then the record that names them. Files that are there whole stay as
/// they are: each is read once, by the first who did not upload it, and replaced where it is damaged. A fake's cascade is
/// its record alone.
///
/// # Errors
/// One sentence: a file that changed since the bundle was loaded, or what the store says.
pub async fn publish(store: &ArtifactStore, bundle: &CascadeBundle) -> Result<Published, UserError> {
    let digest = bundle.cascade().digest();
    let wanted = if bundle.has_files() { files_of(bundle).await? } else { Vec::new() };
    let sealed = if wanted.is_empty() { Seal::new() } else { seal::read(store, digest).await? };
    let stored = stored_files(store, digest).await?;
    let mut absent = Vec::new();
    for file in &wanted {
        if !is_stored(store, &file.artifact(digest), &stored, &sealed).await? {
            absent.push(file.clone());
        }
    }
    let uploaded_bytes = absent.iter().map(|file| file.size).sum();
    futures::stream::iter(absent)
        .map(|file| upload(store, bundle, digest, file))
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    seal_files(store, digest, &wanted, &sealed).await?;
    let record = Record { format: FORMAT, cascade: bundle.cascade().clone(), files: wanted };
    let text = serde_json::to_vec(&record)
        .map_err(|error| UserError::new(Code::Internal, "CASCADE_RECORD", error.to_string()))?;
    store.put_content(&record_prefix(digest), "json", text.into()).await.map_err(|error| error.to_user())?;
    Ok(Published { digest, files: record.files.len(), bytes: record.bytes(), uploaded_bytes })
}

async fn stored_files(store: &ArtifactStore, digest: Digest) -> Result<Vec<Listed>, UserError> {
    store.list(&files_prefix(digest)).try_collect().await.map_err(|error| error.to_user())
}

/// Whether a file lies there whole. What is damaged is deleted.
async fn is_stored(
    store: &ArtifactStore,
    artifact: &ArtifactRef,
    stored: &[Listed],
    sealed: &Seal,
) -> Result<bool, UserError> {
    let Some(found) = stored.iter().find(|listed| listed.key == artifact.key) else { return Ok(false) };
    if found.size == artifact.size {
        if sealed.get(&found.key) == Some(&found.mark) || !stands(Guard::PublishedWhole) {
            return Ok(true);
        }
        tracing::info!(
            artifact.key,
            artifact.size,
            "a stored file of the cascade is read once, to be sure of it"
        );
        if seal::is_whole(store, artifact).await.map_err(|error| error.to_user())? {
            return Ok(true);
        }
    }
    tracing::warn!(artifact.key, "a stored file of the cascade is damaged; it is replaced");
    store.delete(&artifact.key).await.map_err(|error| error.to_user())?;
    Ok(false)
}

/// Writes down the marks of the files, which all lie there whole now.
async fn seal_files(
    store: &ArtifactStore,
    digest: Digest,
    wanted: &[RecordFile],
    sealed: &Seal,
) -> Result<(), UserError> {
    let keys: BTreeSet<String> = wanted.iter().map(|file| file.artifact(digest).key).collect();
    let stored = stored_files(store, digest).await?;
    let seal: Seal = stored
        .into_iter()
        .filter(|listed| keys.contains(&listed.key))
        .map(|listed| (listed.key, listed.mark))
        .collect();
    if seal.is_empty() || &seal == sealed {
        return Ok(());
    }
    seal::write(store, digest, &seal).await.map_err(|error| error.to_user())
}

/// A published cascade's description, without its files: for those who run fakes.
///
/// # Errors
/// One sentence: no such cascade, or what the store says.
pub async fn describe(store: &ArtifactStore, digest: Digest) -> Result<Cascade, UserError> {
    find(store, digest).await.map(|record| record.cascade)
}

/// What the store knows of a cascade; a record with files wins over a fake's.
pub(crate) async fn find(store: &ArtifactStore, digest: Digest) -> Result<Record, UserError> {
    let prefix = record_prefix(digest);
    let listed = store.list(&prefix).take(MAX_CANDIDATES).try_collect::<Vec<_>>().await;
    let mut listed = listed.map_err(|error| error.to_user())?;
    listed.sort_by(|a, b| a.key.cmp(&b.key));
    let mut found = None;
    for listed in listed {
        let name = listed.key.strip_prefix(&prefix).and_then(|name| name.strip_suffix(".json"));
        let Some(sha256) = name.and_then(|name| name.parse().ok()) else { continue };
        let artifact = ArtifactRef { key: listed.key, sha256, size: listed.size };
        let reason = match store.get(&artifact).await {
            Ok(bytes) => match Record::parse(&bytes, digest) {
                Ok(record) if !record.files.is_empty() => return Ok(record),
                Ok(record) => {
                    found = Some(record);
                    continue;
                }
                Err(reason) => reason,
            },
            Err(error) if error.retryable() => return Err(error.to_user()),
            Err(error) => error.to_string(),
        };
        tracing::warn!(artifact.key, reason, "cascade record passed over");
    }
    found.ok_or_else(|| {
        UserError::new(
            Code::NotFound,
            "CASCADE_NOT_PUBLISHED",
            format!("the artifact store {} has no cascade {digest}; publish it first", store.name()),
        )
    })
}

/// The files as they are on disk now, sizes included.
async fn files_of(bundle: &CascadeBundle) -> Result<Vec<RecordFile>, UserError> {
    let toml = bundle.root().join(FILE_NAME);
    let text = tokio::fs::read_to_string(&toml).await.map_err(|error| unreadable(&toml, &error))?;
    if !is_spec(&text, &bundle.cascade().spec) {
        return Err(changed(&toml));
    }
    let sha256 = Digest::of(text.as_bytes());
    let mut files = vec![RecordFile { path: FILE_NAME.to_owned(), size: text.len() as u64, sha256 }];
    for (path, sha256) in &bundle.cascade().files {
        let file = bundle.root().join(path);
        let size = tokio::fs::metadata(&file).await.map_err(|error| unreadable(&file, &error))?.len();
        files.push(RecordFile { path: path.clone(), size, sha256: *sha256 });
    }
    Ok(files)
}

/// Whether a `cascade.toml` says what `spec` does, which besides has what the stages' configurations say.
pub(crate) fn is_spec(toml: &str, spec: &CascadeSpec) -> bool {
    CascadeSpec::parse(toml).is_ok_and(|written| written.without_bounds() == spec.without_bounds())
}

async fn upload(
    store: &ArtifactStore,
    bundle: &CascadeBundle,
    digest: Digest,
    file: RecordFile,
) -> Result<(), UserError> {
    let path = bundle.root().join(&file.path);
    let stored = store.put_file(&files_prefix(digest), extension(&file.path), &path).await;
    match stored {
        Ok(stored) if stored == file.artifact(digest) => Ok(()),
        Ok(_) => Err(changed(&path)),
        Err(error @ Error::Missing { .. }) => Err(UserError {
            message: format!("{} is missing; a cascade needs it", path.display()),
            ..error.to_user()
        }),
        Err(error) => Err(error.to_user()),
    }
}

fn changed(path: &Path) -> UserError {
    let message = format!("{} changed since the cascade was loaded; load it again", path.display());
    UserError::new(Code::FailedPrecondition, "CASCADE_CHANGED", message)
}

fn unreadable(path: &Path, error: &std::io::Error) -> UserError {
    let message = format!("{} cannot be read: {error}", path.display());
    UserError::new(Code::FailedPrecondition, "UNREADABLE", message)
}

fn extension(path: &str) -> &str {
    Path::new(path).extension().and_then(|extension| extension.to_str()).unwrap_or("bin")
}

fn files_prefix(digest: Digest) -> String {
    format!("cascades/{digest}/files/")
}

fn record_prefix(digest: Digest) -> String {
    format!("cascades/{digest}/record/")
}
