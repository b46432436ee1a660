//! Logs the sums over results of images. Postgres logs them together with the jobs' progress.

use std::collections::BTreeMap;

use darkroom_queue::task::PoolId;

use super::{Error, Tx, rows::to_json};
use crate::store::spent::Spent;

/// Logs the sums over results of images, and adds their device time to their jobs.
pub(super) async fn log_images(
    tx: &mut Tx,
    pool: &PoolId,
    spent: &BTreeMap<i64, Spent>,
) -> Result<(), Error> {
    if spent.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = spent
        .iter()
        .map(|(job, spent)| (job, spent.done, spent.failed, spent.batches, spent.device_us))
        .collect();
    let rows = to_json(&rows)?;
    sqlx::query(
        "INSERT INTO work_log (at_ms, stage, pool, tenant, done, failed, batches, device_us)
         SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER), ?2, ?3, j.tenant, sum(s.value ->> 1),
                sum(s.value ->> 2), sum(s.value ->> 3), sum(s.value ->> 4)
         FROM json_each(?1) AS s JOIN jobs AS j ON j.seq = s.value ->> 0
         GROUP BY j.tenant",
    )
    .bind(&rows)
    .bind(pool.stage.as_str())
    .bind(pool.digest.to_string())
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "UPDATE jobs SET device_us = device_us + (s.value ->> 4)
         FROM json_each(?1) AS s WHERE jobs.seq = s.value ->> 0",
    )
    .bind(rows)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
