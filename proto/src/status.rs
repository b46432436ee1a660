//! One mapping from the farm's errors to gRPC statuses with google.rpc details, and back; and one
//! to HTTP statuses.

use darkroom_core::{
    error::{Code, UserError},
    shown::shortened,
};
use http::StatusCode;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

/// Value of `ErrorInfo.domain` in every error of the farm.
pub const DOMAIN: &str = "darkroom";

/// The gRPC code for `code`.
#[must_use]
pub fn grpc_code(code: Code) -> tonic::Code {
    match code {
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::Unauthenticated => tonic::Code::Unauthenticated,
        Code::PermissionDenied => tonic::Code::PermissionDenied,
        Code::NotFound => tonic::Code::NotFound,
        Code::AlreadyExists => tonic::Code::AlreadyExists,
        Code::FailedPrecondition => tonic::Code::FailedPrecondition,
        Code::ResourceExhausted => tonic::Code::ResourceExhausted,
        Code::Unavailable => tonic::Code::Unavailable,
        Code::DeadlineExceeded => tonic::Code::DeadlineExceeded,
        Code::Unknown => tonic::Code::Unknown,
        Code::Internal => tonic::Code::Internal,
    }
}

/// The HTTP status for `code`.
#[must_use]
pub fn http_code(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        // Not 400, which tells a client that the request itself is wrong, nor 412, which is about
        // its headers.
        Code::AlreadyExists | Code::FailedPrecondition => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unknown | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Most bytes of a message, and of a field's name. A status travels in headers, with its message
/// three times; many clients accept 8 KiB of headers, and drop the answer beyond.
pub(crate) const MAX_SENT: usize = 1000;
pub(crate) const MAX_FIELD: usize = 200;

/// Turns an error into a status that names the field (`BadRequest`), the reason (`ErrorInfo`) and
/// when a retry can help (`RetryInfo`).
#[must_use]
pub fn to_status(error: &UserError) -> Status {
    let message = shortened(&error.message, MAX_SENT).into_owned();
    let mut details = ErrorDetails::new();
    details.set_error_info(
        shortened(&error.reason, MAX_FIELD),
        DOMAIN,
        std::collections::HashMap::<String, String>::new(),
    );
    if let Some(field) = &error.field {
        details.add_bad_request_violation(shortened(field, MAX_FIELD), message.clone());
    }
    if let Some(delay) = error.retry_after {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(grpc_code(error.code), message, details)
}

/// Converts a status back to an error. A status that the farm did not make keeps its message and
/// gets the nearest code.
#[must_use]
pub fn from_status(status: &Status) -> UserError {
    let details = status.get_error_details();
    let code = match status.code() {
        tonic::Code::InvalidArgument | tonic::Code::OutOfRange => Code::InvalidArgument,
        tonic::Code::Unauthenticated => Code::Unauthenticated,
        tonic::Code::PermissionDenied => Code::PermissionDenied,
        tonic::Code::NotFound => Code::NotFound,
        tonic::Code::AlreadyExists => Code::AlreadyExists,
        tonic::Code::FailedPrecondition => Code::FailedPrecondition,
        tonic::Code::ResourceExhausted => Code::ResourceExhausted,
        tonic::Code::Unavailable | tonic::Code::Cancelled | tonic::Code::Aborted => {
            Code::Unavailable
        }
        tonic::Code::DeadlineExceeded => Code::DeadlineExceeded,
        tonic::Code::Unknown => Code::Unknown,
        _ => Code::Internal,
    };
    UserError {
        code,
        reason: details
            .error_info()
            .map_or_else(|| "UNKNOWN".to_owned(), |info| info.reason.clone()),
        field: details
            .bad_request()
            .and_then(|bad| bad.field_violations.first())
            .map(|violation| violation.field.clone()),
        message: sentence(status),
        retry_after: details.retry_info().and_then(|info| info.retry_delay),
    }
}

/// Longest message that is passed on, in characters.
const MAX_SENTENCE: usize = 4000;

/// The message, cut to the limit. If there is none, the error's code.
fn sentence(status: &Status) -> String {
    let said = status.message().trim();
    if said.is_empty() {
        let code = status.code();
        return format!(
            "the answer is an error without a message ({code:?}, gRPC status {})",
            code as i32
        );
    }
    match said.char_indices().nth(MAX_SENTENCE) {
        Some((end, _)) => format!("{} … (cut)", &said[..end]),
        None => said.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_error_without_a_message_says_so_and_one_without_end_is_cut() {
        let said = |message: String| from_status(&Status::unknown(message)).message;
        assert_eq!(
            said(" ".into()),
            "the answer is an error without a message (Unknown, gRPC status 2)"
        );
        assert_eq!(said("no".into()), "no");
        assert_eq!(said("é".repeat(MAX_SENTENCE)).chars().count(), MAX_SENTENCE);
        assert_eq!(
            said("é".repeat(1 << 20)).chars().count(),
            MAX_SENTENCE + " … (cut)".chars().count()
        );
    }

    #[test]
    fn an_error_survives_the_wire_with_its_field() {
        let error =
            UserError::invalid("settings.size", "settings.size is 300; accepted: 64, 256, 1024");
        assert_eq!(from_status(&to_status(&error)), error);
    }

    #[test]
    fn what_a_client_said_at_length_fits_into_headers() {
        for said in ["x", "é", "狗", "\u{1f600}", "\u{1b}", "%"] {
            let said = said.repeat(10_000);
            let message = format!("id is {said:?}; accepted: the id of a job");
            let status = to_status(&UserError::invalid(said, message));
            let headers = status.clone().into_http::<()>();
            let bytes: usize = headers
                .headers()
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len() + 32)
                .sum();
            assert!(bytes < 8 << 10, "{bytes} bytes of headers");
            let back = from_status(&status).message;
            assert!(back.starts_with("id is ") && back.ends_with("accepted: the id of a job"));
        }
    }

    #[test]
    fn an_error_survives_the_wire_with_the_time_to_wait() {
        let full = UserError::new(Code::ResourceExhausted, "QUOTA", "too many requests a second");
        let error = UserError { retry_after: Some(Duration::from_millis(2500)), ..full };
        assert_eq!(from_status(&to_status(&error)), error);
    }

    #[test]
    fn every_code_has_its_status_in_grpc_and_in_http_and_comes_back_as_itself() {
        let mapped =
            Code::ALL.map(|code| (code.name(), grpc_code(code) as i32, http_code(code).as_u16()));
        assert_eq!(
            mapped,
            [
                ("INVALID_ARGUMENT", 3, 400),
                ("UNAUTHENTICATED", 16, 401),
                ("PERMISSION_DENIED", 7, 403),
                ("NOT_FOUND", 5, 404),
                ("ALREADY_EXISTS", 6, 409),
                ("FAILED_PRECONDITION", 9, 409),
                ("RESOURCE_EXHAUSTED", 8, 429),
                ("UNAVAILABLE", 14, 503),
                ("DEADLINE_EXCEEDED", 4, 504),
                ("UNKNOWN", 2, 500),
                ("INTERNAL", 13, 500),
            ]
        );
        for code in Code::ALL {
            let error = UserError::new(code, "REASON", "a sentence");
            assert_eq!(from_status(&to_status(&error)), error);
        }
    }
}
