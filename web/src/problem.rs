//! Refusals: every error becomes a problem document.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use darkroom_core::error::{Code, UserError};
use darkroom_proto::problem;
use http::StatusCode;

/// The reason of the refusal of a body that is too large.
const TOO_LARGE: &str = "BODY_TOO_LARGE";
/// The reasons of refusals of bodies that do not go on: the server's, that of an upload, and that of
/// a submit.
const STALLED: [&str; 3] = ["REQUEST_STALLED", "UPLOAD_STALLED", "SUBMIT_STALLED"];

/// An error as an answer.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// Where HTTP has a better status than the error's code.
    status: Option<StatusCode>,
    error: Box<UserError>,
}

impl Refusal {
    /// A refusal that is about HTTP itself.
    pub(crate) fn http(status: StatusCode, reason: &str, message: impl Into<String>) -> Self {
        let code = match status {
            StatusCode::NOT_FOUND => Code::NotFound,
            StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => Code::PermissionDenied,
            _ => Code::InvalidArgument,
        };
        let error = UserError::new(code, reason, message);
        Self { status: Some(status), error: Box::new(error) }
    }

    /// The refusal of a body, or of a part of it, that is larger than this many bytes.
    pub(crate) fn too_large(what: &str, most: usize, accepted: Option<&str>) -> Self {
        let size = match most >> 20 {
            0 => format!("{} KiB", most >> 10),
            mib => format!("{mib} MiB"),
        };
        let accepted = accepted.map_or_else(|| format!("at most {size}"), str::to_owned);
        let message = format!("{what} has more than {size}; accepted: {accepted}");
        UserError::new(Code::InvalidArgument, TOO_LARGE, message).into()
    }

    /// The error alone, for a stream that has no status of its own.
    pub(crate) fn into_error(self) -> UserError {
        *self.error
    }
}

impl From<UserError> for Refusal {
    fn from(error: UserError) -> Self {
        // The farm passes on what was wrong with a body that it reads as a stream.
        let status = match error.reason.as_str() {
            TOO_LARGE => Some(StatusCode::PAYLOAD_TOO_LARGE),
            reason if STALLED.contains(&reason) => Some(StatusCode::REQUEST_TIMEOUT),
            _ => None,
        };
        Self { status, error: Box::new(error) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let answer = match self.status {
            Some(status) => problem::answer_with(status, &self.error),
            None => problem::answer(&self.error),
        };
        answer.map(Body::from)
    }
}
