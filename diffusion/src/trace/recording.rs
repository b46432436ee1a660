//! One trace file: its metadata and tensors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tch::Tensor;

use super::CheckError;
use crate::weights::{Contents, read_all};

/// What a stage trace is a recording of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Task {
    TextToImage,
    ImageToImage,
    Inpainting,
}

/// A trace in memory.
pub(super) struct Recording {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    metadata: BTreeMap<String, String>,
}

impl Recording {
    pub(super) fn open(path: &Path) -> Result<Self, CheckError> {
        let Contents { tensors, metadata } = read_all(path)?;
        let this = Self { path: path.to_owned(), tensors, metadata };
        if !this.is_text() && !this.metadata.contains_key("stage") {
            return Err(this.invalid("its metadata has neither `prompts` nor `stage`: not a trace"));
        }
        this.task()?;
        Ok(this)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_text(&self) -> bool {
        self.metadata.contains_key("prompts")
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub(super) fn invalid(&self, message: impl Into<String>) -> CheckError {
        CheckError::Trace { path: self.path.clone(), message: message.into() }
    }

    pub(super) fn tensor(&self, name: &str) -> Result<&Tensor, CheckError> {
        self.tensors.get(name).ok_or_else(|| self.invalid(format!("has no tensor `{name}`")))
    }

    /// A picture tensor: four dimensions, as many rows as the recording has images.
    pub(super) fn pictures(&self, name: &str) -> Result<&Tensor, CheckError> {
        let tensor = self.tensor(name)?;
        let rows = self.tensor("noise.init")?.size()[0];
        match tensor.size().as_slice() {
            [found, _, _, _] if *found == rows => Ok(tensor),
            shape => Err(self.invalid(format!("`{name}` has shape {shape:?}; expected {rows} pictures"))),
        }
    }

    /// The picture that an image-to-image or inpainting run starts from.
    pub(super) fn init_image(&self) -> Result<Option<&Tensor>, CheckError> {
        match self.task()? {
            Task::TextToImage => Ok(None),
            Task::ImageToImage | Task::Inpainting => self.pictures("init_image").map(Some),
        }
    }

    /// What an inpainting run repaints, `[images, 1, height, width]`.
    pub(super) fn mask(&self) -> Result<Option<&Tensor>, CheckError> {
        match self.task()? {
            Task::Inpainting => self.pictures("mask").map(Some),
            Task::TextToImage | Task::ImageToImage => Ok(None),
        }
    }

    fn task(&self) -> Result<Task, CheckError> {
        let task = match self.metadata.get("task").map(String::as_str) {
            None | Some("text-to-image") => Task::TextToImage,
            Some("image-to-image") => Task::ImageToImage,
            Some("inpainting") => Task::Inpainting,
            Some(other) => {
                let accepted = "text-to-image, image-to-image, inpainting";
                return Err(self.invalid(format!("its task is {other}; accepted: {accepted}")));
            }
        };
        if (task != Task::TextToImage) != self.metadata.contains_key("strength") {
            return Err(
                self.invalid("`task` and `strength` do not agree: image-to-image and inpainting need one")
            );
        }
        Ok(task)
    }

    pub(super) fn required(&self, key: &str) -> Result<&str, CheckError> {
        let value = self.metadata.get(key).map(String::as_str);
        value.ok_or_else(|| self.invalid(format!("its metadata has no `{key}`")))
    }

    pub(super) fn optional<T: FromStr>(&self, key: &str) -> Result<Option<T>, CheckError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| self.invalid(format!("its `{key}` is {text}, not a number"))),
        }
    }

    pub(super) fn number<T: FromStr>(&self, key: &str) -> Result<T, CheckError> {
        self.optional(key)?.ok_or_else(|| self.invalid(format!("its metadata has no `{key}`")))
    }

    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>, CheckError> {
        serde_json::from_str(self.required(key)?)
            .map_err(|error| self.invalid(format!("its `{key}` is not a list of texts: {error}")))
    }
}
