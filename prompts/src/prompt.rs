//! One prompt of a file.

use std::collections::{BTreeMap, HashSet};

use darkroom_core::{
    label::{check_custom_id, check_labels},
    prompt::{check_prompt, check_text},
    settings::SettingsRequest,
};

/// Most images of a prompt.
const MAX_IMAGES: u32 = 10_000;

/// A prompt as a file gives it. `None` means that the file does not say, an empty string that it
/// says "none".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    /// Line of the file on which it begins, counted from 1.
    pub line: u64,
    /// What to draw.
    pub text: String,
    /// The negative prompt.
    pub negative: Option<String>,
    /// How many images; 0: the job's number per prompt.
    pub images: u32,
    /// Seed of the first image.
    pub seed: Option<u64>,
    /// Style: the text of the super-resolution stages.
    pub style: Option<String>,
    /// Path of the picture to start from, as in the file.
    pub image: Option<String>,
    /// Path of the mask, as in the file.
    pub mask: Option<String>,
    /// The file's own id for it; empty: none.
    pub custom_id: String,
    /// The file's own labels for it.
    pub labels: BTreeMap<String, String>,
    /// What it asks for instead of its job's settings; `start`, `start_stage` and `fit` are empty.
    pub settings: Option<SettingsRequest>,
}

impl Prompt {
    /// Checks every field except the labels. The error is a sentence without the line.
    pub(crate) fn check(&self) -> Result<(), String> {
        let message = |error: darkroom_core::error::UserError| error.message;
        check_prompt("prompt", &self.text).map_err(message)?;
        check_text("negative", self.negative.as_deref().unwrap_or_default()).map_err(message)?;
        check_text("style", self.style.as_deref().unwrap_or_default()).map_err(message)?;
        for (field, path) in [("image", &self.image), ("mask", &self.mask)] {
            check_text(field, path.as_deref().unwrap_or_default()).map_err(message)?;
        }
        if self.images > MAX_IMAGES {
            return Err(format!(
                "images is {}; accepted: 1 to {MAX_IMAGES}, or 0 for the job's number",
                self.images
            ));
        }
        check_custom_id("custom_id", &self.custom_id).map_err(message)
    }

    pub(crate) fn check_labels(&self) -> Result<(), String> {
        check_labels("labels", &self.labels).map_err(|error| error.message)
    }
}

/// The first of `names` that occurs twice.
pub(crate) fn twice<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = HashSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}
