//! Requests as the coordinator checks them before it asks the record, and the tokens and cursors
//! that it gave out.

use std::sync::LazyLock;

use darkroom_artifacts::CascadeBundle;
use darkroom_coordinator::fuzzed;
use darkroom_core::{
    cascade::{Cascade, CascadeSpec},
    error::UserError,
};
use darkroom_proto::v1;
use prost::Message;

use super::messages::{Rough as _, refusal};
use crate::{mutation::Messages, verdict::Verdict};

/// The types of [`checks`], in the order of its arms.
pub(super) fn types() -> &'static Messages {
    static TYPES: LazyLock<Messages> = LazyLock::new(|| {
        Messages::of(&[
            "SubmitJobRequest",
            "SubmitJobRequest",
            "SubmitJobRequest",
            "ListJobsRequest",
            "ListImagesRequest",
            "ListUsageRequest",
            "FarmHistoryRequest",
            "ImageFilter",
            "RetryJobRequest",
            "CreateWebhookRequest",
        ])
    });
    &TYPES
}

/// A request and the farm's check of it.
pub(super) fn checks(data: &[u8]) -> Verdict {
    let Some((number, bytes)) = types().split(data) else { return Verdict::accepted("") };
    let checked = match number {
        0..=2 => of(bytes, |request: v1::SubmitJobRequest| {
            let prompts = request.prompts.len();
            let images = fuzzed::submit(cascade(), request)?;
            assert!(images >= prompts as u64 && images <= 10_000_000, "{images} images");
            Ok(())
        }),
        3 => of(bytes, |request: v1::ListJobsRequest| {
            for (position, page_token) in fuzzed::list_jobs(&request)?.1 {
                let next = v1::ListJobsRequest { page_token, ..request.clone() };
                let (named, _) = fuzzed::list_jobs(&next).expect("its own token");
                assert_eq!(named, Some(position));
            }
            Ok(())
        }),
        4 => of(bytes, |request: v1::ListImagesRequest| fuzzed::list_images(&request).map(drop)),
        5 => of(bytes, fuzzed::list_usage),
        6 => of(bytes, |request: v1::FarmHistoryRequest| fuzzed::farm_history(&request)),
        7 => of(bytes, |filter: v1::ImageFilter| {
            let ranges = fuzzed::image_filter(filter, 1_000_000)?;
            assert!(ranges <= 2000, "{ranges} ranges");
            Ok(())
        }),
        8 => of(bytes, |request: v1::RetryJobRequest| fuzzed::retry_deadline(&request)),
        _ => of(bytes, fuzzed::create_webhook),
    };
    match checked {
        None => Verdict::accepted("no message"),
        Some(Ok(())) => Verdict::accepted(format_args!("{number} {}", bytes.len().ilog2_or_zero())),
        Some(Err(error)) => refusal(&error, data),
    }
}

/// Decodes a message and checks it; `None` if it is none.
fn of<M: Message + Default>(
    bytes: &[u8],
    check: impl FnOnce(M) -> Result<(), UserError>,
) -> Option<Result<(), UserError>> {
    M::decode(bytes).ok().map(check)
}

fn cascade() -> &'static Cascade {
    static CASCADE: LazyLock<Cascade> = LazyLock::new(|| {
        let spec = CascadeSpec::parse(include_str!("../../../../models/demo/cascade.toml"));
        let files = Default::default();
        let cascade = Cascade { spec: spec.expect("the demo cascade"), files };
        CascadeBundle::without_files(cascade).cascade().clone()
    });
    &CASCADE
}

/// A token of each listing and a cursor of a watch. What is accepted is a position, whose own token
/// means the same.
pub(super) fn page_tokens(data: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(data) else { return Verdict::accepted("no text") };
    let token = || text.to_owned();
    let by_index = v1::ListImagesRequest { page_token: token(), ..Default::default() };
    let by_version = v1::ListImagesRequest { changed_since: 1, ..by_index.clone() };
    let mut accepted = String::new();
    let mut refused = None;
    for request in [by_index, by_version] {
        match fuzzed::list_images(&request) {
            Ok(Some(page_token)) => {
                let own = v1::ListImagesRequest { page_token: page_token.clone(), ..request };
                assert_eq!(fuzzed::list_images(&own), Ok(Some(page_token)));
                accepted += "images ";
            }
            Ok(None) => {}
            Err(error) => refused = Some(refusal(&error, data)),
        }
    }
    // Nobody guesses a sealed token, so the text is sealed; and it is tried as it is.
    let jobs = v1::ListJobsRequest::default();
    let page_token = fuzzed::seal_for_jobs(&jobs, text).expect("a listing");
    for page_token in [page_token, token()] {
        match fuzzed::list_jobs(&v1::ListJobsRequest { page_token, ..jobs.clone() }) {
            Ok((position, placed)) => {
                if position.is_some() {
                    assert_eq!(position.as_ref(), placed.first().map(|(position, _)| position));
                    accepted += "jobs ";
                }
            }
            Err(error) => refused = Some(refusal(&error, data)),
        }
    }
    let usage = v1::ListUsageRequest::default();
    let (day, tenant) = text.split_once('.').unwrap_or((text, ""));
    for page_token in [fuzzed::seal_for_usage(&usage, day, tenant), token()] {
        match fuzzed::list_usage(v1::ListUsageRequest { page_token, ..usage.clone() }) {
            Ok(()) => accepted += "usage ",
            Err(error) => refused = Some(refusal(&error, data)),
        }
    }
    match fuzzed::cursor(text) {
        Ok(cursor) => {
            assert_eq!(fuzzed::cursor(&cursor).as_ref(), Ok(&cursor));
            accepted += "cursor";
        }
        Err(error) => refused = Some(refusal(&error, data)),
    }
    match refused {
        Some(refused) if accepted.is_empty() => refused,
        _ => Verdict::accepted(accepted),
    }
}
