//! The life of a job as a pure function: `receiving → active ⇄ paused → done | failed | cancelled`.
//!
//! Terminal states change only by [`JobEvent::Retry`] and [`JobEvent::RetryImages`], which make a
//! new generation. The store guards each change a second time, with a WHERE that names the state it
//! expects.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::{Code, UserError};

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// A streaming submit is still arriving.
    Receiving,
    /// Accepted: its images wait or run.
    Active,
    /// Nothing new is dispatched.
    Paused,
    /// Every image is done, or was cancelled by itself, and at least one is done.
    Done,
    /// Every image is terminal and at least one is dead, or more images failed than the job allows.
    Failed,
    /// Ended by its user, or by its deadline; or every image was cancelled by itself.
    Cancelled,
}

/// What happens to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEvent {
    /// The last prompt of its submit arrived.
    Accept,
    /// A user pauses it.
    Pause,
    /// A user resumes it.
    Resume,
    /// A user cancels it.
    Cancel,
    /// Its deadline passed.
    Expire,
    /// More images failed than it allows.
    GiveUp,
    /// Its last image became terminal.
    Finish {
        /// Images whose picture is stored.
        done: u64,
        /// Images that failed for good.
        dead: u64,
    },
    /// A user asks to run the failed and cancelled images again.
    Retry,
    /// A user asks for some images to run again.
    RetryImages,
    /// A user asks for some images not to be rendered.
    CancelImages,
}

impl JobState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Receiving, Self::Active, Self::Paused, Self::Done, Self::Failed, Self::Cancelled];

    /// Its name in SQL and in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether only a retry changes it.
    #[must_use]
    pub fn terminal(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }

    /// Whether results of its images are still accepted.
    #[must_use]
    pub fn live(self) -> bool {
        matches!(self, Self::Active | Self::Paused)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for JobState {
    type Err = UserError;

    fn from_str(name: &str) -> Result<Self, UserError> {
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or_else(|| {
            UserError::invalid(
                "states",
                format!(
                    "job state is {name:?}; accepted: receiving, active, paused, done, failed, cancelled"
                ),
            )
        })
    }
}

/// The limit that ended a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCode {
    /// Its deadline passed.
    Deadline,
    /// More images failed than it allows.
    Failures,
}

impl EndCode {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Deadline, Self::Failures];

    /// Its name in SQL and in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Failures => "failures",
        }
    }
}

impl FromStr for EndCode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|code| code.name() == name);
        known.ok_or_else(|| format!("unknown limit {name:?}"))
    }
}

/// The state after `event`. Asking for the state that a job already has is no error (to pause a
/// paused job, or to cancel a cancelled one).
///
/// # Errors
/// `FailedPrecondition` saying why the event does not fit the state.
pub fn transition(state: JobState, event: JobEvent) -> Result<JobState, UserError> {
    use JobEvent as E;
    use JobState as S;
    match (state, event) {
        (S::Receiving, E::Accept) => Ok(S::Active),
        (S::Active | S::Paused, E::Pause) => Ok(S::Paused),
        (S::Active | S::Paused, E::Resume) => Ok(S::Active),
        (S::Receiving | S::Active | S::Paused | S::Cancelled, E::Cancel) => Ok(S::Cancelled),
        (S::Active | S::Paused, E::Expire) => Ok(S::Cancelled),
        (S::Active | S::Paused, E::GiveUp) => Ok(S::Failed),
        (S::Active | S::Paused, E::Finish { done: 0, dead: 0 }) => Ok(S::Cancelled),
        (S::Active | S::Paused, E::Finish { dead: 0, .. }) => Ok(S::Done),
        (S::Active | S::Paused, E::Finish { .. }) => Ok(S::Failed),
        (S::Failed | S::Cancelled, E::Retry) => Ok(S::Active),
        (S::Done | S::Failed | S::Cancelled, E::RetryImages) => Ok(S::Active),
        (S::Active | S::Paused, E::RetryImages | E::CancelImages) => Ok(state),
        (_, event) => Err(refusal(state, event)),
    }
}

fn refusal(state: JobState, event: JobEvent) -> UserError {
    let (verb, accepted) = match event {
        JobEvent::Accept => ("accepted", "a job that is being received"),
        JobEvent::Pause => ("paused", "an active job"),
        JobEvent::Resume => ("resumed", "a paused job"),
        JobEvent::Cancel => ("cancelled", "an active or paused job"),
        JobEvent::Expire => ("ended by its deadline", "an active or paused job"),
        JobEvent::GiveUp => ("given up", "an active or paused job"),
        JobEvent::Finish { .. } => ("finished", "an active or paused job"),
        JobEvent::Retry => ("retried", "a failed or cancelled job"),
        JobEvent::RetryImages => ("retried in part", "a job that was accepted"),
        JobEvent::CancelImages => ("cancelled in part", "an active or paused job"),
    };
    UserError::new(
        Code::FailedPrecondition,
        "WRONG_JOB_STATE",
        format!("the job is {state} and cannot be {verb}; accepted: {accepted}"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn codes_of_ends_are_what_records_have() {
        assert_eq!(EndCode::ALL.map(EndCode::name), ["deadline", "failures"]);
        assert_eq!(EndCode::ALL.map(|code| code.name().parse()), EndCode::ALL.map(Ok));
        "cancelled".parse::<EndCode>().expect_err("a user's cancel has no code");
    }

    fn events() -> impl Strategy<Value = JobEvent> {
        prop_oneof![
            Just(JobEvent::Accept),
            Just(JobEvent::Pause),
            Just(JobEvent::Resume),
            Just(JobEvent::Cancel),
            Just(JobEvent::Expire),
            Just(JobEvent::GiveUp),
            (0_u64..3, 0_u64..3).prop_map(|(done, dead)| JobEvent::Finish { done, dead }),
            Just(JobEvent::Retry),
            Just(JobEvent::RetryImages),
            Just(JobEvent::CancelImages),
        ]
    }

    proptest! {
        #[test]
        fn a_terminal_job_changes_only_by_retry(events in prop::collection::vec(events(), 0..40)) {
            let mut state = JobState::Receiving;
            for event in events {
                let Ok(next) = transition(state, event) else { continue };
                if state.terminal() && next != state {
                    prop_assert!(matches!(event, JobEvent::Retry | JobEvent::RetryImages));
                }
                prop_assert!(next != JobState::Receiving || state == JobState::Receiving);
                state = next;
            }
        }

        #[test]
        fn asking_twice_changes_nothing_more(
            position in 0_usize..6,
            event in prop_oneof![Just(JobEvent::Pause), Just(JobEvent::Resume), Just(JobEvent::Cancel)],
        ) {
            if let Ok(once) = transition(JobState::ALL[position], event) {
                prop_assert_eq!(transition(once, event), Ok(once));
            }
        }
    }

    #[test]
    fn a_done_job_is_neither_cancelled_nor_retried() {
        for event in
            [JobEvent::Cancel, JobEvent::Retry, JobEvent::Pause, JobEvent::Expire, JobEvent::GiveUp]
        {
            assert_eq!(
                transition(JobState::Done, event).expect_err("refused").code,
                Code::FailedPrecondition
            );
        }
    }

    #[test]
    fn a_job_ends_by_what_became_of_its_images() {
        let end = |done, dead| transition(JobState::Paused, JobEvent::Finish { done, dead });
        assert_eq!(end(1, 0), Ok(JobState::Done), "what its user did not cancel is done");
        assert_eq!(end(0, 0), Ok(JobState::Cancelled), "all are cancelled");
        assert_eq!((end(1, 1), end(0, 1)), (Ok(JobState::Failed), Ok(JobState::Failed)));
    }

    #[test]
    fn a_command_to_images_reopens_an_ended_job_only_to_run_them_again() {
        let after = |state, event| transition(state, event).ok();
        for state in [JobState::Active, JobState::Paused] {
            assert_eq!(after(state, JobEvent::RetryImages), Some(state));
            assert_eq!(after(state, JobEvent::CancelImages), Some(state));
        }
        for state in [JobState::Done, JobState::Failed, JobState::Cancelled] {
            assert_eq!(after(state, JobEvent::RetryImages), Some(JobState::Active));
            assert_eq!(after(state, JobEvent::CancelImages), None);
        }
        assert_eq!(after(JobState::Receiving, JobEvent::RetryImages), None);
    }

    #[test]
    fn names_parse_back() {
        for state in JobState::ALL {
            assert_eq!(state.name().parse(), Ok(state));
        }
    }
}
