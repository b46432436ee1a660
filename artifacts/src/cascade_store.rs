//! Cascades in object storage: `cascades/{digest}/files/{sha256}.{extension}` and, once all files
//! are stored, `cascades/{digest}/record/{sha256}.json`, which maps their names to hashes.
//!
//! Both are named by their content, so publishing twice, or twice at the same time, stores the
//! same. Two records of one digest may differ in what the digest does not cover (a description);
//! any of them can be used.

use std::{collections::BTreeSet, path::Path};

use darkroom_core::{
    artifact::ArtifactRef,
    cascade::{Cascade, CascadeSpec, FILE_NAME},
    digest::Digest,
    error::{Code, UserError},
    guard::{Guard, stands},
    shown::shown_path,
};
use futures::{StreamExt, TryStreamExt, future, stream};
use serde::{Deserialize, Serialize};

use crate::{
    blob::{ArtifactStore, Listed, MAX_RECORD, find::Candidate},
    cascade_bundle::{CascadeBundle, check_inside, is_model_file},
    error::Error,
    model_files::{ModelFolder, unreadable},
    seal::{self, Seal},
};

/// Version of the record.
const FORMAT: u32 = 1;
/// Files that are uploaded at the same time.
const PARALLEL: usize = 4;
/// Files that are looked up at the same time.
const LOOK_UPS: usize = 16;

/// The result of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The cascade's digest; it is fetched by this.
    pub digest: Digest,
    /// Its files.
    pub files: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bytes that were uploaded now.
    pub uploaded_bytes: u64,
}

/// The content of a cascade in the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    format: u32,
    /// The cascade, with the hashes of its model files.
    pub(crate) cascade: Cascade,
    /// Every file to fetch, with `cascade.toml`; none for a fake's cascade.
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
    /// Parses a record, and checks that it is for this digest and safe to write to disk.
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
                return Err(format!("{:?} is not a file of this cascade", file.path));
            }
        }
        let complete = record.cascade.files.keys().all(|path| paths.contains(path));
        if !record.files.is_empty() && !complete {
            return Err("it does not list every file".to_owned());
        }
        Ok(record)
    }

    pub(crate) fn bytes(&self) -> u64 {
        // A record comes from the store, and may say anything.
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }
}

impl RecordFile {
    /// Its key in the store.
    pub(crate) fn artifact(&self, digest: Digest) -> ArtifactRef {
        let key = format!("{}{}.{}", files_prefix(digest), self.sha256, extension(&self.path));
        ArtifactRef { key, sha256: self.sha256, size: self.size }
    }
}

/// Uploads every file of the cascade, and then the record that names them. Intact files in the
/// store are kept. Each is read once by the first process that did not upload it itself, and
/// replaced if it is damaged. A fake's cascade is only a record.
///
/// # Errors
/// One sentence: a file changed since the bundle was loaded, or the store's error.
pub async fn publish(
    store: &ArtifactStore,
    bundle: &CascadeBundle,
) -> Result<Published, UserError> {
    let digest = bundle.cascade().digest();
    let wanted = if bundle.has_files() { files_of(bundle)? } else { Vec::new() };
    let sealed = if wanted.is_empty() { Seal::new() } else { seal::read(store, digest).await? };
    let stored = stored_files(store, digest, &wanted).await?;
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
    store
        .put_content(&record_prefix(digest), "json", text.into())
        .await
        .map_err(|error| error.to_user())?;
    Ok(Published { digest, files: record.files.len(), bytes: record.bytes(), uploaded_bytes })
}

/// Those of the wanted files that are stored. Each is looked up, since others may lie there without
/// number.
async fn stored_files(
    store: &ArtifactStore,
    digest: Digest,
    wanted: &[RecordFile],
) -> Result<Vec<Listed>, UserError> {
    let keys: BTreeSet<String> = wanted.iter().map(|file| file.artifact(digest).key).collect();
    let found = stream::iter(&keys).map(|key| store.look_up(key)).buffer_unordered(LOOK_UPS);
    let found = found.try_filter_map(future::ok);
    found.try_collect().await.map_err(|error| error.to_user())
}

/// Whether a file is stored and intact. A damaged file is deleted.
async fn is_stored(
    store: &ArtifactStore,
    artifact: &ArtifactRef,
    stored: &[Listed],
    sealed: &Seal,
) -> Result<bool, UserError> {
    let Some(found) = stored.iter().find(|listed| listed.key == artifact.key) else {
        return Ok(false);
    };
    if found.size == artifact.size {
        if sealed.get(&found.key) == Some(&found.mark) || !stands(Guard::PublishedWhole) {
            return Ok(true);
        }
        tracing::info!(
            artifact.key,
            artifact.size,
            "a stored file of the cascade is read once, to check it"
        );
        if seal::is_whole(store, artifact).await.map_err(|error| error.to_user())? {
            return Ok(true);
        }
    }
    tracing::warn!(artifact.key, "a stored file of the cascade is damaged; it is replaced");
    store.delete(&artifact.key).await.map_err(|error| error.to_user())?;
    Ok(false)
}

/// Records the marks of the files, which are now all stored and intact.
async fn seal_files(
    store: &ArtifactStore,
    digest: Digest,
    wanted: &[RecordFile],
    sealed: &Seal,
) -> Result<(), UserError> {
    let stored = stored_files(store, digest, wanted).await?;
    let seal: Seal = stored.into_iter().map(|listed| (listed.key, listed.mark)).collect();
    if seal.is_empty() || &seal == sealed {
        return Ok(());
    }
    seal::write(store, digest, &seal).await.map_err(|error| error.to_user())
}

/// A published cascade's description, without its files; for members that run fakes.
///
/// # Errors
/// One sentence: there is no such cascade, or the store's error.
pub async fn describe(store: &ArtifactStore, digest: Digest) -> Result<Cascade, UserError> {
    find(store, digest).await.map(|record| record.cascade)
}

/// The store's record of a cascade. A record with files is preferred to a fake's.
pub(crate) async fn find(store: &ArtifactStore, digest: Digest) -> Result<Record, UserError> {
    let listed = store.candidates(&record_prefix(digest), "json", MAX_RECORD).await;
    let mut found = None;
    for Candidate { artifact, .. } in listed.map_err(|error| error.to_user())? {
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
        tracing::warn!(artifact.key, reason, "a cascade's record was skipped");
    }
    found.ok_or_else(|| {
        UserError::new(
            Code::NotFound,
            "CASCADE_NOT_PUBLISHED",
            format!(
                "the artifact store {} has no cascade {digest}; publish it first",
                store.name()
            ),
        )
    })
}

/// The files as they are on disk now, with sizes.
fn files_of(bundle: &CascadeBundle) -> Result<Vec<RecordFile>, UserError> {
    let toml = bundle.root().join(FILE_NAME);
    let root = bundle.root().to_owned();
    let inside = ModelFolder::new(&root).map_err(|error| unreadable(&root, &error))?;
    let text = inside.text(FILE_NAME)?;
    if !is_spec(&text, &bundle.cascade().spec) {
        return Err(changed(&toml));
    }
    let sha256 = Digest::of(text.as_bytes());
    let mut files =
        vec![RecordFile { path: FILE_NAME.to_owned(), size: text.len() as u64, sha256 }];
    for (path, sha256) in &bundle.cascade().files {
        let file = inside.open(path)?;
        let size = file.metadata().map_err(|error| unreadable(&root.join(path), &error))?.len();
        files.push(RecordFile { path: path.clone(), size, sha256: *sha256 });
    }
    Ok(files)
}

/// Whether a `cascade.toml` says the same as `spec`, which also has the values of the stages'
/// configurations.
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
            message: format!("{} is missing; a cascade needs it", shown_path(&path)),
            ..error.to_user()
        }),
        Err(error) => Err(error.to_user()),
    }
}

fn changed(path: &Path) -> UserError {
    let message =
        format!("{} changed since the cascade was loaded; load it again", shown_path(path));
    UserError::new(Code::FailedPrecondition, "CASCADE_CHANGED", message)
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
