//! Reads every file of the cascade once from end to end: hashes it, and looks for weights that are
//! not finite numbers.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use darkroom_core::digest::Digest;
use darkroom_diffusion::scan_weights;
use sha2::{Digest as _, Sha256};

use super::{error::refused, parts::Parts};
use crate::failure::{self, Result};

/// A file of the new cascade.
pub(super) struct File {
    /// Where it is.
    pub(super) from: PathBuf,
    /// Where it goes, relative to the cascade's folder.
    pub(super) to: String,
    pub(super) sha256: Digest,
}

/// Reads every file that the cascade depends on.
pub(super) fn verify(parts: &Parts) -> Result<Vec<File>> {
    let wanted: Vec<_> = wanted(parts).into_iter().collect();
    let (next, read) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || -> Result<()> {
        while let Some((to, from)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let file = File { from: from.clone(), to: to.clone(), sha256: hash(from)? };
            read.lock().unwrap_or_else(PoisonError::into_inner).push(file);
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|_| Err(failure::internal("reading a model's files panicked")))
        })
    })?;
    let mut files = read.into_inner().unwrap_or_else(PoisonError::into_inner);
    files.sort_by(|a, b| a.to.cmp(&b.to));
    Ok(files)
}

/// The lines of `SHA256SUMS`.
pub(super) fn sums(files: &[File]) -> String {
    files.iter().map(|file| format!("{}  {}\n", file.sha256, file.to)).collect()
}

/// Source by destination.
fn wanted(parts: &Parts) -> BTreeMap<String, PathBuf> {
    let mut wanted = BTreeMap::new();
    let mut take = |folder: &str, path: PathBuf| {
        let name =
            path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        wanted.insert(format!("{folder}/{name}"), path);
    };
    let encoder = &parts.encoder;
    take("text_encoder", encoder.folder.join("config.json"));
    encoder.survey.weights.files.iter().for_each(|file| take("text_encoder", file.clone()));
    encoder.tokenizer_files().into_iter().for_each(|file| take("tokenizer", file));
    for stage in &parts.stages {
        let unet = format!("{}/unet", stage.name);
        take(&unet, stage.folder.join("unet/config.json"));
        stage.survey.weights.files.iter().for_each(|file| take(&unet, file.clone()));
        let schedulers = if stage.survey.takes_low_res { 2 } else { 1 };
        for scheduler in ["scheduler", "image_noising_scheduler"].iter().take(schedulers) {
            let file = stage.folder.join(scheduler).join("scheduler_config.json");
            take(&format!("{}/{scheduler}", stage.name), file);
        }
    }
    wanted
}

fn hash(path: &Path) -> Result<Digest> {
    if path.extension().is_some_and(|extension| extension == "safetensors") {
        let mut hasher = Sha256::new();
        scan_weights(path, &mut |bytes| hasher.update(bytes)).map_err(|error| refused(&error))?;
        return Ok(Digest(hasher.finalize().into()));
    }
    let bytes = std::fs::read(path).map_err(|error| failure::file("dir", "read", path, &error))?;
    Ok(Digest::of(&bytes))
}
