//! Ending the jobs that may not go on: their deadline passed, or more of their images failed than they allow.

use darkroom_core::{
    id::JobId,
    job_state::{JobEvent, JobState, transition},
};

use super::{
    Error, SqliteStore, Tx,
    dispatch::{check_term, list},
    rows::{job_id, number, parse},
};
use crate::store::{
    limits::{EndCode, Limits, Overdue},
    records::Term,
};

#[derive(sqlx::FromRow)]
struct LimitedRow {
    seq: i64,
    id: String,
    state: String,
    follow: Option<String>,
    done: i64,
    dead: i64,
    images: i64,
    deadline_ms: Option<i64>,
    max_workers: Option<u32>,
    max_failed: Option<i64>,
    now_ms: i64,
}

impl LimitedRow {
    fn limits(&self) -> Result<Limits, Error> {
        Ok(Limits {
            deadline_ms: self.deadline_ms,
            max_workers: self.max_workers,
            max_failed: self.max_failed.map(number).transpose()?,
        })
    }
}

impl SqliteStore {
    pub(super) async fn end_overdue_jobs(&self, term: Term, limit: u32) -> Result<Vec<JobId>, Error> {
        check_term(term)?;
        let overdue: Vec<i64> = sqlx::query_scalar(
            "SELECT * FROM (SELECT seq FROM jobs
                            WHERE deadline_ms IS NOT NULL AND state IN ('active', 'paused')
                              AND deadline_ms <= CAST(unixepoch('subsec') * 1000 AS INTEGER)
                            ORDER BY deadline_ms LIMIT ?1)
             UNION
             SELECT * FROM (SELECT seq FROM jobs
                            WHERE max_failed IS NOT NULL AND state IN ('active', 'paused') AND follow IS NULL
                              AND dead > max_failed
                            ORDER BY seq LIMIT ?1)",
        )
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        if overdue.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.begin_write().await?;
        let mut ended = Vec::new();
        for row in read_rows(&mut tx, &overdue).await? {
            if end(&mut tx, &row).await? {
                ended.push(job_id(&row.id)?);
            }
        }
        tx.commit().await?;
        Ok(ended)
    }
}

/// Ends a job, if it still must.
async fn end(tx: &mut Tx, row: &LimitedRow) -> Result<bool, Error> {
    let overdue = Overdue {
        limits: row.limits()?,
        now_ms: row.now_ms,
        done: number(row.done)?,
        dead: number(row.dead)?,
        images: number(row.images)?,
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
         SET state = ?3, follow = 'cancel', version = version + 1, end_code = ?4, end_reason = ?5,
             finished_ms = CAST(unixepoch('subsec') * 1000 AS INTEGER)
         WHERE seq = ?1 AND state = ?2",
    )
    .bind(row.seq)
    .bind(&row.state)
    .bind(next.name())
    .bind(cause.name())
    .bind(overdue.reason(cause, last))
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

async fn read_rows(tx: &mut Tx, seqs: &[i64]) -> Result<Vec<LimitedRow>, Error> {
    Ok(sqlx::query_as(
        "SELECT seq, id, state, follow, done, dead, images, deadline_ms, max_workers, max_failed,
                CAST(unixepoch('subsec') * 1000 AS INTEGER) AS now_ms
         FROM jobs WHERE seq IN (SELECT value FROM json_each(?1)) ORDER BY seq",
    )
    .bind(list(seqs)?)
    .fetch_all(&mut **tx)
    .await?)
}

/// What a job's latest dead image failed of.
async fn last_failure(tx: &mut Tx, seq: i64) -> Result<Option<(String, String)>, Error> {
    Ok(sqlx::query_as(
        "SELECT error_code, error FROM images
         WHERE job = ?1 AND state = 'dead' AND error_code IS NOT NULL AND error IS NOT NULL
         ORDER BY version DESC LIMIT 1",
    )
    .bind(seq)
    .fetch_optional(&mut **tx)
    .await?)
}

/// What a job is allowed, and the time.
pub(super) async fn read(tx: &mut Tx, seq: i64) -> Result<(Limits, i64), Error> {
    let rows = read_rows(tx, &[seq]).await?;
    let row = rows.first().ok_or_else(|| Error::Corrupt("a job is gone within a transaction".to_owned()))?;
    Ok((row.limits()?, row.now_ms))
}

/// The time, milliseconds since 1970.
pub(super) async fn now_ms(tx: &mut Tx) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)").fetch_one(&mut **tx).await?)
}
