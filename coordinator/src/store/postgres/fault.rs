//! What Postgres's SQLSTATEs mean to a caller.

use sqlx::error::ErrorKind;

use super::Error;

/// An error that the server told, as a caller sees it.
pub(in crate::store) fn of(error: sqlx::Error) -> Error {
    let fits = error.as_database_error().is_none_or(|said| said.kind() == ErrorKind::Other);
    let state = state(&error).unwrap_or_default();
    match state.as_str() {
        // disk_full
        "53100" => Error::Full,
        // Another transaction won; the caller's may be run again.
        SERIALIZATION_FAILURE | DEADLOCK_DETECTED => Error::Unavailable(error),
        // read_only_sql_transaction: a standby, or a failover on its way.
        "25006" => Error::Unavailable(error),
        // idle_in_transaction_session_timeout, lock_not_available, query_canceled
        // (statement_timeout)
        "25P03" | "55P03" | "57014" => Error::Unavailable(error),
        // data_corrupted, index_corrupted
        "XX001" | "XX002" => Error::Unusable(format!(
            "the database of the job store is damaged ({error}); stop the farm and restore it from a backup"
        )),
        // undefined_table, undefined_column, undefined_object
        "42P01" | "42703" | "42704" => Error::Unusable(format!(
            "the database of the job store is not as this Darkroom made it ({error}); restore it from a backup"
        )),
        // 08: connection exceptions; 53: out of memory, connections; 57P: shutdown, crash, not yet
        // started; 58: the server's own input or output
        state if ["08", "53", "57P", "58"].iter().any(|class| state.starts_with(class)) => {
            Error::Unavailable(error)
        }
        // 22: data exceptions
        state if !fits || state.starts_with("22") => Error::Unfit(error),
        _ => Error::Database(error),
    }
}

const SERIALIZATION_FAILURE: &str = "40001";
const DEADLOCK_DETECTED: &str = "40P01";
const UNIQUE_VIOLATION: &str = "23505";

/// Whether the transaction lost against another one and may simply be run again.
pub(super) fn conflict(error: &Error) -> bool {
    let Error::Unavailable(error) = error else { return false };
    state(error)
        .is_some_and(|state| [SERIALIZATION_FAILURE, DEADLOCK_DETECTED].contains(&state.as_str()))
}

/// Whether a COMMIT that failed so was refused for certain. Of any other the server may have sent
/// its answer in vain.
pub(super) fn is_refused_commit(error: &sqlx::Error) -> bool {
    // Data, constraints, conflicts, room.
    state(error)
        .is_some_and(|state| ["22", "23", "40", "53"].iter().any(|class| state.starts_with(class)))
}

/// Whether a row with that key is there by now.
pub(super) fn duplicate(error: &sqlx::Error) -> bool {
    state(error).is_some_and(|state| state == UNIQUE_VIOLATION)
}

/// The SQLSTATE, if the server said something.
pub(super) fn state(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}
