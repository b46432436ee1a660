//! What `darkroom ls` asks for, from its flags.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use darkroom_core::error::UserError;
use darkroom_proto::{json::Named, v1};
use prost_types::Timestamp;

use crate::{args::LsArgs, deadline::span, failure::Result};

/// Entries of a page that is asked for.
const PAGE: u32 = 1000;

/// The jobs that are asked for.
pub(crate) fn jobs(args: &LsArgs) -> Result<v1::ListJobsRequest> {
    use v1::JobState as S;
    // The farm lists no job whose prompts are still arriving.
    let all = [S::Active, S::Paused, S::Done, S::Failed, S::Cancelled];
    let now = SystemTime::now();
    let time = |field, text: &Option<String>| {
        text.as_deref().map(|text| moment(field, text, now)).transpose()
    };
    Ok(v1::ListJobsRequest {
        page_size: page_size(args),
        page_token: String::new(),
        tenant: args.tenant.clone().unwrap_or_default(),
        states: states(&args.states, &all)?,
        labels: labels(&args.labels)?,
        name: args.name.clone().unwrap_or_default(),
        text: args.text.clone().unwrap_or_default(),
        created_from: time("since", &args.since)?,
        created_to: time("until", &args.until)?,
        oldest_first: args.oldest_first,
    })
}

/// The images of a job that are asked for.
pub(crate) fn images(job: &str, args: &LsArgs) -> Result<v1::ListImagesRequest> {
    use v1::ImageState as S;
    let all = [S::Waiting, S::Ready, S::Dispatched, S::Done, S::Dead, S::Cancelled];
    Ok(v1::ListImagesRequest {
        job_id: job.to_owned(),
        page_size: page_size(args),
        page_token: String::new(),
        states: states(&args.states, &all)?,
        changed_since: args.changed_since.unwrap_or(0),
        labels: labels(&args.labels)?,
        text: args.text.clone().unwrap_or_default(),
        start_index: args.from_index.unwrap_or(0),
    })
}

/// Labels given as `KEY=VALUE`: no key is empty, and each is given once.
pub(crate) fn labels(given: &[String]) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for text in given {
        let parts = text.split_once('=').filter(|(key, _)| !key.is_empty());
        let Some((key, value)) = parts else {
            let message = format!("label is {text:?}; accepted: KEY=VALUE");
            return Err(UserError::invalid("label", message));
        };
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            let message = format!("label {key:?} is given twice; accepted: each key once");
            return Err(UserError::invalid("label", message));
        }
    }
    Ok(labels)
}

/// As many as are wanted, where that is less than a page.
fn page_size(args: &LsArgs) -> u32 {
    let wanted = args.limit.and_then(|limit| u32::try_from(limit).ok());
    wanted.map_or(PAGE, |wanted| wanted.clamp(1, PAGE))
}

pub(crate) fn states<S: Named>(names: &[String], all: &[S]) -> Result<Vec<i32>> {
    let find = |name: &String| {
        let found = all.iter().copied().find(|state| state.name() == name);
        found.map(Into::into).ok_or_else(|| {
            let accepted: Vec<_> = all.iter().map(|state| state.name()).collect();
            UserError::invalid(
                "state-is",
                format!("state is {name:?}; accepted: {}", accepted.join(", ")),
            )
        })
    };
    names.iter().map(find).collect()
}

/// A time as people write it: a span before now, or a time.
fn moment(field: &str, text: &str, now: SystemTime) -> Result<Timestamp> {
    let before = |span: Duration| now.checked_sub(span).map(Timestamp::from);
    let time = || text.parse().ok().filter(|_| text.contains(['T', 't']));
    span(text).map_or_else(time, before).ok_or_else(|| {
        let message = format!(
            "{field} is {text:?}; accepted: a span before now like 30s, 90m, 2h or 1d, or a time like \
             2026-11-22T23:00:00Z"
        );
        UserError::invalid(field, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_split_at_its_first_equals_sign() {
        let given = ["set=a=b".to_owned(), "empty=".to_owned()];
        let read = labels(&given).expect("two labels");
        assert_eq!(
            read,
            BTreeMap::from(
                [("set", "a=b"), ("empty", "")]
                    .map(|(key, value)| { (key.to_owned(), value.to_owned()) })
            )
        );
        let wrong: [&[&str]; 4] = [&["set"], &["=x"], &["a=1", "a=2"], &["a=1", "a=1"]];
        for wrong in wrong {
            let given: Vec<_> = wrong.iter().map(|&text| text.to_owned()).collect();
            assert_eq!(labels(&given).expect_err("refused").field.as_deref(), Some("label"));
        }
    }

    #[test]
    fn a_span_is_before_now_and_a_time_is_a_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000);
        assert_eq!(moment("since", "1h", now).expect("a span").seconds, 6400);
        let time = moment("since", "2026-11-22T23:00:00+01:00", now).expect("a time");
        assert_eq!(time.seconds, 1_795_384_800);
        for wrong in ["", "yesterday", "2026-11-22", "1e300d"] {
            assert_eq!(
                moment("until", wrong, now).expect_err(wrong).field.as_deref(),
                Some("until")
            );
        }
    }
}
