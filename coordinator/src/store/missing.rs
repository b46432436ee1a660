//! Inputs that a worker did not find: which stage or text made them, and so must run again.

use std::collections::{BTreeSet, HashMap, HashSet};

use darkroom_core::{id::ImageId, image_state::Producer};
use darkroom_queue::task::Subject;

use super::cause::Cause;

/// The missing inputs of a bulk of results, as a backend found them, and the resulting changes.
#[derive(Default)]
pub(super) struct Missing {
    /// Texts whose artifact is missing, by image and key.
    texts: HashMap<(ImageId, String), BTreeSet<i64>>,
    /// Outputs of the preceding stage: image, stage that missed it, key.
    before: HashSet<(ImageId, usize, String)>,
    /// Texts to encode again.
    lost: BTreeSet<i64>,
    /// Images that wait for their texts again.
    waiting: BTreeSet<ImageId>,
    /// Outputs to remove.
    stale: Vec<StaleOutputs>,
}

/// Outputs of an image that are no longer valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StaleOutputs {
    pub(super) job: i64,
    pub(super) idx: i64,
    /// The first stage whose output is stale; those of later stages are too.
    pub(super) first_stage: usize,
}

/// The missing inputs of these causes: images, each with a key. Usually empty.
pub(super) fn missed<'a>(causes: &[Cause<'a>]) -> Vec<(ImageId, &'a str)> {
    let missed = |cause: &Cause<'a>| match cause.key.subject {
        Subject::Image(image) => Some((image, cause.missing()?)),
        Subject::Text(_) => None,
    };
    causes.iter().filter_map(missed).collect()
}

impl Missing {
    /// The key is the embedding of a text of the image.
    pub(super) fn found_text(&mut self, image: ImageId, key: &str, text: i64) {
        self.texts.entry((image, key.to_owned())).or_default().insert(text);
    }

    /// The key is an output that `stage` of the image stored.
    pub(super) fn found_output(&mut self, image: ImageId, key: &str, stage: usize) {
        self.before.insert((image, stage + 1, key.to_owned()));
    }

    /// Every text that was found. Only Postgres asks.
    #[cfg(feature = "cluster")]
    pub(super) fn texts(&self) -> Vec<i64> {
        self.texts.values().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// What made the missing object, and must run again; `None` if the object is no input of the
    /// image's stage (any more).
    pub(super) fn producer(&self, image: ImageId, stage: usize, key: &str) -> Option<Producer> {
        if self.before.contains(&(image, stage, key.to_owned())) {
            return Some(Producer::StageBefore);
        }
        self.texts.contains_key(&(image, key.to_owned())).then_some(Producer::Encoder)
    }

    /// Records that the image goes back to the producer. `(job, idx)` is its row, `stage` its new
    /// stage.
    pub(super) fn rewind(
        &mut self,
        producer: Producer,
        (image, key): (ImageId, &str),
        (job, idx): (i64, i64),
        stage: usize,
    ) {
        match producer {
            Producer::Encoder => {
                self.lost.extend(self.texts.get(&(image, key.to_owned())).into_iter().flatten());
                self.waiting.insert(image);
            }
            Producer::StageBefore => {
                self.stale.push(StaleOutputs { job, idx, first_stage: stage });
            }
        }
    }

    /// Texts to encode again.
    pub(super) fn lost(&self) -> Vec<i64> {
        self.lost.iter().copied().collect()
    }

    /// Images that wait for their texts again.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &ImageId> {
        self.waiting.iter()
    }

    /// Outputs to remove.
    pub(super) fn stale(&self) -> &[StaleOutputs] {
        &self.stale
    }
}
