//! What the coordinators of a farm agree on, in its record: how long a lease lasts, and who is to drain.

use std::time::Duration;

use darkroom_core::id::WorkerId;

use super::{
    Error, SqliteStore,
    rows::{column, number},
};
use crate::store::WISH;

impl SqliteStore {
    pub(super) async fn farm_lease(&self) -> Result<Option<Duration>, Error> {
        let lease: Option<i64> =
            sqlx::query_scalar("SELECT lease_ms FROM farm").fetch_one(&self.readers).await?;
        lease.map(|lease| Ok(Duration::from_millis(number(lease)?))).transpose()
    }

    pub(super) async fn agree_on_lease(
        &self,
        from: Option<Duration>,
        to: Duration,
    ) -> Result<Duration, Error> {
        let milliseconds = |lease: Duration| column(lease.as_millis());
        sqlx::query("UPDATE farm SET lease_ms = ?2 WHERE lease_ms IS ?1")
            .bind(from.map(milliseconds))
            .bind(milliseconds(to))
            .execute(&self.writer)
            .await?;
        self.farm_lease().await?.ok_or_else(|| Error::Corrupt("the farm has no lease".to_owned()))
    }

    pub(super) async fn wish_to_drain(&self, worker: &WorkerId) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO worker_drains (worker, at_ms)
             VALUES (?1, CAST(unixepoch('subsec') * 1000 AS INTEGER))
             ON CONFLICT (worker) DO UPDATE SET at_ms = excluded.at_ms",
        )
        .bind(&worker.0)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    pub(super) async fn wished_to_drain(&self) -> Result<Vec<WorkerId>, Error> {
        let workers: Vec<String> = sqlx::query_scalar("SELECT worker FROM worker_drains ORDER BY worker")
            .fetch_all(&self.readers)
            .await?;
        Ok(workers.into_iter().map(WorkerId).collect())
    }

    pub(super) async fn forget_old_drains(&self) -> Result<(), Error> {
        sqlx::query(
            "DELETE FROM worker_drains WHERE at_ms < CAST(unixepoch('subsec') * 1000 AS INTEGER) - ?1",
        )
        .bind(column(WISH.as_millis()))
        .execute(&self.writer)
        .await?;
        Ok(())
    }
}
