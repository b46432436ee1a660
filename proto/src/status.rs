//! One mapping from the farm's errors to gRPC statuses with google.rpc details, and back.

use darkroom_core::error::{Code, UserError};
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

/// Value of `ErrorInfo.domain` in every error of the farm.
pub const DOMAIN: &str = "darkroom";

/// The gRPC code that stands for `code`.
#[must_use]
pub fn grpc_code(code: Code) -> tonic::Code {
    match code {
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::NotFound => tonic::Code::NotFound,
        Code::AlreadyExists => tonic::Code::AlreadyExists,
        Code::FailedPrecondition => tonic::Code::FailedPrecondition,
        Code::ResourceExhausted => tonic::Code::ResourceExhausted,
        Code::Unavailable => tonic::Code::Unavailable,
        Code::Internal => tonic::Code::Internal,
    }
}

/// Turns an error into a status that names the field (`BadRequest`), the reason (`ErrorInfo`) and whether a retry
/// can help (`RetryInfo`).
#[must_use]
pub fn to_status(error: &UserError) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(error.reason.clone(), DOMAIN, std::collections::HashMap::<String, String>::new());
    if let Some(field) = &error.field {
        details.add_bad_request_violation(field.clone(), error.message.clone());
    }
    if error.code == Code::Unavailable {
        details.set_retry_info(Some(std::time::Duration::from_secs(1)));
    }
    Status::with_error_details(grpc_code(error.code), error.message.clone(), details)
}

/// Reads a status back; a status from elsewhere keeps its message and gets the nearest code.
#[must_use]
pub fn from_status(status: &Status) -> UserError {
    let details = status.get_error_details();
    let code = match status.code() {
        tonic::Code::InvalidArgument | tonic::Code::OutOfRange => Code::InvalidArgument,
        tonic::Code::NotFound => Code::NotFound,
        tonic::Code::AlreadyExists => Code::AlreadyExists,
        tonic::Code::FailedPrecondition => Code::FailedPrecondition,
        tonic::Code::ResourceExhausted => Code::ResourceExhausted,
        tonic::Code::Unavailable
        | tonic::Code::DeadlineExceeded
        | tonic::Code::Cancelled
        | tonic::Code::Aborted => Code::Unavailable,
        _ => Code::Internal,
    };
    UserError {
        code,
        reason: details.error_info().map_or_else(|| "UNKNOWN".to_owned(), |info| info.reason.clone()),
        field: details
            .bad_request()
            .and_then(|bad| bad.field_violations.first())
            .map(|violation| violation.field.clone()),
        message: status.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_wire_with_its_field() {
        let error = UserError::invalid("settings.size", "settings.size is 300; accepted: 64, 256, 1024");
        assert_eq!(from_status(&to_status(&error)), error);
    }
}
