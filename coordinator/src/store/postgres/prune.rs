//! Deletes outdated entries of the change log of ended jobs.
//!
//! An entry is current while its image still has that version. So the entry of each image's last
//! change stays. Listings by version and resumed watches find the same as before, only faster.

use darkroom_core::guard::{self, Guard};

use super::{Error, Tx, progress::LockedJobs};

/// Runs that one statement reads.
const RUNS: i64 = 200;

/// Prunes a part of one ended job. Returns whether there is more to do.
pub(super) async fn prune_next(mut tx: Tx) -> Result<bool, Error> {
    let found: Option<i64> = sqlx::query_scalar(
        "SELECT seq FROM jobs WHERE manifest = 'written' AND prune_from IS NOT NULL ORDER BY seq LIMIT 1",
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(job) = found else { return Ok(false) };
    LockedJobs::lock(&mut tx, [job]).await?;
    // Under the lock: the job may have been retried, or another coordinator may have been here.
    let from: Option<i64> = sqlx::query_scalar(
        "SELECT prune_from FROM jobs WHERE seq = $1 AND manifest = 'written' AND prune_from IS NOT NULL",
    )
    .bind(job)
    .fetch_optional(&mut *tx)
    .await?;
    let Some(from) = from else { return Ok(true) };
    let (count, last): (i64, Option<i64>) = sqlx::query_as(
        "SELECT count(*), max(version)
         FROM (SELECT version FROM image_changes WHERE job = $1 AND version > $2
               ORDER BY version, first LIMIT $3) AS c",
    )
    .bind(job)
    .bind(from)
    .bind(RUNS)
    .fetch_one(&mut *tx)
    .await?;
    if let Some(last) = last {
        prune(&mut tx, job, (from, last)).await?;
    }
    sqlx::query("UPDATE jobs SET prune_from = $2 WHERE seq = $1")
        .bind(job)
        .bind(last.filter(|_| count == RUNS))
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(true)
}

/// Deletes outdated entries from the runs of these versions (after the first, up to the second).
async fn prune(tx: &mut Tx, job: i64, (after, last): (i64, i64)) -> Result<(), Error> {
    sqlx::query(guard::text(
        Guard::PruneStale,
        "WITH looked AS (
             SELECT c.version, c.first, cardinality(c.images) AS had,
                    ARRAY (SELECT changed.idx FROM unnest(c.images) AS changed (idx)
                           CROSS JOIN LATERAL (SELECT * FROM images AS i
                                               WHERE i.job = $1 AND i.idx = changed.idx OFFSET 0) AS i
                           WHERE i.version = c.version ORDER BY changed.idx) AS current
             FROM image_changes AS c
             WHERE c.job = $1 AND c.version > $2 AND c.version <= $3),
         gone AS (
             DELETE FROM image_changes AS c USING looked AS l
             WHERE l.current = '{}' AND c.job = $1 AND c.version = l.version AND c.first = l.first)
         UPDATE image_changes AS c SET images = l.current
         FROM looked AS l
         WHERE l.current <> '{}' AND cardinality(l.current) < l.had
           AND c.job = $1 AND c.version = l.version AND c.first = l.first",
        "l.current = '{}' AND",
        "",
    ))
    .bind(job)
    .bind(after)
    .bind(last)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
