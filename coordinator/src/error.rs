//! Errors of a coordinator, as its callers see them.

use darkroom_core::error::{Code, UserError};

use crate::store;

/// Why the coordinator or one of its parts failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The record.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The queue.
    #[error(transparent)]
    Queue(#[from] darkroom_queue::Error),
    /// Object storage.
    #[error(transparent)]
    Artifacts(#[from] darkroom_artifacts::Error),
    /// A manifest.
    #[error(transparent)]
    Manifest(#[from] darkroom_artifacts::manifest::Error),
    /// A temporary file.
    #[error("a temporary file failed: {0}")]
    File(#[from] std::io::Error),
    /// The change may or may not have been made; the sentence says how to find out.
    #[error(transparent)]
    Unsure(UserError),
    /// An internal error.
    #[error("{0}")]
    Other(String),
}

impl Error {
    pub(crate) fn other(error: impl std::fmt::Display) -> Self {
        Self::Other(error.to_string())
    }

    /// Whether a retry may succeed.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.retryable(),
            Self::Queue(error) => error.retryable(),
            Self::Artifacts(error) => error.retryable(),
            Self::Manifest(_) | Self::File(_) => true,
            Self::Unsure(_) | Self::Other(_) => false,
        }
    }

    /// Logs an internal error. The user only gets a reference to the log.
    pub fn log(&self) {
        if self.to_user().code == Code::Internal {
            tracing::error!(error = self as &dyn std::error::Error, "the coordinator failed");
        }
    }

    /// The error as a user should see it.
    #[must_use]
    pub fn to_user(&self) -> UserError {
        match self {
            Self::Store(error) => error.to_user(),
            Self::Unsure(error) => error.clone(),
            Self::Artifacts(error) => error.to_user(),
            error if error.retryable() => {
                UserError::new(Code::Unavailable, "UNAVAILABLE", error.to_string())
            }
            error => UserError::new(Code::Internal, "INTERNAL", error.to_string()),
        }
    }
}
