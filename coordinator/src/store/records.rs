//! What goes into the record and what comes out, in the domain's words.

use std::collections::BTreeMap;

use darkroom_core::{
    artifact::ArtifactRef,
    digest::{Digest, FieldHasher},
    error::UserError,
    extent::Extent,
    id::{ImageId, JobId, StageName},
    image_state::{ImageProgress, ImageState},
    job_state::JobState,
    label::Naming,
    settings::{Settings, SettingsRequest},
    start::Start,
};
use darkroom_queue::task::{PoolId, TaskKey, TaskResult};
use serde::{Deserialize, Serialize};

use super::{forecast::KeptForecast, limits::Limits};

/// Key of tasks that may share a batch: equal settings, equally the last stage or not, and started alike, whatever their
/// jobs.
#[must_use]
pub fn compatibility(settings: &Settings, stage: usize) -> String {
    let last = stage + 1 == settings.stages.len();
    let mut hasher = FieldHasher::new("compatibility/1").field(&[u8::from(last)]);
    if settings.start.takes_mask() {
        hasher = hasher.field(Start::Masked.name().as_bytes());
    }
    settings.stages.get(stage).map_or_else(String::new, |stage| stage.hash(hasher).finish().short())
}

/// A term of leadership; transactions of a leader carry it and are refused when another one leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term(pub u64);

/// What a client asked for, kept to be told again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Requested {
    /// Cascade by name or digest; empty is the default one.
    pub cascade: String,
    /// Settings without defaults.
    pub settings: SettingsRequest,
    /// Pictures per prompt.
    pub images_per_prompt: u32,
    /// Whether the client chose the seed.
    pub seed_given: bool,
}

/// A job to be recorded.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// Whose share it counts against.
    pub tenant: String,
    /// For people.
    pub name: String,
    /// The client's own id of the request, if it wants repeats recognised.
    pub client_request_id: Option<String>,
    /// Higher is dispatched first.
    pub priority: u8,
    /// The cascade.
    pub cascade: Digest,
    /// The cascade's encoder.
    pub encoder: Digest,
    /// Settings with defaults filled in.
    pub settings: Settings,
    /// As the client asked.
    pub requested: Requested,
    /// Seed of the first image.
    pub seed: u64,
    /// What its user allows it.
    pub limits: Limits,
}

/// A picture that a user has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// SHA-256 of the bytes that were sent, or of what is stored of them: prompts may name it by either.
    pub sha256: Digest,
    /// How many bytes those are.
    pub size: u64,
    /// What is stored. `None`: what was sent, as in times before there was a canonical form.
    pub canonical: Option<Canonical>,
    /// Pixels of what is stored.
    pub extent: Extent,
    /// Whether it can be a mask.
    pub is_mask: bool,
    /// How it was turned, as EXIF counts; 1 where it was not.
    pub orientation: u8,
    /// What its user should know, each to follow its name.
    pub notes: Vec<String>,
}

/// A picture as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canonical {
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// How many those are.
    pub size: u64,
}

impl Input {
    /// Prefix of the keys of all inputs.
    pub const PREFIX: &str = "inputs/";

    /// Where it lies.
    #[must_use]
    pub fn artifact(&self) -> ArtifactRef {
        let sent = Canonical { sha256: self.sha256, size: self.size };
        let Canonical { sha256, size } = self.canonical.unwrap_or(sent);
        let key = format!("{}{sha256}.{}", Self::PREFIX, darkroom_artifacts::picture::EXTENSION);
        ArtifactRef { key, sha256, size }
    }
}

/// What a prompt brings besides its text and negative text; mostly nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extras {
    /// Text of the super-resolution stages, as the user wrote it, where it is not the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub style: Option<String>,
    /// The picture that its images start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ArtifactRef>,
    /// What of that is painted anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<ArtifactRef>,
}

/// A prepared text and its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedText {
    /// See `darkroom_core::prompt::text_digest`.
    pub digest: Digest,
    /// As the tokenizer gets it.
    pub prepared: String,
}

/// A prompt to be recorded.
#[derive(Clone, Debug)]
pub struct NewPrompt {
    /// 0-based position in the job.
    pub position: u64,
    /// As the user wrote it.
    pub text: String,
    /// As the user wrote it; empty is none.
    pub negative: String,
    /// Index of its first image.
    pub first_index: u64,
    /// Its images.
    pub images: u32,
    /// Seed of its first image; the others follow, wrapping.
    pub first_seed: u64,
    /// The text to encode.
    pub text_embedding: PreparedText,
    /// The negative text to encode, where a stage is guided.
    pub negative_embedding: Option<PreparedText>,
    /// The style to encode, where there is one.
    pub style_embedding: Option<PreparedText>,
    /// What else it brings.
    pub extras: Extras,
    /// What its client calls it.
    pub naming: Naming,
}

impl NewPrompt {
    /// The texts that its images wait for.
    pub(super) fn texts(&self) -> impl Iterator<Item = &PreparedText> {
        [Some(&self.text_embedding), self.negative_embedding.as_ref(), self.style_embedding.as_ref()]
            .into_iter()
            .flatten()
    }

    /// What else it brings, as JSON; `None` for nothing.
    pub(super) fn extras_json(&self) -> Result<Option<String>, super::Error> {
        if self.extras == Extras::default() {
            return Ok(None);
        }
        serde_json::to_string(&self.extras)
            .map(Some)
            .map_err(|error| super::Error::Corrupt(error.to_string()))
    }

    /// Its labels, as JSON; `None` for none.
    pub(super) fn labels_json(&self) -> Result<Option<String>, super::Error> {
        let labels = Some(&self.naming.labels).filter(|labels| !labels.is_empty());
        let json = labels.map(serde_json::to_string).transpose();
        json.map_err(|error| super::Error::Corrupt(error.to_string()))
    }
}

/// A prompt's naming from its columns; labels as [`NewPrompt::labels_json`] wrote them.
pub(super) fn naming(
    custom_id: Option<String>,
    labels: Option<&str>,
    line: Option<i64>,
) -> Result<Naming, super::Error> {
    let labels = labels.map_or(Ok(BTreeMap::new()), serde_json::from_str);
    Ok(Naming {
        custom_id,
        labels: labels.map_err(|error: serde_json::Error| super::Error::Corrupt(error.to_string()))?,
        line: line
            .map(u64::try_from)
            .transpose()
            .map_err(|error| super::Error::Corrupt(error.to_string()))?,
    })
}

impl Extras {
    /// Reads what [`NewPrompt::extras_json`] wrote.
    pub(super) fn from_json(json: Option<&str>) -> Result<Self, super::Error> {
        json.map_or(Ok(Self::default()), serde_json::from_str)
            .map_err(|error| super::Error::Corrupt(error.to_string()))
    }
}

/// An accepted job.
#[derive(Clone, Debug)]
pub struct Submitted {
    /// The job.
    pub job: JobRecord,
    /// Whether an earlier submit had made it.
    pub existed: bool,
}

/// A task that was marked as dispatched, with all that its worker needs.
#[derive(Clone, Debug)]
pub struct Dispatched {
    /// Its handing-out.
    pub key: TaskKey,
    /// It must run alone.
    pub suspect: bool,
    /// What to do.
    pub work: Work,
}

/// What a dispatched task is about.
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

/// A stage of an image, as the record knows it.
#[derive(Clone, Debug)]
pub struct RenderWork {
    /// The job's cascade.
    pub cascade: Digest,
    /// The job's settings.
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
    /// Embedding of the negative prompt, where the job is guided.
    pub negative_embedding: Option<ArtifactRef>,
    /// Embedding of the style, where there is one.
    pub style_embedding: Option<ArtifactRef>,
    /// What else the prompt brings.
    pub extras: Extras,
    /// Output of the stage before.
    pub low_res: Option<ArtifactRef>,
}

/// Leave to hand images straight on to a pool, given by the leader while nothing else waits for it.
#[derive(Clone, Debug)]
pub struct Onward {
    /// In this term only.
    pub term: Term,
    /// To this pool.
    pub pool: PoolId,
    /// At most so many.
    pub room: u64,
}

/// A result to be committed, and what must be known to judge it.
#[derive(Clone, Debug)]
pub struct Report {
    /// The worker's report.
    pub result: TaskResult,
    /// Distinct hosts that serve the pool.
    pub live_hosts: usize,
}

/// Why dispatched tasks are taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// The queue does not have them, or gave them back: nothing counts.
    Returned,
    /// Their worker died: they are suspect; what was so already failed.
    WorkerDied(Death),
    /// Their worker died with its host: nothing counts, up to [`MOST_SPARED`](darkroom_core::retry::MOST_SPARED) times
    /// for one task; from then on it is as if the worker alone had died.
    HostDied(Death),
}

/// A worker's death.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// The worker's host and device.
    pub host: String,
    /// Distinct hosts that serve the pool.
    pub live_hosts: usize,
    /// With so many failures, deaths among them, a death ends an image; none: by the rules for failures.
    pub limit: Option<u32>,
}

/// What became of one result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It changed its image or text.
    Applied,
    /// It did not; the reason's name.
    Discarded(&'static str),
}

/// What a transaction changed.
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
    /// There is more of the same to do.
    pub more: bool,
}

/// Counters of one stage of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageCounters {
    /// The stage; `encode` counts distinct texts.
    pub name: StageName,
    /// Texts or images that pass it in all.
    pub total: u64,
    /// Ready to be dispatched.
    pub ready: u64,
    /// With the queue or a worker.
    pub dispatched: u64,
    /// Through it.
    pub passed: u64,
}

/// What a job's view shows beside the job itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Why its texts deserve a note, each once.
    pub notes: Vec<String>,
    /// Active jobs of at least its priority, itself among them if it is active.
    pub rivals: u64,
}

/// A job as recorded.
#[derive(Clone, Debug)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Order of submission.
    pub seq: i64,
    /// Whose share it counts against.
    pub tenant: String,
    /// For people.
    pub name: String,
    /// The client's id of the request.
    pub client_request_id: Option<String>,
    /// Higher is dispatched first.
    pub priority: u8,
    /// Where it stands.
    pub state: JobState,
    /// Whether image rows have yet to follow a cancel or retry.
    pub following: bool,
    /// Its cascade.
    pub cascade: Digest,
    /// Its encoder.
    pub encoder: Digest,
    /// Settings with defaults filled in.
    pub settings: Settings,
    /// As the client asked.
    pub requested: Requested,
    /// Seed of the first image.
    pub seed: u64,
    /// What its user allows it.
    pub limits: Limits,
    /// What ended it, if neither its last image nor its user did: a code and one sentence.
    pub end: Option<(String, String)>,
    /// When this was read, by the database's clock, milliseconds since 1970.
    pub now_ms: i64,
    /// How far it had come a while ago.
    pub pace: Option<Pace>,
    /// Its first forecast.
    pub forecast: Option<KeptForecast>,
    /// Position of its latest change.
    pub version: u64,
    /// Raised by every retry.
    pub generation: u32,
    /// Images in all.
    pub images: u64,
    /// Images done.
    pub done: u64,
    /// Images dead.
    pub dead: u64,
    /// Images cancelled.
    pub cancelled: u64,
    /// Submitted, milliseconds since 1970.
    pub created_ms: i64,
    /// Ended, milliseconds since 1970.
    pub finished_ms: Option<i64>,
    /// The manifest: nothing yet, `Some(None)` while it is being written, then its key and hash.
    pub manifest: Option<Option<(String, Digest)>>,
    /// `encode` first, then the stages in order.
    pub stages: Vec<StageCounters>,
}

/// How far a job had come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// What had passed each stage, `encode` first.
    pub passed: Vec<u64>,
}

/// Which jobs to list.
#[derive(Clone, Debug)]
pub struct JobQuery {
    /// Only this tenant's.
    pub tenant: Option<String>,
    /// Only in these states; empty is all.
    pub states: Vec<JobState>,
    /// Only older than this one (its `seq`).
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// Jobs, newest first.
#[derive(Clone, Debug)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<JobRecord>,
    /// Whether there are older ones.
    pub more: bool,
}

/// Which images to list.
#[derive(Clone, Debug)]
pub struct ImageQuery {
    /// Of this job.
    pub job: JobId,
    /// Only in these states; empty is all.
    pub states: Vec<ImageState>,
    /// In which order, and from where.
    pub order: ImageOrder,
    /// At most so many.
    pub limit: u32,
}

/// Order of images in a listing, and the position after which it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageOrder {
    /// By index, after this one.
    Index(Option<u64>),
    /// By version of the last change, after this version; of that version itself, those after this index.
    Version(u64, Option<u64>),
}

/// Images in order.
#[derive(Clone, Debug, Default)]
pub struct ImagePage {
    /// The images.
    pub images: Vec<ImageRecord>,
    /// Whether there are others.
    pub more: bool,
}

/// A stage's output as recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Position of the stage.
    pub stage: usize,
    /// Where it is.
    pub artifact: ArtifactRef,
    /// Model seconds.
    pub seconds: f64,
    /// Who rendered it.
    pub worker: String,
    /// On what.
    pub device_class: String,
}

/// An image as recorded.
#[derive(Clone, Debug)]
pub struct ImageRecord {
    /// Its id.
    pub id: ImageId,
    /// As the user wrote it.
    pub prompt: String,
    /// As the user wrote it.
    pub negative: String,
    /// What else its prompt brings.
    pub extras: Extras,
    /// What its client calls its prompt.
    pub naming: Naming,
    /// Its seed.
    pub seed: u64,
    /// How far it has come.
    pub progress: ImageProgress,
    /// Last failure: code and sentence.
    pub error: Option<(String, String)>,
    /// Job version of its last change.
    pub version: u64,
    /// Of the stages it has passed, in order.
    pub outputs: Vec<Output>,
}

/// What changed in a job.
#[derive(Clone, Debug)]
pub struct Changes {
    /// The job.
    pub job: JobRecord,
    /// Its changed images in order of version.
    pub images: Vec<ImageRecord>,
    /// Whether there are others.
    pub more: bool,
}

impl JobRecord {
    /// The job's state as `JobState` demands it for an event, or the refusal with the job named.
    ///
    /// # Errors
    /// As `darkroom_core::job_state::transition`.
    pub fn after(&self, event: darkroom_core::job_state::JobEvent) -> Result<JobState, UserError> {
        darkroom_core::job_state::transition(self.state, event)
    }

    /// Images (texts, for `encode`) per second lately, stage by stage; 0 when unknown.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "milliseconds between two moments of this age")]
    pub fn rates(&self) -> Vec<f64> {
        let rate = |(position, stage): (usize, &StageCounters)| {
            let Some(pace) = &self.pace else { return 0.0 };
            let before = pace.passed.get(position).copied().unwrap_or(stage.passed);
            darkroom_core::forecast::rate(before, stage.passed, (self.now_ms - pace.at_ms) as f64 / 1000.0)
        };
        self.stages.iter().enumerate().map(rate).collect()
    }
}
