//! Decides the changes that a bulk of results and losses makes to images. The backend writes them.
//!
//! A success is applied if generation and stage match and image and job are live. Anything else is
//! applied only if the dispatch matches too. The rest is discarded for a named reason, and changes
//! nothing.

use std::collections::HashMap;

use darkroom_core::{
    artifact::ArtifactRef,
    guard::{Guard, stands},
    id::ImageId,
    image_state::{ImageProgress, transition},
};
use darkroom_queue::task::{Outcome, Subject, TaskResult};

use super::{
    attempt::NewAttempt,
    cause::Cause,
    change::{LastError, Move},
    missing::Missing,
    records::{Discard, Fate},
    worker_health::HealthNotes,
};

/// An image while a bulk is judged: as read, and with its changes.
pub(super) struct JudgedImage<'a> {
    /// Its job and its index.
    pub(super) row: (i64, i64),
    /// Whether its job accepts results.
    pub(super) live: bool,
    /// The position of the pool's stage in its job, and the number of stages.
    pub(super) stage: Option<usize>,
    pub(super) stages: usize,
    from: ImageProgress,
    to: ImageProgress,
    error: LastError,
    moved: bool,
    stored: Option<&'a ArtifactRef>,
}

/// A stage's output to record.
pub(super) struct NewOutput<'a> {
    pub(super) row: (i64, i64),
    pub(super) stage: usize,
    pub(super) artifact: &'a ArtifactRef,
    pub(super) result: &'a TaskResult,
}

impl NewOutput<'_> {
    /// Model seconds as a finite number, for sums.
    pub(super) fn seconds(&self) -> f64 {
        if self.result.seconds.is_finite() { self.result.seconds } else { 0.0 }
    }
}

/// The result of a bulk.
#[derive(Default)]
pub(super) struct Judgement<'a> {
    pub(super) fates: Vec<Fate>,
    pub(super) outputs: Vec<NewOutput<'a>>,
    pub(super) worker_health: HealthNotes,
    /// Unsuccessful attempts.
    pub(super) attempts: Vec<NewAttempt<'a>>,
}

impl<'a> JudgedImage<'a> {
    pub(super) fn new(
        row: (i64, i64),
        from: ImageProgress,
        live: bool,
        (stage, stages): (Option<usize>, usize),
    ) -> Self {
        let (to, error) = (from.clone(), LastError::Keep);
        Self { row, live, stage, stages, from, to, error, moved: false, stored: None }
    }

    /// The output of its stage, if its last change stored one. Only Postgres needs it.
    #[cfg(feature = "cluster")]
    pub(super) fn stored(&self) -> Option<&'a ArtifactRef> {
        self.stored
    }

    /// Its change, if it changed.
    pub(super) fn into_move(self) -> Option<Move> {
        let (job, idx) = self.row;
        let Self { from, to, error, stages, .. } = self;
        self.moved.then_some(Move { job, idx, from, to, error, stages })
    }

    fn judge(
        &mut self,
        (id, cause): (ImageId, &Cause<'a>),
        missing: &mut Missing,
        judgement: &mut Judgement<'a>,
    ) -> Fate {
        if !self.live && stands(Guard::JobLive) {
            return Fate::Discarded(Discard::JobNotLive);
        }
        let Some(stage) = self.stage else { return Fate::Discarded(Discard::WrongPool) };
        let missed = cause.missing().and_then(|key| Some((missing.producer(id, stage, key)?, key)));
        let (event, error) =
            cause.event(stage, self.to.suspect, missed.map(|(producer, _)| producer));
        let failures = self.to.failures;
        match transition(&self.to, &event, self.stages) {
            Ok(next) => self.to = next,
            Err(refusal) => return Fate::Discarded(refusal.into()),
        }
        judgement.attempts.extend(cause.ended().map(|ended| NewAttempt {
            row: self.row,
            stage,
            generation: cause.key.generation,
            dispatch: cause.key.dispatch,
            counted: self.to.failures > failures,
            ended,
        }));
        (self.error, self.moved, self.stored) = (error, true, None);
        if let Some(result) = cause.result() {
            judgement.worker_health.note(self.row, stage, &self.to, result);
            if let Outcome::Done { artifact, .. } = &result.outcome {
                self.stored = Some(artifact);
                judgement.outputs.push(NewOutput { row: self.row, stage, artifact, result });
            }
        }
        if let Some((producer, key)) = missed {
            missing.rewind(producer, (id, key), self.row, self.to.stage);
        }
        Fate::Applied
    }
}

/// The images of these causes.
pub(super) fn images_of(causes: &[Cause<'_>]) -> Vec<ImageId> {
    let image = |cause: &Cause<'_>| match cause.key.subject {
        Subject::Image(id) => Some(id),
        Subject::Text(_) => None,
    };
    causes.iter().filter_map(image).collect()
}

/// Judges the causes in order.
pub(super) fn judge<'a>(
    images: &mut HashMap<ImageId, JudgedImage<'a>>,
    causes: &[Cause<'a>],
    missing: &mut Missing,
) -> Judgement<'a> {
    let mut judgement = Judgement::default();
    for cause in causes {
        let fate = match cause.key.subject {
            Subject::Image(id) => match images.get_mut(&id) {
                Some(image) => image.judge((id, cause), missing, &mut judgement),
                None => Fate::Discarded(Discard::UnknownImage),
            },
            Subject::Text(_) => Fate::Discarded(Discard::WrongPool),
        };
        judgement.fates.push(fate);
    }
    judgement
}
