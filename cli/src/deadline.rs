//! Deadlines as people write them: a span from now, or a time; and how long links live.

use std::time::{Duration, SystemTime};

use darkroom_core::error::UserError;
use darkroom_proto::v1;
use prost_types::Timestamp;

use crate::{args::RetryArgs, failure::Result};

/// The deadline of a submit. One that may be repeated names a time: a span would mean another one the next time.
pub(crate) fn of_submit(text: Option<&str>, repeated: bool) -> Result<Option<Timestamp>> {
    let Some(text) = text else { return Ok(None) };
    if repeated && span(text).is_some() {
        let message = format!(
            "deadline is {text:?} beside --request-id; accepted there: a time like 2026-11-22T23:00:00Z, so that the \
             same submit sent twice asks for the same"
        );
        return Err(UserError::invalid("deadline", message));
    }
    parse(text).map(Some)
}

/// What a retry asks for.
pub(crate) fn retry(args: &RetryArgs) -> Result<v1::RetryJobRequest> {
    let deadline = args.deadline.as_deref().map(parse).transpose()?;
    Ok(v1::RetryJobRequest { id: args.job.clone(), deadline, no_deadline: args.no_deadline })
}

fn parse(text: &str) -> Result<Timestamp> {
    let wrong = || {
        let message = format!(
            "deadline is {text:?}; accepted: a span from now like 30s, 90m, 2h or 1d, or a time like \
             2026-11-22T23:00:00Z"
        );
        UserError::invalid("deadline", message)
    };
    if let Some(span) = span(text) {
        return SystemTime::now().checked_add(span).map(Timestamp::from).ok_or_else(wrong);
    }
    // A date alone would be midnight, which nobody means by it.
    let is_time = text.contains(['T', 't']);
    text.parse().ok().filter(|_| is_time).ok_or_else(wrong)
}

/// How long links live, seconds. What is too long the farm refuses.
pub(crate) fn link_seconds(text: &str) -> Result<u32> {
    let seconds = span(text).map(|span| span.as_secs()).filter(|seconds| *seconds > 0);
    seconds.and_then(|seconds| u32::try_from(seconds).ok()).ok_or_else(|| {
        UserError::invalid(
            "links",
            format!("links is {text:?}; accepted: a span like 30s, 90m, 2h or 1d, at most 7d"),
        )
    })
}

/// `30s`, `90m`, `2h`, `1d`; fractions too.
fn span(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    Duration::try_from_secs_f64(number * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_times_are_read_and_nothing_else() {
        assert_eq!(span("90m"), Some(Duration::from_secs(5400)));
        assert_eq!(span("1.5h"), Some(Duration::from_secs(5400)));
        let time = parse("2026-11-22T23:00:00+01:00").expect("a time");
        assert_eq!(time.seconds, 1_795_384_800);
        for wrong in ["", "h", "2", "2 hours", "-1h", "tomorrow", "2026-11-22", "naNd", "infd", "1e300d"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn links_live_for_a_span_of_whole_seconds() {
        assert_eq!(link_seconds("1h"), Ok(3600));
        assert_eq!(link_seconds("7d"), Ok(604_800));
        for wrong in ["", "3600", "0s", "0.5s", "1e9d", "2026-11-22T23:00:00Z"] {
            assert!(link_seconds(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_submit_that_may_be_repeated_names_a_time() {
        assert!(of_submit(Some("2h"), true).is_err());
        assert!(of_submit(Some("2h"), false).expect("accepted").is_some());
        assert!(of_submit(Some("2026-11-22T23:00:00Z"), true).expect("accepted").is_some());
        assert_eq!(of_submit(None, true), Ok(None));
    }
}
