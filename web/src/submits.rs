//! `POST /jobs` and `POST /forecasts`.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use darkroom_core::error::UserError;
use darkroom_proto::{json, v1};
use http::{HeaderMap, HeaderName, StatusCode, header};

use crate::{
    entry::Entry,
    json_answer::{header_value, json as answer},
    paths::API,
    problem::Refusal,
    site::Site,
    submission::Submission,
    words::{told, told_header},
};

/// The client's name for a request that it may repeat: the client request id.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Submits a job.
pub(crate) async fn submit(
    State(site): State<Arc<Site>>,
    entry: Entry,
) -> Result<Response, Refusal> {
    let (caller, key) = (entry.caller.clone(), idempotency_key(entry.headers())?);
    let mut submission = Submission::read(entry).await?;
    if let Some(key) = key {
        set_request_id(submission.spec_mut(), key)?;
    }
    let accepted = match submission {
        Submission::Whole(request) => site.farm.submit_job(&caller, *request).await?,
        lines => site.farm.submit_job_stream(&caller, lines.into_chunks()).await?,
    };
    let status = if accepted.existed { StatusCode::OK } else { StatusCode::CREATED };
    let place = accepted.job.as_ref().map(|job| format!("{API}/jobs/{}", job.id));
    let mut answer = answer(status, &json::SubmitJobResponse::from(accepted), None)?;
    if let Some(place) = place {
        answer.headers_mut().insert(header::LOCATION, header_value(&place));
    }
    Ok(answer)
}

/// Forecasts the cost of a job.
pub(crate) async fn forecast(
    State(site): State<Arc<Site>>,
    entry: Entry,
) -> Result<Response, Refusal> {
    let caller = entry.caller.clone();
    let chunks = Submission::read(entry).await?.into_chunks();
    let forecast = site.farm.forecast_job(&caller, chunks).await?;
    answer(StatusCode::OK, &json::ForecastJobResponse::from(forecast), None)
}

/// The client request id of the headers. A key may be in quotes, as the draft of the header has it.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, UserError> {
    let wrong = |what: &str| {
        UserError::invalid(
            "idempotency-key",
            format!("idempotency-key {what}; accepted: one text of 1 to 128 visible characters"),
        )
    };
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    if let Some(second) = keys.next() {
        let (first, second) = (told_header(key), told_header(second));
        return Err(wrong(&format!("is given more than once ({first:?}, {second:?})")));
    }
    let key = key.to_str().map_err(|_| wrong("is not ASCII"))?.trim();
    let quoted = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
    let key = quoted.unwrap_or(key);
    if key.is_empty() {
        return Err(wrong("is empty"));
    }
    Ok(Some(key.to_owned()))
}

/// Gives a job its client request id.
fn set_request_id(spec: &mut v1::JobSpec, key: String) -> Result<(), UserError> {
    if !spec.client_request_id.is_empty() && spec.client_request_id != key {
        let message = format!(
            "idempotency-key is {:?} and spec.client_request_id is {:?}; accepted: one of them, or \
             the same text in both",
            told(&key),
            told(&spec.client_request_id)
        );
        return Err(UserError::invalid("idempotency-key", message));
    }
    spec.client_request_id = key;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idempotency_key_is_the_client_request_id() {
        let key = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IDEMPOTENCY_KEY, value.parse().expect("a header"));
            }
            idempotency_key(&headers)
        };
        assert_eq!(key(&[]), Ok(None));
        for quoted in ["night-1", "\"night-1\"", " night-1 "] {
            assert_eq!(key(&[quoted]), Ok(Some("night-1".to_owned())));
        }
        for wrong in [&[""][..], &["\"\""], &["a", "b"], &["é"]] {
            let error = key(wrong).expect_err("wrong");
            assert_eq!(error.field.as_deref(), Some("idempotency-key"), "{error}");
        }
        let spec = |id: &str| v1::JobSpec { client_request_id: id.into(), ..Default::default() };
        let mut given = spec("a");
        assert!(set_request_id(&mut given, "a".into()).is_ok());
        let error = set_request_id(&mut given, "b".into()).expect_err("two names");
        let said = "idempotency-key is \"b\" and spec.client_request_id is \"a\"; accepted:";
        assert!(error.message.starts_with(said), "{error}");
        let mut none = spec("");
        set_request_id(&mut none, "c".into()).expect("it has none");
        assert_eq!(none.client_request_id, "c");
    }
}
