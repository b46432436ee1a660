//! What SQLite's result codes mean to a caller.

use sqlx::error::ErrorKind;

use super::Error;

const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const READONLY: u32 = 8;
const CORRUPT: u32 = 11;
const FULL: u32 = 13;
const CANTOPEN: u32 = 14;
const NOTADB: u32 = 26;

/// An error of the database, as a caller sees it.
pub(in crate::store) fn of(error: sqlx::Error) -> Error {
    let said = error.as_database_error();
    let fits = said.is_none_or(|said| said.kind() == ErrorKind::Other);
    let code = said.and_then(|said| said.code()?.parse::<u32>().ok());
    // Extended codes keep the primary one in the low byte.
    match code.map(|code| code & 0xff) {
        Some(FULL) => Error::Full,
        // The last one: the process cannot open more files.
        Some(BUSY | LOCKED | CANTOPEN) => Error::Unavailable(error),
        Some(READONLY) => Error::Unusable(
            "the job store cannot be written: its file or file system is read-only now; make it writable and start the farm \
             again"
                .to_owned(),
        ),
        Some(CORRUPT | NOTADB) => Error::Unusable(format!(
            "the job store is damaged ({error}); stop the farm and restore the file from a backup, or move it away to begin \
             anew"
        )),
        _ if fits => Error::Database(error),
        _ => Error::Unfit(error),
    }
}
