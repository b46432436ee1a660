//! Changes of images and texts that the domain has decided, for a backend to write.

use std::collections::{BTreeMap, HashSet};

use darkroom_core::{
    artifact::ArtifactRef,
    failure_code::FailureCode,
    id::{ImageId, JobId},
    image_state::{ImageEvent, ImageProgress, ImageState, transition},
    text_state::Outlook,
};
use darkroom_queue::task::{PoolId, Subject, TaskKey};

use super::{Error, columns::number};

/// One image's change.
pub(super) struct Move {
    pub(super) job: i64,
    pub(super) idx: i64,
    pub(super) from: ImageProgress,
    pub(super) to: ImageProgress,
    pub(super) error: LastError,
    /// Stages that this image passes.
    pub(super) stages: usize,
}

/// Change of an image's last error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LastError {
    Keep,
    Clear,
    Set { code: FailureCode, message: String },
}

/// A text's row beside its progress.
#[derive(Clone, Copy)]
pub(super) enum TextEnd<'a> {
    Encoded { artifact: &'a ArtifactRef, notes: &'a [String] },
    Returned,
    Failed { code: &'a FailureCode, message: &'a str },
}

impl Move {
    /// The change that an event makes to an image that passes this many stages, if any.
    pub(super) fn by(
        (job, idx): (i64, i64),
        from: ImageProgress,
        event: &ImageEvent<'_>,
        stages: usize,
    ) -> Option<Self> {
        let to = transition(&from, event, stages).ok()?;
        let error = match event {
            ImageEvent::Retry { .. } | ImageEvent::Lost { .. } => LastError::Clear,
            _ => LastError::Keep,
        };
        Some(Self { job, idx, from, to, error, stages })
    }

    /// The change that the texts of an image's prompt make to it. `failure`: the failure of a text
    /// that was given up.
    pub(super) fn by_texts(
        row: (i64, i64),
        from: ImageProgress,
        outlook: Outlook,
        failure: (Option<&str>, Option<&str>),
        stages: usize,
    ) -> Option<Self> {
        match outlook {
            Outlook::Waits => None,
            Outlook::Encoded => Self::by(row, from, &ImageEvent::TextsEncoded, stages),
            Outlook::Dead => {
                let (code, message) = failure;
                let error = LastError::Set {
                    code: code.unwrap_or_default().into(),
                    message: message.unwrap_or_default().to_owned(),
                };
                Some(Self { error, ..Self::by(row, from, &ImageEvent::TextsDead, stages)? })
            }
        }
    }
}

/// (job, idx) of the images that were as expected and changed.
pub(super) type Applied = HashSet<(i64, i64)>;

/// The tasks of cancelled images that were dispatched, with the positions of their stages.
pub(super) fn withdrawn(
    job: JobId,
    moves: &[Move],
    applied: &Applied,
) -> Result<Vec<(usize, TaskKey)>, Error> {
    let cancelled = moves.iter().filter(|one| {
        one.from.state == ImageState::Dispatched
            && one.to.state == ImageState::Cancelled
            && applied.contains(&(one.job, one.idx))
    });
    let task = |one: &Move| {
        let key = TaskKey {
            subject: Subject::Image(ImageId { job, index: number(one.idx)? }),
            generation: one.from.generation,
            dispatch: one.from.dispatch,
        };
        Ok((one.from.stage, key))
    };
    cancelled.map(task).collect()
}

/// Tasks with their pools, from tasks with positions of stages.
pub(super) fn with_pools(
    tasks: Vec<(usize, TaskKey)>,
    pools: &BTreeMap<usize, PoolId>,
) -> Result<Vec<(PoolId, TaskKey)>, Error> {
    let known = |stage: usize| {
        pools.get(&stage).cloned().ok_or_else(|| Error::Corrupt(format!("no stage {stage}")))
    };
    tasks.into_iter().map(|(stage, key)| Ok((known(stage)?, key))).collect()
}
