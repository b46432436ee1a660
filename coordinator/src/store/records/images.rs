//! Images as recorded, listings of them, and how they failed.

use std::sync::Arc;

use darkroom_core::{
    artifact::ArtifactRef,
    failure_code::FailureCode,
    id::{ImageId, JobId},
    image_state::{ImageProgress, ImageState},
    label::Naming,
    prompt_filter::PromptFilter,
    settings::Settings,
};

use super::submits::Extras;

/// A stage's output in the record.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Position of the stage.
    pub stage: usize,
    /// Its artifact.
    pub artifact: ArtifactRef,
    /// Model seconds.
    pub seconds: f64,
    /// The worker.
    pub worker: String,
    /// The class of device.
    pub device_class: String,
    /// When a retention policy removed the artifact, milliseconds since 1970. It may still be
    /// there, if another job needs it.
    pub removed_ms: Option<i64>,
}

/// An image's last failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFailure {
    /// Why, in one word.
    pub code: FailureCode,
    /// One sentence.
    pub message: String,
}

/// An image in the record.
#[derive(Clone, Debug)]
pub struct ImageRecord {
    /// Its id.
    pub id: ImageId,
    /// As the user wrote it.
    pub prompt: String,
    /// As the user wrote it.
    pub negative: String,
    /// The other parts of its prompt.
    pub extras: Extras,
    /// The client's names for its prompt.
    pub naming: Naming,
    /// Its own settings, with every default filled in; `None`: its job's.
    pub settings: Option<Arc<Settings>>,
    /// Its seed.
    pub seed: u64,
    /// Its progress.
    pub progress: ImageProgress,
    /// Its last failure.
    pub error: Option<ImageFailure>,
    /// Job version of its last change.
    pub version: u64,
    /// Outputs of the stages it has passed, in order.
    pub outputs: Vec<Output>,
}

/// Which images to list.
#[derive(Clone, Debug)]
pub struct ImageQuery {
    /// Of this job.
    pub job: JobId,
    /// Only in these states; empty: all.
    pub states: Vec<ImageState>,
    /// Only of these prompts.
    pub filter: PromptFilter,
    /// Order and starting position.
    pub order: ImageOrder,
    /// At most this many.
    pub limit: u32,
}

impl ImageQuery {
    /// At most this many images of a job from a position on, with any states and prompts.
    #[must_use]
    pub fn all(job: JobId, order: ImageOrder, limit: u32) -> Self {
        Self { job, states: Vec::new(), filter: PromptFilter::default(), order, limit }
    }
}

/// Order of images in a listing, and the position after which it continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageOrder {
    /// By index, after this one.
    Index(Option<u64>),
    /// By version of the last change, after this version. Of that version itself, only images after
    /// this index.
    Version(u64, Option<u64>),
}

/// How far a reader of a job's changes has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// The last version of which it has read changes; 0 at first.
    pub version: u64,
    /// The last image that it has read of that version; `None` if it has read all of them.
    pub index: Option<u64>,
}

/// Images in order.
#[derive(Clone, Debug, Default)]
pub struct ImagePage {
    /// The images.
    pub images: Vec<ImageRecord>,
    /// Where to continue, if there may be others. Even an empty page may have it.
    pub next: Option<ImageOrder>,
}

/// The number of images of a job whose last failure has one code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureCount {
    /// The code.
    pub code: FailureCode,
    /// Dead images.
    pub dead: u64,
    /// Images that are not dead.
    pub not_dead: u64,
    /// Whether there may be more than were counted.
    pub at_least: bool,
    /// Lowest index.
    pub first: u64,
    /// Highest index.
    pub last: u64,
    /// One of them, a dead one if there is one.
    pub example: Example,
}

/// One of the images that failed alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Its index.
    pub index: u64,
    /// The message of its failure; empty: none was kept.
    pub message: String,
}

/// How a job's images failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// By code.
    pub counts: Vec<FailureCount>,
    /// Whether there are more codes.
    pub more: bool,
}
