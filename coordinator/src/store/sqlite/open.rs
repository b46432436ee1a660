//! Opening the database file: pragmas, an integrity check, migrations, and one clear sentence when
//! it cannot be used.

use std::{io, os::unix::fs::OpenOptionsExt as _, path::Path, time::Duration};

use sqlx::{
    SqlitePool,
    migrate::MigrateError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use uuid::Uuid;

use super::{Error, SqliteStore};
use crate::store::migrations::SQLITE;
use darkroom_core::shown::shown_path;

/// Number of reading connections; there is one writer.
const READERS: u32 = 4;
/// SQLite's default page, and the most pages it knows.
const PAGE_BYTES: u64 = 4096;
const MOST_PAGES: u64 = 4_294_967_294;
const BUSY: Duration = Duration::from_secs(10);
const ACQUIRE: Duration = Duration::from_secs(30);

impl SqliteStore {
    /// Opens the record in `path`, and creates it if it does not exist.
    ///
    /// # Errors
    /// [`Error::Unusable`] in one sentence that names the file: damaged, made by a newer Darkroom,
    /// not to be opened.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        Self::open_within(path, u64::MAX).await
    }

    /// As [`open`](Self::open), for a file that may grow to `max_bytes`; beyond, writing fails as
    /// on a full disk.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_within(path: &Path, max_bytes: u64) -> Result<Self, Error> {
        let max_pages = (max_bytes / PAGE_BYTES).min(MOST_PAGES);
        // WAL with FULL: a committed transaction is on disk before the submit it belongs to is
        // acknowledged.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY)
            .pragma("cache_size", "-32768")
            .pragma("max_page_count", max_pages.to_string())
            .statement_cache_capacity(200);
        // Created here, because SQLite would let others read it, and it contains prompts. SQLite's
        // other files get the same permissions. If it cannot be created, SQLite's error says why.
        let _ = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        let pool = |connections: u32| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE)
                .idle_timeout(None)
        };
        let writer = pool(1)
            .connect_with(options.clone())
            .await
            .map_err(|error| cannot_open(path, &error))?;
        check(path, &writer).await?;
        check_mode(path, &writer).await?;
        migrate(path, &writer).await?;
        let farm = farm_id(path, &writer).await?;
        let readers = pool(READERS).connect_with(options.pragma("query_only", "on")).await;
        let readers = readers.map_err(|error| cannot_open(path, &error))?;
        Ok(Self { writer, readers, farm })
    }
}

async fn check(path: &Path, writer: &SqlitePool) -> Result<(), Error> {
    let found: Result<String, sqlx::Error> =
        sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(writer).await;
    match found {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(verdict) => Err(damaged(path, &verdict)),
        Err(error) => Err(cannot_open(path, &error)),
    }
}

/// If files cannot be mapped as shared memory, SQLite silently stays in another mode.
async fn check_mode(path: &Path, writer: &SqlitePool) -> Result<(), Error> {
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(writer).await?;
    if mode == "wal" { Ok(()) } else { Err(lacking(path, &format!("its journal mode is {mode}"))) }
}

async fn migrate(path: &Path, writer: &SqlitePool) -> Result<(), Error> {
    let newest = SQLITE.iter().map(|migration| migration.version).max().unwrap_or(0);
    SQLITE.run(writer).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => Error::Unusable(format!(
            "{} was made by a newer Darkroom (schema {version}, this one knows {newest}); run that version, or \
             choose another state folder",
            shown_path(path)
        )),
        MigrateError::VersionMismatch(version) => Error::Unusable(format!(
            "{} was made by another build of Darkroom (schema {version} differs); run that build, or choose \
             another state folder",
            shown_path(path)
        )),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => cannot_open(path, &error),
        other => {
            Error::Unusable(format!("{} cannot be brought up to schema {newest}: {other}", shown_path(path)))
        }
    })
}

async fn farm_id(path: &Path, writer: &SqlitePool) -> Result<Uuid, Error> {
    sqlx::query(
        "INSERT INTO farm (one, id, created_ms)
         VALUES (1, ?1, CAST(unixepoch('subsec') * 1000 AS INTEGER))
         ON CONFLICT (one) DO NOTHING",
    )
    .bind(Uuid::new_v4().to_string())
    .execute(writer)
    .await
    .map_err(|error| cannot_open(path, &error))?;
    let id: Result<String, sqlx::Error> =
        sqlx::query_scalar("SELECT id FROM farm").fetch_one(writer).await;
    let id = id.map_err(|error| cannot_open(path, &error))?;
    Uuid::try_parse(&id).map_err(|_| Error::Corrupt(format!("farm id {id:?}")))
}

fn cannot_open(path: &Path, error: &sqlx::Error) -> Error {
    let code = error.as_database_error().and_then(|error| error.code());
    let code = code.as_deref().and_then(|code| code.parse::<u32>().ok());
    if code.is_some_and(|code| OF_THE_MOUNT.contains(&code)) {
        return lacking(path, &error.to_string());
    }
    match code.map(|code| code & 0xff) {
        Some(11 | 26) => damaged(path, &error.to_string()),
        Some(13) => Error::Full,
        Some(5 | 6) => Error::Unusable(format!(
            "{} is locked by another process; stop the other farm, or choose another state folder",
            shown_path(path)
        )),
        // SQLite needs a second file beside a read-only one. Its error only says that it cannot
        // create that file.
        code @ Some(8 | 14) if code == Some(8) || is_read_only(path) => Error::Unusable(format!(
            "{} is read-only for this user, or lies on a read-only file system; let this user write the file and its \
             folder, or choose another state folder",
            shown_path(path)
        )),
        Some(14) => Error::Unusable(format!(
            "{} cannot be opened or made; its folder must be there, and this user must be allowed to write in it",
            shown_path(path)
        )),
        Some(10) => Error::Unusable(format!(
            "the disk or file system of {} fails ({error}); look at it, or choose another state folder",
            shown_path(path)
        )),
        _ => Error::Unusable(format!("{} cannot be opened: {error}", shown_path(path))),
    }
}

/// Whether the file exists but is read-only.
fn is_read_only(path: &Path) -> bool {
    let opened = std::fs::OpenOptions::new().append(true).open(path);
    opened.is_err_and(|error| {
        matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
    })
}

/// SQLite's codes where a lock or a piece of shared memory cannot be had: `IOERR_LOCK`, `_RDLOCK`,
/// `_UNLOCK`, `_CHECKRESERVEDLOCK`, `_SHMOPEN`, `_SHMSIZE`, `_SHMLOCK`, `_SHMMAP`, and `PROTOCOL`.
const OF_THE_MOUNT: [u32; 9] = [3850, 2314, 2058, 3594, 4618, 4874, 5130, 5386, 15];

fn lacking(path: &Path, how: &str) -> Error {
    Error::Unusable(format!(
        "{} cannot be used where it is: its file system lacks the locks or the shared memory that SQLite needs ({how}); \
         choose a state folder on a local disk",
        shown_path(path)
    ))
}

fn damaged(path: &Path, how: &str) -> Error {
    Error::Unusable(format!(
        "{} is damaged or not a Darkroom database ({how}); restore it from a backup, or move it away to begin anew",
        shown_path(path)
    ))
}
