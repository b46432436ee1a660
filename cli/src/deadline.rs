//! Deadlines as people write them: a span from now, or a time. Also how long links live.

use std::time::{Duration, SystemTime};

use darkroom_core::error::UserError;
use darkroom_proto::v1;
use prost_types::Timestamp;

use crate::{args::RetryArgs, failure::Result};

/// The deadline of a submit. With --request-id it must be a time, because a span would mean another
/// time in the next attempt.
pub(crate) fn of_submit(text: Option<&str>, repeated: bool) -> Result<Option<Timestamp>> {
    let Some(text) = text else { return Ok(None) };
    if repeated && span(text).is_some() {
        let message = format!(
            "deadline is {text:?} beside --request-id; accepted with it: a time like \
             2026-11-22T23:00:00Z, so that the same submit sent twice asks for the same"
        );
        return Err(UserError::invalid("deadline", message));
    }
    parse(text).map(Some)
}

/// The deadline for a retry.
pub(crate) fn retry(args: &RetryArgs) -> Result<v1::RetryJobRequest> {
    let deadline = args.deadline.as_deref().map(parse).transpose()?;
    Ok(v1::RetryJobRequest { id: args.job.clone(), deadline, no_deadline: args.no_deadline })
}

fn parse(text: &str) -> Result<Timestamp> {
    future("deadline", text)
}

/// A time to come: a span from now, or a time.
pub(crate) fn future(field: &str, text: &str) -> Result<Timestamp> {
    let wrong = || {
        let message = format!(
            "{field} is {text:?}; accepted: a span from now like 30s, 90m, 2h or 1d, or a time like \
             2026-11-22T23:00:00Z"
        );
        UserError::invalid(field, message)
    };
    if let Some(span) = span(text) {
        return SystemTime::now().checked_add(span).map(Timestamp::from).ok_or_else(wrong);
    }
    // A date alone would mean midnight, which nobody wants.
    let is_time = text.contains(['T', 't']);
    text.parse().ok().filter(|_| is_time).ok_or_else(wrong)
}

/// A time in the past: a span ago, or a time.
pub(crate) fn past(field: &str, text: &str) -> Result<Timestamp> {
    let wrong = || {
        let message = format!(
            "{field} is {text:?}; accepted: a span ago like 30m, 2h or 1d, or a time like 2026-11-22T23:00:00Z"
        );
        UserError::invalid(field, message)
    };
    if let Some(span) = span(text) {
        return SystemTime::now().checked_sub(span).map(Timestamp::from).ok_or_else(wrong);
    }
    text.parse().ok().filter(|_| text.contains(['T', 't'])).ok_or_else(wrong)
}

/// A day, like 2026-11-22.
pub(crate) fn day(field: &str, text: &str) -> Result<String> {
    let digits = text.split('-').map(str::len).eq([4, 2, 2])
        && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit());
    let time = format!("{text}T00:00:00Z").parse::<Timestamp>().ok().filter(|_| digits);
    time.map(|_| text.to_owned()).ok_or_else(|| {
        let message = format!("{field} is {text:?}; accepted: a day such as 2026-01-31");
        UserError::invalid(field, message)
    })
}

/// A step of history, seconds: whole minutes.
pub(crate) fn step_seconds(text: &str) -> Result<u32> {
    let seconds = span(text).filter(|span| span.subsec_nanos() == 0).map(|span| span.as_secs());
    let seconds = seconds.filter(|seconds| *seconds > 0 && seconds.is_multiple_of(60));
    seconds.and_then(|seconds| u32::try_from(seconds).ok()).ok_or_else(|| {
        let message = format!("step is {text:?}; accepted: whole minutes, like 1m, 10m, 1h or 1d");
        UserError::invalid("step", message)
    })
}

/// How long links live, seconds. What is too long the farm refuses.
pub(crate) fn link_seconds(text: &str) -> Result<u32> {
    let seconds = span(text).map(|span| span.as_secs()).filter(|seconds| *seconds > 0);
    seconds.and_then(|seconds| u32::try_from(seconds).ok()).ok_or_else(|| {
        UserError::invalid(
            "links",
            format!("links is {text:?}; accepted: a span like 30s, 90m or 2h, at most 1d"),
        )
    })
}

/// A span of whole seconds.
pub(crate) fn whole_seconds(field: &str, text: &str) -> Result<u64> {
    let seconds = span(text).map(|span| span.as_secs()).filter(|seconds| *seconds > 0);
    seconds.ok_or_else(|| {
        let message = format!("{field} is {text:?}; accepted: a span like 90m, 12h or 7d");
        UserError::invalid(field, message)
    })
}

/// `30s`, `90m`, `2h`, `1d`; fractions too.
pub(crate) fn span(text: &str) -> Option<Duration> {
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
        for wrong in
            ["", "h", "2", "2 hours", "-1h", "tomorrow", "2026-11-22", "naNd", "infd", "1e300d"]
        {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn links_live_for_a_span_of_whole_seconds() {
        assert_eq!(link_seconds("1h"), Ok(3600));
        assert_eq!(link_seconds("1d"), Ok(86_400));
        for wrong in ["", "3600", "0s", "0.5s", "1e9d", "2026-11-22T23:00:00Z"] {
            assert!(link_seconds(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn history_goes_back_by_spans_in_whole_minutes() {
        let now = Timestamp::from(SystemTime::now()).seconds;
        let ago = now - past("since", "2h").expect("a span").seconds;
        assert!((7199..=7201).contains(&ago), "{ago}");
        assert_eq!(past("until", "2026-11-22T23:00:00Z").expect("a time").seconds, 1_795_388_400);
        assert_eq!(past("until", "2026-11-22").expect_err("a day").field.as_deref(), Some("until"));
        assert_eq!((step_seconds("10m"), step_seconds("1d")), (Ok(600), Ok(86_400)));
        for wrong in ["", "60", "30s", "0m", "1.001m", "90s", "1e9d"] {
            assert!(step_seconds(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_day_is_one_of_the_calendar() {
        assert_eq!(day("since", "2024-02-29"), Ok("2024-02-29".to_owned()));
        for wrong in ["", "1d", "2026-02-29", "2026-1-01", "26-01-01", "2026-01-01 ", "+026-01-01"]
        {
            assert_eq!(day("since", wrong).expect_err(wrong).field.as_deref(), Some("since"));
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
