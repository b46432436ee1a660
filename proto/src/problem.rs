//! One form of the farm's errors over HTTP: problem details (RFC 9457).

use darkroom_core::{error::UserError, shown::shortened};
use http::{HeaderValue, Response, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::{
    json::Seconds,
    status::{MAX_FIELD, MAX_SENT, http_code},
};

/// The media type of [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// An error, with the sentence, the reason and the field that gRPC tells of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    /// Always `about:blank`: `reason` says what kind of problem it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The code, as in gRPC: `INVALID_ARGUMENT`.
    pub code: String,
    /// A name in capitals for machines: `INVALID_FIELD`.
    pub reason: String,
    /// Path of the wrong field, if one is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// One sentence for the user.
    pub detail: String,
    /// After how many seconds the same request can succeed, if a repeat can help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<Seconds>,
}

impl From<&UserError> for Problem {
    fn from(error: &UserError) -> Self {
        let status = http_code(error.code);
        Self {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or_default().to_owned(),
            status: status.as_u16(),
            code: error.code.name().to_owned(),
            reason: shortened(&error.reason, MAX_FIELD).into_owned(),
            field: error.field.as_deref().map(|field| shortened(field, MAX_FIELD).into_owned()),
            detail: shortened(&error.message, MAX_SENT).into_owned(),
            retry_after_seconds: error.retry_after.map(|time| Seconds(time.as_secs_f64())),
        }
    }
}

/// The answer that tells an error.
#[must_use]
pub fn answer(error: &UserError) -> Response<String> {
    answer_with(http_code(error.code), error)
}

/// The same with another status, where HTTP has a better one than the error's code.
#[must_use]
pub fn answer_with(status: StatusCode, error: &UserError) -> Response<String> {
    let problem = Problem {
        status: status.as_u16(),
        title: status.canonical_reason().unwrap_or_default().to_owned(),
        ..Problem::from(error)
    };
    // Strings and numbers always have a JSON form.
    let text = serde_json::to_string(&problem).unwrap_or_default();
    let mut answer = Response::new(text);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(time) = error.retry_after {
        // In whole seconds, and never too early.
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use darkroom_core::error::Code;

    use super::*;

    #[test]
    fn a_problem_says_what_grpc_says() {
        let error = UserError {
            retry_after: Some(Duration::from_millis(2500)),
            ..UserError::invalid("settings.size", "settings.size is 300; accepted: 64, 256")
        };
        let told = answer(&error);
        assert_eq!(told.status(), 400);
        assert_eq!(told.headers()["retry-after"], "3");
        assert_eq!(told.headers()["content-type"], MEDIA_TYPE);
        let problem: serde_json::Value = serde_json::from_str(told.body()).expect("JSON");
        assert_eq!(
            problem,
            serde_json::json!({
                "type": "about:blank",
                "title": "Bad Request",
                "status": 400,
                "code": "INVALID_ARGUMENT",
                "reason": "INVALID_FIELD",
                "field": "settings.size",
                "detail": "settings.size is 300; accepted: 64, 256",
                "retry_after_seconds": 2.5,
            })
        );
    }

    #[test]
    fn what_a_client_said_at_length_is_not_repeated_in_full() {
        let said = "x".repeat(1 << 20);
        let error = UserError::invalid(said.clone(), format!("{said}; accepted: less"));
        let told = answer(&error);
        assert!(told.body().len() < 2000, "{} bytes", told.body().len());
        let problem: Problem = serde_json::from_str(told.body()).expect("JSON");
        assert!(problem.detail.ends_with("; accepted: less"), "{}", problem.detail);
    }

    #[test]
    fn every_code_has_a_title_and_a_missing_key_says_how_to_show_one() {
        for code in Code::ALL {
            let told = answer(&UserError::new(code, "REASON", "a sentence"));
            let problem: Problem = serde_json::from_str(told.body()).expect("JSON");
            assert!(!problem.title.is_empty() && problem.code == code.name(), "{problem:?}");
            let asks = told.headers().contains_key(header::WWW_AUTHENTICATE);
            assert_eq!(asks, code == Code::Unauthenticated, "{code:?}");
            let again = told.headers().contains_key(header::RETRY_AFTER);
            assert_eq!(again, code == Code::Unavailable, "{code:?}");
        }
    }
}
