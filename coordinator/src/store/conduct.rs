//! Who failed at what, and who did it then: what a bulk of results says of the workers.

use std::time::Duration;

use darkroom_core::{id::WorkerId, image_state::ImageProgress};
use darkroom_queue::task::{Outcome, TaskResult};

/// A worker that gets nothing for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Who.
    pub worker: WorkerId,
    /// Until when, milliseconds since 1970.
    pub until_ms: i64,
    /// For how much longer.
    pub left: Duration,
    /// Why, one sentence.
    pub reason: String,
}

/// What happened to a stage of an image: job, index, stage, worker.
pub(super) type Deed = (i64, i64, i64, String);

/// What a bulk of results says of the workers; mostly nothing.
#[derive(Debug, Default)]
pub(super) struct Conduct {
    /// Failures while alone.
    pub(super) failed: Vec<Deed>,
    /// Done after failures.
    pub(super) done: Vec<Deed>,
}

impl Conduct {
    /// Takes note of an applied result; `image` is as it made it.
    pub(super) fn note(
        &mut self,
        (job, idx): (i64, i64),
        stage: i64,
        image: &ImageProgress,
        result: &TaskResult,
    ) {
        let deed = || (job, idx, stage, result.worker.0.clone());
        match result.outcome {
            Outcome::Failed { .. } if result.alone => self.failed.push(deed()),
            Outcome::Done { .. } if image.failures > 0 => self.done.push(deed()),
            _ => {}
        }
    }
}
