//! Checks requests for a page of jobs or images, and makes the tokens that continue a listing.
//!
//! A token of a listing of jobs is sealed, and belongs to the tenant and to the request. With other
//! filters it would skip jobs, so it is refused. A token of a listing of images is a position by
//! index or by version in one job. It is harmless with other filters, and tells nothing that the
//! listing does not.

use darkroom_core::{
    digest::{Digest, FieldHasher},
    error::UserError,
    id::JobId,
    job_filter::{JobFilter, MAX_NAME},
    prompt::check_text,
    prompt_filter::PromptFilter,
};
use darkroom_proto::v1;
use prost::Message as _;

use super::{
    convert,
    tokens::Tokens,
    validate::{MAX_TENANT, limit},
};
use crate::store::records::{ImageOrder, ImageQuery, JobPosition, JobQuery};

/// Default and largest number of entries of a page.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;
/// The end of the year 9999, seconds since 1970.
const LAST_SECOND: i64 = 253_402_300_799;

/// The requested jobs of a tenant, or of all, and the tokens of their listing.
pub(super) fn jobs<'a>(
    request: &v1::ListJobsRequest,
    tenant: Option<String>,
    tokens: &'a Tokens,
) -> Result<(JobQuery, JobTokens<'a>), UserError> {
    let states = request.states.iter().map(|state| convert::job_state_from(*state));
    limit("tenant", &request.tenant, MAX_TENANT)?;
    limit("name", &request.name, MAX_NAME)?;
    check_text("text", &request.text)?;
    let time = |field, time: &Option<prost_types::Timestamp>| {
        time.as_ref().map(|time| time_ms(field, time)).transpose()
    };
    let created_from_ms = time("created_from", &request.created_from)?;
    let created_to_ms = time("created_to", &request.created_to)?;
    if created_from_ms.zip(created_to_ms).is_some_and(|(from, to)| from >= to) {
        let message = "created_to is not later than created_from; accepted: a later time, or none";
        return Err(UserError::invalid("created_to", message));
    }
    let tokens = JobTokens::of(request, tenant.as_deref(), tokens);
    let query = JobQuery {
        tenant,
        states: states.collect::<Result<_, _>>()?,
        filter: JobFilter::new(request.labels.clone(), &request.name, &request.text)?,
        created_from_ms,
        created_to_ms,
        oldest_first: request.oldest_first,
        from: tokens.read(&request.page_token)?,
        limit: page_size(request.page_size)?,
    };
    Ok((query, tokens))
}

/// The requested images of a job.
pub(super) fn images(job: JobId, request: &v1::ListImagesRequest) -> Result<ImageQuery, UserError> {
    let mut states = Vec::new();
    for state in &request.states {
        let state = convert::image_state_from(*state)?;
        if !states.contains(&state) {
            states.push(state);
        }
    }
    check_text("text", &request.text)?;
    if request.start_index > 0 && request.changed_since > 0 {
        let message = format!(
            "start_index is {}, but changed_since is set, whose pages are in order of version; \
             accepted: one of the two",
            request.start_index
        );
        return Err(UserError::invalid("start_index", message));
    }
    Ok(ImageQuery {
        job,
        states,
        filter: PromptFilter::new(request.labels.clone(), &request.text)?,
        order: image_order(request)?,
        limit: page_size(request.page_size)?,
    })
}

/// The tokens of one listing of jobs: `{seq}` continues after a job, `{seq}.{prompt}` within one.
pub(super) struct JobTokens<'a> {
    listing: Digest,
    tokens: &'a Tokens,
}

impl<'a> JobTokens<'a> {
    fn of(request: &v1::ListJobsRequest, tenant: Option<&str>, tokens: &'a Tokens) -> Self {
        let asked =
            v1::ListJobsRequest { page_size: 0, page_token: String::new(), ..request.clone() };
        let listing = FieldHasher::new("list-jobs/2")
            .field(tenant.unwrap_or_default().as_bytes())
            .field(&asked.encode_to_vec())
            .finish();
        Self { listing, tokens }
    }

    /// The token of a position.
    pub(super) fn token(&self, position: JobPosition) -> String {
        let position = match position {
            JobPosition::After(seq) => format!("{seq}"),
            JobPosition::Within(seq, prompt) => format!("{seq}.{prompt}"),
        };
        self.sealed(&position)
    }

    /// A token of this text, whether it is a position or not.
    pub(super) fn sealed(&self, position: &str) -> String {
        self.tokens.seal(&self.listing, position)
    }

    fn read(&self, token: &str) -> Result<Option<JobPosition>, UserError> {
        if token.is_empty() {
            return Ok(None);
        }
        let opened = self.tokens.open(&self.listing, token);
        let position = opened.as_deref().and_then(|opened| match opened.split_once('.') {
            None => digits(opened).map(JobPosition::After),
            Some((seq, prompt)) => digits(seq)
                .zip(digits(prompt))
                .map(|(seq, prompt)| JobPosition::Within(seq, prompt)),
        });
        position.map(Some).ok_or_else(|| bad_token(token))
    }
}

/// The token of a position in a listing of images: `i{index}` in order of index,
/// `v{version}.{index}` or `v{version}` in order of version.
pub(super) fn image_token(order: ImageOrder) -> String {
    match order {
        ImageOrder::Index(index) => format!("i{}", index.unwrap_or(0)),
        ImageOrder::Version(version, Some(index)) => format!("v{version}.{index}"),
        ImageOrder::Version(version, None) => format!("v{version}"),
    }
}

fn image_order(request: &v1::ListImagesRequest) -> Result<ImageOrder, UserError> {
    let token = request.page_token.as_str();
    let by_version = request.changed_since > 0;
    if token.is_empty() {
        return Ok(if by_version {
            ImageOrder::Version(request.changed_since, None)
        } else {
            ImageOrder::Index(request.start_index.checked_sub(1))
        });
    }
    let order = if by_version {
        let position = token.strip_prefix('v').map(|rest| rest.split_once('.').ok_or(rest));
        position.and_then(|position| match position {
            Ok((version, index)) => {
                Some(ImageOrder::Version(digits(version)?, Some(digits(index)?)))
            }
            Err(version) => Some(ImageOrder::Version(digits(version)?, None)),
        })
    } else {
        token.strip_prefix('i').and_then(digits).map(|index| ImageOrder::Index(Some(index)))
    };
    order.ok_or_else(|| bad_token(token))
}

/// A number of digits only.
fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn page_size(wanted: u32) -> Result<u32, UserError> {
    match wanted {
        0 => Ok(PAGE),
        1..=MAX_PAGE => Ok(wanted),
        _ => Err(UserError::invalid(
            "page_size",
            format!("page_size is {wanted}; accepted: 1 to {MAX_PAGE}, or 0 for {PAGE}"),
        )),
    }
}

pub(super) fn bad_token(token: &str) -> UserError {
    let message = format!(
        "page_token is {token:?}; accepted: a next_page_token of the same listing, or none"
    );
    UserError::invalid("page_token", message)
}

/// A time as milliseconds since 1970.
fn time_ms(field: &str, time: &prost_types::Timestamp) -> Result<i64, UserError> {
    let prost_types::Timestamp { seconds, nanos } = *time;
    if (0..=LAST_SECOND).contains(&seconds) && (0..1_000_000_000).contains(&nanos) {
        return Ok(seconds * 1000 + i64::from(nanos / 1_000_000));
    }
    let message = format!(
        "{field} is {seconds} s {nanos} ns since 1970; accepted: a time from 1970 to 9999, or none"
    );
    Err(UserError::invalid(field, message))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_token_continues_only_the_listing_of_jobs_that_it_came_from() {
        let asked = v1::ListJobsRequest {
            text: "cat".to_owned(),
            labels: BTreeMap::from([("a".to_owned(), "1".to_owned())]),
            ..Default::default()
        };
        let sealing = Tokens::new([1; 32]);
        let tenant = || Some("a".to_owned());
        let jobs_of = |request: &v1::ListJobsRequest, tenant| {
            jobs(request, tenant, &sealing).map(|(query, _)| query.from)
        };
        let (_, tokens) = jobs(&asked, tenant(), &sealing).expect("a listing");
        for position in [JobPosition::After(7), JobPosition::Within(7, 20_000)] {
            let page_token = tokens.token(position);
            let next = v1::ListJobsRequest { page_size: 3, page_token, ..asked.clone() };
            assert_eq!(jobs_of(&next, tenant()).expect("the next page"), Some(position));
            for other in [None, Some("b".to_owned())] {
                let refused = jobs_of(&next, other).expect_err("another tenant's listing");
                assert_eq!(refused.field.as_deref(), Some("page_token"));
            }
            for other in [
                v1::ListJobsRequest { text: "dog".to_owned(), ..next.clone() },
                v1::ListJobsRequest { labels: BTreeMap::new(), ..next.clone() },
                v1::ListJobsRequest { oldest_first: true, ..next.clone() },
                v1::ListJobsRequest { states: vec![2], ..next.clone() },
            ] {
                let refused = jobs_of(&other, tenant()).expect_err("another listing");
                assert_eq!(refused.field.as_deref(), Some("page_token"));
            }
        }
        for token in ["7", "7.", ".", "x", "7.1.2.3", "-7.0", "+7", "٧"] {
            let wrong = v1::ListJobsRequest { page_token: token.to_owned(), ..asked.clone() };
            jobs_of(&wrong, tenant()).expect_err(token);
        }
    }

    #[test]
    fn a_token_of_images_is_a_place_in_one_order() {
        let job = "0190a000-0000-7000-8000-000000000001".parse().expect("an id");
        let order = |page_token: &str, changed_since| {
            let page_token = page_token.to_owned();
            images(job, &v1::ListImagesRequest { page_token, changed_since, ..Default::default() })
                .map(|query| query.order)
        };
        for position in [
            ImageOrder::Index(Some(9)),
            ImageOrder::Version(3, Some(9)),
            ImageOrder::Version(3, None),
        ] {
            let by_version = u64::from(matches!(position, ImageOrder::Version(..)));
            assert_eq!(order(&image_token(position), by_version), Ok(position));
            order(&image_token(position), 1 - by_version).expect_err("the other order");
        }
        for token in ["i", "v", "v1.", "v.1", "v1.2.3", "i+1", "i-1", "i1e3"] {
            assert!(order(token, 0).is_err() && order(token, 1).is_err(), "{token}");
        }
    }

    #[test]
    fn what_makes_no_sense_together_is_refused_by_field() {
        let job = "0190a000-0000-7000-8000-000000000001".parse().expect("an id");
        let both = v1::ListImagesRequest { start_index: 5, changed_since: 2, ..Default::default() };
        let refused = images(job, &both).expect_err("two orders");
        assert_eq!(refused.field.as_deref(), Some("start_index"));
        let time = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
        let between = |created_from, created_to| {
            let request = v1::ListJobsRequest { created_from, created_to, ..Default::default() };
            let sealing = Tokens::new([1; 32]);
            jobs(&request, None, &sealing).map(drop).map_err(|error| error.field)
        };
        assert_eq!(between(time(5, 0), time(6, 0)), Ok(()));
        assert_eq!(between(time(5, 0), time(5, 0)), Err(Some("created_to".to_owned())));
        assert_eq!(between(time(-1, 0), None), Err(Some("created_from".to_owned())));
        assert_eq!(between(None, time(1, -1)), Err(Some("created_to".to_owned())));
    }
}
