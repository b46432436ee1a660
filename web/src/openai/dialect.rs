//! OpenAI's shape of errors, and the headers of every answer of its API.
//!
//! The whole site tells errors as problem documents. Here they are written as OpenAI's clients read
//! them, wherever in the site they came from.

use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use darkroom_core::error::{Code, UserError};
use darkroom_proto::problem::{MEDIA_TYPE, Problem};
use http::{HeaderName, HeaderValue, StatusCode, header, response::Parts};
use serde::Serialize;
use uuid::Uuid;

use super::paths::API;
use crate::{entry::JSON, json_answer::header_value, paths::is_below};

/// Names an answer, for people who look into it.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Whether a client should send the same request again.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// The client's own name of its request.
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-client-request-id");
/// Longest name of a client that is logged, bytes; as OpenAI has it.
const LONGEST: usize = 512;
/// Longest problem document that is read. Ours are far shorter.
const LONGEST_PROBLEM: usize = 64 << 10;
/// The reason of an error that says a disk is full.
const DISK_FULL: &str = "DISK_FULL";

/// An error as OpenAI tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Told {
    error: Fault,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Fault {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<String>,
    code: Option<String>,
}

impl From<&UserError> for Told {
    fn from(error: &UserError) -> Self {
        Self::of(Problem::from(error))
    }
}

impl Told {
    fn of(problem: Problem) -> Self {
        let passes = problem.retry_after_seconds.is_some();
        let (kind, code) = match status(&problem) {
            401 => ("invalid_request_error", "invalid_api_key".to_owned()),
            403 => ("permission_error", problem.reason.to_lowercase()),
            429 if passes => ("rate_limit_error", "rate_limit_exceeded".to_owned()),
            429 => ("insufficient_quota", "insufficient_quota".to_owned()),
            500.. => ("server_error", problem.reason.to_lowercase()),
            _ => ("invalid_request_error", problem.reason.to_lowercase()),
        };
        let error = Fault { message: problem.detail, kind, param: problem.field, code: Some(code) };
        Self { error }
    }
}

/// The status of a problem. A full disk gets 503, because 429 would mean a quota of the client's
/// here.
pub(super) fn status(problem: &Problem) -> u16 {
    if problem.reason == DISK_FULL { 503 } else { problem.status }
}

/// Whether a path belongs to this API.
pub(crate) fn is_ours(path: &str) -> bool {
    is_below(path, API)
}

/// Passes requests on, and gives answers of this API their headers and their shape of errors.
pub(crate) async fn speak(request: Request, next: Next) -> Response {
    if !is_ours(request.uri().path()) {
        return next.run(request).await;
    }
    let id = fresh_id();
    let theirs = request.headers().get(CLIENT_REQUEST_ID);
    let theirs = theirs.and_then(|id| id.to_str().ok()).filter(|id| id.len() <= LONGEST);
    tracing::debug!(request.id = %id, client_request.id = theirs.unwrap_or_default(), "request");
    let mut answer = retold(next.run(request).await).await;
    answer.headers_mut().insert(REQUEST_ID, header_value(&id));
    answer
}

/// The answer, with a problem in OpenAI's shape.
async fn retold(answer: Response) -> Response {
    let media = answer.headers().get(header::CONTENT_TYPE);
    if media.is_none_or(|media| media != MEDIA_TYPE) {
        return answer;
    }
    let (parts, body) = answer.into_parts();
    let text = axum::body::to_bytes(body, LONGEST_PROBLEM).await.unwrap_or_default();
    let Ok(problem) = serde_json::from_slice::<Problem>(&text) else {
        let message = "the error cannot be read; the farm's log may say why; please report this";
        return refuse(&UserError::new(Code::Internal, "INTERNAL", message));
    };
    shaped(parts, problem)
}

/// An error that was found before a route was.
pub(crate) fn refuse(error: &UserError) -> Response {
    let (parts, _) = darkroom_proto::problem::answer(error).into_parts();
    let mut answer = shaped(parts, Problem::from(error));
    answer.headers_mut().insert(REQUEST_ID, header_value(&fresh_id()));
    answer
}

/// A problem in OpenAI's shape, with the status and the headers that it has.
fn shaped(mut parts: Parts, problem: Problem) -> Response {
    parts.status = StatusCode::from_u16(status(&problem)).unwrap_or(parts.status);
    if let Some(should) = should_retry(parts.status, &problem) {
        let should = if should { "true" } else { "false" };
        parts.headers.insert(SHOULD_RETRY, HeaderValue::from_static(should));
    }
    // Strings always have a JSON form.
    let text = serde_json::to_string(&Told::of(problem)).unwrap_or_default();
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    Response::from_parts(parts, Body::from(text))
}

fn fresh_id() -> String {
    format!("req_{}", Uuid::new_v4().simple())
}

/// Whether the same request can succeed; none where nobody knows, and the client decides.
fn should_retry(status: StatusCode, problem: &Problem) -> Option<bool> {
    if problem.retry_after_seconds.is_some() {
        return Some(true);
    }
    // The farm has tried a failed picture again itself. After other faults, a retry finds the job
    // if there is one, so it does no harm.
    let is_final = status.is_client_error() || problem.reason == super::progress::IMAGE_FAILED;
    is_final.then_some(false)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::response::IntoResponse as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::problem::Refusal;

    async fn told(error: UserError) -> (u16, Option<String>, Option<String>, Value) {
        let answer = retold(Refusal::from(error).into_response()).await;
        assert_eq!(answer.headers()[header::CONTENT_TYPE], JSON);
        let header = |name: HeaderName| {
            let value = answer.headers().get(name)?;
            Some(value.to_str().expect("text").to_owned())
        };
        let (status, again) = (answer.status().as_u16(), header(SHOULD_RETRY));
        let after = header(header::RETRY_AFTER);
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 16).await.expect("bytes");
        (status, again, after, serde_json::from_slice(&bytes).expect("JSON"))
    }

    #[tokio::test]
    async fn an_error_has_the_four_keys_that_clients_read() {
        let (status, again, after, body) = told(UserError::invalid("n", "n is 0")).await;
        assert_eq!((status, again.as_deref(), after), (400, Some("false"), None));
        assert_eq!(
            body,
            json!({"error": {"message": "n is 0", "type": "invalid_request_error", "param": "n",
                             "code": "invalid_field"}})
        );
        let unknown = UserError::new(Code::Unauthenticated, "UNKNOWN_KEY", "no such key");
        let (status, _, _, body) = told(unknown).await;
        assert_eq!((status, &body["error"]["code"]), (401, &json!("invalid_api_key")));
        assert_eq!(body["error"]["param"], Value::Null);
    }

    #[tokio::test]
    async fn a_client_is_told_whether_and_when_to_ask_again() {
        let error = |code, reason: &str, after: Option<u64>| UserError {
            retry_after: after.map(Duration::from_secs),
            ..UserError::new(code, reason, "a sentence")
        };
        let said = |error| async {
            let (status, again, after, body) = told(error).await;
            (status, again, after, body["error"]["type"].as_str().unwrap_or_default().to_owned())
        };
        let text = |text: &str| Some(text.to_owned());
        for (error, expected) in [
            (
                error(Code::ResourceExhausted, "QUOTA_REQUESTS_PER_SECOND", Some(2)),
                (429, text("true"), text("2"), "rate_limit_error"),
            ),
            (
                error(Code::ResourceExhausted, "QUOTA_IMAGES_WAITING", None),
                (429, text("false"), None, "insufficient_quota"),
            ),
            (
                error(Code::Unavailable, "STOPPING", Some(1)),
                (503, text("true"), text("1"), "server_error"),
            ),
            (
                error(Code::Internal, super::super::progress::IMAGE_FAILED, None),
                (500, text("false"), None, "server_error"),
            ),
            (
                error(Code::ResourceExhausted, "DISK_FULL", Some(10)),
                (503, text("true"), text("10"), "server_error"),
            ),
            (error(Code::Unknown, "UNKNOWN", None), (500, None, None, "server_error")),
            (
                error(Code::FailedPrecondition, "JOB_CANCELLED", None),
                (409, text("false"), None, "invalid_request_error"),
            ),
        ] {
            let (status, again, after, kind) = expected;
            assert_eq!(said(error).await, (status, again, after, kind.to_owned()));
        }
    }

    #[tokio::test]
    async fn an_error_that_cannot_be_read_has_the_shape_of_all_others() {
        let mut broken = Response::new(Body::from("{"));
        let media = HeaderValue::from_static(MEDIA_TYPE);
        broken.headers_mut().insert(header::CONTENT_TYPE, media);
        let answer = retold(broken).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()[header::CONTENT_TYPE]),
            (500, &HeaderValue::from_static(JSON))
        );
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 16).await.expect("bytes");
        let body: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(body["error"]["code"], "internal");
        assert_eq!(body["error"]["type"], "server_error");
    }

    #[tokio::test]
    async fn other_answers_pass_as_they_are() {
        let answer = Response::new(Body::from("x"));
        let answer = retold(answer).await;
        let bytes = axum::body::to_bytes(answer.into_body(), 10).await.expect("bytes");
        assert_eq!(&bytes[..], b"x");
    }
}
