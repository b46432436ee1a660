//! Errors meant for a user: one sentence that names the field, the value and what would be accepted.

/// What kind of failure it is, and so what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The request is wrong; sending it again is useless.
    InvalidArgument,
    /// The thing named does not exist.
    NotFound,
    /// The name is taken by something else.
    AlreadyExists,
    /// The thing is in a state that does not allow this.
    FailedPrecondition,
    /// Disk, quota or a limit is used up.
    ResourceExhausted,
    /// Try again later; nothing was changed.
    Unavailable,
    /// A fault of ours.
    Internal,
}

impl Code {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn retryable(self) -> bool {
        matches!(self, Self::Unavailable)
    }

    /// Exit code of the command line for this error: 2 for a wrong request, 3 for what is missing or in the wrong
    /// state, 4 for what may pass, 1 for a fault of ours.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::InvalidArgument => 2,
            Self::NotFound | Self::AlreadyExists | Self::FailedPrecondition => 3,
            Self::ResourceExhausted | Self::Unavailable => 4,
            Self::Internal => 1,
        }
    }
}

/// An error a user can act on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UserError {
    /// The kind.
    pub code: Code,
    /// Stable name in capitals for machines, e.g. `INVALID_FIELD`, `UNKNOWN_CASCADE`.
    pub reason: String,
    /// Path of the request's field at fault (`settings.stages[1].steps`), if one is.
    pub field: Option<String>,
    /// One sentence: field, value, what would be accepted.
    pub message: String,
}

impl UserError {
    /// An error of `code` with a machine-readable `reason` and a sentence.
    pub fn new(code: Code, reason: &str, message: impl Into<String>) -> Self {
        Self { code, reason: reason.to_owned(), field: None, message: message.into() }
    }

    /// A wrong field of a request.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: Code::InvalidArgument,
            reason: "INVALID_FIELD".to_owned(),
            field: Some(field.into()),
            message: message.into(),
        }
    }
}
