//! Submits of jobs: as a whole, or in chunks that one final UPDATE accepts.

use std::time::Duration;

use darkroom_core::{
    digest::Digest,
    guard::{self, Guard, stands},
    id::{JobId, StageName},
};

pub(super) use super::receive::insert_prompts;
use super::{
    Error, PostgresStore, Tx,
    both::{abandoned::note_abandoned, submits::bind_job},
    fault,
    progress::LockedJobs,
    rows::stage_column,
};
use crate::store::records::{NewJob, compatibility};

/// Deletes a job that is still being received.
pub(super) async fn abandon(store: &PostgresStore, job: JobId) -> Result<(), Error> {
    let seq: Option<i64> =
        sqlx::query_scalar("SELECT seq FROM jobs WHERE id = $1 AND state = 'receiving'")
            .bind(job.0)
            .fetch_optional(&store.pool)
            .await?;
    if let Some(seq) = seq {
        let mut tx = store.begin_referring().await?;
        forget(&mut tx, seq, None).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Deletes jobs that got no chunk for a time. Returns how many.
pub(super) async fn sweep(store: &PostgresStore, idle: Duration) -> Result<u64, Error> {
    let found: Vec<i64> = sqlx::query_scalar(guard::text(
        Guard::IdleOnly,
        "SELECT j.seq FROM jobs AS j
         CROSS JOIN LATERAL (SELECT touched_at FROM job_progress WHERE job = j.seq
                             ORDER BY version DESC LIMIT 1) AS p
         WHERE j.state = 'receiving' AND p.touched_at < clock_timestamp() - $1 * interval '1 second'",
        "AND p.touched_at <",
        "AND '-infinity' <",
    ))
    .bind(idle.as_secs_f64())
    .fetch_all(&store.pool)
    .await?;
    let mut swept = 0;
    for seq in found {
        let mut tx = store.begin_referring().await?;
        swept += u64::from(forget(&mut tx, seq, Some(idle)).await?);
        tx.commit().await?;
    }
    Ok(swept)
}

/// Inserts the rows of a job, its stages and its progress.
pub(super) async fn insert_job(tx: &mut Tx, job: &NewJob) -> Result<i64, Error> {
    let mut names = vec![StageName::ENCODE.to_owned()];
    let mut pools = vec![job.encoder.0];
    let mut compatibilities = vec![String::new()];
    for (position, stage) in job.settings.stages.iter().enumerate() {
        names.push(stage.stage.to_string());
        pools.push(job.cascade.0);
        compatibilities.push(compatibility(&job.settings, position));
    }
    let stages: Vec<i16> = (0..names.len()).map(|position| stage_column(position) - 1).collect();
    let inserted = sqlx::query_scalar(
        "WITH job AS (
             INSERT INTO jobs (id, tenant, client_request_id, content, name, priority, state, cascade, encoder,
                               settings, requested, seed, deadline, max_workers, max_failed, no_reuse,
                               labels, sealed)
             VALUES ($1, $2, $3, '', $4, $5, 'receiving', $6, $7, $8, $9, $10, to_timestamp($11::float8 / 1000), $12,
                     $13, $14, $15, $16)
             RETURNING seq),
         stages AS (
             INSERT INTO job_stages (job, stage, name, pool, compatibility)
             SELECT job.seq, s.* FROM job, unnest($17::smallint[], $18::text[], $19::bytea[], $20::text[]) AS s),
         progress AS (
             INSERT INTO job_progress (job, tenant, version, images, texts, done, dead, cancelled, ready, dispatched,
                                       passed, low)
             SELECT job.seq, $2, 1, 0, 0, 0, 0, 0, zeros.z, zeros.z, zeros.z, zeros.z
             FROM job, (SELECT array_fill(0::bigint, ARRAY [cardinality($17::smallint[])]) AS z) AS zeros)
         SELECT seq FROM job",
    );
    Ok(bind_job(inserted, job)?
        .bind(stages)
        .bind(names)
        .bind(pools)
        .bind(compatibilities)
        .fetch_one(&mut **tx)
        .await?)
}

/// Accepts a job that was received; false when another job with its request id was accepted first.
pub(super) async fn set_active(tx: &mut Tx, seq: i64, content: Digest) -> Result<bool, Error> {
    if !stands(Guard::AcceptDurable) {
        sqlx::query("SET LOCAL synchronous_commit = off").execute(&mut **tx).await?;
    }
    let mut jobs = LockedJobs::lock(tx, [seq]).await?;
    let accepted = sqlx::query(
        "UPDATE jobs SET state = 'active', content = $2, created_at = clock_timestamp()
         WHERE seq = $1 AND state = 'receiving'",
    )
    .bind(seq)
    .bind(content.0)
    .execute(&mut **tx)
    .await;
    match accepted {
        Err(error) if fault::duplicate(&error) => return Ok(false),
        Err(error) => return Err(error.into()),
        Ok(accepted) if accepted.rows_affected() == 0 => {
            return Err(Error::NotFound("the submit was given up; submit it again".to_owned()));
        }
        Ok(_) => {}
    }
    if let Some(job) = jobs.get_mut(seq) {
        job.raise();
    }
    jobs.save(tx).await?;
    Ok(true)
}

/// Deletes a job that was not accepted, with all its rows. With `idle`, only if it got no chunk for
/// that time. Its texts and pictures stay, because other jobs may need them, and are noted.
async fn forget(tx: &mut Tx, seq: i64, idle: Option<Duration>) -> Result<bool, Error> {
    LockedJobs::lock(tx, [seq]).await?;
    note_abandoned(tx, seq).await?;
    // Under the lock: a chunk may have come since the job was found idle.
    let deleted = sqlx::query(
        "DELETE FROM jobs WHERE seq = $1 AND state = 'receiving'
         AND ($2::float8 IS NULL OR (SELECT touched_at FROM job_progress WHERE job = $1 ORDER BY version DESC LIMIT 1)
                                    < clock_timestamp() - $2 * interval '1 second')",
    )
        .bind(seq)
        .bind(idle.filter(|_| guard::stands(Guard::IdleOnly)).map(|idle| idle.as_secs_f64()))
        .execute(&mut **tx)
        .await?;
    if deleted.rows_affected() == 0 {
        return Ok(false);
    }
    for children in [
        "DELETE FROM job_stages WHERE job = $1",
        "DELETE FROM job_progress WHERE job = $1",
        "DELETE FROM job_texts WHERE job = $1",
        "DELETE FROM job_inputs WHERE job = $1",
        "DELETE FROM text_notes WHERE job = $1",
        // Coordinators of the version before write these.
        "DELETE FROM job_notes WHERE job = $1",
        "DELETE FROM job_variants WHERE job = $1",
        "DELETE FROM prompts WHERE job = $1",
        "DELETE FROM images WHERE job = $1",
        "DELETE FROM image_blocks WHERE job = $1",
        "DELETE FROM image_changes WHERE job = $1",
    ] {
        sqlx::query(children).bind(seq).execute(&mut **tx).await?;
    }
    Ok(true)
}
