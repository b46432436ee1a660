//! The life of an image as a pure function: `waiting → ready(stage) → dispatched(stage) → … →
//! done`, or `dead`, or `cancelled`.
//!
//! Only [`transition`] decides what a result, a loss or a user's command does to an image. The
//! stores read a row, ask [`transition`], and write the answer if the row is still as it was read.
//! Whether the image's job is live is for the store to check: a cancelled job accepts nothing.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    error::UserError,
    guard::{Guard, stands},
    retry::{self, Failure, Verdict},
};

/// Where an image stands. Its stage is in [`ImageProgress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageState {
    /// Its embeddings are not complete.
    Waiting,
    /// Its stage may be dispatched.
    Ready,
    /// Its stage is with the queue or a worker.
    Dispatched,
    /// Its picture is stored.
    Done,
    /// Failed for good; a retry runs it again.
    Dead,
    /// Its job was cancelled, or it was.
    Cancelled,
}

impl ImageState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Waiting, Self::Ready, Self::Dispatched, Self::Done, Self::Dead, Self::Cancelled];

    /// Its name in SQL and in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ready => "ready",
            Self::Dispatched => "dispatched",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether only a retry changes it.
    #[must_use]
    pub fn terminal(self) -> bool {
        matches!(self, Self::Done | Self::Dead | Self::Cancelled)
    }
}

impl fmt::Display for ImageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ImageState {
    type Err = UserError;

    fn from_str(name: &str) -> Result<Self, UserError> {
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or_else(|| {
            UserError::invalid(
                "states",
                format!(
                    "image state is {name:?}; accepted: waiting, ready, dispatched, done, dead, cancelled"
                ),
            )
        })
    }
}

/// How far an image has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageProgress {
    /// Its state.
    pub state: ImageState,
    /// Position of its stage in the job's settings: the one it waits for, runs, or ended in.
    pub stage: usize,
    /// Raised by every retry and rewind.
    pub generation: u32,
    /// Raised each time its task is handed to the queue.
    pub dispatch: u64,
    /// Failures that counted.
    pub failures: u32,
    /// Devices on which they happened, each once (`gpu-7/cuda:1`).
    pub places: Vec<String>,
    /// It failed in a shared batch, or its worker died: it runs alone.
    pub suspect: bool,
}

/// What must run again when an input is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Producer {
    /// The encoder: the image waits for its embeddings again.
    Encoder,
    /// The stage before.
    StageBefore,
}

/// What happens to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageEvent<'a> {
    /// Its embeddings are committed.
    TextsEncoded,
    /// An embedding that it needs cannot be made.
    TextsDead,
    /// An embedding turned out not to be committed.
    TextsLost,
    /// Its task goes to the queue.
    Dispatch,
    /// A worker stored the stage's output.
    Succeeded(Handout),
    /// The task itself failed, or the worker that held it died.
    Failed {
        /// The dispatch that ended.
        handout: Handout,
        /// Where and how.
        failure: Failure<'a>,
    },
    /// The task was drained, interrupted, taken back or lost by the queue. It counts as no failure.
    Returned(Handout),
    /// An input is gone from storage.
    InputMissing {
        /// The dispatch that ended.
        handout: Handout,
        /// What made the input.
        producer: Producer,
    },
    /// Its job is cancelled, or it is.
    Cancel,
    /// Its job is retried, or it is.
    Retry {
        /// Whether its embeddings are committed.
        encoded: bool,
    },
    /// Its picture is gone from storage or damaged: its last stage runs again.
    Lost {
        /// Whether its embeddings are committed.
        encoded: bool,
    },
}

/// One dispatch of one stage of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handout {
    /// Generation of the task.
    pub generation: u32,
    /// Dispatch of the task.
    pub dispatch: u64,
    /// Position of its stage.
    pub stage: usize,
}

/// Why an event changes nothing. The result that carried it is discarded and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The image is done, dead or cancelled.
    Terminal,
    /// A retry or rewind came in between.
    StaleGeneration,
    /// It was dispatched again since.
    StaleDispatch,
    /// It is now at another stage.
    OtherStage,
    /// Its state does not allow this.
    OtherState,
}

/// The state of `image` after `event`. Its job passes `stages` stages.
///
/// # Errors
/// Why the event changes nothing.
pub fn transition(
    image: &ImageProgress,
    event: &ImageEvent<'_>,
    stages: usize,
) -> Result<ImageProgress, Refusal> {
    use ImageState as S;
    let mut next = image.clone();
    if let ImageEvent::Retry { encoded } = event {
        return if matches!(image.state, S::Dead | S::Cancelled) {
            Ok(retried(next, *encoded))
        } else {
            Err(Refusal::OtherState)
        };
    }
    if let ImageEvent::Lost { encoded } = event {
        return if image.state == S::Done {
            Ok(retried(next, *encoded))
        } else {
            Err(Refusal::OtherState)
        };
    }
    if image.state.terminal() && stands(Guard::TerminalStays) {
        return Err(Refusal::Terminal);
    }
    match *event {
        ImageEvent::TextsEncoded => next.state = expect(image, S::Waiting, S::Ready)?,
        ImageEvent::TextsDead => next.state = expect(image, S::Waiting, S::Dead)?,
        ImageEvent::TextsLost => next.state = expect(image, S::Ready, S::Waiting)?,
        ImageEvent::Dispatch => {
            next.state = expect(image, S::Ready, S::Dispatched)?;
            next.dispatch += 1;
        }
        ImageEvent::Succeeded(handout) => {
            // It may have been taken back meanwhile, but not handed out again.
            fresh(image, handout)?;
            next.suspect = false;
            if handout.stage + 1 >= stages {
                next.state = S::Done;
            } else {
                (next.state, next.stage) = (S::Ready, handout.stage + 1);
            }
        }
        ImageEvent::Failed { handout, failure } => {
            held(image, handout)?;
            let verdict = retry::charge(&mut next.failures, &mut next.places, failure);
            next.suspect = true;
            next.state = if verdict == Verdict::Dead { S::Dead } else { S::Ready };
        }
        ImageEvent::Returned(handout) => {
            held(image, handout)?;
            next.state = S::Ready;
        }
        ImageEvent::InputMissing { handout, producer } => {
            held(image, handout)?;
            next.generation += 1;
            match producer {
                Producer::StageBefore if image.stage > 0 => {
                    (next.state, next.stage) = (S::Ready, image.stage - 1);
                }
                Producer::StageBefore => next.state = S::Ready,
                Producer::Encoder => next.state = S::Waiting,
            }
        }
        ImageEvent::Cancel => next.state = S::Cancelled,
        ImageEvent::Retry { .. } | ImageEvent::Lost { .. } => return Err(Refusal::OtherState),
    }
    Ok(next)
}

fn retried(mut image: ImageProgress, encoded: bool) -> ImageProgress {
    image.state = if encoded { ImageState::Ready } else { ImageState::Waiting };
    image.generation += 1;
    image.failures = 0;
    image.places.clear();
    image.suspect = false;
    image
}

fn expect(image: &ImageProgress, now: ImageState, next: ImageState) -> Result<ImageState, Refusal> {
    if image.state == now { Ok(next) } else { Err(Refusal::OtherState) }
}

fn fresh(image: &ImageProgress, handout: Handout) -> Result<(), Refusal> {
    let Handout { generation, dispatch, stage } = handout;
    if image.generation != generation && stands(Guard::CommitGeneration) {
        Err(Refusal::StaleGeneration)
    } else if image.stage != stage && stands(Guard::CommitStage) {
        Err(Refusal::OtherStage)
    } else if image.state == ImageState::Waiting {
        Err(Refusal::OtherState)
    } else if image.dispatch != dispatch && stands(Guard::DispatchMatches) {
        Err(Refusal::StaleDispatch)
    } else {
        Ok(())
    }
}

fn held(image: &ImageProgress, handout: Handout) -> Result<(), Refusal> {
    fresh(image, handout)?;
    if image.state == ImageState::Dispatched { Ok(()) } else { Err(Refusal::OtherState) }
}

#[cfg(test)]
#[path = "image_state_tests.rs"]
mod tests;
