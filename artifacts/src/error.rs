//! Errors of object storage, as its callers see them: each variant says what the caller can do.

use std::io;

use darkroom_core::error::{Code, UserError};

use crate::answer::{Answer, io_kind, spell};

/// How the sentence of [`Error::NoSpace`] begins. Workers pass it on in words.
pub const NO_SPACE: &str = "no space left";

/// An error of the artifact store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is stored under the key: its producer must run again.
    #[error("artifact {key} is missing")]
    Missing {
        /// The key.
        key: String,
    },
    /// The bytes under the key are not those that were stored: their producer must run again.
    #[error("artifact {key} is corrupt: {reason}")]
    Corrupt {
        /// The key.
        key: String,
        /// What is wrong with it: size, hash or format.
        reason: String,
    },
    /// The disk or the quota is full. It may pass when somebody makes room.
    #[error("{NO_SPACE} for artifact {key}")]
    NoSpace {
        /// The key.
        key: String,
    },
    /// Reading or writing is not allowed. It may pass when somebody changes that.
    #[error("no permission for artifact {key}: {reason}")]
    Permission {
        /// The key.
        key: String,
        /// The system's error.
        reason: String,
    },
    /// The store's folder is on a file system that lacks something.
    #[error("the artifact folder {folder} cannot be used: {reason}")]
    Unusable {
        /// The folder.
        folder: String,
        /// What its file system lacks.
        reason: String,
    },
    /// The store cannot be reached or failed temporarily.
    #[error("artifact {key} cannot be reached: {reason}")]
    Unavailable {
        /// The key.
        key: String,
        /// The store's error.
        reason: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without a new run of the producer.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::NoSpace { .. } | Self::Permission { .. } | Self::Unavailable { .. })
    }

    /// A stable word for logs and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::Corrupt { .. } => "corrupt",
            Self::NoSpace { .. } => "no_space",
            Self::Permission { .. } => "permission",
            Self::Unusable { .. } => "unusable",
            Self::Unavailable { .. } => "unavailable",
        }
    }

    /// The same as a user's error.
    #[must_use]
    pub fn to_user(&self) -> UserError {
        let (code, reason) = match self {
            Self::Missing { .. } => (Code::NotFound, "ARTIFACT_MISSING"),
            Self::Corrupt { .. } => (Code::FailedPrecondition, "ARTIFACT_CORRUPT"),
            Self::NoSpace { .. } => (Code::ResourceExhausted, "ARTIFACTS_NO_SPACE"),
            Self::Permission { .. } => (Code::FailedPrecondition, "ARTIFACTS_NO_PERMISSION"),
            Self::Unusable { .. } => (Code::FailedPrecondition, "ARTIFACTS_UNUSABLE"),
            Self::Unavailable { .. } => (Code::Unavailable, "ARTIFACTS_UNREACHABLE"),
        };
        UserError::new(code, reason, self.to_string())
    }

    pub(crate) fn of_store(key: &str, error: &object_store::Error) -> Self {
        let key = key.to_owned();
        let answer = Answer::of(error);
        if answer.is_of_space() {
            return Self::NoSpace { key };
        }
        if answer.is_of_clock() {
            let by = answer.clock_ahead.map_or_else(String::new, |by| format!(" by {}", spell(by)));
            let reason = format!(
                "the clocks of this machine and of the store differ{by}; correct the clock of \
                 this machine"
            );
            return Self::Permission { key, reason };
        }
        match error {
            // The artifact may exist, once the bucket does.
            object_store::Error::NotFound { .. } if answer.is_of_bucket() => {
                return Self::Unavailable { key, reason: answer.sentence };
            }
            object_store::Error::NotFound { .. } => return Self::Missing { key },
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => {
                return Self::Permission { key, reason: answer.sentence };
            }
            _ => {}
        }
        match io_kind(error) {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                Self::NoSpace { key }
            }
            Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                Self::Permission { key, reason: answer.sentence }
            }
            _ => Self::Unavailable { key, reason: answer.sentence },
        }
    }

    pub(crate) fn of_io(key: &str, error: &io::Error) -> Self {
        let key = key.to_owned();
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing { key },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { key },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Permission { key, reason: error.to_string() }
            }
            _ => Self::Unavailable { key, reason: error.to_string() },
        }
    }
}
