//! Errors of the record, as its callers see them.

use std::time::Duration;

use darkroom_core::error::{Code, UserError};

/// How long a client waits before it repeats a request that was refused because a disk is full.
pub(crate) const FULL_AGAIN: Duration = Duration::from_secs(10);

/// An error of a store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such job or image.
    #[error("{0}")]
    NotFound(String),
    /// The job was deleted.
    #[error("job {job} was deleted at {at}")]
    Deleted {
        /// The job.
        job: darkroom_core::id::JobId,
        /// When, in the form of RFC 3339.
        at: String,
    },
    /// The job is in a state that does not allow this, or its request id is taken.
    #[error(transparent)]
    Refused(#[from] UserError),
    /// Another coordinator leads now; nothing was changed.
    #[error("term {0} of leadership has ended")]
    NotLeading(u64),
    /// The disk is full; nothing was changed.
    #[error(
        "the disk that holds the job store is full, nothing was changed; free some space and try again"
    )]
    Full,
    /// The record cannot be read: damaged, or made by a newer Darkroom.
    #[error("{0}")]
    Unusable(String),
    /// The record cannot be opened, and why.
    #[error(transparent)]
    NotOpened(UserError),
    /// The answer to a commit was lost, and its result could not be found out in time.
    #[error("the connection to the job store broke during a commit; the change may have been made")]
    Unknown(#[source] sqlx::Error),
    /// Locked, overloaded or unreachable; nothing was changed.
    #[error("the job store cannot be reached now")]
    Unavailable(#[source] sqlx::Error),
    /// Values that do not fit or break a constraint, so a retry always fails.
    #[error("the job store failed")]
    Unfit(#[source] sqlx::Error),
    /// An internal error.
    #[error("the job store failed")]
    Database(#[source] sqlx::Error),
    /// A row that our code never writes.
    #[error("a row of the job store cannot be read: {0}")]
    Corrupt(String),
}

impl Error {
    /// There is no such job.
    #[must_use]
    pub fn no_job(job: darkroom_core::id::JobId) -> Self {
        Self::NotFound(format!("there is no job {job}"))
    }

    /// A streaming submit that was given up.
    pub(super) fn swept(job: darkroom_core::id::JobId) -> Self {
        Self::NotFound(format!(
            "the submit of job {job} was given up because nothing came for too long; submit it again"
        ))
    }

    /// Whether a retry may succeed.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Unknown(_) | Self::Full => true,
            Self::NotOpened(error) => error.code.retryable(),
            _ => false,
        }
    }

    /// Whether the given values are at fault, because they do not fit or break a constraint, so
    /// that a retry always fails. Any other problem, such as a changed password or a locked table,
    /// can be fixed.
    #[must_use]
    pub fn is_about_the_data(&self) -> bool {
        matches!(
            self,
            Self::Corrupt(_)
                | Self::Refused(_)
                | Self::NotFound(_)
                | Self::Deleted { .. }
                | Self::Unfit(_)
        )
    }

    /// The error as a user should see it.
    #[must_use]
    pub fn to_user(&self) -> UserError {
        match self {
            Self::Refused(error) | Self::NotOpened(error) => error.clone(),
            Self::Unknown(_) => {
                UserError::new(Code::Unavailable, OUTCOME_UNKNOWN, self.to_string())
            }
            Self::NotFound(message) => UserError::new(Code::NotFound, "NOT_FOUND", message.clone()),
            Self::Deleted { .. } => UserError::new(Code::NotFound, "DELETED", self.to_string()),
            Self::Full => UserError {
                retry_after: Some(FULL_AGAIN),
                ..UserError::new(Code::ResourceExhausted, "DISK_FULL", self.to_string())
            },
            Self::Unusable(message) => {
                UserError::new(Code::FailedPrecondition, "STORE_UNUSABLE", message.clone())
            }
            Self::Unavailable(_) => UserError::new(
                Code::Unavailable,
                "STORE_UNAVAILABLE",
                "the job store is busy or unreachable; try again in a moment",
            ),
            Self::NotLeading(_) => {
                UserError::new(Code::Unavailable, "NOT_LEADING", self.to_string())
            }
            Self::Unfit(_) | Self::Database(_) | Self::Corrupt(_) => UserError::new(
                Code::Internal,
                "STORE_FAILED",
                "the job store failed; see the coordinator's log",
            ),
        }
    }
}

/// Reason of errors after which the change may or may not have been made.
pub(crate) const OUTCOME_UNKNOWN: &str = "OUTCOME_UNKNOWN";

/// The refusal of a request id that was used with other content.
pub(crate) fn request_id_taken(client_request_id: &str, job: &str) -> UserError {
    let message = format!(
        "spec.client_request_id {client_request_id:?} was used for job {job} with other content; accepted: the \
         same content, or a new id"
    );
    UserError {
        field: Some("spec.client_request_id".to_owned()),
        ..UserError::new(Code::AlreadyExists, "REQUEST_ID_TAKEN", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fault_of_the_data_is_one_of_the_data() {
        let refused = UserError::new(Code::FailedPrecondition, "X", "no");
        for error in [Error::Corrupt(String::new()), Error::Refused(refused)] {
            assert!(error.is_about_the_data(), "{error}");
        }
        let decode = sqlx::Error::Decode("not a number".into());
        assert!(Error::Unfit(decode).is_about_the_data());
        // After a changed password or with a locked table, results wait.
        let closed = || sqlx::Error::PoolClosed;
        for error in [
            Error::Unusable(String::new()),
            Error::Unavailable(closed()),
            Error::Database(closed()),
            Error::Full,
        ] {
            assert!(!error.is_about_the_data(), "{error}");
        }
    }
}
