//! Answers to calls that are not let in.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};
use tonic::{Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt};

/// Seconds after which a refused caller may try again.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// A refusal for lack of room, with the time after which to try again.
pub(super) fn busy_status(message: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("BUSY", "darkroom", std::collections::HashMap::<String, String>::new());
    details.set_retry_info(Some(AGAIN));
    Status::with_error_details(tonic::Code::Unavailable, message, details)
}

/// The refusal of a request that did not come to its end.
pub(super) fn stalled_status() -> Status {
    let mut details = ErrorDetails::new();
    let none = std::collections::HashMap::<String, String>::new();
    details.set_error_info("REQUEST_STALLED", "darkroom", none);
    let message = "the request was not sent to its end in time; send it again";
    Status::with_error_details(tonic::Code::DeadlineExceeded, message, details)
}

/// The answer to a caller that does not speak HTTP/2.
pub(super) fn not_http2() -> Response<Body> {
    let text = "This is a port of a Darkroom farm for gRPC, which needs HTTP/2. Use the darkroom command or a gRPC client.\n";
    let mut answer = Response::new(Body::new(http_body_util::Full::from(text)));
    *answer.status_mut() = StatusCode::UPGRADE_REQUIRED;
    let headers = answer.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("h2c"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
