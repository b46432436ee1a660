//! Errors meant for a user: one sentence that names the field, the value and what would be
//! accepted.
//!
//! gRPC and HTTP say the same of an error: everything they say is in [`UserError`].

use std::time::Duration;

/// The kind of failure. It says what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request is wrong. Sending it again does not help.
    InvalidArgument,
    /// The farm does not know who asks: there is no key, or it is not valid.
    Unauthenticated,
    /// The farm knows who asks, but they may not do this.
    PermissionDenied,
    /// What the request names does not exist.
    NotFound,
    /// The name already belongs to something else.
    AlreadyExists,
    /// The state of the thing does not allow this.
    FailedPrecondition,
    /// A disk, a quota or a limit is full.
    ResourceExhausted,
    /// Nothing was changed; try again later.
    Unavailable,
    /// The call took too long. A call that only reads can be repeated.
    DeadlineExceeded,
    /// The change may have been made, or not; the message says how to find out.
    Unknown,
    /// A fault of ours.
    Internal,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 11] = [
        Self::InvalidArgument,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::NotFound,
        Self::AlreadyExists,
        Self::FailedPrecondition,
        Self::ResourceExhausted,
        Self::Unavailable,
        Self::DeadlineExceeded,
        Self::Unknown,
        Self::Internal,
    ];

    /// Its name on the wire, as in gRPC: `INVALID_ARGUMENT`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::Unavailable => "UNAVAILABLE",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Unknown => "UNKNOWN",
            Self::Internal => "INTERNAL",
        }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn retryable(self) -> bool {
        matches!(self, Self::Unavailable)
    }

    /// How long to wait before the same request is sent again, where nothing better is known; none
    /// where a repeat does not help.
    #[must_use]
    pub fn retry_after(self) -> Option<Duration> {
        self.retryable().then_some(RETRY_AFTER)
    }

    /// Exit code of the command line for this error: 2 for a wrong request, 3 for what is missing,
    /// in the wrong state or not allowed, 4 for what may pass, 1 for a fault of ours or an unknown
    /// outcome.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::InvalidArgument => 2,
            Self::NotFound
            | Self::AlreadyExists
            | Self::FailedPrecondition
            | Self::Unauthenticated
            | Self::PermissionDenied => 3,
            Self::ResourceExhausted | Self::Unavailable | Self::DeadlineExceeded => 4,
            Self::Internal | Self::Unknown => 1,
        }
    }
}

/// The pause that [`Code::retry_after`] returns for every error that may pass.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An error a user can act on, as gRPC and HTTP tell it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UserError {
    /// The kind.
    pub code: Code,
    /// Stable name in capitals for machines, e.g. `INVALID_FIELD`, `UNKNOWN_CASCADE`.
    pub reason: String,
    /// Path of the wrong field in the request (`settings.stages[1].steps`), if there is one.
    pub field: Option<String>,
    /// One sentence: field, value, and what is accepted.
    pub message: String,
    /// How long to wait before the same request is sent again, if a repeat can help.
    pub retry_after: Option<Duration>,
}

impl UserError {
    /// An error of `code` with a machine-readable `reason` and a sentence.
    pub fn new(code: Code, reason: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.to_owned(),
            field: None,
            message: message.into(),
            retry_after: code.retry_after(),
        }
    }

    /// A wrong field of a request.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: Some(field.into()),
            ..Self::new(Code::InvalidArgument, "INVALID_FIELD", message)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_codes_are_listed_once_each_with_a_name_of_its_own() {
        let place = |code| match code {
            Code::InvalidArgument => 0,
            Code::Unauthenticated => 1,
            Code::PermissionDenied => 2,
            Code::NotFound => 3,
            Code::AlreadyExists => 4,
            Code::FailedPrecondition => 5,
            Code::ResourceExhausted => 6,
            Code::Unavailable => 7,
            Code::DeadlineExceeded => 8,
            Code::Unknown => 9,
            // A new code needs the next place here, and a longer list.
            Code::Internal => 10,
        };
        assert_eq!(Code::ALL.map(place), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let names: BTreeSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn a_repeat_is_advised_only_where_it_can_help() {
        for code in Code::ALL {
            let error = UserError::new(code, "REASON", "a sentence");
            assert_eq!(error.retry_after.is_some(), code == Code::Unavailable, "{code:?}");
        }
        assert_eq!(UserError::invalid("size", "size is 3").retry_after, None);
    }
}
