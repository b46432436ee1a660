//! What can go wrong with the record, as its callers see it.

use darkroom_core::error::{Code, UserError};

/// An error of a store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such job or image.
    #[error("{0}")]
    NotFound(String),
    /// The job is in a state that does not allow this, or its request id is taken.
    #[error(transparent)]
    Refused(#[from] UserError),
    /// Another coordinator leads by now; nothing was changed.
    #[error("term {0} of leadership is over")]
    NotLeading(u64),
    /// The disk is full; nothing was changed.
    #[error("the disk that holds the job store is full, nothing was changed; free some space and try again")]
    Full,
    /// The record cannot be read: damaged, or made by a newer Darkroom.
    #[error("{0}")]
    Unusable(String),
    /// The record cannot be opened, and why.
    #[error(transparent)]
    NotOpened(UserError),
    /// The answer to a commit was lost, and the server could not be asked in time what became of it.
    #[error(
        "the connection to the job store broke while a change was being committed; it may have been made"
    )]
    Unknown(#[source] sqlx::Error),
    /// Locked, overloaded or unreachable; nothing was changed.
    #[error("the job store cannot be reached now")]
    Unavailable(#[source] sqlx::Error),
    /// A fault of ours.
    #[error("the job store failed")]
    Database(#[source] sqlx::Error),
    /// A row that no code of ours writes.
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

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Unknown(_) | Self::Full => true,
            Self::NotOpened(error) => error.code.retryable(),
            _ => false,
        }
    }

    /// Whether what was given is at fault, so that the same will fail for ever: values that do not fit or break a
    /// constraint. Anything else, a changed password or a table locked away, somebody can mend.
    #[must_use]
    pub fn is_about_the_data(&self) -> bool {
        use sqlx::{Error as E, error::ErrorKind};
        match self {
            Self::Corrupt(_) | Self::Refused(_) | Self::NotFound(_) => true,
            Self::Database(E::Database(error)) => {
                // Class 22 of SQLSTATE: data exceptions.
                error.kind() != ErrorKind::Other || error.code().is_some_and(|code| code.starts_with("22"))
            }
            Self::Database(E::Encode(_) | E::Decode(_) | E::ColumnDecode { .. }) => true,
            _ => false,
        }
    }

    /// The error as a user should see it.
    #[must_use]
    pub fn to_user(&self) -> UserError {
        match self {
            Self::Refused(error) | Self::NotOpened(error) => error.clone(),
            Self::Unknown(_) => UserError::new(Code::Unavailable, OUTCOME_UNKNOWN, self.to_string()),
            Self::NotFound(message) => UserError::new(Code::NotFound, "NOT_FOUND", message.clone()),
            Self::Full => UserError::new(Code::ResourceExhausted, "DISK_FULL", self.to_string()),
            Self::Unusable(message) => {
                UserError::new(Code::FailedPrecondition, "STORE_UNUSABLE", message.clone())
            }
            Self::Unavailable(_) => UserError::new(
                Code::Unavailable,
                "STORE_UNAVAILABLE",
                "the job store is busy or unreachable; try again in a moment",
            ),
            Self::NotLeading(_) => UserError::new(Code::Unavailable, "NOT_LEADING", self.to_string()),
            Self::Database(_) | Self::Corrupt(_) => UserError::new(
                Code::Internal,
                "STORE_FAILED",
                "the job store failed; the coordinator's log says how",
            ),
        }
    }
}

/// Reason of errors after which the change may have been made, or not.
pub(crate) const OUTCOME_UNKNOWN: &str = "OUTCOME_UNKNOWN";

/// The refusal of a request id that another content has.
pub(crate) fn request_id_taken(client_request_id: &str, job: &str) -> UserError {
    UserError {
        code: Code::AlreadyExists,
        reason: "REQUEST_ID_TAKEN".to_owned(),
        field: Some("spec.client_request_id".to_owned()),
        message: format!(
            "spec.client_request_id {client_request_id:?} was used for job {job} with other content; accepted: the \
             same content, or a new id"
        ),
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_)) {
            return Self::Unavailable(error);
        }
        let database = error.as_database_error();
        if database.is_none_or(|error| error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some())
        {
            return super::postgres::fault::of(error);
        }
        let code = database.and_then(|error| error.code()?.parse::<u32>().ok());
        // SQLite's extended codes keep the primary one in the low byte.
        match code.map(|code| code & 0xff) {
            Some(SQLITE_FULL) => Self::Full,
            // The last: the process has no file to open left.
            Some(SQLITE_BUSY | SQLITE_LOCKED | SQLITE_CANTOPEN) => Self::Unavailable(error),
            Some(SQLITE_READONLY) => Self::Unusable(
                "the job store cannot be written: its file or file system is read-only now; make it writable and start \
                 the farm again"
                    .to_owned(),
            ),
            Some(SQLITE_CORRUPT | SQLITE_NOTADB) => Self::Unusable(format!(
                "the job store is damaged ({error}); stop the farm and restore the file from a backup, or move it away to begin anew"
            )),
            _ => Self::Database(error),
        }
    }
}

const SQLITE_BUSY: u32 = 5;
const SQLITE_LOCKED: u32 = 6;
const SQLITE_READONLY: u32 = 8;
const SQLITE_CORRUPT: u32 = 11;
const SQLITE_FULL: u32 = 13;
const SQLITE_CANTOPEN: u32 = 14;
const SQLITE_NOTADB: u32 = 26;

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
        assert!(Error::Database(decode).is_about_the_data());
        // A password that was changed, a table that is locked away: the results wait.
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
