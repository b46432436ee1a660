//! What tenants use, as far as it is a matter of this backend: how many coordinators share it.

use super::{Error, PostgresStore, rows::number};

impl PostgresStore {
    /// Records that this coordinator runs, and counts those that have said so lately.
    pub(super) async fn count_coordinators(&self, holder: &str) -> Result<u64, Error> {
        // A lost row is written again in a moment, so its commit need not wait for the disk.
        let mut tx = self.begin_write().await?;
        sqlx::query("SET LOCAL synchronous_commit = off").execute(&mut *tx).await?;
        sqlx::query("DELETE FROM coordinators WHERE seen < clock_timestamp() - interval '1 hour'")
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "INSERT INTO coordinators (holder, seen) VALUES ($1, clock_timestamp())
             ON CONFLICT (holder) DO UPDATE SET seen = excluded.seen",
        )
        .bind(holder)
        .execute(&mut *tx)
        .await?;
        let live: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM coordinators WHERE seen > clock_timestamp() - interval '5 seconds'",
        )
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        number(live.max(1))
    }
}
