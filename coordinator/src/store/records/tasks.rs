//! Tasks as they leave the record, and what becomes of them when they come back.

use darkroom_core::{
    artifact::ArtifactRef,
    digest::{Digest, FieldHasher},
    id::JobId,
    image_state::Refusal,
    settings::Settings,
    start::Start,
    text_state::TextRefusal,
};
use darkroom_queue::task::{PoolId, TaskKey, TaskResult};

use super::submits::{Extras, PreparedText};

/// Key of tasks that may share a batch, also from different jobs: equal settings, all in the last
/// stage or none, and the same kind of start.
///
/// # Panics
/// If the settings have no such stage. An empty key would put tasks into one batch that must not
/// share it.
#[must_use]
pub fn compatibility(settings: &Settings, stage: usize) -> String {
    let last = stage + 1 == settings.stages.len();
    let mut hasher = FieldHasher::new("compatibility/1").field(&[u8::from(last)]);
    if settings.start.takes_mask() {
        hasher = hasher.field(Start::Masked.name().as_bytes());
    }
    settings.stages[stage].hash(hasher).finish().short()
}

/// A running coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningCoordinator {
    /// Its name in the record and at the queue.
    pub holder: String,
    /// Whether it leads.
    pub leads: bool,
    /// When it last said that it runs, milliseconds since 1970.
    pub seen_ms: i64,
}

/// A term of leadership; transactions of a leader carry it and are refused when another one leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term(pub u64);

/// A task that was marked as dispatched, with everything that its worker needs.
#[derive(Clone, Debug)]
pub struct Dispatched {
    /// Its dispatch.
    pub key: TaskKey,
    /// It must run alone.
    pub suspect: bool,
    /// The work.
    pub work: Work,
}

/// The work of a dispatched task.
#[derive(Clone, Debug)]
pub enum Work {
    /// A text to encode.
    Encode {
        /// The text.
        text: PreparedText,
    },
    /// A stage of an image to render.
    Render(Box<RenderWork>),
}

/// A stage of an image, from the record.
#[derive(Clone, Debug)]
pub struct RenderWork {
    /// The job's cascade.
    pub cascade: Digest,
    /// The image's settings: its job's, or those of its prompt.
    pub settings: Settings,
    /// Position of the stage in them.
    pub stage: usize,
    /// As the user wrote it.
    pub prompt: String,
    /// As the user wrote it.
    pub negative: String,
    /// The image's seed.
    pub seed: u64,
    /// Embedding of the prompt.
    pub text_embedding: ArtifactRef,
    /// Embedding of the negative prompt, if the job is guided.
    pub negative_embedding: Option<ArtifactRef>,
    /// Embedding of the style, if there is one.
    pub style_embedding: Option<ArtifactRef>,
    /// The prompt's other parts.
    pub extras: Extras,
    /// Output of the preceding stage.
    pub low_res: Option<ArtifactRef>,
    /// It runs even if its output is already stored.
    pub no_reuse: bool,
    /// The tenant whose outputs alone it may use again; `None`: everyone's.
    pub seal: Option<String>,
}

/// Credit to dispatch images directly to a pool, given by the leader while nothing else waits for
/// it.
#[derive(Clone, Debug)]
pub struct Onward {
    /// The term in which it is valid.
    pub term: Term,
    /// The pool.
    pub pool: PoolId,
    /// At most this many.
    pub room: u64,
}

/// A result to commit, with the facts that are needed to judge it.
#[derive(Clone, Debug)]
pub struct Report {
    /// The worker's report.
    pub result: TaskResult,
    /// Number of distinct places that serve the pool.
    pub live_places: usize,
}

/// Reason why dispatched tasks are taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// The queue does not have them, or they were handed back. Nothing counts.
    Returned,
    /// Their worker died. They become suspects; those that already were have failed.
    WorkerDied(Death),
    /// Their worker died with its host. Nothing counts, up to
    /// [`MOST_SPARED`](darkroom_core::retry::MOST_SPARED) times per task; after that, it counts as
    /// if only the worker had died.
    HostDied(Death),
}

/// A worker's death.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// Place of the worker: host and device.
    pub place: String,
    /// Number of distinct places that serve the pool.
    pub live_places: usize,
    /// Number of failures, including deaths, with which a death ends an image. `None`: the rules
    /// for failures apply.
    pub limit: Option<u32>,
}

/// What happened to one result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It changed its image or text.
    Applied,
    /// It changed nothing.
    Discarded(Discard),
}

/// Reason why a result changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// Its job has ended, or does not exist yet.
    JobNotLive,
    /// The pool is not one of the job's, or is for another kind of task.
    WrongPool,
    /// There is no such image.
    UnknownImage,
    /// There is no such text.
    UnknownText,
    /// The image is done, dead or cancelled.
    ImageTerminal,
    /// The text is encoded, or was given up.
    AlreadyEncoded,
    /// A retry or rewind came in between.
    StaleGeneration,
    /// It was dispatched again or taken back since.
    StaleDispatch,
    /// The image is at another stage now.
    OtherStage,
    /// The image or text is not in a state where this can happen.
    OtherState,
}

impl Discard {
    /// Its name in counters and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::JobNotLive => "job_not_live",
            Self::WrongPool => "wrong_pool",
            Self::UnknownImage => "unknown_image",
            Self::UnknownText => "unknown_text",
            Self::ImageTerminal => "image_terminal",
            Self::AlreadyEncoded => "already_encoded",
            Self::StaleGeneration => "stale_generation",
            Self::StaleDispatch => "stale_dispatch",
            Self::OtherStage => "other_stage",
            Self::OtherState => "other_state",
        }
    }
}

impl From<Refusal> for Discard {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Terminal => Self::ImageTerminal,
            Refusal::StaleGeneration => Self::StaleGeneration,
            Refusal::StaleDispatch => Self::StaleDispatch,
            Refusal::OtherStage => Self::OtherStage,
            Refusal::OtherState => Self::OtherState,
        }
    }
}

impl From<TextRefusal> for Discard {
    fn from(refusal: TextRefusal) -> Self {
        match refusal {
            TextRefusal::Settled => Self::AlreadyEncoded,
            TextRefusal::StaleDispatch => Self::StaleDispatch,
            TextRefusal::OtherState => Self::OtherState,
        }
    }
}

/// The changes of a transaction.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// Per report, in order.
    pub fates: Vec<Fate>,
    /// Jobs that changed.
    pub jobs: Vec<JobId>,
    /// Jobs that ended.
    pub finished: Vec<JobId>,
    /// Images (or texts) that changed.
    pub changed: u64,
    /// Whether there is more work of the same kind.
    pub more: bool,
    /// Tasks of images that a command cancelled. The queue or a worker may still have them.
    pub withdrawn: Vec<(PoolId, TaskKey)>,
}
