//! One trace file: its metadata and tensors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tch::Tensor;

use super::CheckError;
use crate::weights::{Contents, read_all};

/// The largest accepted sensitivity. Four times this is accepted as a difference, in pictures of −1
/// to 1.
const MAX_SENSITIVITY: f64 = 0.02;
/// Metadata that is not a number, even if it looks like one.
const TEXTS: [&str; 3] = ["prompts", "negative_prompts", "stage"];

/// What a stage trace records.
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
        this.check_finite()?;
        Ok(this)
    }

    /// All numbers of a trace must be finite: a comparison with NaN would pass or fail by chance.
    fn check_finite(&self) -> Result<(), CheckError> {
        for (name, tensor) in &self.tensors {
            if tensor.numel() > 0 && !tensor.f_isfinite()?.f_all()?.f_double_value(&[])?.eq(&1.0) {
                return Err(
                    self.invalid(format!("its tensor `{name}` holds a value that is not finite"))
                );
            }
        }
        let settings = self.metadata.iter().filter(|(key, _)| !TEXTS.contains(&key.as_str()));
        for (key, text) in settings {
            let is_none = |word: &str| word.parse::<f64>().is_ok_and(|number| !number.is_finite());
            if text.split_whitespace().any(is_none) {
                return Err(
                    self.invalid(format!("its `{key}` is {text}; accepted: finite numbers"))
                );
            }
        }
        Ok(())
    }

    /// How far any sample of the run may move if a network's output moves by 1e-6, measured by the
    /// trace's writer.
    pub(super) fn sensitivity(&self) -> Result<f64, CheckError> {
        let sensitivity: f64 = self.optional("sensitivity")?.unwrap_or(0.0);
        if (0.0..=MAX_SENSITIVITY).contains(&sensitivity) {
            return Ok(sensitivity);
        }
        Err(self.invalid(format!(
            "its `sensitivity` is {sensitivity}; accepted: 0 to {MAX_SENSITIVITY}; a run that moves further shows nothing"
        )))
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

    /// A picture tensor: four dimensions, with as many rows as the recording has images.
    pub(super) fn pictures(&self, name: &str) -> Result<&Tensor, CheckError> {
        let tensor = self.tensor(name)?;
        let rows = self.tensor("noise.init")?.size()[0];
        match tensor.size().as_slice() {
            [found, _, _, _] if *found == rows => Ok(tensor),
            shape => {
                Err(self.invalid(format!("`{name}` has shape {shape:?}; expected {rows} pictures")))
            }
        }
    }

    /// The picture that an image-to-image or inpainting run starts from.
    pub(super) fn init_image(&self) -> Result<Option<&Tensor>, CheckError> {
        match self.task()? {
            Task::TextToImage => Ok(None),
            Task::ImageToImage | Task::Inpainting => self.pictures("init_image").map(Some),
        }
    }

    /// The part that an inpainting run repaints, `[images, 1, height, width]`.
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
            return Err(self.invalid(
                "`task` and `strength` do not agree: image-to-image and inpainting need one",
            ));
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
