//! Refusals: every error becomes a problem document.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use darkroom_core::error::{Code, UserError};
use darkroom_proto::problem;
use http::StatusCode;

/// An error as an answer.
#[derive(Debug)]
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

    /// An error for which HTTP has a better status.
    pub(crate) fn with_status(status: StatusCode, error: UserError) -> Self {
        Self { status: Some(status), error: Box::new(error) }
    }

    /// The error alone, for a stream that has no status of its own.
    pub(crate) fn into_error(self) -> UserError {
        *self.error
    }
}

impl From<UserError> for Refusal {
    fn from(error: UserError) -> Self {
        Self { status: None, error: Box::new(error) }
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
