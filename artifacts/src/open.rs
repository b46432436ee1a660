//! Opening a store by URL: a folder, S3, Google Cloud Storage, Azure, memory.
//!
//! Credentials come from the environment, with the names that each cloud's own tools use, and never
//! from the URL, because URLs end up in logs, process lists and files.

use std::path::Path as FilePath;

use darkroom_core::{
    error::{Code, UserError},
    shown::shown_path,
};
use url::Url;

use crate::blob::ArtifactStore;

#[cfg(feature = "cloud")]
mod cloud;
mod options;
mod refusal;

pub use self::options::{Environment, Options};
pub(crate) use self::refusal::FIELD;
use self::refusal::wrong;

impl ArtifactStore {
    /// Opens the store at `url`. It does not contact the store; [`check`](Self::check) does.
    ///
    /// - a path or `file:///path`: a folder, created if absent; it may be shared by several
    ///   machines
    /// - `s3://bucket/prefix`, with `?endpoint=…&region=…&allow_http=true&path_style=true`
    /// - `gs://bucket/prefix`, `az://container/prefix?account=…`
    /// - `memory:`: for tests
    ///
    /// # Errors
    /// One sentence about what is wrong with the URL or the environment.
    pub fn open(url: &str, options: &Options) -> Result<Self, UserError> {
        // Folders need no credentials.
        let _ = options;
        if url.trim().is_empty() {
            return Err(wrong(format!("artifacts is {url:?}; {ACCEPTED}")));
        }
        if url == "memory:" || url == "memory://" {
            return Ok(Self::in_memory());
        }
        if !url.contains("://") {
            if let Some((scheme, _)) = url.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) {
                return Err(wrong(format!(
                    "artifacts begins with {scheme}: but // is missing after it; {ACCEPTED} (write a folder of that name as ./{scheme}:…)"
                )));
            }
            return folder(FilePath::new(url));
        }
        // The URL is not quoted, because the wrong part may be a secret.
        let parsed = Url::parse(url)
            .map_err(|error| wrong(format!("artifacts is no URL: {error}; {ACCEPTED}")))?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(wrong(
                "artifacts holds a user name or password; credentials belong in the environment",
            ));
        }
        match parsed.scheme() {
            "file" => match parsed.to_file_path() {
                Ok(path) => folder(&path),
                Err(()) => {
                    Err(wrong("artifacts is a file URL with a host; accepted: file:///path"))
                }
            },
            #[cfg(feature = "cloud")]
            "s3" | "gs" | "az" => cloud::open(&parsed, options),
            #[cfg(not(feature = "cloud"))]
            scheme @ ("s3" | "gs" | "az") => Err(wrong(format!(
                "artifacts begins with {scheme}://, and this program was built without cloud storage; accepted: a \
                 folder, file:///path"
            ))),
            scheme => Err(wrong(format!("artifacts begins with {scheme}://; {ACCEPTED}"))),
        }
    }
}

/// Whether the user probably did not mean a folder.
fn is_scheme(word: &str) -> bool {
    let known =
        ["s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "file", "http", "https", "memory"];
    known.iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
}

const ACCEPTED: &str = "accepted: a folder, file:///path, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix";

fn folder(path: &FilePath) -> Result<ArtifactStore, UserError> {
    ArtifactStore::local(path).map_err(|error| UserError {
        field: Some(FIELD.to_owned()),
        ..UserError::new(
            Code::FailedPrecondition,
            "ARTIFACTS_UNUSABLE",
            format!("artifacts folder {}: {error}", shown_path(path)),
        )
    })
}

#[cfg(all(test, feature = "cloud"))]
mod tests;
