//! A user's wishes for a job, image rows that follow them in chunks, and the job's end.

use std::collections::BTreeMap;

use darkroom_core::{
    digest::Digest,
    guard::{self, Guard, stands},
    id::JobId,
    image_state::{ImageEvent, transition},
    job_state::{JobEvent, JobState, transition as job_transition},
};
use uuid::Uuid;

use super::{
    Error, PostgresStore, Tx,
    moves::{apply, finish, save_and_finish},
    progress::{LockedJob, LockedJobs},
    query::read_job,
    rows::{ProgressRow, column, column32, number, parse},
    texts,
};
use crate::store::{
    change::{LastError, Move},
    limits::{NewDeadline, after_retry},
    records::{Committed, JobRecord},
};

/// How long a process may take to write a manifest before another one begins with it.
const MANIFEST_CLAIM_SECONDS: f64 = 60.0;

#[derive(sqlx::FromRow)]
struct FollowRow {
    seq: i64,
    id: Uuid,
    follow: String,
    generation: i32,
}

#[derive(sqlx::FromRow)]
struct FollowingImage {
    idx: i64,
    text_embedding: i64,
    negative_embedding: Option<i64>,
    style_embedding: Option<i64>,
    encoded: bool,
}

impl FollowingImage {
    /// The texts that it needs.
    fn texts(&self) -> impl Iterator<Item = i64> {
        [Some(self.text_embedding), self.negative_embedding, self.style_embedding].into_iter().flatten()
    }
}

impl PostgresStore {
    pub(super) async fn cancel_job(&self, job: JobId) -> Result<JobRecord, Error> {
        let mut tx = self.begin_write().await?;
        let (mut jobs, seq, state) = lock(&mut tx, job).await?;
        if job_transition(state, JobEvent::Cancel)? != state {
            sqlx::query(guard::text(
                Guard::JobExpected,
                "UPDATE jobs SET state = 'cancelled', follow = 'cancel', finished_at = clock_timestamp()
                 WHERE seq = $1 AND state = $2",
                "state = $2",
                "$2 <> ''",
            ))
            .bind(seq)
            .bind(state.name())
            .execute(&mut *tx)
            .await?;
            raise(&mut tx, &mut jobs).await?;
        }
        self.commit_wish(tx, job, |now, wished| now.state == wished.state).await
    }

    pub(super) async fn hold_job(&self, job: JobId, event: JobEvent) -> Result<JobRecord, Error> {
        let mut tx = self.begin_write().await?;
        let (mut jobs, seq, state) = lock(&mut tx, job).await?;
        let next = job_transition(state, event)?;
        if next != state {
            let hold = "UPDATE jobs SET state = $3 WHERE seq = $1 AND state = $2";
            sqlx::query(guard::text(Guard::JobExpected, hold, "state = $2", "$2 <> ''"))
                .bind(seq)
                .bind(state.name())
                .bind(next.name())
                .execute(&mut *tx)
                .await?;
            raise(&mut tx, &mut jobs).await?;
        }
        self.commit_wish(tx, job, |now, wished| now.state == wished.state).await
    }

    pub(super) async fn retry_job(&self, job: JobId, deadline: NewDeadline) -> Result<JobRecord, Error> {
        let mut tx = self.begin_write().await?;
        let (mut jobs, seq, state) = lock(&mut tx, job).await?;
        let next = job_transition(state, JobEvent::Retry)?;
        let (limits, now_ms) = super::limits::read(&mut tx, seq).await?;
        let deadline = after_retry(job, limits, deadline, now_ms)?;
        // A retry during a cancel simply turns the rows' following round.
        sqlx::query(guard::text(
            Guard::JobExpected,
            "UPDATE jobs
             SET state = $3, follow = 'retry', generation = generation + 1, finished_at = NULL,
                 end_code = NULL, end_reason = NULL, deadline = to_timestamp($4::float8 / 1000),
                 manifest = NULL, manifest_key = NULL, manifest_sha256 = NULL, manifest_writer = NULL, prune_from = 0
             WHERE seq = $1 AND state = $2",
            "state = $2",
            "$2 <> ''",
        ))
        .bind(seq)
        .bind(state.name())
        .bind(next.name())
        .bind(deadline)
        .execute(&mut *tx)
        .await?;
        raise(&mut tx, &mut jobs).await?;
        // Only a retry makes a generation.
        self.commit_wish(tx, job, |now, wished| now.generation >= wished.generation).await
    }

    /// The record is read before the commit: after it, nothing may fail.
    async fn commit_wish(
        &self,
        mut tx: Tx,
        job: JobId,
        made: impl Fn(&JobRecord, &JobRecord) -> bool,
    ) -> Result<JobRecord, Error> {
        let wished = read_job(&mut tx, job).await?;
        self.commit_job(tx, job, |now| made(now, &wished)).await?;
        Ok(wished)
    }

    pub(super) async fn follow_jobs(&self, limit: u64) -> Result<Committed, Error> {
        let mut tx = self.begin_write().await?;
        let found: Option<FollowRow> = sqlx::query_as(
            "SELECT seq, id, follow, generation FROM jobs WHERE follow IS NOT NULL ORDER BY seq LIMIT 1",
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(job) = found else { return Ok(Committed::default()) };
        let cancel = job.follow == "cancel";
        let chunk = chunk_to_follow(&mut tx, &job, limit).await?;
        // Texts before jobs; a cancel needs none.
        let unencoded = if cancel { BTreeMap::new() } else { lock_texts(&mut tx, &chunk).await? };
        let dead: Vec<i64> =
            unencoded.iter().filter(|(_, state)| *state == "dead").map(|(id, _)| *id).collect();
        let revived = texts::revive(&mut tx, &dead).await?;
        let waiting = texts::jobs_of(&mut tx, &revived).await?;
        let mut jobs =
            LockedJobs::lock(&mut tx, waiting.iter().map(|(job, _)| *job).chain([job.seq])).await?;
        texts::want_in_jobs(&mut jobs, &waiting);
        // The generation too: a job that was cancelled, retried and cancelled again has other rows to follow.
        let unchanged: bool = sqlx::query_scalar(
            "SELECT follow IS NOT DISTINCT FROM $2 AND generation = $3 FROM jobs WHERE seq = $1",
        )
        .bind(job.seq)
        .bind(&job.follow)
        .bind(job.generation)
        .fetch_one(&mut *tx)
        .await?;
        if !unchanged {
            // Another coordinator was faster, or the user turned round.
            return Ok(Committed { more: true, ..Committed::default() });
        }
        let moves = moves_of(&mut tx, &jobs, &job, &chunk, &unencoded).await?;
        let applied = apply(&mut tx, &mut jobs, &moves).await?;
        let mut finished = Vec::new();
        if column(chunk.len()) < column(limit) {
            finished = followed(&mut tx, &mut jobs, &job, cancel).await?;
        }
        jobs.save(&mut tx).await?;
        tx.commit().await?;
        let changed = applied.len() as u64;
        Ok(Committed { changed, jobs: vec![JobId(job.id)], finished, more: true, ..Committed::default() })
    }

    /// Jobs whose manifest this process may write now: nobody else has begun to in the last minute. Of each tenant the
    /// oldest, then the second, so that nobody's flood of ended jobs holds up another's.
    pub(super) async fn claim_manifests(&self, limit: u32) -> Result<Vec<(JobId, u32)>, Error> {
        let rows: Vec<(Uuid, i32)> = sqlx::query_as(guard::text(
            Guard::ManifestClaim,
            "WITH RECURSIVE tenants AS (
                 (SELECT tenant FROM jobs WHERE manifest = 'pending' ORDER BY tenant LIMIT 1)
                 UNION ALL
                 SELECT (SELECT j.tenant FROM jobs AS j WHERE j.manifest = 'pending' AND j.tenant > t.tenant
                         ORDER BY j.tenant LIMIT 1)
                 FROM tenants AS t WHERE t.tenant IS NOT NULL),
             chosen AS (
                 SELECT next.seq FROM tenants AS t
                 CROSS JOIN LATERAL (
                     SELECT j.seq, row_number() OVER (ORDER BY j.seq) AS place
                     FROM (SELECT seq FROM jobs
                           WHERE manifest = 'pending' AND tenant = t.tenant
                             AND (manifest_writer IS NULL OR manifest_writer = $2
                                  OR manifest_claim_until < clock_timestamp())
                           ORDER BY seq LIMIT $1) AS j) AS next
                 ORDER BY next.place, next.seq LIMIT $1),
             free AS (
                 SELECT j.seq FROM chosen JOIN jobs AS j ON j.seq = chosen.seq
                 WHERE j.manifest = 'pending'
                   AND (manifest_writer IS NULL OR manifest_writer = $2
                        OR manifest_claim_until < clock_timestamp())
                 FOR NO KEY UPDATE OF j SKIP LOCKED)
             UPDATE jobs AS j
             SET manifest_writer = $2, manifest_claim_until = clock_timestamp() + $3 * interval '1 second'
             FROM free WHERE j.seq = free.seq AND j.manifest = 'pending'
             RETURNING j.id, j.generation",
            "manifest_writer IS NULL OR",
            "TRUE OR",
        ))
        .bind(i64::from(limit))
        .bind(self.process)
        .bind(MANIFEST_CLAIM_SECONDS)
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(|(id, generation)| Ok((JobId(id), number(generation)?))).collect()
    }

    pub(super) async fn manifest_is_written(
        &self,
        job: JobId,
        generation: u32,
        key: &str,
        sha256: Digest,
    ) -> Result<bool, Error> {
        let mut tx = self.begin_write().await?;
        let (mut jobs, seq, _) = lock(&mut tx, job).await?;
        let done = sqlx::query(guard::text(
            Guard::ManifestGeneration,
            "UPDATE jobs SET manifest = 'written', manifest_key = $3, manifest_sha256 = $4
             WHERE seq = $1 AND generation = $2 AND manifest = 'pending'",
            "generation = $2",
            "$2 > 0",
        ))
        .bind(seq)
        .bind(column32(generation))
        .bind(key)
        .bind(sha256.0)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        raise(&mut tx, &mut jobs).await?;
        tx.commit().await?;
        Ok(true)
    }

    pub(super) async fn finish_overlooked_jobs(&self) -> Result<Vec<JobId>, Error> {
        let overlooked: Vec<i64> = sqlx::query_scalar(
            "SELECT j.seq FROM jobs AS j
             CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                                 ORDER BY newest.version DESC LIMIT 1) AS p
             WHERE (j.state IN ('active', 'paused') OR j.follow IS NOT NULL)
               AND j.state IN ('active', 'paused') AND j.follow IS NULL
               AND p.images > 0 AND p.done + p.dead + p.cancelled = p.images",
        )
        .fetch_all(&self.pool)
        .await?;
        if overlooked.is_empty() || !stands(Guard::OverlookedSwept) {
            return Ok(Vec::new());
        }
        let mut tx = self.begin_write().await?;
        let mut jobs = LockedJobs::lock(&mut tx, overlooked).await?;
        for job in jobs.iter_mut().filter(|job| job.complete()) {
            job.raise();
        }
        let (_, finished) = save_and_finish(&mut tx, &mut jobs).await?;
        sqlx::query("UPDATE farm SET jobs_overlooked = jobs_overlooked + $1 WHERE one")
            .bind(column(finished.len() as u64))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(finished)
    }

    pub(super) async fn jobs_overlooked(&self) -> Result<u64, Error> {
        let found: i64 =
            sqlx::query_scalar("SELECT jobs_overlooked FROM farm WHERE one").fetch_one(&self.pool).await?;
        number(found)
    }
}

/// Locks a job that was accepted, and reads its state, which then stays.
async fn lock(tx: &mut Tx, job: JobId) -> Result<(LockedJobs, i64, JobState), Error> {
    let seq: Option<i64> = sqlx::query_scalar("SELECT seq FROM jobs WHERE id = $1 AND state <> 'receiving'")
        .bind(job.0)
        .fetch_optional(&mut **tx)
        .await?;
    let seq = seq.ok_or_else(|| Error::no_job(job))?;
    let jobs = LockedJobs::lock(tx, [seq]).await?;
    let state: Option<String> = sqlx::query_scalar("SELECT state FROM jobs WHERE seq = $1")
        .bind(seq)
        .fetch_optional(&mut **tx)
        .await?;
    Ok((jobs, seq, parse(&state.ok_or_else(|| Error::no_job(job))?)?))
}

async fn raise(tx: &mut Tx, jobs: &mut LockedJobs) -> Result<(), Error> {
    jobs.iter_mut().for_each(LockedJob::raise);
    jobs.save(tx).await
}

/// The next images that have yet to follow, found through the blocks that have some.
async fn chunk_to_follow(tx: &mut Tx, job: &FollowRow, limit: u64) -> Result<Vec<FollowingImage>, Error> {
    Ok(sqlx::query_as(
        "SELECT i.idx, p.text_embedding, p.negative_embedding, p.style_embedding,
                t.state = 'done' AND coalesce(n.state = 'done', TRUE) AND coalesce(s.state = 'done', TRUE) AS encoded
         FROM (SELECT i.idx, i.prompt
               FROM image_blocks AS b
               CROSS JOIN LATERAL (
                   SELECT i.idx, i.prompt FROM images AS i
                   WHERE i.job = b.job AND i.idx >= b.block * 256 AND i.idx < (b.block + 1) * 256
                     AND CASE WHEN $2 THEN i.state IN ('waiting', 'ready', 'dispatched')
                              ELSE i.state IN ('dead', 'cancelled') END
                   ORDER BY i.idx LIMIT 256) AS i
               WHERE b.job = $1
                 AND CASE WHEN $2 THEN b.waiting + b.ready + b.dispatched ELSE b.dead + b.cancelled END > 0
               ORDER BY b.block LIMIT $3) AS i
         JOIN prompts AS p ON p.job = $1 AND p.position = i.prompt
         JOIN embeddings AS t ON t.id = p.text_embedding
         LEFT JOIN embeddings AS n ON n.id = p.negative_embedding
         LEFT JOIN embeddings AS s ON s.id = p.style_embedding",
    )
    .bind(job.seq)
    .bind(job.follow == "cancel")
    .bind(column(limit))
    .fetch_all(&mut **tx)
    .await?)
}

async fn lock_texts(tx: &mut Tx, chunk: &[FollowingImage]) -> Result<BTreeMap<i64, String>, Error> {
    let doubtful = chunk.iter().filter(|image| !image.encoded);
    let doubtful: Vec<i64> = doubtful.flat_map(FollowingImage::texts).collect();
    texts::lock_unencoded(tx, &doubtful).await
}

/// The moves of a chunk's images that are as they were when the chunk was read.
async fn moves_of(
    tx: &mut Tx,
    jobs: &LockedJobs,
    job: &FollowRow,
    chunk: &[FollowingImage],
    unencoded: &BTreeMap<i64, String>,
) -> Result<Vec<Move>, Error> {
    let cancel = job.follow == "cancel";
    let by_index: BTreeMap<i64, &FollowingImage> = chunk.iter().map(|image| (image.idx, image)).collect();
    let rows: Vec<ProgressRow> = sqlx::query_as(
        "SELECT i.job, i.idx, i.prompt, i.state::text, i.stage, i.generation, i.dispatch, i.failures, i.hosts, i.suspect
         FROM unnest($2::bigint[]) AS wanted (idx)
         CROSS JOIN LATERAL (SELECT * FROM images AS i WHERE i.job = $1 AND i.idx = wanted.idx OFFSET 0) AS i",
    )
    .bind(job.seq)
    .bind(by_index.keys().copied().collect::<Vec<_>>())
    .fetch_all(&mut **tx)
    .await?;
    let stages = jobs.get(job.seq).map_or(0, LockedJob::stages);
    let mut moves = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(image) = by_index.get(&row.idx) else { continue };
        let waits = image.texts().any(|text| unencoded.contains_key(&text));
        let event = if cancel { ImageEvent::Cancel } else { ImageEvent::Retry { encoded: !waits } };
        let from = row.progress()?;
        let Ok(to) = transition(&from, &event, stages) else { continue };
        let error = if cancel { LastError::Keep } else { LastError::Clear };
        moves.push(Move { job: row.job, idx: row.idx, from, to, error });
    }
    Ok(moves)
}

/// All rows have followed: a cancelled job's manifest may be written, a retried job may end again.
async fn followed(
    tx: &mut Tx,
    jobs: &mut LockedJobs,
    job: &FollowRow,
    cancel: bool,
) -> Result<Vec<JobId>, Error> {
    sqlx::query(
        "UPDATE jobs
         SET follow = NULL, manifest = CASE follow WHEN 'cancel' THEN 'pending' ELSE manifest END,
             manifest_writer = NULL
         WHERE seq = $1 AND follow = $2 AND generation = $3",
    )
    .bind(job.seq)
    .bind(&job.follow)
    .bind(job.generation)
    .execute(&mut **tx)
    .await?;
    if let Some(job) = jobs.get_mut(job.seq) {
        job.raise();
    }
    if cancel {
        return Ok(vec![JobId(job.id)]);
    }
    let complete = jobs.get(job.seq).is_some_and(LockedJob::complete);
    if complete { finish(tx, jobs, &[job.seq]).await } else { Ok(Vec::new()) }
}
