//! Jobs as recorded, and listings of them.

use std::collections::BTreeMap;

use darkroom_core::{
    digest::Digest,
    error::UserError,
    id::{JobId, StageName},
    job_filter::JobFilter,
    job_state::JobState,
    mix::{Mix, StageLoad},
    settings::Settings,
};

use super::{images::ImageRecord, submits::Requested};
use crate::store::{
    forecast::KeptForecast,
    limits::{EndCode, Limits},
};

/// Counters of one stage of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageCounters {
    /// The stage; `encode` counts distinct texts.
    pub name: StageName,
    /// Total number of texts or images that must pass it.
    pub total: u64,
    /// Ready to be dispatched.
    pub ready: u64,
    /// In the queue or with a worker.
    pub dispatched: u64,
    /// Passed.
    pub passed: u64,
    /// Images that ended, dead or cancelled, before they passed it. Those whose settings leave the
    /// stage out are not counted.
    pub stopped: u64,
}

impl StageCounters {
    /// Texts or images that may still pass it.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.total.saturating_sub(self.passed).saturating_sub(self.stopped)
    }
}

/// Additional information for a job's view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Notes about its texts, each once.
    pub notes: Vec<String>,
    /// Number of active jobs of at least its priority, including itself if it is active.
    pub rivals: u64,
}

/// A job in the record.
#[derive(Clone, Debug)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Position in the order of submission.
    pub seq: i64,
    /// Its tenant.
    pub tenant: String,
    /// A name for people.
    pub name: String,
    /// The client's own notes.
    pub labels: BTreeMap<String, String>,
    /// The client's id of the request.
    pub client_request_id: Option<String>,
    /// Higher is dispatched first.
    pub priority: u8,
    /// Its state.
    pub state: JobState,
    /// Whether a cancel or retry is still being applied to image rows.
    pub following: bool,
    /// Its cascade.
    pub cascade: Digest,
    /// Its encoder.
    pub encoder: Digest,
    /// Settings with defaults filled in.
    pub settings: Settings,
    /// The client's request.
    pub requested: Requested,
    /// Seed of the first image.
    pub seed: u64,
    /// Its user's limits.
    pub limits: Limits,
    /// The limit that ended it, if one did.
    pub end: Option<JobEnd>,
    /// When this was read, by the database's clock, milliseconds since 1970.
    pub now_ms: i64,
    /// Its progress some time ago.
    pub pace: Option<Pace>,
    /// Its first forecast.
    pub forecast: Option<KeptForecast>,
    /// Model seconds that workers reported for it, in rendering stages and all generations.
    pub device_seconds: f64,
    /// Position of its latest change.
    pub version: u64,
    /// Raised by every retry.
    pub generation: u32,
    /// Number of images.
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
    /// Its manifest.
    pub manifest: Manifest,
    /// When a retention policy removed its pictures, and which.
    pub pictures_removed: Option<PicturesRemoved>,
    /// Every stage of its images runs, even if its output is already stored.
    pub no_reuse: bool,
    /// `encode` first, then in order all stages of the job and of its images.
    pub stages: Vec<StageCounters>,
    /// The mix of images with their own settings.
    pub mix: Mix,
}

impl JobRecord {
    /// The job's next state after an event, or the refusal that names the job.
    ///
    /// # Errors
    /// As `darkroom_core::job_state::transition`.
    pub fn after(&self, event: darkroom_core::job_state::JobEvent) -> Result<JobState, UserError> {
        darkroom_core::job_state::transition(self.state, event)
    }

    /// The rendering stages in order.
    pub fn stage_names(&self) -> impl Iterator<Item = &StageName> {
        self.stages.iter().map(|stage| &stage.name).filter(|name| !name.is_encode())
    }

    /// The rendering stages in order, with the work of the images in each.
    #[must_use]
    pub fn loads(&self) -> Vec<StageLoad> {
        self.mix.loads(&self.settings, self.images)
    }

    /// Recent images (for `encode`: texts) per second, stage by stage; 0 if unknown.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "milliseconds between two moments of this age")]
    pub fn rates(&self) -> Vec<f64> {
        let rate = |(position, stage): (usize, &StageCounters)| {
            let Some(pace) = &self.pace else { return 0.0 };
            let before = pace.passed.get(position).copied().unwrap_or(stage.passed);
            darkroom_core::forecast::rate(
                before,
                stage.passed,
                (self.now_ms - pace.at_ms) as f64 / 1000.0,
            )
        };
        self.stages.iter().enumerate().map(rate).collect()
    }
}

/// The removal of a job's pictures by a retention policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PicturesRemoved {
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// Which policy.
    pub by: String,
}

/// An accepted job.
#[derive(Clone, Debug)]
pub struct Submitted {
    /// The job.
    pub job: JobRecord,
    /// Whether an earlier submit created it.
    pub existed: bool,
}

/// A job's manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Manifest {
    /// There is none, because the job has not ended.
    #[default]
    None,
    /// It is being written.
    Pending,
    /// It is stored.
    Written {
        /// Its key.
        key: String,
        /// SHA-256 of its bytes.
        sha256: Digest,
    },
}

/// The limit that ended a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEnd {
    /// Its code.
    pub code: EndCode,
    /// One sentence.
    pub reason: String,
}

/// A job's progress at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The time, in milliseconds since 1970.
    pub at_ms: i64,
    /// Number of tasks that had passed each stage, `encode` first.
    pub passed: Vec<u64>,
}

/// Which jobs to list.
#[derive(Clone, Debug)]
pub struct JobQuery {
    /// Only this tenant's.
    pub tenant: Option<String>,
    /// Only in these states; empty: all.
    pub states: Vec<JobState>,
    /// Only with these labels, this name and this text.
    pub filter: JobFilter,
    /// Only created at this time or later, milliseconds since 1970.
    pub created_from_ms: Option<i64>,
    /// Only created before this time, milliseconds since 1970.
    pub created_to_ms: Option<i64>,
    /// Oldest first, instead of newest first.
    pub oldest_first: bool,
    /// Where to continue; `None`: at the beginning.
    pub from: Option<JobPosition>,
    /// At most this many.
    pub limit: u32,
}

/// A position in a listing of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobPosition {
    /// After the job with this `seq`.
    After(i64),
    /// Within the job with this `seq`: its prompts below this position do not have the text.
    Within(i64, u64),
}

/// Jobs in the order of their submission.
#[derive(Clone, Debug)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<JobRecord>,
    /// Where to continue, if there may be others. Even an empty page may have it.
    pub next: Option<JobPosition>,
}

/// The changes in a job.
#[derive(Clone, Debug)]
pub struct Changes {
    /// The job.
    pub job: JobRecord,
    /// Its changed images in order of version.
    pub images: Vec<ImageRecord>,
    /// Whether there are others.
    pub more: bool,
}

/// A job after a user's command to it.
#[derive(Clone, Debug)]
pub struct Commanded {
    /// The job.
    pub job: JobRecord,
    /// Whether the command changed it: it was not as it was wanted before.
    pub changed: bool,
}
