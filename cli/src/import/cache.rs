//! Hugging Face's cache on disk: `hub/models--OWNER--NAME/{blobs,refs,snapshots/REVISION}`. A
//! snapshot is the model.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use darkroom_runtime::terminal::shown_path;

use super::error::wrong;
use crate::failure::{self, Result};

/// What is stored beside the snapshots, and what each is.
const STRAYS: [(&str, &str); 4] = [
    ("blobs", "the files of a cache without their names"),
    ("refs", "where a cache notes which snapshot is which branch"),
    (".no_exist", "where a cache notes which files a repository does not have"),
    (".locks", "where a cache keeps its locks"),
];
/// Most bytes of a file in refs/; a revision has forty.
const MOST: u64 = 256;

/// The folder itself, or the snapshot of a cache's folder.
pub(super) fn snapshot(given: &Path) -> Result<PathBuf> {
    let whole = std::path::absolute(given).unwrap_or_else(|_| given.to_owned());
    if let Some((stray, what)) = stray(&whole) {
        return Err(wrong(format!(
            "{} is in {stray}/, {what}; accepted: the folder above, {}, or one of its snapshots/*",
            shown_path(given),
            shown_path(cache_of(&whole).unwrap_or(&whole))
        )));
    }
    if let Some(models) = hub(given) {
        return Err(wrong(format!(
            "{} is the cache of several models; accepted: one or more of them, such as {}",
            shown_path(given),
            models.join(", ")
        )));
    }
    let is_snapshots =
        whole.file_name().is_some_and(|name| name == "snapshots") && cache_of(&whole).is_some();
    let (snapshots, cache) = if is_snapshots {
        (given.to_owned(), whole.parent().unwrap_or(&whole).to_owned())
    } else {
        (given.join("snapshots"), given.to_owned())
    };
    if !snapshots.is_dir() {
        return Ok(given.to_owned());
    }
    let entries = fs::read_dir(&snapshots)
        .map_err(|error| failure::file("dir", "read", &snapshots, &error))?;
    // Notes of file managers are not snapshots.
    let mut found: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    let names = || {
        let name =
            |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
        found.iter().filter_map(name).collect::<Vec<_>>().join(", ")
    };
    if let Some(revision) = branch(&cache.join("refs/main")) {
        let path = snapshots.join(&revision);
        return match path.is_dir() {
            true => Ok(path),
            false if found.is_empty() => Err(wrong(format!(
                "{} is a cache's folder whose snapshot {revision:?}, which refs/main names, is not there: nothing was fetched; fetch it again",
                shown_path(given)
            ))),
            false => Err(wrong(format!(
                "{} is a cache's folder whose snapshot {revision:?}, which refs/main names, is not there; accepted: one that is, below {}: {}",
                shown_path(given),
                shown_path(&snapshots),
                names()
            ))),
        };
    }
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(wrong(format!(
            "{} is a cache's folder without a snapshot: nothing was fetched; fetch it again",
            shown_path(given)
        ))),
        _ => Err(wrong(format!(
            "{} is a cache's folder without refs/main and with several snapshots; accepted: one of them, below {}: {}",
            shown_path(given),
            shown_path(&snapshots),
            names()
        ))),
    }
}

/// The part of a cache that contains a path, unless that is a snapshot.
fn stray(path: &Path) -> Option<(&'static str, &'static str)> {
    let cache = cache_of(path)?;
    let part = path.strip_prefix(cache).ok()?.components().next()?;
    STRAYS.into_iter().find(|(name, _)| part.as_os_str() == *name)
}

/// The folder `models--OWNER--NAME` that contains a path.
fn cache_of(path: &Path) -> Option<&Path> {
    path.ancestors().skip(1).find(|above| is_cache(above))
}

fn is_cache(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("models--"))
}

/// The models in a folder of several caches; three at most.
fn hub(folder: &Path) -> Option<Vec<String>> {
    if ["unet", "text_encoder", "config.json"].iter().any(|part| folder.join(part).exists()) {
        return None;
    }
    let mut models: Vec<_> = [folder.to_owned(), folder.join("hub")]
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .filter(|path| is_cache(path) && path.is_dir())
        .map(|path| shown_path(&path))
        .collect();
    models.sort();
    models.truncate(3);
    (!models.is_empty()).then_some(models)
}

/// The revision in a file of refs/.
fn branch(note: &Path) -> Option<String> {
    if !note.is_file() {
        return None;
    }
    let mut text = String::new();
    fs::File::open(note).ok()?.take(MOST).read_to_string(&mut text).ok()?;
    let revision = text.trim();
    let is_plain =
        !revision.is_empty() && !revision.contains(['/', '\\']) && !revision.starts_with('.');
    is_plain.then(|| revision.to_owned())
}
