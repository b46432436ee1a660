//! A SQLite file as the record: its one writer and its readers.

use std::future::Future;

use darkroom_core::id::JobId;
use sqlx::{Sqlite, SqlitePool};
use uuid::Uuid;

use crate::store::{Error, records::JobRecord};

/// A transaction.
pub(super) type Tx = sqlx::Transaction<'static, Sqlite>;

/// The record of a farm in a SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    pub(super) writer: SqlitePool,
    pub(super) readers: SqlitePool,
    pub(super) farm: Uuid,
}

impl SqliteStore {
    /// Connections for single statements that read.
    pub(super) fn reads(&self) -> &SqlitePool {
        &self.readers
    }

    /// The connection for single statements that write.
    pub(super) fn writes(&self) -> &SqlitePool {
        &self.writer
    }

    /// Begins a transaction that holds the write lock from the start, so that what it reads stays
    /// true.
    pub(super) async fn begin_write(&self) -> Result<Tx, Error> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Begins a transaction that begins or ceases to name stored objects.
    pub(super) async fn begin_referring(&self) -> Result<Tx, Error> {
        self.begin_write().await
    }

    /// Begins a transaction that looks up who names stored objects. There is one writer, so nobody
    /// changes that meanwhile.
    pub(super) async fn begin_marking(&self) -> Result<Option<Tx>, Error> {
        Ok(Some(self.begin_write().await?))
    }

    /// Begins a transaction for a chunk of a job that is still received.
    pub(super) async fn begin_received(&self) -> Result<Tx, Error> {
        self.begin_write().await
    }

    /// Commits a change of one job. The answer cannot get lost as it can with a server, so `_made`
    /// is not needed.
    pub(super) async fn commit_job(
        &self,
        tx: Tx,
        _job: JobId,
        _made: impl Fn(&JobRecord) -> bool,
    ) -> Result<(), Error> {
        Ok(tx.commit().await?)
    }

    /// Commits a command that may be given again if its answer is lost.
    pub(super) async fn commit_repeatable(&self, tx: Tx) -> Result<(), Error> {
        Ok(tx.commit().await?)
    }

    /// Begins a transaction that reads the record as of one moment.
    pub(super) async fn begin_read(&self) -> Result<Tx, Error> {
        Ok(self.readers.begin().await?)
    }

    /// Versions are columns of the images, so there are no stale changes.
    pub(super) async fn prune_next(&self) -> Result<bool, Error> {
        Ok(false)
    }

    /// The errors of a file say why it cannot be used.
    pub(super) async fn why_unreachable(&self) -> Option<String> {
        None
    }

    pub(super) async fn close_all(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// A connection for several statements that read.
    pub(super) async fn reader(&self) -> Result<Tx, Error> {
        self.begin_read().await
    }
}

/// Runs a transaction once. There is one writer, so it cannot conflict with another.
pub(super) async fn retried<T, F: Future<Output = Result<T, Error>>>(
    transaction: impl Fn() -> F,
) -> Result<T, Error> {
    transaction().await
}
