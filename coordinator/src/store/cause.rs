//! Why a dispatched task is settled, and its effect on the image. Every backend asks this before it
//! writes.

use std::collections::HashSet;

use darkroom_core::{
    failure_code::FailureCode,
    guard::{Guard, stands},
    id::JobId,
    image_state::{Handout, ImageEvent, Producer},
    retry::Failure,
    text_state::TextEvent,
};
use darkroom_queue::task::{Outcome, PoolId, Subject, TaskKey, TaskResult};

use super::{
    attempt::{AttemptOutcome, Ended},
    change::{LastError, TextEnd},
    records::{Committed, Death, Dispatched, Fate, Onward, Release, Report},
};

/// A failure that counts against its task.
pub(super) struct Counted<'a> {
    pub(super) code: &'a FailureCode,
    pub(super) message: &'a str,
    pub(super) failure: Failure<'a>,
}

/// Something that happened to a dispatched task.
pub(super) struct Cause<'a> {
    pub(super) key: TaskKey,
    what: What<'a>,
    live_places: usize,
}

enum What<'a> {
    Reported(&'a TaskResult),
    Returned,
    Died(&'a Death),
    /// Died with its host, so it does not count.
    Spared(&'a Death),
}

impl<'a> Cause<'a> {
    /// A report. If it names an object that is on its way out of storage, it is not believed: its
    /// task is returned at no cost, and stores under another prefix the next time.
    pub(super) fn believed(report: &'a Report, leaving: &HashSet<String>) -> Self {
        match &report.result.outcome {
            Outcome::Done { artifact, .. } if leaving.contains(&artifact.key) => {
                Self { key: report.result.key, what: What::Returned, live_places: 1 }
            }
            _ => Self::reported(report),
        }
    }

    fn reported(report: &'a Report) -> Self {
        let what = What::Reported(&report.result);
        Self { key: report.result.key, what, live_places: report.live_places }
    }

    /// `spared`: tasks whose worker's death does not count.
    pub(super) fn released(key: TaskKey, why: &'a Release, spared: &HashSet<TaskKey>) -> Self {
        match why {
            Release::WorkerDied(death) | Release::HostDied(death) if !spared.contains(&key) => {
                Self { key, what: What::Died(death), live_places: death.live_places }
            }
            Release::HostDied(death) => Self { key, what: What::Spared(death), live_places: 1 },
            _ => Self { key, what: What::Returned, live_places: 1 },
        }
    }

    pub(super) fn result(&self) -> Option<&'a TaskResult> {
        match self.what {
            What::Reported(result) => Some(result),
            _ => None,
        }
    }

    pub(super) fn outcome(&self) -> Option<&'a Outcome> {
        self.result().map(|result| &result.outcome)
    }

    /// Key of the missing artifact.
    pub(super) fn missing(&self) -> Option<&'a str> {
        match self.outcome() {
            Some(Outcome::InputMissing { key }) => Some(key),
            _ => None,
        }
    }

    /// Its failure, if it is one. A death counts only if the task ran alone as a suspect.
    pub(super) fn failure(&self, suspect: bool) -> Option<Counted<'a>> {
        let live_places = self.live_places;
        match self.what {
            What::Died(Death { place, limit, .. }) => {
                let alone = suspect || !stands(Guard::DeathAlone);
                let failure = Failure { place, alone, live_places, death_limit: *limit };
                let message = "the worker died while it held the task";
                Some(Counted { code: &FailureCode::WorkerDied, message, failure })
            }
            What::Reported(result) => match &result.outcome {
                Outcome::Failed { code, message } => {
                    let (place, alone) = (&result.place, result.alone);
                    let failure = Failure { place, alone, live_places, death_limit: None };
                    Some(Counted { code, message, failure })
                }
                Outcome::Interrupted { reason } if !stands(Guard::InterruptionIsFree) => {
                    let place = &result.place;
                    let failure = Failure { place, alone: true, live_places, death_limit: None };
                    Some(Counted { code: &FailureCode::Interrupted, message: reason, failure })
                }
                _ => None,
            },
            What::Returned | What::Spared(_) => None,
        }
    }

    /// The outcome of an unsuccessful attempt; `None` for a success.
    pub(super) fn ended(&self) -> Option<Ended<'a>> {
        let (outcome, reason, message) = match self.what {
            What::Reported(result) => return of_result(result),
            What::Died(_) => {
                let message = "the worker died while it held the task";
                (AttemptOutcome::Died, FailureCode::WorkerDied.name(), message)
            }
            What::Spared(_) => {
                let message = "the worker's host died with several workers while it held the task";
                (AttemptOutcome::Died, FailureCode::HostDied.name(), message)
            }
            What::Returned => {
                let message = "the task was taken back before a worker finished it";
                (AttemptOutcome::Returned, "returned", message)
            }
        };
        let place = match self.what {
            What::Died(death) | What::Spared(death) => death.place.as_str(),
            _ => "",
        };
        Some(Ended {
            outcome,
            worker: "",
            place,
            device_class: "",
            seconds: 0.0,
            reason,
            message: message.to_owned(),
        })
    }

    /// Its event for an image that runs `stage`, and the new last error of the image. `producer`:
    /// the stage or text that made a missing artifact.
    pub(super) fn event(
        &self,
        stage: usize,
        suspect: bool,
        producer: Option<Producer>,
    ) -> (ImageEvent<'a>, LastError) {
        let handout =
            Handout { generation: self.key.generation, dispatch: self.key.dispatch, stage };
        if let Some(Outcome::Done { .. }) = self.outcome() {
            return (ImageEvent::Succeeded(handout), LastError::Clear);
        }
        if let Some(Counted { code, message, failure }) = self.failure(suspect) {
            let error = LastError::Set { code: code.clone(), message: message.to_owned() };
            return (ImageEvent::Failed { handout, failure }, error);
        }
        let event = match producer {
            Some(producer) => ImageEvent::InputMissing { handout, producer },
            None => ImageEvent::Returned(handout),
        };
        (event, LastError::Keep)
    }
}

impl<'a> Cause<'a> {
    /// Its event for a text, and the text's row afterwards.
    pub(super) fn text_event(&self, suspect: bool) -> (TextEvent<'a>, TextEnd<'a>) {
        if let Some(Outcome::Done { artifact, notes }) = self.outcome() {
            let event = TextEvent::Encoded { dispatch: self.key.dispatch };
            return (event, TextEnd::Encoded { artifact, notes });
        }
        let dispatch = self.key.dispatch;
        match self.failure(suspect) {
            Some(Counted { code, message, failure }) => {
                (TextEvent::Failed { dispatch, failure }, TextEnd::Failed { code, message })
            }
            None => (TextEvent::Returned { dispatch }, TextEnd::Returned),
        }
    }
}

/// The outcome of a reported attempt, if it did not succeed.
fn of_result(result: &TaskResult) -> Option<Ended<'_>> {
    let (outcome, reason, message) = match &result.outcome {
        Outcome::Done { .. } => return None,
        Outcome::Failed { code, message } => (AttemptOutcome::Failed, code.name(), message.clone()),
        Outcome::InputMissing { key } => {
            let message = format!("its input {key} was gone from storage");
            (AttemptOutcome::InputMissing, "input_missing", message)
        }
        Outcome::Interrupted { reason } => {
            (AttemptOutcome::Interrupted, "interrupted", reason.clone())
        }
    };
    Some(Ended {
        outcome,
        worker: &result.worker.0,
        place: &result.place,
        device_class: &result.device_class,
        seconds: result.seconds,
        reason,
        message,
    })
}

/// Identity of a task in the record of deaths that did not count. Every retry starts counting from
/// zero.
pub(super) fn death_key(pool: &PoolId, key: &TaskKey) -> String {
    match key.subject {
        Subject::Image(id) => format!("{}/{}/{}", id.job, id.index, key.generation),
        Subject::Text(text) => format!("{}/{text}", pool.digest),
    }
}

/// What happened to tasks of a pool, in one transaction.
#[derive(Clone, Copy)]
pub(super) struct Bulk<'a> {
    pub(super) pool: &'a PoolId,
    pub(super) causes: &'a [Cause<'a>],
    /// Where tasks may be handed on at once; only Postgres does it.
    #[cfg_attr(not(feature = "cluster"), expect(dead_code, reason = "SQLite hands nothing on"))]
    pub(super) onward: &'a [Onward],
}

/// The combined effect of causes.
#[derive(Default)]
pub(super) struct Settled {
    pub(super) fates: Vec<Fate>,
    pub(super) jobs: Vec<JobId>,
    pub(super) finished: Vec<JobId>,
    pub(super) changed: u64,
    pub(super) more: bool,
    /// Tasks that were handed on; Postgres dispatches them at once.
    pub(super) dispatched: Vec<(PoolId, Dispatched)>,
}

impl From<Settled> for Committed {
    fn from(settled: Settled) -> Self {
        let Settled { fates, jobs, finished, changed, more, .. } = settled;
        Self { fates, jobs, finished, changed, more, withdrawn: Vec::new() }
    }
}
