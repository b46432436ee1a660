//! The files in a folder of weights, and the error when there are no weights.

use std::path::{Path, PathBuf};

use darkroom_core::shown::shown_path;

use super::variants::{index_name, is_shard};
use crate::error::LoadError;
use crate::foreign;

/// Extensions of pickled weights.
const PICKLED: [&str; 5] = ["bin", "pt", "pth", "ckpt", "pkl"];
/// Most names in an error.
const TOLD: usize = 5;

/// A folder's entries by name, sorted.
pub(super) struct Lying {
    pub(super) folder: PathBuf,
    /// Files, also through links.
    pub(super) files: Vec<String>,
    /// Links that lead nowhere.
    dangling: Vec<String>,
    /// Files of unfinished downloads.
    unfinished: Vec<String>,
    others: Vec<String>,
}

impl Lying {
    pub(super) fn look(folder: &Path) -> Result<Self, LoadError> {
        let mut this = Self {
            folder: folder.to_owned(),
            files: Vec::new(),
            dangling: Vec::new(),
            unfinished: Vec::new(),
            others: Vec::new(),
        };
        for entry in std::fs::read_dir(folder).map_err(|source| LoadError::read(folder, source))? {
            let path = entry.map_err(|source| LoadError::read(folder, source))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned)
            else {
                continue;
            };
            if foreign::unfinished(&name).is_some() {
                this.unfinished.push(name);
            } else if path.is_file() {
                this.files.push(name);
            } else if foreign::dangling(&path).is_some() {
                this.dangling.push(name);
            } else {
                this.others.push(name);
            }
        }
        for names in [&mut this.files, &mut this.dangling, &mut this.unfinished, &mut this.others] {
            names.sort();
        }
        Ok(this)
    }

    /// Why there are no weights with this stem, judged by the files in the folder.
    pub(super) fn none(&self, stem: &str) -> LoadError {
        let wanted = format!("{stem}.safetensors");
        let last = |is: &dyn Fn(&str) -> bool| {
            self.files.iter().rfind(|name| is(name)).map(|name| self.folder.join(name))
        };
        let is_weights = |name: &str| name.contains("safetensors");
        if let Some(name) = self.dangling.iter().find(|name| is_weights(name)) {
            let path = self.folder.join(name);
            let found = foreign::dangling(&path).unwrap_or_default();
            return self.absent(wanted, format!("of {name}, {found}"));
        }
        if let Some(name) =
            self.unfinished.iter().find(|name| is_weights(name)).or_else(|| self.unfinished.first())
        {
            return self.absent(
                wanted,
                format!("{name} there is a download that is not finished; fetch it again"),
            );
        }
        if let Some(name) =
            self.files.iter().find(|name| name.ends_with(".safetensors") && foreign::is_copy(name))
        {
            let found = format!(
                "{name} there is a copy that a browser or a file manager numbered; if it is whole, rename it to {wanted}"
            );
            return self.absent(wanted, found);
        }
        if let Some(shard) = last(&|name| name.ends_with(".safetensors") && is_shard(name)) {
            return LoadError::NoIndex { shard, index: self.folder.join(index_name(stem, "")) };
        }
        let is_pickle =
            |name: &str| name.rsplit_once('.').is_some_and(|(_, end)| PICKLED.contains(&end));
        if let Some(path) = last(&is_pickle) {
            return LoadError::Pickle { path, wanted };
        }
        if let Some(found) = self.fetched_beside() {
            return self.absent(wanted, found);
        }
        let names: Vec<&String> =
            self.files.iter().chain(&self.dangling).chain(&self.others).collect();
        let told: Vec<&str> = names.iter().take(TOLD).map(|name| name.as_str()).collect();
        let more = if names.len() > TOLD { ", …" } else { "" };
        let found = match told.as_slice() {
            [] => "it is empty".to_owned(),
            told => format!("there is {}{more}", told.join(", ")),
        };
        self.absent(wanted, found)
    }

    /// `huggingface-cli download --local-dir` keeps unfinished files in a folder of its own.
    fn fetched_beside(&self) -> Option<String> {
        let part = self.folder.file_name()?;
        let kept = |above: &Path, part: &Path| above.join(".cache/huggingface/download").join(part);
        let above = self.folder.parent().unwrap_or(Path::new(""));
        for folder in [kept(&self.folder, Path::new("")), kept(above, Path::new(part))] {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            let mut unfinished = entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|end| end == "incomplete"));
            if unfinished.next().is_some() {
                return Some(format!(
                    "a download of it is not finished ({}); fetch it again",
                    shown_path(&folder)
                ));
            }
        }
        None
    }

    fn absent(&self, wanted: String, found: String) -> LoadError {
        LoadError::Absent { path: self.folder.clone(), wanted, found }
    }
}
