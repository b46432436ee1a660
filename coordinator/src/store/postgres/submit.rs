//! Jobs coming in: whole, or in chunks that one last UPDATE accepts.

use std::time::Duration;

use darkroom_core::{
    digest::Digest,
    guard::{self, Guard, stands},
    id::{JobId, StageName},
};
use uuid::Uuid;

use super::{
    Error, PostgresStore, Tx, fault,
    progress::LockedJobs,
    query::read_job,
    receive::insert_prompts,
    rows::{column, column32, digest, seed_column, stage_column, to_json},
};
use crate::store::{
    error::request_id_taken,
    limits::check_new,
    records::{NewJob, NewPrompt, Submitted, compatibility},
};

/// A job that may take more prompts, locked against being accepted meanwhile.
const RECEIVING: &str = "SELECT seq, encoder FROM jobs WHERE id = $1 AND state = 'receiving' FOR SHARE";

impl PostgresStore {
    pub(super) async fn find_submitted_job(
        &self,
        tenant: &str,
        client_request_id: &str,
    ) -> Result<Option<(JobId, Digest)>, Error> {
        let found: Option<(Uuid, Vec<u8>)> = sqlx::query_as(
            "SELECT id, content FROM jobs
             WHERE tenant = $1 AND client_request_id = $2 AND state <> 'receiving'",
        )
        .bind(tenant)
        .bind(client_request_id)
        .fetch_optional(&self.pool)
        .await?;
        found.map(|(id, content)| Ok((JobId(id), digest(&content)?))).transpose()
    }

    pub(super) async fn submit_job(
        &self,
        job: &NewJob,
        prompts: &[NewPrompt],
        content: Digest,
    ) -> Result<Submitted, Error> {
        let request = job.client_request_id.as_deref();
        if let Some(existing) = self.repeated(&job.tenant, request, content).await? {
            return self.existing(existing).await;
        }
        let mut tx = self.begin_write().await?;
        let seq = insert_job(&mut tx, job).await?;
        insert_prompts(&mut tx, seq, job.encoder, prompts).await?.ok_or_else(|| Error::swept(job.id))?;
        if accept(&mut tx, seq, content).await? {
            return self.commit_accepted(tx, job.id).await;
        }
        tx.rollback().await?;
        let existing = self.repeated(&job.tenant, request, content).await?;
        self.existing(existing.ok_or_else(|| Error::swept(job.id))?).await
    }

    pub(super) async fn begin_job(&self, job: &NewJob) -> Result<(), Error> {
        let mut tx = self.begin_write().await?;
        insert_job(&mut tx, job).await?;
        Ok(tx.commit().await?)
    }

    pub(super) async fn receive_prompts(&self, job: JobId, prompts: &[NewPrompt]) -> Result<(), Error> {
        let mut tx = self.begin_write().await?;
        // Nothing of the job counts before it is accepted, and that commit waits for the disk for all before it.
        sqlx::query("SET LOCAL synchronous_commit = off").execute(&mut *tx).await?;
        // Locked, so that what is accepted meanwhile is not added to.
        let found: Option<(i64, Vec<u8>)> =
            sqlx::query_as(guard::text(Guard::ReceivingOnly, RECEIVING, "AND state = 'receiving'", ""))
                .bind(job.0)
                .fetch_optional(&mut *tx)
                .await?;
        let (seq, encoder) = found.ok_or_else(|| Error::swept(job))?;
        insert_prompts(&mut tx, seq, digest(&encoder)?, prompts).await?.ok_or_else(|| Error::swept(job))?;
        Ok(tx.commit().await?)
    }

    pub(super) async fn accept_job(&self, job: JobId, content: Digest) -> Result<Submitted, Error> {
        let found: Option<(i64, String, Option<String>)> = sqlx::query_as(
            "SELECT seq, tenant, client_request_id FROM jobs WHERE id = $1 AND state = 'receiving'",
        )
        .bind(job.0)
        .fetch_optional(&self.pool)
        .await?;
        let (seq, tenant, request) = found.ok_or_else(|| Error::swept(job))?;
        let request = request.as_deref();
        if self.repeated(&tenant, request, content).await?.is_none() {
            let mut tx = self.begin_write().await?;
            if accept(&mut tx, seq, content).await? {
                return self.commit_accepted(tx, job).await;
            }
            tx.rollback().await?;
        }
        let existing = self.repeated(&tenant, request, content).await?;
        let existing = existing.ok_or_else(|| Error::swept(job))?;
        self.abandon_job(job).await?;
        self.existing(existing).await
    }

    pub(super) async fn abandon_job(&self, job: JobId) -> Result<(), Error> {
        let seq: Option<i64> =
            sqlx::query_scalar("SELECT seq FROM jobs WHERE id = $1 AND state = 'receiving'")
                .bind(job.0)
                .fetch_optional(&self.pool)
                .await?;
        if let Some(seq) = seq {
            let mut tx = self.begin_write().await?;
            forget(&mut tx, seq, None).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    pub(super) async fn sweep_received(&self, idle: Duration) -> Result<u64, Error> {
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
        .fetch_all(&self.pool)
        .await?;
        let mut swept = 0;
        for seq in found {
            let mut tx = self.begin_write().await?;
            swept += u64::from(forget(&mut tx, seq, Some(idle)).await?);
            tx.commit().await?;
        }
        Ok(swept)
    }

    /// The record is read before the commit: after it, nothing may fail.
    async fn commit_accepted(&self, mut tx: Tx, job: JobId) -> Result<Submitted, Error> {
        let record = read_job(&mut tx, job).await?;
        // That it is there says it: what is still received is not found.
        self.commit_job(tx, job, |_| true).await?;
        Ok(Submitted { job: record, existed: false })
    }

    async fn existing(&self, job: JobId) -> Result<Submitted, Error> {
        Ok(Submitted { job: self.job_record(job).await?, existed: true })
    }

    /// The job that an accepted submit with this request id made, if its content was the same.
    async fn repeated(
        &self,
        tenant: &str,
        client_request_id: Option<&str>,
        content: Digest,
    ) -> Result<Option<JobId>, Error> {
        let Some(request) = client_request_id.filter(|_| stands(Guard::RequestIdOnce)) else {
            return Ok(None);
        };
        match self.find_submitted_job(tenant, request).await? {
            None => Ok(None),
            Some((id, known)) if known == content || !stands(Guard::RequestIdContent) => Ok(Some(id)),
            Some((id, _)) => Err(request_id_taken(request, &id.to_string()).into()),
        }
    }
}

async fn insert_job(tx: &mut Tx, job: &NewJob) -> Result<i64, Error> {
    if let Some(deadline) = job.limits.deadline_ms {
        check_new("spec.deadline", deadline, super::limits::now_ms(tx).await?)?;
    }
    let mut names = vec![StageName::ENCODE.to_owned()];
    let mut pools = vec![job.encoder.0];
    let mut compatibilities = vec![String::new()];
    for (position, stage) in job.settings.stages.iter().enumerate() {
        names.push(stage.stage.to_string());
        pools.push(job.cascade.0);
        compatibilities.push(compatibility(&job.settings, position));
    }
    let stages: Vec<i16> = (0..names.len()).map(|position| stage_column(position) - 1).collect();
    Ok(sqlx::query_scalar(
        "WITH job AS (
             INSERT INTO jobs (id, tenant, client_request_id, content, name, priority, state, cascade, encoder,
                               settings, requested, seed, deadline, max_workers, max_failed)
             VALUES ($1, $2, $3, '', $4, $5, 'receiving', $6, $7, $8, $9, $10, to_timestamp($15::float8 / 1000), $16,
                     $17)
             RETURNING seq),
         stages AS (
             INSERT INTO job_stages (job, stage, name, pool, compatibility)
             SELECT job.seq, s.* FROM job, unnest($11::smallint[], $12::text[], $13::bytea[], $14::text[]) AS s),
         progress AS (
             INSERT INTO job_progress (job, version, images, texts, done, dead, cancelled, ready, dispatched, passed,
                                       low)
             SELECT job.seq, 1, 0, 0, 0, 0, 0, zeros.z, zeros.z, zeros.z, zeros.z
             FROM job, (SELECT array_fill(0::bigint, ARRAY [cardinality($11::smallint[])]) AS z) AS zeros)
         SELECT seq FROM job",
    )
    .bind(job.id.0)
    .bind(&job.tenant)
    .bind(&job.client_request_id)
    .bind(&job.name)
    .bind(i16::from(job.priority))
    .bind(job.cascade.0)
    .bind(job.encoder.0)
    .bind(to_json(&job.settings)?)
    .bind(to_json(&job.requested)?)
    .bind(seed_column(job.seed))
    .bind(stages)
    .bind(names)
    .bind(pools)
    .bind(compatibilities)
    .bind(job.limits.deadline_ms)
    .bind(job.limits.max_workers.map(column32))
    .bind(job.limits.max_failed.map(column))
    .fetch_one(&mut **tx)
    .await?)
}

/// Accepts a job that was received; false when another job with its request id was accepted first.
async fn accept(tx: &mut Tx, seq: i64, content: Digest) -> Result<bool, Error> {
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

/// Deletes a job that was not accepted (and, where said so, got no chunk for a time), with all that is its. Texts stay:
/// they may be another's too.
async fn forget(tx: &mut Tx, seq: i64, idle: Option<Duration>) -> Result<bool, Error> {
    LockedJobs::lock(tx, [seq]).await?;
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
        "DELETE FROM text_notes WHERE job = $1",
        // Coordinators of the version before write these.
        "DELETE FROM job_notes WHERE job = $1",
        "DELETE FROM prompts WHERE job = $1",
        "DELETE FROM images WHERE job = $1",
        "DELETE FROM image_blocks WHERE job = $1",
        "DELETE FROM image_changes WHERE job = $1",
    ] {
        sqlx::query(children).bind(seq).execute(&mut **tx).await?;
    }
    Ok(true)
}
