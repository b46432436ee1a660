//! Ending the jobs that may not go on: their deadline passed, or more of their images failed than they allow.

use darkroom_core::{
    id::JobId,
    job_state::{JobEvent, JobState, transition},
};

use super::{
    Error, PostgresStore, Tx,
    progress::{LockedJob, LockedJobs},
    rows::{number, parse, text_column},
};
use crate::store::{
    limits::{EndCode, Limits, Overdue},
    records::Term,
};

#[derive(sqlx::FromRow)]
struct LimitedRow {
    seq: i64,
    state: String,
    follow: Option<String>,
    deadline_ms: Option<i64>,
    max_workers: Option<i32>,
    max_failed: Option<i64>,
    now_ms: i64,
}

impl LimitedRow {
    fn limits(&self) -> Result<Limits, Error> {
        Ok(Limits {
            deadline_ms: self.deadline_ms,
            max_workers: self.max_workers.map(number).transpose()?,
            max_failed: self.max_failed.map(number).transpose()?,
        })
    }
}

impl PostgresStore {
    pub(super) async fn end_overdue_jobs(&self, term: Term, limit: u32) -> Result<Vec<JobId>, Error> {
        // Each by its index. The statement's time, since the present moment would not be looked up in one.
        let overdue: Vec<i64> = sqlx::query_scalar(
            "(SELECT seq FROM jobs
              WHERE deadline IS NOT NULL AND state IN ('active', 'paused') AND deadline <= statement_timestamp()
              ORDER BY deadline LIMIT $1)
             UNION
             (SELECT j.seq FROM jobs AS j
              CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                                  ORDER BY newest.version DESC LIMIT 1) AS p
              WHERE j.max_failed IS NOT NULL AND j.state IN ('active', 'paused') AND j.follow IS NULL
                AND p.dead > j.max_failed
              ORDER BY j.seq LIMIT $1)",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        if overdue.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.begin_write().await?;
        self.check_term(&mut tx, term).await?;
        let mut jobs = LockedJobs::lock(&mut tx, overdue.iter().copied()).await?;
        let mut ended = Vec::new();
        for row in read_rows(&mut tx, &overdue).await? {
            let Some(job) = jobs.get_mut(row.seq) else { continue };
            if end(&mut tx, job, &row).await? {
                ended.push(job.id());
            }
        }
        jobs.save(&mut tx).await?;
        tx.commit().await?;
        Ok(ended)
    }
}

/// Ends a locked job, if it still must.
async fn end(tx: &mut Tx, job: &mut LockedJob, row: &LimitedRow) -> Result<bool, Error> {
    let (done, dead, images) = job.tally();
    let overdue = Overdue {
        limits: row.limits()?,
        now_ms: row.now_ms,
        done: number(done)?,
        dead: number(dead)?,
        images: number(images)?,
        following: row.follow.is_some(),
    };
    let Some(cause) = overdue.cause() else { return Ok(false) };
    let (event, last) = match cause {
        EndCode::Deadline => (JobEvent::Expire, None),
        EndCode::Failures => (JobEvent::GiveUp, last_failure(tx, row.seq).await?),
    };
    let Ok(next) = transition(parse::<JobState>(&row.state)?, event) else { return Ok(false) };
    let done = sqlx::query(
        "UPDATE jobs
         SET state = $3, follow = 'cancel', finished_at = clock_timestamp(), end_code = $4, end_reason = $5
         WHERE seq = $1 AND state = $2",
    )
    .bind(row.seq)
    .bind(&row.state)
    .bind(next.name())
    .bind(cause.name())
    .bind(text_column(&overdue.reason(cause, last)))
    .execute(&mut **tx)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    job.raise();
    Ok(true)
}

async fn read_rows(tx: &mut Tx, seqs: &[i64]) -> Result<Vec<LimitedRow>, Error> {
    Ok(sqlx::query_as(
        "SELECT seq, state, follow, (extract(epoch FROM deadline) * 1000)::bigint AS deadline_ms, max_workers,
                max_failed, (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms
         FROM jobs WHERE seq = ANY ($1) ORDER BY seq",
    )
    .bind(seqs)
    .fetch_all(&mut **tx)
    .await?)
}

/// What a job's latest dead image failed of.
async fn last_failure(tx: &mut Tx, seq: i64) -> Result<Option<(String, String)>, Error> {
    Ok(sqlx::query_as(
        "SELECT i.error_code, i.error
         FROM image_blocks AS b
         CROSS JOIN LATERAL (
             SELECT i.error_code, i.error, i.version FROM images AS i
             WHERE i.job = b.job AND i.idx >= b.block * 256 AND i.idx < (b.block + 1) * 256
               AND i.state = 'dead' AND i.error_code IS NOT NULL AND i.error IS NOT NULL
             ORDER BY i.version DESC LIMIT 1) AS i
         WHERE b.job = $1 AND b.dead > 0
         ORDER BY i.version DESC LIMIT 1",
    )
    .bind(seq)
    .fetch_optional(&mut **tx)
    .await?)
}

/// What a job is allowed, and the time.
pub(super) async fn read(tx: &mut Tx, seq: i64) -> Result<(Limits, i64), Error> {
    let rows = read_rows(tx, &[seq]).await?;
    let row = rows.first().ok_or_else(|| Error::Corrupt("a locked job is gone".to_owned()))?;
    Ok((row.limits()?, row.now_ms))
}

/// The time, milliseconds since 1970.
pub(super) async fn now_ms(tx: &mut Tx) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
        .fetch_one(&mut **tx)
        .await?)
}
