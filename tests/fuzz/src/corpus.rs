//! The inputs in the repository: `corpus/TARGET/` has what the mutations begin with, and
//! `regressions/TARGET/` what once broke a promise.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A file of a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Its path.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The folder of corpora.
#[must_use]
pub fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The folder of inputs that once broke a promise.
#[must_use]
pub fn regressions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions")
}

/// All inputs of a target, in the order of their names.
///
/// # Errors
/// If they cannot be read.
pub fn of(target: &str) -> io::Result<Vec<Input>> {
    let mut all = files(&corpora().join(target))?;
    all.extend(files(&regressions().join(target))?);
    Ok(all)
}

fn files(folder: &Path) -> io::Result<Vec<Input>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths = fs::read_dir(folder)?
        .map(|file| file.map(|file| file.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    paths.into_iter().map(|path| Ok(Input { bytes: fs::read(&path)?, path })).collect()
}
