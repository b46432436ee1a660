//! The job of a request: a new one, or that of the request which this one repeats.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use darkroom_core::error::UserError;
use darkroom_farm_api::{Answer, Caller};
use darkroom_proto::v1;
use futures::FutureExt as _;
use http::{HeaderMap, HeaderName};

use super::{ledger::Seat, spec};
use crate::site::Site;

/// How often the client has sent this request before.
const RETRY_COUNT: HeaderName = HeaderName::from_static("x-stainless-retry-count");
/// How old a job may be that a retry finds in the farm's record. Clients wait ten minutes for an
/// answer, and repeat a request twice.
const RECENT: Duration = Duration::from_secs(30 * 60);
/// Most pages of the record that are looked at.
const PAGES: usize = 3;

/// Whether the client repeats a request on its own.
pub(super) fn is_retry(headers: &HeaderMap) -> bool {
    let count = headers.get(RETRY_COUNT).and_then(|count| count.to_str().ok());
    count.and_then(|count| count.parse::<u32>().ok()).is_some_and(|count| count > 0)
}

/// A seat at the job of a request.
pub(super) async fn place(
    site: &Arc<Site>,
    (caller, is_retry): (&Caller, bool),
    fingerprint: String,
    request: v1::SubmitJobRequest,
) -> Answer<Seat> {
    let ledger = &site.openai.ledger;
    let by = |fingerprint: String| (fingerprint, caller.clone());
    if is_retry {
        if let Some(seat) = ledger.rejoin(&fingerprint) {
            return Ok(seat);
        }
        if let Some(job) = recorded(site, caller, &fingerprint).await? {
            return Ok(ledger.enter(by(fingerprint), std::future::ready(Ok(job))));
        }
    }
    let (farm, submitter) = (Arc::clone(&site.farm), caller.clone());
    let place = async move {
        let accepted = farm.submit_job(&submitter, request).await.map_err(spec::in_parameters)?;
        Ok(accepted.job.unwrap_or_default().id)
    };
    Ok(ledger.enter(by(fingerprint), place.boxed()))
}

/// The newest recent job of a request like this that this program has not made itself: it was
/// accepted before a restart, or by another coordinator.
async fn recorded(
    site: &Site,
    caller: &Caller,
    fingerprint: &str,
) -> Result<Option<String>, UserError> {
    let since = SystemTime::now() - RECENT;
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = i64::try_from(since).unwrap_or(i64::MAX);
    let mut asked = v1::ListJobsRequest {
        page_size: 20,
        labels: [(spec::REQUEST.to_owned(), fingerprint.to_owned())].into(),
        states: vec![
            v1::JobState::Active.into(),
            v1::JobState::Paused.into(),
            v1::JobState::Done.into(),
        ],
        created_from: Some(prost_types::Timestamp { seconds, nanos: 0 }),
        ..Default::default()
    };
    for _ in 0..PAGES {
        let page = site.farm.list_jobs(caller, asked.clone()).await?;
        let mut ids = page.jobs.into_iter().map(|job| job.id);
        if let Some(id) = ids.find(|id| !site.openai.ledger.knows(id)) {
            return Ok(Some(id));
        }
        if page.next_page_token.is_empty() {
            break;
        }
        asked.page_token = page.next_page_token;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_a_request_that_was_sent_before() {
        let of = |count: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(count) = count {
                headers.insert(RETRY_COUNT, count.parse().expect("a header"));
            }
            is_retry(&headers)
        };
        assert!(of(Some("1")) && of(Some("2")));
        for first in [None, Some("0"), Some(""), Some("-1"), Some("x")] {
            assert!(!of(first), "{first:?}");
        }
    }
}
