//! Checks from object storage alone that a job's results are complete and intact: its manifest, and
//! every picture in it.

use std::fmt;

use bytes::Bytes;
use darkroom_core::{artifact::ArtifactRef, digest::Digest};
use futures::{Stream, StreamExt, TryStreamExt, stream::FuturesUnordered};
use sha2::{Digest as _, Sha256};

use crate::{
    blob::ArtifactStore,
    error::Error,
    manifest::{Checker, Header, ImageLine, ImageOutcome, MAX_LINE, Totals},
    picture::MAX_FILE_BYTES,
};

/// How closely pictures are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// Each exists and has its size; this takes one small request per picture.
    #[default]
    Sizes,
    /// Each is read and has its hash.
    Hashes,
}

/// How a job is verified.
#[derive(Clone, Debug)]
pub struct Options {
    /// How closely.
    pub depth: Depth,
    /// Pictures that are checked at the same time.
    pub concurrency: usize,
    /// Problems that are listed in full; further ones are only counted.
    pub max_problems: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { depth: Depth::Sizes, concurrency: 16, max_problems: 100 }
    }
}

/// The progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the manifest that were read.
    pub manifest_bytes: u64,
    /// Pictures that were checked.
    pub pictures: u64,
    /// Bytes of the pictures that were intact.
    pub bytes: u64,
    /// Problems so far.
    pub problems: u64,
}

/// The kind of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A line of the manifest is missing, duplicated or wrong.
    Manifest,
    /// A done image has no picture in the manifest.
    Unrecorded,
    /// A picture is not in the store.
    Missing,
    /// A picture has another size or hash.
    Damaged,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The kind.
    pub kind: Kind,
    /// Index of the image, if it is about one.
    pub image: Option<u64>,
    /// One sentence.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.image {
            Some(index) => write!(f, "image {index}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// The result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The manifest's header, if it has one.
    pub header: Option<Header>,
    /// Counted over the manifest's lines.
    pub totals: Totals,
    /// What was checked, and how many problems there are.
    pub progress: Progress,
    /// The first problems: those of the manifest by line, those of pictures in the order of
    /// discovery.
    pub problems: Vec<Problem>,
}

impl Report {
    /// Whether there is no problem.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.progress.problems == 0
    }
}

/// Verifies the job with the manifest under `key`, which ends in its hash.
///
/// # Errors
/// If the manifest does not exist, or the store failed temporarily. Damage is in the report.
pub async fn job(
    store: &ArtifactStore,
    key: &str,
    options: &Options,
    progress: impl FnMut(&Progress),
) -> Result<Report, Error> {
    let size = store.size_of(key).await?;
    let name = key.rsplit('/').next().unwrap_or_default();
    let expected: Option<Digest> = name.split('.').next().and_then(|digest| digest.parse().ok());
    let artifact =
        ArtifactRef { key: key.to_owned(), sha256: expected.unwrap_or(Digest([0; 32])), size };
    let mut hasher = Sha256::new();
    let chunks = store.read(&artifact, 0).inspect_ok(|chunk| hasher.update(chunk));
    let mut report = manifest(store, chunks, options, progress).await?;
    let found = Digest(hasher.finalize().into());
    if let Some(expected) = expected.filter(|expected| *expected != found) {
        let message = format!("the manifest's SHA-256 is {found}, expected {expected}");
        report.add(options, Problem { kind: Kind::Manifest, image: None, message });
    }
    Ok(report)
}

/// Like [`job`], with the manifest's bytes from any source, in pieces of any size.
///
/// # Errors
/// If the bytes end in an error, or the store failed temporarily.
pub async fn manifest(
    store: &ArtifactStore,
    chunks: impl Stream<Item = Result<Bytes, Error>>,
    options: &Options,
    mut progress: impl FnMut(&Progress),
) -> Result<Report, Error> {
    let mut chunks = std::pin::pin!(chunks);
    let mut report = Report::default();
    let mut checker = Checker::default();
    let mut checks = FuturesUnordered::new();
    let mut rest = Vec::new();
    while let Some(chunk) = chunks.try_next().await? {
        report.progress.manifest_bytes += chunk.len() as u64;
        rest.extend_from_slice(&chunk);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            if let Some(image) = take(&mut report, &mut checker, options, &line) {
                checks.push(check(store, image, options.depth));
            }
            while checks.len() >= options.concurrency.max(1) {
                let Some(checked) = checks.next().await else { break };
                report.checked(options, checked?);
                progress(&report.progress);
            }
        }
        if rest.len() as u64 > MAX_LINE {
            break;
        }
    }
    if !rest.is_empty() {
        take(&mut report, &mut checker, options, &rest);
    }
    while let Some(checked) = checks.next().await {
        report.checked(options, checked?);
        progress(&report.progress);
    }
    report.header = checker.header().cloned();
    report.totals = checker.counted().clone();
    if let Err(error) = checker.finish() {
        report.add(
            options,
            Problem { kind: Kind::Manifest, image: None, message: error.to_string() },
        );
    }
    Ok(report)
}

/// Takes one line; returns the image, if its picture must be checked.
fn take(
    report: &mut Report,
    checker: &mut Checker,
    options: &Options,
    line: &[u8],
) -> Option<ImageLine> {
    let (image, problem) = checker.line(line);
    if let Some(error) = problem {
        report.add(
            options,
            Problem { kind: Kind::Manifest, image: None, message: error.to_string() },
        );
    }
    // An impossible size is a problem of the manifest, and such a picture is not read.
    let possible = |image: &ImageLine| image.size.is_none_or(|size| size <= MAX_FILE_BYTES);
    let is_there = |image: &ImageLine| image.state == ImageOutcome::Done && !image.is_removed();
    image.filter(|image| is_there(image) && possible(image))
}

/// Checks the picture of a done image: returns its size, or what is wrong with it.
async fn check(
    store: &ArtifactStore,
    image: ImageLine,
    depth: Depth,
) -> Result<Result<u64, Problem>, Error> {
    let problem = |kind, message| Ok(Err(Problem { kind, image: Some(image.index), message }));
    let (Some(key), Some(size), Some(sha256)) = (image.key, image.size, image.sha256) else {
        return problem(
            Kind::Unrecorded,
            "it is done, but no picture with size and hash is recorded".to_owned(),
        );
    };
    let artifact = ArtifactRef { key, sha256, size };
    let found = match depth {
        Depth::Sizes => store.size_of(&artifact.key).await,
        Depth::Hashes => store.get(&artifact).await.map(|bytes| bytes.len() as u64),
    };
    match found {
        Ok(found) if found == size => Ok(Ok(size)),
        Ok(found) => problem(
            Kind::Damaged,
            format!("{} has {found} bytes, but {size} were stored", artifact.key),
        ),
        Err(error) if error.retryable() => Err(error),
        Err(error @ Error::Missing { .. }) => problem(Kind::Missing, error.to_string()),
        Err(error) => problem(Kind::Damaged, error.to_string()),
    }
}

impl Report {
    fn checked(&mut self, options: &Options, checked: Result<u64, Problem>) {
        self.progress.pictures += 1;
        match checked {
            Ok(bytes) => self.progress.bytes = self.progress.bytes.saturating_add(bytes),
            Err(problem) => self.add(options, problem),
        }
    }

    fn add(&mut self, options: &Options, problem: Problem) {
        self.progress.problems += 1;
        if self.problems.len() < options.max_problems {
            self.problems.push(problem);
        }
    }
}

#[cfg(test)]
mod tests;
