//! Noting how far jobs have come.

use darkroom_core::forecast::PACE_SECONDS;

use super::{Error, SqliteStore, both::limiting::now_ms};

/// Two notes of each active job, the older one between one and two periods old.
pub(super) async fn note_paces(store: &SqliteStore, limit: i64) -> Result<(), Error> {
    let due: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM jobs AS j LEFT JOIN job_paces AS r ON r.job = j.seq
                        WHERE j.state = 'active'
                          AND (r.job IS NULL OR r.latest_ms < CAST((unixepoch('subsec') - ?1) * 1000 AS INTEGER)))
             OR EXISTS (SELECT 1 FROM job_paces AS r JOIN jobs AS j ON j.seq = r.job
                        WHERE j.state NOT IN ('active', 'paused'))",
    )
    .bind(PACE_SECONDS)
    .fetch_one(&store.readers)
    .await?;
    if !due {
        return Ok(());
    }
    let mut tx = store.begin_write().await?;
    let now = now_ms(&mut tx).await?;
    sqlx::query(
        "INSERT INTO job_paces (job, before_ms, before, latest_ms, latest)
         SELECT p.job, ?1, p.passed, ?1, p.passed
         FROM (SELECT j.seq AS job,
                      (SELECT json_group_array(s.passed)
                       FROM (SELECT passed FROM job_stages WHERE job = j.seq ORDER BY stage) AS s) AS passed
               FROM jobs AS j LEFT JOIN job_paces AS r ON r.job = j.seq
               WHERE j.state = 'active'
                 AND (r.job IS NULL OR r.latest_ms < ?1 - CAST(?3 * 1000 AS INTEGER))
               ORDER BY j.seq LIMIT ?2) AS p
         WHERE TRUE
         ON CONFLICT (job) DO UPDATE
         SET before_ms = latest_ms, before = latest, latest_ms = excluded.latest_ms, latest = excluded.latest",
    )
    .bind(now)
    .bind(limit)
    .bind(PACE_SECONDS)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "DELETE FROM job_paces
         WHERE job NOT IN (SELECT seq FROM jobs WHERE state IN ('active', 'paused'))",
    )
    .execute(&mut *tx)
    .await?;
    Ok(tx.commit().await?)
}
