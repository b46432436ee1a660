//! What the coordinators of a farm agree on, in its record: how long a lease lasts, and who is to drain.

use std::time::Duration;

use darkroom_core::id::WorkerId;

use super::{
    Error, PostgresStore,
    rows::{column, number},
};
use crate::store::WISH;

impl PostgresStore {
    pub(super) async fn farm_lease(&self) -> Result<Option<Duration>, Error> {
        let lease: Option<i64> =
            sqlx::query_scalar("SELECT lease_ms FROM farm WHERE one").fetch_one(&self.pool).await?;
        lease.map(|lease| Ok(Duration::from_millis(number(lease)?))).transpose()
    }

    pub(super) async fn agree_on_lease(
        &self,
        from: Option<Duration>,
        to: Duration,
    ) -> Result<Duration, Error> {
        let milliseconds = |lease: Duration| column(lease.as_millis());
        sqlx::query(
            "UPDATE farm SET lease_ms = $2
             WHERE one AND lease_ms IS NOT DISTINCT FROM $1
               AND ($1::bigint IS NULL OR NOT EXISTS (SELECT FROM leadership WHERE until > clock_timestamp()))",
        )
        .bind(from.map(milliseconds))
        .bind(milliseconds(to))
        .execute(&self.pool)
        .await?;
        self.farm_lease().await?.ok_or_else(|| Error::Corrupt("the farm has no lease".to_owned()))
    }

    pub(super) async fn wish_to_drain(&self, worker: &WorkerId) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO worker_drains (worker) VALUES ($1)
             ON CONFLICT (worker) DO UPDATE SET at = excluded.at",
        )
        .bind(&worker.0)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    pub(super) async fn wished_to_drain(&self) -> Result<Vec<WorkerId>, Error> {
        let workers: Vec<String> = sqlx::query_scalar("SELECT worker FROM worker_drains ORDER BY worker")
            .fetch_all(&self.pool)
            .await?;
        Ok(workers.into_iter().map(WorkerId).collect())
    }

    pub(super) async fn forget_old_drains(&self) -> Result<(), Error> {
        sqlx::query("DELETE FROM worker_drains WHERE at < statement_timestamp() - $1 * interval '1 second'")
            .bind(WISH.as_secs_f64())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
