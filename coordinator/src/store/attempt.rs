//! Outcomes of attempts at stages of images. The latest few of each image are kept.
//!
//! A successful attempt is the row of its output, so it needs no other row. Only other attempts
//! have their own rows, and outputs whose rows a rewind removes.

use std::str::FromStr;

use darkroom_core::error::UserError;

use super::{
    Error,
    columns::{number, parse},
    row::row,
};

/// Most attempts that are kept of an image.
pub const KEPT: u32 = 20;
/// Longest kept message of an attempt, in bytes.
const MESSAGE: usize = 500;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptOutcome {
    /// The stage's output was stored.
    Done,
    /// The task itself failed.
    Failed,
    /// The worker died, alone or with its host.
    Died,
    /// An input was gone from storage.
    InputMissing,
    /// The worker handed it back.
    Interrupted,
    /// It was taken back before a worker finished it.
    Returned,
}

impl AttemptOutcome {
    const ALL: [Self; 6] = [
        Self::Done,
        Self::Failed,
        Self::Died,
        Self::InputMissing,
        Self::Interrupted,
        Self::Returned,
    ];

    /// Its name in SQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Died => "died",
            Self::InputMissing => "input_missing",
            Self::Interrupted => "interrupted",
            Self::Returned => "returned",
        }
    }
}

impl FromStr for AttemptOutcome {
    type Err = UserError;

    fn from_str(name: &str) -> Result<Self, UserError> {
        let found = Self::ALL.into_iter().find(|outcome| outcome.name() == name);
        found.ok_or_else(|| {
            UserError::invalid("outcome", format!("outcome of an attempt is {name:?}"))
        })
    }
}

/// One attempt, as recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Position of the stage.
    pub stage: usize,
    /// Generation of the task; 0: not known.
    pub generation: u32,
    /// Dispatch of the task; 0: not known.
    pub dispatch: u64,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// It counts as a failure of the image.
    pub counted: bool,
    /// The worker; empty: not known.
    pub worker: String,
    /// Host and device; empty: not known.
    pub place: String,
    /// Class of device; empty: not known.
    pub device_class: String,
    /// Model seconds.
    pub seconds: f64,
    /// When the farm learned of it, milliseconds since 1970.
    pub ended_ms: Option<i64>,
    /// A code; empty if it succeeded.
    pub reason: String,
    /// One sentence; empty if it succeeded.
    pub message: String,
}

/// An attempt to record, with its image's job and index.
pub(super) struct NewAttempt<'a> {
    pub(super) row: (i64, i64),
    pub(super) stage: usize,
    pub(super) generation: u32,
    pub(super) dispatch: u64,
    pub(super) counted: bool,
    pub(super) ended: Ended<'a>,
}

/// How an attempt ended, and where.
pub(super) struct Ended<'a> {
    pub(super) outcome: AttemptOutcome,
    pub(super) worker: &'a str,
    pub(super) place: &'a str,
    pub(super) device_class: &'a str,
    pub(super) seconds: f64,
    pub(super) reason: &'a str,
    pub(super) message: String,
}

impl NewAttempt<'_> {
    /// Whether its image may have too many attempts now. Every attempt has its own dispatch.
    pub(super) fn may_be_one_too_many(&self) -> bool {
        self.dispatch > u64::from(KEPT)
    }
}

impl Ended<'_> {
    /// The sentence, cut to the longest kept length.
    pub(super) fn kept_message(&self) -> &str {
        let end = self.message.floor_char_boundary(MESSAGE.min(self.message.len()));
        self.message.get(..end).unwrap_or_default()
    }

    /// Model seconds as a finite number, for sums.
    pub(super) fn finite_seconds(&self) -> f64 {
        if self.seconds.is_finite() { self.seconds } else { 0.0 }
    }
}

row! {
    /// An attempt's columns, in the form of both databases.
    pub(super) struct AttemptRow {
        stage: i64,
        generation: i64,
        dispatch: i64,
        outcome: String,
        counted: bool,
        worker: String,
        place: String,
        device_class: String,
        seconds: f64,
        ended_ms: Option<i64>,
        reason: String,
        message: String,
    }
}

/// Attempts in order, from rows with the latest first.
pub(super) fn in_order(rows: Vec<AttemptRow>) -> Result<Vec<Attempt>, Error> {
    let attempt = |row: AttemptRow| {
        Ok(Attempt {
            stage: number(row.stage)?,
            generation: number(row.generation)?,
            dispatch: number(row.dispatch)?,
            outcome: parse(&row.outcome)?,
            counted: row.counted,
            worker: row.worker,
            place: row.place,
            device_class: row.device_class,
            seconds: row.seconds,
            ended_ms: row.ended_ms,
            reason: row.reason,
            message: row.message,
        })
    };
    rows.into_iter().rev().map(attempt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_come_back_from_their_names() {
        for outcome in AttemptOutcome::ALL {
            assert_eq!(outcome.name().parse(), Ok(outcome));
        }
        "gone".parse::<AttemptOutcome>().expect_err("no outcome");
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let ended = |message: &str| Ended {
            outcome: AttemptOutcome::Failed,
            worker: "",
            place: "",
            device_class: "",
            seconds: f64::NAN,
            reason: "",
            message: message.to_owned(),
        };
        assert_eq!(ended("short").kept_message(), "short");
        let cut = ended(&"ä".repeat(400));
        assert_eq!(cut.kept_message(), "ä".repeat(250));
        let cut = ended(&format!("x{}", "ä".repeat(400)));
        assert_eq!(cut.kept_message().len(), 499);
        assert_eq!(cut.finite_seconds(), 0.0);
    }
}
