//! The answer of an object store that failed, taken from `object_store`'s error, which has it only
//! as text.

use std::{error::Error as StdError, io};

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};

/// The store's answer, or what was received instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// HTTP status; none if no answer came.
    pub(crate) status: Option<u16>,
    /// The store's error code, e.g. `NoSuchBucket`.
    pub(crate) code: Option<String>,
    /// One line for people, without the queries of URLs, which could contain a signature.
    pub(crate) sentence: String,
    /// How far the store's clock is ahead of ours, if it reports that.
    pub(crate) clock_ahead: Option<TimeDelta>,
}

impl Answer {
    pub(crate) fn of(error: &object_store::Error) -> Self {
        let text = chain(error).last().map_or_else(String::new, ToString::to_string);
        Self::of_text(&text, Utc::now())
    }

    fn of_text(text: &str, now: DateTime<Utc>) -> Self {
        let status =
            text.split_once("status code: ").and_then(|(_, rest)| rest.get(..3)?.parse().ok());
        let code = element(text, "Code").filter(|code| code.chars().all(char::is_alphanumeric));
        let sentence = match (&code, element(text, "Message")) {
            (Some(code), Some(message)) => format!("{code}: {}", message.trim_end_matches('.')),
            _ => text.lines().next().unwrap_or_default().to_owned(),
        };
        let clock_ahead =
            element(text, "ServerTime").and_then(|time| Some(parse_time(&time)? - now));
        Self { status, code, sentence: without_queries(&sentence), clock_ahead }
    }

    /// Whether the store's error code is one of these.
    pub(crate) fn is(&self, codes: &[&str]) -> bool {
        self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }

    /// Whether the store refuses because the clocks differ too much.
    pub(crate) fn is_of_clock(&self) -> bool {
        self.is(&["RequestTimeTooSkewed"])
    }

    /// Whether the store is full.
    pub(crate) fn is_of_space(&self) -> bool {
        self.status == Some(507)
            || self.is(&["XMinioStorageFull", "QuotaExceeded", "InsufficientStorage"])
    }

    /// Whether the bucket or container does not exist.
    pub(crate) fn is_of_bucket(&self) -> bool {
        self.is(&["NoSuchBucket", "ContainerNotFound"])
    }
}

/// A time span in whole seconds, minutes or hours.
pub(crate) fn spell(time: TimeDelta) -> String {
    match time.num_seconds().unsigned_abs() {
        seconds @ 0..120 => format!("{seconds} seconds"),
        seconds @ 120..7200 => format!("{} minutes", seconds / 60),
        seconds => format!("{} hours", seconds / 3600),
    }
}

/// The kind of the underlying system error, if there is one.
pub(crate) fn io_kind(error: &object_store::Error) -> Option<io::ErrorKind> {
    chain(error).find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind)
}

fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (value, _) = rest.split_once(&format!("</{name}>"))?;
    Some(value.trim().replace('\n', " "))
}

fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let plain = NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%SZ").map(|time| time.and_utc());
    plain.or_else(|_| DateTime::parse_from_rfc3339(text).map(Into::into)).ok()
}

fn without_queries(text: &str) -> String {
    let cut = |word: &str| match word.split_once('?') {
        Some((before, _)) if word.contains("://") => format!("{before}?…"),
        _ => word.to_owned(),
    };
    text.split(' ').map(cut).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_code_message_and_clock_are_read() {
        let text = "Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?>\n<Error>\
            <Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message>\
            <ServerTime>2026-11-22T19:00:00Z</ServerTime></Error>";
        let now = DateTime::parse_from_rfc3339("2026-11-22T18:00:00Z").unwrap().into();
        let answer = Answer::of_text(text, now);
        assert_eq!(answer.status, Some(403));
        assert_eq!(answer.sentence, "RequestTimeTooSkewed: The difference is too large");
        assert!(answer.is_of_clock());
        assert_eq!(answer.clock_ahead.map(spell).as_deref(), Some("60 minutes"));
    }

    #[test]
    fn a_signature_in_a_link_is_not_repeated() {
        let answer = Answer::of_text("error for url (https://x/y?sig=secret) today", Utc::now());
        assert_eq!(answer.sentence, "error for url (https://x/y?… today");
        assert_eq!(answer.status, None);
    }
}
