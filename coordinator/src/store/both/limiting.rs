//! Ends jobs whose deadline passed, or of which more images failed than they allow. Reads the
//! limits of jobs and the database's time.

use async_trait::async_trait;
use darkroom_core::id::JobId;

use super::{
    super::progress::LockedJobs,
    Error, Record, Tx, retried,
    rows::{list, text_column},
};
use crate::store::{
    limits::{EndCode, Ending, LimitedRow, Limits},
    records::Term,
    roles::Limiting,
};

#[async_trait]
impl Limiting for Record {
    async fn end_overdue(&self, term: Term, limit: u32) -> Result<Vec<JobId>, Error> {
        retried(|| async {
            let overdue = self.overdue(limit).await?;
            if overdue.is_empty() {
                return Ok(Vec::new());
            }
            let mut tx = self.begin_write().await?;
            self.check_term(&mut tx, term).await?;
            let mut jobs = LockedJobs::lock(&mut tx, overdue.iter().copied()).await?;
            let mut ended = Vec::new();
            for row in read_rows(&mut tx, &overdue).await? {
                let Some(job) = jobs.get_mut(row.seq) else { continue };
                let Some(ending) = row.ending(job.tally())? else { continue };
                if end(&mut tx, &row, &ending).await? {
                    job.raise();
                    ended.push(job.id());
                }
            }
            jobs.save(&mut tx).await?;
            tx.commit().await?;
            Ok(ended)
        })
        .await
    }
}

impl Record {
    /// The `seq` of jobs that seem to be over a limit. They are checked again under their lock.
    async fn overdue(&self, limit: u32) -> Result<Vec<i64>, Error> {
        // Each half uses an index. Postgres needs the statement's time for that: it does not use an
        // index for a comparison with clock_timestamp().
        Ok(sqlx::query_scalar(sql!(
            sqlite:
                "SELECT * FROM (SELECT seq FROM jobs
                                WHERE deadline_ms IS NOT NULL AND state IN ('active', 'paused')
                                  AND deadline_ms <= CAST(unixepoch('subsec') * 1000 AS INTEGER)
                                ORDER BY deadline_ms LIMIT $1)
                 UNION
                 SELECT * FROM (SELECT seq FROM jobs
                                WHERE max_failed IS NOT NULL AND state IN ('active', 'paused') AND follow IS NULL
                                  AND NOT EXISTS (SELECT 1 FROM image_commands AS c WHERE c.job = jobs.seq)
                                  AND dead > max_failed
                                ORDER BY seq LIMIT $1)",
            postgres:
                "(SELECT seq FROM jobs
                  WHERE deadline IS NOT NULL AND state IN ('active', 'paused')
                    AND deadline <= statement_timestamp()
                  ORDER BY deadline LIMIT $1)
                 UNION
                 (SELECT j.seq FROM jobs AS j
                  CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                                      ORDER BY newest.version DESC LIMIT 1) AS p
                  WHERE j.max_failed IS NOT NULL AND j.state IN ('active', 'paused') AND j.follow IS NULL
                    AND NOT EXISTS (SELECT 1 FROM image_commands AS c WHERE c.job = j.seq)
                    AND p.dead > j.max_failed
                  ORDER BY j.seq LIMIT $1)",
        ))
        .bind(i64::from(limit))
        .fetch_all(self.reads())
        .await?)
    }
}

/// Ends a job, if it is still as it was read.
async fn end(tx: &mut Tx, row: &LimitedRow, ending: &Ending) -> Result<bool, Error> {
    let last = match ending.cause {
        EndCode::Failures => last_failure(tx, row.seq).await?,
        EndCode::Deadline => None,
    };
    let done = sqlx::query(sql!(
        sqlite:
            "UPDATE jobs
             SET state = $3, follow = 'cancel', version = version + 1, end_code = $4, end_reason = $5,
                 finished_ms = CAST(unixepoch('subsec') * 1000 AS INTEGER)
             WHERE seq = $1 AND state = $2",
        postgres:
            "UPDATE jobs
             SET state = $3, follow = 'cancel', finished_at = clock_timestamp(), end_code = $4, end_reason = $5
             WHERE seq = $1 AND state = $2",
    ))
    .bind(row.seq)
    .bind(&row.state)
    .bind(ending.next.name())
    .bind(ending.cause.name())
    .bind(text_column(&ending.reason(last)))
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Jobs with their limits, in order of `seq`.
async fn read_rows(tx: &mut Tx, seqs: &[i64]) -> Result<Vec<LimitedRow>, Error> {
    Ok(sqlx::query_as(sql!(
        sqlite:
            "SELECT seq, state,
                    coalesce(follow, (SELECT command FROM image_commands AS c WHERE c.job = jobs.seq LIMIT 1)) AS follow,
                    deadline_ms, max_workers, max_failed,
                    CAST(unixepoch('subsec') * 1000 AS INTEGER) AS now_ms
             FROM jobs WHERE seq IN (SELECT value FROM json_each($1)) ORDER BY seq",
        postgres:
            "SELECT seq, state,
                    coalesce(follow, (SELECT c.command FROM image_commands AS c WHERE c.job = jobs.seq LIMIT 1)) AS follow,
                    (extract(epoch FROM deadline) * 1000)::bigint AS deadline_ms,
                    max_workers::bigint AS max_workers,
                    max_failed, (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms
             FROM jobs WHERE seq = ANY ($1) ORDER BY seq",
    ))
    .bind(list(seqs)?)
    .fetch_all(&mut **tx)
    .await?)
}

/// Code and message of the latest failure in a job.
async fn last_failure(tx: &mut Tx, seq: i64) -> Result<Option<(String, String)>, Error> {
    Ok(sqlx::query_as(sql!(
        sqlite:
            "SELECT error_code, error FROM images
             WHERE job = $1 AND state = 'dead' AND error_code IS NOT NULL AND error IS NOT NULL
             ORDER BY version DESC LIMIT 1",
        postgres:
            "SELECT i.error_code, i.error
             FROM image_blocks AS b
             CROSS JOIN LATERAL (
                 SELECT i.error_code, i.error, i.version FROM images AS i
                 WHERE i.job = b.job AND i.idx >= b.block * 256 AND i.idx < (b.block + 1) * 256
                   AND i.state = 'dead' AND i.error_code IS NOT NULL AND i.error IS NOT NULL
                 ORDER BY i.version DESC LIMIT 1) AS i
             WHERE b.job = $1 AND b.dead > 0
             ORDER BY i.version DESC LIMIT 1",
    ))
    .bind(seq)
    .fetch_optional(&mut **tx)
    .await?)
}

/// A job's limits, and the present time.
pub(in super::super) async fn read(tx: &mut Tx, seq: i64) -> Result<(Limits, i64), Error> {
    let rows = read_rows(tx, &[seq]).await?;
    let row = rows
        .first()
        .ok_or_else(|| Error::Corrupt("a job is gone within a transaction".to_owned()))?;
    Ok((row.limits()?, row.now_ms))
}
