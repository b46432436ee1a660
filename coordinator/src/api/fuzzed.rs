//! What the fuzz targets of `tests/fuzz` call: the checks of requests that come before the record
//! is asked. Nothing else uses them from outside.

use darkroom_core::{cascade::Cascade, error::UserError, id::JobId};
use darkroom_proto::v1;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    image_commands,
    inputs::Inputs,
    jobs::new_deadline,
    listing,
    queue::{self, UsageTokens},
    tokens::Tokens,
    validate::Draft,
    watch_farm, webhooks,
};
use crate::{
    store::records::{ImageOrder, ImageQuery, JobPosition},
    tasks::Cascades,
};

/// Checks a job and its prompts, as a submit does, and counts the images.
///
/// # Errors
/// The refusal that the client gets.
pub fn submit(cascade: &Cascade, request: v1::SubmitJobRequest) -> Result<u64, UserError> {
    let cascades = Cascades::new(vec![cascade.clone()]);
    let mut draft = Draft::new(request.spec, &cascades)?.counting();
    draft.add(request.prompts, &Inputs::default(), &CancellationToken::new())?;
    draft.finish()?;
    let _ = (draft.texts(), draft.loads());
    Ok(draft.images())
}

/// Checks a request for a webhook.
///
/// # Errors
/// The refusal that the client gets.
pub fn create_webhook(request: v1::CreateWebhookRequest) -> Result<(), UserError> {
    webhooks::new_webhook(request, "tenant".to_owned(), Default::default()).map(drop)
}

/// A position in a listing, as text, and a token of it.
pub type Placed = (String, String);

/// Checks a request for a page of jobs. Returns the position that it names, as text; and that
/// position and two others with a token of each.
///
/// # Errors
/// The refusal that the client gets.
pub fn list_jobs(
    request: &v1::ListJobsRequest,
) -> Result<(Option<String>, Vec<Placed>), UserError> {
    let sealing = Tokens::new([7; 32]);
    let (query, tokens) = listing::jobs(request, None, &sealing)?;
    let others = [JobPosition::After(i64::MAX), JobPosition::Within(0, u64::MAX)];
    let placed = query.from.into_iter().chain(others);
    let placed = placed.map(|position| (format!("{position:?}"), tokens.token(position)));
    Ok((query.from.map(|position| format!("{position:?}")), placed.collect()))
}

/// A token of this text for a listing of jobs, as the farm would seal it if it were a position.
///
/// # Errors
/// The refusal that the client gets.
pub fn seal_for_jobs(request: &v1::ListJobsRequest, position: &str) -> Result<String, UserError> {
    let sealing = Tokens::new([7; 32]);
    listing::jobs(request, None, &sealing).map(|(_, tokens)| tokens.sealed(position))
}

/// Checks a request for a page of images, and returns the token of the position that it names.
///
/// # Errors
/// The refusal that the client gets.
pub fn list_images(request: &v1::ListImagesRequest) -> Result<Option<String>, UserError> {
    let ImageQuery { order, .. } = listing::images(JobId(Uuid::nil()), request)?;
    let named = !matches!(order, ImageOrder::Index(None));
    Ok(named.then(|| listing::image_token(order)))
}

/// Checks a request for usage.
///
/// # Errors
/// The refusal that the client gets.
pub fn list_usage(request: v1::ListUsageRequest) -> Result<(), UserError> {
    let sealing = Tokens::new([7; 32]);
    let tokens = UsageTokens::of(&request, None, &sealing);
    queue::usage_query(request, None, &tokens, 1_800_000_000_000).map(drop)
}

/// A token of this day and tenant for a listing of usage, as the farm would seal it.
#[must_use]
pub fn seal_for_usage(request: &v1::ListUsageRequest, day: &str, tenant: &str) -> String {
    let sealing = Tokens::new([7; 32]);
    UsageTokens::of(request, None, &sealing).token(day, tenant)
}

/// Checks a request for the history of the farm.
///
/// # Errors
/// The refusal that the client gets.
pub fn farm_history(request: &v1::FarmHistoryRequest) -> Result<(), UserError> {
    queue::history_query(request, 1_800_000_000).map(drop)
}

/// Checks a filter of images, for a job of so many, and counts its first window.
///
/// # Errors
/// The refusal that the client gets.
pub fn image_filter(filter: v1::ImageFilter, images: u64) -> Result<usize, UserError> {
    let filter = image_commands::parsed(filter)?.within(images)?;
    Ok(filter.window(0, 1000).ranges.len())
}

/// Checks the deadline that a retry asks for.
///
/// # Errors
/// The refusal that the client gets.
pub fn retry_deadline(request: &v1::RetryJobRequest) -> Result<(), UserError> {
    new_deadline(request.deadline, request.no_deadline).map(drop)
}

/// Reads a cursor of a watch, and writes it again.
///
/// # Errors
/// The refusal that the client gets.
pub fn cursor(text: &str) -> Result<String, UserError> {
    text.parse::<watch_farm::Cursor>().map(|cursor| cursor.to_string())
}
