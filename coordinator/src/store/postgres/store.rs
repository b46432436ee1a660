//! A Postgres database as the record: connections to it, and what this process remembers of it.

use std::{sync::Arc, time::Duration};

use darkroom_core::{
    digest::Digest,
    guard::{Guard, stands},
    id::JobId,
};
use sqlx::{PgPool, Postgres, pool::PoolConnection, postgres::PgListener};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{
    Error, fault, hints::FoundFrom, leadership::Leadership, plans::KnownPlans, prune,
    servers::Servers, transaction::Tx,
};

/// Takes the lock of transactions that begin or cease to name stored objects. The function
/// `leaving_among` takes it too.
const REFERRING: &str = "SELECT pg_advisory_xact_lock_shared(2026112901)";
/// Takes it alone.
const MARKING: &str = "SELECT pg_advisory_xact_lock(2026112901)";

/// The record of a farm in a Postgres database.
#[derive(Debug)]
pub struct PostgresStore {
    pub(super) pool: PgPool,
    pub(super) servers: Arc<Servers>,
    pub(super) farm: Uuid,
    pub(super) identity: String,
    pub(super) settle: Duration,
    /// This process, as writer of manifests.
    pub(super) process: Uuid,
    pub(super) leadership: Leadership,
    pub(super) listener: Mutex<Option<PgListener>>,
    pub(super) spread_from: FoundFrom<()>,
    pub(super) dispatched_from: FoundFrom<Digest>,
    pub(super) viewed_from: FoundFrom<JobId>,
    pub(super) plans: KnownPlans,
}

impl PostgresStore {
    /// Connections for single statements that read.
    pub(super) fn reads(&self) -> &PgPool {
        &self.pool
    }

    /// Connections for single statements that write.
    pub(super) fn writes(&self) -> &PgPool {
        &self.pool
    }

    /// A connection for several statements that read, each of them what was committed before it.
    pub(super) async fn reader(&self) -> Result<PoolConnection<Postgres>, Error> {
        Ok(self.pool.acquire().await?)
    }

    /// Writers do not wait for each other, so the statement itself finds what is due.
    pub(super) async fn paces_due(&self) -> Result<bool, Error> {
        Ok(true)
    }

    /// Deletes some stale changes of an ended job.
    pub(super) async fn prune_next(&self) -> Result<bool, Error> {
        prune::prune_next(self.begin_write().await?).await
    }

    pub(super) async fn why_unreachable(&self) -> Option<String> {
        Some(self.servers.diagnose().await?.message)
    }

    pub(super) async fn close_all(&self) {
        if let Ok(mut listener) = self.listener.try_lock() {
            listener.take();
        }
        self.servers.leave(&self.pool);
        self.pool.close().await;
    }

    /// Begins a transaction in which every statement sees what was committed before it.
    pub(super) async fn begin_write(&self) -> Result<Tx, Error> {
        Ok(self.pool.begin().await?)
    }

    /// Begins a transaction that begins or ceases to name stored objects. Many run at once, but
    /// none beside one that looks up who names an object.
    pub(super) async fn begin_referring(&self) -> Result<Tx, Error> {
        let mut tx = self.begin_write().await?;
        if stands(Guard::MarkAlone) {
            sqlx::query(REFERRING).execute(&mut *tx).await?;
        }
        Ok(tx)
    }

    /// Begins a transaction that looks up who names stored objects. It excludes everyone who might
    /// begin to name one. `None`: a transaction of those takes long. It is not waited for, because
    /// later commits would wait too.
    pub(super) async fn begin_marking(&self) -> Result<Option<Tx>, Error> {
        let mut tx = self.begin_write().await?;
        let waits: String = sqlx::query_scalar("SELECT current_setting('lock_timeout')")
            .fetch_one(&mut *tx)
            .await?;
        sqlx::query("SET LOCAL lock_timeout = '250ms'").execute(&mut *tx).await?;
        match sqlx::query(MARKING).execute(&mut *tx).await {
            Err(error) if fault::state(&error).as_deref() == Some("55P03") => return Ok(None),
            locked => locked?,
        };
        // What was set for the session is valid again.
        sqlx::query("SELECT set_config('lock_timeout', $1, TRUE)")
            .bind(waits)
            .execute(&mut *tx)
            .await?;
        Ok(Some(tx))
    }

    /// Begins a transaction for a chunk of a job that is still received. Nothing of the job counts
    /// before it is accepted, and that commit waits for the disk for all before it.
    pub(super) async fn begin_received(&self) -> Result<Tx, Error> {
        let mut tx = self.begin_referring().await?;
        sqlx::query("SET LOCAL synchronous_commit = off").execute(&mut *tx).await?;
        Ok(tx)
    }

    /// Begins a transaction that reads the record as of one moment.
    pub(super) async fn begin_read(&self) -> Result<Tx, Error> {
        Ok(self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.servers.leave(&self.pool);
    }
}
