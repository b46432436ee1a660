//! Why a dispatched task is settled, and what that means for its image: what every backend asks before it writes.

use std::collections::HashSet;

use darkroom_core::{
    guard::{Guard, stands},
    id::JobId,
    image_state::{Handout, ImageEvent, Producer, Refusal},
    retry::Failure,
};
use darkroom_queue::task::{Outcome, PoolId, Subject, TaskKey, TaskResult};

use super::{
    change::LastError,
    records::{Committed, Death, Dispatched, Fate, Release, Report},
};

/// Code of the failure that a worker's death is.
const WORKER_DIED: &str = "worker_died";

/// Something that happened to a dispatched task.
pub(super) struct Cause<'a> {
    pub(super) key: TaskKey,
    what: What<'a>,
    live_hosts: usize,
}

enum What<'a> {
    Reported(&'a TaskResult),
    Returned,
    Died(&'a Death),
}

impl<'a> Cause<'a> {
    pub(super) fn reported(report: &'a Report) -> Self {
        let what = What::Reported(&report.result);
        Self { key: report.result.key, what, live_hosts: report.live_hosts }
    }

    /// `spared` are the tasks whose worker's death does not count.
    pub(super) fn released(key: TaskKey, why: &'a Release, spared: &HashSet<TaskKey>) -> Self {
        match why {
            Release::WorkerDied(death) | Release::HostDied(death) if !spared.contains(&key) => {
                Self { key, what: What::Died(death), live_hosts: death.live_hosts }
            }
            _ => Self { key, what: What::Returned, live_hosts: 1 },
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

    /// Key of the artifact that was missed.
    pub(super) fn missing(&self) -> Option<&'a str> {
        match self.outcome() {
            Some(Outcome::InputMissing { key }) => Some(key),
            _ => None,
        }
    }

    /// The failure it is, if it is one; a death counts only if the task ran alone as a suspect.
    pub(super) fn failure(&self, suspect: bool) -> Option<(&'a str, &'a str, Failure<'a>)> {
        let live_hosts = self.live_hosts;
        match self.what {
            What::Died(Death { host, limit, .. }) => {
                let alone = suspect || !stands(Guard::DeathAlone);
                let failure = Failure { host, alone, live_hosts, death_limit: *limit };
                Some((WORKER_DIED, "the worker died while it held the task", failure))
            }
            What::Reported(result) => match &result.outcome {
                Outcome::Failed { code, message } => {
                    let (host, alone) = (&result.host, result.alone);
                    Some((code, message, Failure { host, alone, live_hosts, death_limit: None }))
                }
                Outcome::Interrupted { reason } if !stands(Guard::InterruptionIsFree) => {
                    let host = &result.host;
                    Some((
                        "interrupted",
                        reason,
                        Failure { host, alone: true, live_hosts, death_limit: None },
                    ))
                }
                _ => None,
            },
            What::Returned => None,
        }
    }

    /// What it is to an image that runs `stage`, and what becomes of the image's last error. `producer` says whose
    /// output a missing artifact was.
    pub(super) fn event(
        &self,
        stage: usize,
        suspect: bool,
        producer: Option<Producer>,
    ) -> (ImageEvent<'a>, LastError) {
        let handout = Handout { generation: self.key.generation, dispatch: self.key.dispatch, stage };
        if let Some(Outcome::Done { .. }) = self.outcome() {
            let event = ImageEvent::Succeeded { generation: handout.generation, stage };
            return (event, LastError::Clear);
        }
        if let Some((code, message, failure)) = self.failure(suspect) {
            let error = LastError::Set { code: code.to_owned(), message: message.to_owned() };
            return (ImageEvent::Failed { handout, failure }, error);
        }
        let event = match producer {
            Some(producer) => ImageEvent::InputMissing { handout, producer },
            None => ImageEvent::Returned(handout),
        };
        (event, LastError::Keep)
    }
}

/// What names a task in the record of deaths that did not count. Every retry begins anew.
pub(super) fn death_key(pool: &PoolId, key: &TaskKey) -> String {
    match key.subject {
        Subject::Image(id) => format!("{}/{}/{}", id.job, id.index, key.generation),
        Subject::Text(text) => format!("{}/{text}", pool.digest),
    }
}

/// Why an image does not change, as a discarded result's reason.
pub(super) fn reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Terminal => "image_terminal",
        Refusal::StaleGeneration => "stale_generation",
        Refusal::StaleDispatch => "stale_dispatch",
        Refusal::OtherStage => "other_stage",
        Refusal::OtherState => "other_state",
    }
}

/// What causes came to.
#[derive(Default)]
pub(super) struct Outcomes {
    pub(super) fates: Vec<Fate>,
    pub(super) jobs: Vec<JobId>,
    pub(super) finished: Vec<JobId>,
    pub(super) changed: u64,
    pub(super) more: bool,
    pub(super) dispatched: Vec<(PoolId, Dispatched)>,
}

impl From<Outcomes> for Committed {
    fn from(outcomes: Outcomes) -> Self {
        let Outcomes { fates, jobs, finished, changed, more, .. } = outcomes;
        Self { fates, jobs, finished, changed, more }
    }
}
