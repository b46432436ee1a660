//! Failures and later successes of workers on the same stages of images, from a bulk of results.

use std::time::Duration;

use darkroom_core::{id::WorkerId, image_state::ImageProgress};
use darkroom_queue::task::{Outcome, TaskResult};

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

/// An event at a stage of an image: job, index, stage, worker.
pub(super) type Deed = (i64, i64, i64, String);

/// The events of a bulk of results; usually none.
#[derive(Debug, Default)]
pub(super) struct HealthNotes {
    /// Failures of images that ran alone.
    pub(super) failed: Vec<Deed>,
    /// Successes after failures.
    pub(super) done: Vec<Deed>,
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
        let deed = || (job, idx, i64::try_from(stage).unwrap_or(i64::MAX), result.worker.0.clone());
        match result.outcome {
            Outcome::Failed { .. } if result.alone => self.failed.push(deed()),
            Outcome::Done { .. } if image.failures > 0 => self.done.push(deed()),
            _ => {}
        }
    }
}
