//! A user's wishes for a job, image rows that follow them in chunks, and the job's end.

use darkroom_core::{
    digest::Digest,
    id::JobId,
    image_state::{ImageEvent, transition},
    job_state::{JobEvent, JobState, transition as job_transition},
};

use super::{
    Error, SqliteStore, Tx,
    dispatch::list,
    moves::{apply, finish},
    query::read_job,
    rows::{ProgressRow, column, job_id, number, parse, to_json},
};
use crate::store::{
    change::{LastError, Move},
    limits::{NewDeadline, after_retry},
    records::{Committed, JobRecord},
};

#[derive(sqlx::FromRow)]
struct FollowRow {
    seq: i64,
    id: String,
    follow: String,
    stages: i64,
}

#[derive(sqlx::FromRow)]
struct FollowingImage {
    #[sqlx(flatten)]
    image: ProgressRow,
    encoded: bool,
}

impl SqliteStore {
    pub(super) async fn cancel_job(&self, job: JobId) -> Result<JobRecord, Error> {
        let mut tx = self.begin_write().await?;
        let (seq, state) = find(&mut tx, job).await?;
        if job_transition(state, JobEvent::Cancel)? != state {
            sqlx::query(
                "UPDATE jobs
                 SET state = 'cancelled', follow = 'cancel', version = version + 1,
                     finished_ms = CAST(unixepoch('subsec') * 1000 AS INTEGER)
                 WHERE seq = ?1 AND state = ?2",
            )
            .bind(seq)
            .bind(state.name())
            .execute(&mut *tx)
            .await?;
        }
        let record = read_job(&mut tx, job).await?;
        tx.commit().await?;
        Ok(record)
    }

    pub(super) async fn hold_job(&self, job: JobId, event: JobEvent) -> Result<JobRecord, Error> {
        let mut tx = self.begin_write().await?;
        let (seq, state) = find(&mut tx, job).await?;
        let next = job_transition(state, event)?;
        if next != state {
            sqlx::query("UPDATE jobs SET state = ?3, version = version + 1 WHERE seq = ?1 AND state = ?2")
                .bind(seq)
                .bind(state.name())
                .bind(next.name())
                .execute(&mut *tx)
                .await?;
        }
        let record = read_job(&mut tx, job).await?;
        tx.commit().await?;
        Ok(record)
    }

    pub(super) async fn retry_job(&self, job: JobId, deadline: NewDeadline) -> Result<JobRecord, Error> {
        let mut tx = self.begin_write().await?;
        let (seq, state) = find(&mut tx, job).await?;
        let next = job_transition(state, JobEvent::Retry)?;
        let (limits, now_ms) = super::limits::read(&mut tx, seq).await?;
        let deadline = after_retry(job, limits, deadline, now_ms)?;
        // A retry during a cancel simply turns the rows' following round.
        sqlx::query(
            "UPDATE jobs
             SET state = ?3, follow = 'retry', version = version + 1, generation = generation + 1,
                 finished_ms = NULL, end_code = NULL, end_reason = NULL, deadline_ms = ?4, manifest = NULL, manifest_key = NULL, manifest_sha256 = NULL
             WHERE seq = ?1 AND state = ?2",
        )
        .bind(seq)
        .bind(state.name())
        .bind(next.name())
        .bind(deadline)
        .execute(&mut *tx)
        .await?;
        revive_texts(&mut tx, seq).await?;
        let record = read_job(&mut tx, job).await?;
        tx.commit().await?;
        Ok(record)
    }

    pub(super) async fn follow_jobs(&self, limit: u64) -> Result<Committed, Error> {
        let mut tx = self.begin_write().await?;
        let found: Option<FollowRow> = sqlx::query_as(
            "SELECT seq, id, follow,
                    (SELECT count(*) FROM job_stages WHERE job = seq AND stage >= 0) AS stages
             FROM jobs WHERE follow IS NOT NULL ORDER BY seq LIMIT 1",
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(job) = found else { return Ok(Committed::default()) };
        let cancel = job.follow == "cancel";
        let images = images_to_follow(&mut tx, job.seq, cancel, limit).await?;
        let mut moves = Vec::with_capacity(images.len());
        for row in &images {
            let from = row.image.progress()?;
            let event = if cancel { ImageEvent::Cancel } else { ImageEvent::Retry { encoded: row.encoded } };
            let Ok(to) = transition(&from, &event, number(job.stages)?) else { continue };
            let error = if cancel { LastError::Keep } else { LastError::Clear };
            moves.push(Move { job: row.image.job, idx: row.image.idx, from, to, error });
        }
        let moved = apply(&mut tx, &moves).await?;
        let mut finished = Vec::new();
        if column(images.len()) < column(limit) {
            finished = followed(&mut tx, &job, cancel).await?;
        }
        tx.commit().await?;
        Ok(Committed {
            changed: moved.applied.len() as u64,
            jobs: vec![job_id(&job.id)?],
            finished,
            more: true,
            ..Committed::default()
        })
    }

    pub(super) async fn unwritten_manifests(&self, limit: u32) -> Result<Vec<(JobId, u32)>, Error> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            // Of each tenant the oldest, then the second, so that nobody's flood of ended jobs holds up another's.
            "WITH RECURSIVE tenants AS (
                 SELECT * FROM (SELECT tenant FROM jobs WHERE manifest = 'pending' ORDER BY tenant LIMIT 1)
                 UNION ALL
                 SELECT (SELECT j.tenant FROM jobs AS j WHERE j.manifest = 'pending' AND j.tenant > t.tenant
                         ORDER BY j.tenant LIMIT 1)
                 FROM tenants AS t WHERE t.tenant IS NOT NULL)
             SELECT j.id, j.generation
             FROM tenants AS t
             JOIN jobs AS j ON j.tenant = t.tenant AND j.manifest = 'pending'
                AND j.seq IN (SELECT seq FROM jobs WHERE manifest = 'pending' AND tenant = t.tenant ORDER BY seq LIMIT ?1)
             ORDER BY row_number() OVER (PARTITION BY j.tenant ORDER BY j.seq), j.seq LIMIT ?1",
        )
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(|(id, generation)| Ok((job_id(&id)?, number(generation)?))).collect()
    }

    pub(super) async fn manifest_is_written(
        &self,
        job: JobId,
        generation: u32,
        key: &str,
        sha256: Digest,
    ) -> Result<bool, Error> {
        let done = sqlx::query(
            "UPDATE jobs
             SET manifest = 'written', manifest_key = ?3, manifest_sha256 = ?4, version = version + 1
             WHERE id = ?1 AND generation = ?2 AND manifest = 'pending'",
        )
        .bind(job.to_string())
        .bind(generation)
        .bind(key)
        .bind(sha256.to_string())
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    pub(super) async fn finish_overlooked_jobs(&self) -> Result<Vec<JobId>, Error> {
        let overlooked: Vec<i64> = sqlx::query_scalar(
            "SELECT seq FROM jobs
             WHERE state IN ('active', 'paused') AND follow IS NULL
               AND images > 0 AND done + dead + cancelled = images",
        )
        .fetch_all(&self.readers)
        .await?;
        if overlooked.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.begin_write().await?;
        let seqs = list(&overlooked)?;
        super::moves::raise_versions(&mut tx, &seqs).await?;
        let finished = finish(&mut tx, &seqs).await?;
        sqlx::query("UPDATE farm SET jobs_overlooked = jobs_overlooked + ?1")
            .bind(column(finished.len() as u64))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(finished)
    }

    pub(super) async fn jobs_overlooked(&self) -> Result<u64, Error> {
        let found: i64 =
            sqlx::query_scalar("SELECT jobs_overlooked FROM farm").fetch_one(&self.readers).await?;
        number(found)
    }
}

async fn find(tx: &mut Tx, job: JobId) -> Result<(i64, JobState), Error> {
    let found: Option<(i64, String)> =
        sqlx::query_as("SELECT seq, state FROM jobs WHERE id = ?1 AND state <> 'receiving'")
            .bind(job.to_string())
            .fetch_optional(&mut **tx)
            .await?;
    let (seq, state) = found.ok_or_else(|| Error::no_job(job))?;
    Ok((seq, parse(&state)?))
}

/// Texts that were given up are wanted again, by every job that waits for them.
async fn revive_texts(tx: &mut Tx, job: i64) -> Result<(), Error> {
    sqlx::query("UPDATE prompts SET encoded = 0 WHERE job = ?1 AND encoded = 2")
        .bind(job)
        .execute(&mut **tx)
        .await?;
    let revived: Vec<i64> = sqlx::query_scalar(
        "UPDATE embeddings SET state = 'wanted', spread = 1, failures = 0, hosts = '[]', suspect = 0
         WHERE state = 'dead' AND id IN (SELECT embedding FROM job_texts WHERE job = ?1 AND encoded = 2)
         RETURNING id",
    )
    .bind(job)
    .fetch_all(&mut **tx)
    .await?;
    sqlx::query(
        "UPDATE job_texts SET encoded = 0
         WHERE encoded = 2 AND embedding IN (SELECT value FROM json_each(?1))",
    )
    .bind(list(&revived)?)
    .execute(&mut **tx)
    .await?;
    // What another job's retry or submit had encoded meanwhile.
    sqlx::query(
        "UPDATE embeddings SET spread = 0
         WHERE state = 'done' AND id IN
               (SELECT text_embedding FROM prompts WHERE job = ?1 AND encoded = 0
                UNION
                SELECT negative_embedding FROM prompts WHERE job = ?1 AND encoded = 0
                UNION
                SELECT style_embedding FROM prompts WHERE job = ?1 AND encoded = 0)",
    )
    .bind(job)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn images_to_follow(
    tx: &mut Tx,
    job: i64,
    cancel: bool,
    limit: u64,
) -> Result<Vec<FollowingImage>, Error> {
    let states: &[&str] = if cancel { &["waiting", "ready", "dispatched"] } else { &["dead", "cancelled"] };
    Ok(sqlx::query_as(
        "SELECT i.job, i.idx, i.prompt, i.state, i.stage, i.generation, i.dispatch, i.failures, i.hosts, i.suspect,
                p.encoded = 1 AS encoded
         FROM images AS i JOIN prompts AS p ON p.job = i.job AND p.position = i.prompt
         WHERE i.job = ?1 AND i.state IN (SELECT value FROM json_each(?2))
         LIMIT ?3",
    )
    .bind(job)
    .bind(to_json(states)?)
    .bind(column(limit))
    .fetch_all(&mut **tx)
    .await?)
}

/// All rows have followed: a cancelled job's manifest may be written, a retried job may end again.
async fn followed(tx: &mut Tx, job: &FollowRow, cancel: bool) -> Result<Vec<JobId>, Error> {
    sqlx::query(
        "UPDATE jobs
         SET follow = NULL, version = version + 1,
             manifest = CASE follow WHEN 'cancel' THEN 'pending' ELSE manifest END
         WHERE seq = ?1 AND follow = ?2",
    )
    .bind(job.seq)
    .bind(&job.follow)
    .execute(&mut **tx)
    .await?;
    if cancel { Ok(vec![job_id(&job.id)?]) } else { finish(tx, &list(&[job.seq])?).await }
}
