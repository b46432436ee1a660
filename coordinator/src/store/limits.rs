//! A user's limits for a job, and messages about them: a deadline, a number of workers, a number of
//! failures.

use darkroom_core::{
    error::{Code, UserError},
    id::JobId,
    job_state::{JobEvent, JobState, transition},
};

use super::{
    Error,
    columns::{number, parse},
    row::row,
    tally::Tally,
};

pub use darkroom_core::job_state::EndCode;

/// A user's limits for a job. An absent one is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Its deadline, in milliseconds since 1970.
    pub deadline_ms: Option<i64>,
    /// In each rendering stage, at most this many of its batches are dispatched.
    pub max_workers: Option<u32>,
    /// It ends with more dead images than this.
    pub max_failed: Option<u64>,
}

/// A retry's change of the job's deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NewDeadline {
    /// The old one stays, if it has not passed.
    #[default]
    Same,
    /// It is removed.
    None,
    /// A new one, in milliseconds since 1970.
    At(i64),
}

row! {
    /// Columns of a job that may have to end, and the time.
    pub(super) struct LimitedRow {
        pub(super) seq: i64,
        pub(super) state: String,
        follow: Option<String>,
        deadline_ms: Option<i64>,
        max_workers: Option<i64>,
        max_failed: Option<i64>,
        pub(super) now_ms: i64,
    }
}

impl LimitedRow {
    pub(super) fn limits(&self) -> Result<Limits, Error> {
        Ok(Limits {
            deadline_ms: self.deadline_ms,
            max_workers: self.max_workers.map(number).transpose()?,
            max_failed: self.max_failed.map(number).transpose()?,
        })
    }

    /// How a job with these numbers of images ends; `None` if it may continue.
    pub(super) fn ending(&self, tally: Tally) -> Result<Option<Ending>, Error> {
        let Tally { done, dead, images } = tally;
        let overdue = Overdue {
            limits: self.limits()?,
            now_ms: self.now_ms,
            done: number(done)?,
            dead: number(dead)?,
            images: number(images)?,
            following: self.follow.is_some(),
        };
        let Some(cause) = overdue.cause() else { return Ok(None) };
        let event = match cause {
            EndCode::Deadline => JobEvent::Expire,
            EndCode::Failures => JobEvent::GiveUp,
        };
        // Refused if the job has ended meanwhile.
        Ok(transition(parse(&self.state)?, event).ok().map(|next| Ending { overdue, cause, next }))
    }
}

/// How a job ends by a limit.
pub(super) struct Ending {
    overdue: Overdue,
    pub(super) cause: EndCode,
    /// Its new state.
    pub(super) next: JobState,
}

impl Ending {
    /// The reason in one sentence; `last` is the latest failure, if failures end it.
    pub(super) fn reason(&self, last: Option<(String, String)>) -> String {
        self.overdue.reason(self.cause, last)
    }
}

/// A job as read under its lock.
struct Overdue {
    limits: Limits,
    now_ms: i64,
    done: u64,
    dead: u64,
    images: u64,
    /// Whether a retry is still being carried out, so that dead images are about to run again.
    following: bool,
}

impl Overdue {
    /// The limit that ends it, if any.
    fn cause(&self) -> Option<EndCode> {
        if self.limits.deadline_ms.is_some_and(|deadline| deadline <= self.now_ms) {
            return Some(EndCode::Deadline);
        }
        let failed = self.limits.max_failed.is_some_and(|most| self.dead > most);
        (failed && !self.following).then_some(EndCode::Failures)
    }

    /// One sentence; `last` is the latest failure.
    fn reason(&self, cause: EndCode, last: Option<(String, String)>) -> String {
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
                let last = last.map_or_else(String::new, |(code, message)| {
                    format!(", last: {code}: {message}")
                });
                format!("more than {most} {images} failed{last}")
            }
        }
    }
}

/// The refusal of a deadline that is not in the future when the job is submitted or retried.
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

/// The deadline of a job after its retry.
pub(super) fn after_retry(
    job: JobId,
    limits: Limits,
    wanted: NewDeadline,
    now_ms: i64,
) -> Result<Option<i64>, UserError> {
    match (wanted, limits.deadline_ms) {
        (NewDeadline::None, _) | (NewDeadline::Same, None) => Ok(None),
        (NewDeadline::At(deadline), _) => {
            check_new("deadline", deadline, now_ms).map(|()| Some(deadline))
        }
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

/// A time for a message.
pub(crate) fn timestamp(ms: i64) -> prost_types::Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "below a thousand million")]
    let nanos = (ms.rem_euclid(1000) * 1_000_000) as i32;
    prost_types::Timestamp { seconds: ms.div_euclid(1000), nanos }
}
