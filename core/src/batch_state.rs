//! The life of a batch of requests as a pure function:
//! `validating → in_progress → finalizing → completed | expired`, or `cancelling → cancelled`, or
//! `failed`. The names are OpenAI's.
//!
//! The store guards each change a second time, with a WHERE that names the state it expects.

use std::{fmt, str::FromStr};

use crate::error::UserError;

/// Where a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BatchState {
    /// Its file is being read and its jobs are being submitted.
    Validating,
    /// Its jobs run.
    InProgress,
    /// Its jobs have ended, and its results are being written.
    Finalizing,
    /// Its results are there.
    Completed,
    /// Its file or its jobs were refused, or its results could not be written for a day.
    Failed,
    /// Its time was over before its jobs had ended. The results so far are there.
    Expired,
    /// Its user has cancelled it, and its jobs are being cancelled.
    Cancelling,
    /// It was cancelled. The results so far are there.
    Cancelled,
}

impl BatchState {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Validating,
        Self::InProgress,
        Self::Finalizing,
        Self::Completed,
        Self::Failed,
        Self::Expired,
        Self::Cancelling,
        Self::Cancelled,
    ];

    /// Its name in SQL, in the API and in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing changes it any more.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Expired | Self::Cancelled)
    }

    /// Whether its user can cancel it.
    #[must_use]
    pub fn can_be_cancelled(self) -> bool {
        matches!(self, Self::Validating | Self::InProgress)
    }

    /// Whether a batch may go from this state to that one. Each may stay as it is.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        let nexts: &[Self] = match self {
            Self::Validating => &[Self::InProgress, Self::Failed, Self::Cancelling],
            Self::InProgress => &[Self::Finalizing, Self::Cancelling],
            Self::Finalizing => &[Self::Completed, Self::Expired, Self::Failed],
            Self::Cancelling => &[Self::Cancelled, Self::Failed],
            Self::Completed | Self::Failed | Self::Expired | Self::Cancelled => &[],
        };
        self == next || nexts.contains(&next)
    }
}

impl fmt::Display for BatchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BatchState {
    type Err = UserError;

    fn from_str(name: &str) -> Result<Self, UserError> {
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or_else(|| {
            let accepted = Self::ALL.map(Self::name).join(", ");
            UserError::invalid("status", format!("status is {name:?}; accepted: {accepted}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_has_ended_stays_as_it_is_and_every_other_one_can_end() {
        for state in BatchState::ALL {
            assert_eq!(state.name().parse(), Ok(state));
            let nexts: Vec<_> = BatchState::ALL
                .into_iter()
                .filter(|next| *next != state && state.may_become(*next))
                .collect();
            assert_eq!(nexts.is_empty(), state.is_terminal(), "{state}");
            assert_eq!(
                nexts.contains(&BatchState::Cancelling),
                state.can_be_cancelled(),
                "{state}"
            );
            assert!(!nexts.contains(&BatchState::Validating), "{state} begins again");
        }
        "done".parse::<BatchState>().expect_err("not a state of a batch");
    }
}
