//! What a user allows a job, and the sentences about it: until when, how much at once, how many failures.

use darkroom_core::{
    error::{Code, UserError},
    id::JobId,
};

/// What a user allows a job; nothing is limited where absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// When it ends, milliseconds since 1970.
    pub deadline_ms: Option<i64>,
    /// In each stage that renders, at most so many batches of it in flight.
    pub max_workers: Option<u32>,
    /// With more dead images than this it ends.
    pub max_failed: Option<u64>,
}

/// What becomes of a job's deadline when it is retried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewDeadline {
    /// It stays, if it has not passed.
    #[default]
    Same,
    /// There is none any more.
    None,
    /// Milliseconds since 1970.
    At(i64),
}

/// What ended a job that neither its last image nor its user ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCode {
    /// Its deadline passed.
    Deadline,
    /// More images failed than it allows.
    Failures,
}

impl EndCode {
    /// Its name in SQL and in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Failures => "failures",
        }
    }
}

/// A job that must end now, as it is under its lock.
pub(super) struct Overdue {
    pub(super) limits: Limits,
    pub(super) now_ms: i64,
    pub(super) done: u64,
    pub(super) dead: u64,
    pub(super) images: u64,
    /// Whether image rows have yet to follow a retry: those that are dead are about to run again.
    pub(super) following: bool,
}

impl Overdue {
    /// What ends it, if something does.
    pub(super) fn cause(&self) -> Option<EndCode> {
        if self.limits.deadline_ms.is_some_and(|deadline| deadline <= self.now_ms) {
            return Some(EndCode::Deadline);
        }
        let failed = self.limits.max_failed.is_some_and(|most| self.dead > most);
        (failed && !self.following).then_some(EndCode::Failures)
    }

    /// One sentence; `last` is the latest failure.
    pub(super) fn reason(&self, cause: EndCode, last: Option<(String, String)>) -> String {
        match cause {
            EndCode::Deadline => format!(
                "deadline {} passed; {} of {} images are done; retry with a new deadline runs the rest",
                time_text(self.limits.deadline_ms.unwrap_or_default()),
                self.done,
                self.images
            ),
            EndCode::Failures => {
                let most = self.limits.max_failed.unwrap_or_default();
                let images = if most == 1 { "image" } else { "images" };
                let last =
                    last.map_or_else(String::new, |(code, message)| format!(", last: {code}: {message}"));
                format!("more than {most} {images} failed{last}")
            }
        }
    }
}

/// A deadline that is not in the future when the job is submitted, or retried.
pub(super) fn check_new(field: &str, deadline_ms: i64, now_ms: i64) -> Result<(), UserError> {
    if deadline_ms > now_ms {
        return Ok(());
    }
    Err(UserError::invalid(
        field,
        format!(
            "{field} is {}; accepted: a time later than now, which is {} by the farm's clock",
            time_text(deadline_ms),
            time_text(now_ms)
        ),
    ))
}

/// The deadline of a job from its retry on.
pub(super) fn after_retry(
    job: JobId,
    limits: Limits,
    wanted: NewDeadline,
    now_ms: i64,
) -> Result<Option<i64>, UserError> {
    match (wanted, limits.deadline_ms) {
        (NewDeadline::None, _) | (NewDeadline::Same, None) => Ok(None),
        (NewDeadline::At(deadline), _) => check_new("deadline", deadline, now_ms).map(|()| Some(deadline)),
        (NewDeadline::Same, Some(deadline)) if deadline > now_ms => Ok(Some(deadline)),
        (NewDeadline::Same, Some(deadline)) => Err(UserError::new(
            Code::FailedPrecondition,
            "DEADLINE_PASSED",
            format!(
                "the deadline of job {job}, {}, has passed; retry it with a later one (--deadline), or with none \
                 (--no-deadline)",
                time_text(deadline)
            ),
        )),
    }
}

/// A time as RFC 3339.
pub(crate) fn time_text(ms: i64) -> String {
    timestamp(ms).to_string()
}

/// A time as a message has it.
pub(crate) fn timestamp(ms: i64) -> prost_types::Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "below a thousand million")]
    let nanos = (ms.rem_euclid(1000) * 1_000_000) as i32;
    prost_types::Timestamp { seconds: ms.div_euclid(1000), nanos }
}
