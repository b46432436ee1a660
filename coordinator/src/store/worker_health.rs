//! Failures and later successes of workers on the same stages of images, from a bulk of results.

use std::time::Duration;

use darkroom_core::{id::WorkerId, image_state::ImageProgress};
use darkroom_queue::task::{Outcome, TaskResult};

use super::row::row;

/// How long a drain command is remembered. Each process has its own id, so an old command does no
/// harm.
pub const DRAIN_KEPT: Duration = Duration::from_secs(3600);

/// A worker that is set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// The worker.
    pub worker: WorkerId,
    /// When that ends, in milliseconds since 1970.
    pub until_ms: i64,
    /// The remaining time.
    pub left: Duration,
    /// The reason, one sentence.
    pub reason: String,
}

row! {
    /// A worker that is set aside, as its columns.
    pub(super) struct AsideRow {
        worker: String,
        until_ms: i64,
        left_ms: i64,
        reason: String,
    }
}

impl From<AsideRow> for Aside {
    fn from(row: AsideRow) -> Self {
        Self {
            worker: WorkerId(row.worker),
            until_ms: row.until_ms,
            left: Duration::from_millis(u64::try_from(row.left_ms).unwrap_or(0)),
            reason: row.reason,
        }
    }
}

/// A worker failed or succeeded at a stage of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StageOutcome {
    pub(super) job: i64,
    pub(super) idx: i64,
    pub(super) stage: usize,
    pub(super) worker: WorkerId,
}

/// What a bulk of results tells about workers; usually nothing.
#[derive(Debug, Default)]
pub(super) struct HealthNotes {
    /// Failures of images that ran alone.
    pub(super) failed: Vec<StageOutcome>,
    /// Successes after failures.
    pub(super) done: Vec<StageOutcome>,
}

impl HealthNotes {
    /// Records an applied result; `image` is its image after it.
    pub(super) fn note(
        &mut self,
        (job, idx): (i64, i64),
        stage: usize,
        image: &ImageProgress,
        result: &TaskResult,
    ) {
        let outcome = || StageOutcome { job, idx, stage, worker: result.worker.clone() };
        match result.outcome {
            Outcome::Failed { .. } if result.alone => self.failed.push(outcome()),
            Outcome::Done { .. } if image.failures > 0 => self.done.push(outcome()),
            _ => {}
        }
    }
}
