//! Submits of jobs: as a whole, or in chunks that one final UPDATE accepts.

use std::time::Duration;

use async_trait::async_trait;
use darkroom_core::{
    digest::Digest,
    guard::{self, Guard, stands},
    id::JobId,
    sharing::Sharing,
};
use sqlx::query::QueryScalar;

use super::{
    super::submits::{self, insert_job, insert_prompts, set_active},
    Connection, Error, Record, Tx,
    clock::now,
    deleted_jobs::{gone_submit, repeats_deleted},
    metering,
    queries::read_job,
    retried,
    rows::{
        HashColumn, IdColumn, column, digest, digest_column, id_column, job_id, seed_column,
        to_json,
    },
};
use crate::store::{
    error::request_id_taken,
    limits::check_new,
    records::{NewJob, NewPrompt, Submitted, labels_json},
    roles::{Queries as _, Submits},
};

type Database = <Connection as sqlx::Connection>::Database;
type Arguments = <Database as sqlx::Database>::Arguments;

/// The job of an accepted submit with a request id, and the digest of what was submitted.
const SUBMITTED: &str = "SELECT id, content FROM jobs
     WHERE tenant = $1 AND client_request_id = $2 AND state <> 'receiving'";

#[async_trait]
impl Submits for Record {
    async fn find_submitted(
        &self,
        tenant: &str,
        client_request_id: &str,
    ) -> Result<Option<(JobId, Digest)>, Error> {
        let found: Option<(IdColumn, HashColumn)> = sqlx::query_as(SUBMITTED)
            .bind(tenant)
            .bind(client_request_id)
            .fetch_optional(self.reads())
            .await?;
        if found.is_none()
            && let Some(gone) =
                gone_submit(&mut *self.reader().await?, tenant, client_request_id).await?
        {
            return Err(gone);
        }
        found.map(|(id, content)| Ok((job_id(&id)?, digest(&content)?))).transpose()
    }

    async fn submit(
        &self,
        job: &NewJob,
        prompts: &[NewPrompt],
        content: Digest,
    ) -> Result<Submitted, Error> {
        retried(|| async {
            let request = job.client_request_id.as_deref();
            if let Some(existing) = self.repeated(&job.tenant, request, content).await? {
                return self.existing(existing).await;
            }
            let mut tx = self.begin_referring().await?;
            let seq = begin(&mut tx, job).await?;
            insert_prompts(&mut tx, seq, job.encoder, prompts)
                .await?
                .ok_or_else(|| Error::swept(job.id))?;
            if set_active(&mut tx, seq, content).await? && !repeats_deleted(&mut tx, seq).await? {
                metering::accept(&mut tx, seq).await?;
                return self.commit_accepted(tx, job.id).await;
            }
            tx.rollback().await?;
            let existing = self.repeated(&job.tenant, request, content).await?;
            self.existing(existing.ok_or_else(|| Error::swept(job.id))?).await
        })
        .await
    }

    async fn begin(&self, job: &NewJob) -> Result<(), Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            begin(&mut tx, job).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    async fn receive(&self, job: JobId, prompts: &[NewPrompt]) -> Result<(), Error> {
        retried(|| async {
            let mut tx = self.begin_received().await?;
            let found: Option<(i64, HashColumn)> = sqlx::query_as(guard::text(
                Guard::ReceivingOnly,
                sql!(
                    sqlite:
                        "UPDATE jobs SET touched_ms = CAST(unixepoch('subsec') * 1000 AS INTEGER)
                         WHERE id = $1 AND state = 'receiving'
                         RETURNING seq, encoder",
                    // Locked, so that nothing is added to a job that is accepted meanwhile.
                    postgres:
                        "SELECT seq, encoder FROM jobs WHERE id = $1 AND state = 'receiving' FOR SHARE",
                ),
                "AND state = 'receiving'",
                "",
            ))
            .bind(id_column(job))
            .fetch_optional(&mut *tx)
            .await?;
            let (seq, encoder) = found.ok_or_else(|| Error::swept(job))?;
            insert_prompts(&mut tx, seq, digest(&encoder)?, prompts)
                .await?
                .ok_or_else(|| Error::swept(job))?;
            metering::check_received(&mut tx, seq).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    async fn accept(&self, job: JobId, content: Digest) -> Result<Submitted, Error> {
        retried(|| async {
            let found: Option<(i64, String, Option<String>)> = sqlx::query_as(
                "SELECT seq, tenant, client_request_id FROM jobs WHERE id = $1 AND state = 'receiving'",
            )
            .bind(id_column(job))
            .fetch_optional(self.reads())
            .await?;
            let (seq, tenant, request) = found.ok_or_else(|| Error::swept(job))?;
            let request = request.as_deref();
            if self.repeated(&tenant, request, content).await?.is_none() {
                let mut tx = self.begin_write().await?;
                if set_active(&mut tx, seq, content).await?
                    && !repeats_deleted(&mut tx, seq).await?
                {
                    metering::accept(&mut tx, seq).await?;
                    return self.commit_accepted(tx, job).await;
                }
                tx.rollback().await?;
            }
            let existing = self.repeated(&tenant, request, content).await?;
            let existing = existing.ok_or_else(|| Error::swept(job))?;
            self.abandon(job).await?;
            self.existing(existing).await
        })
        .await
    }

    async fn abandon(&self, job: JobId) -> Result<(), Error> {
        retried(|| submits::abandon(self, job)).await
    }

    async fn sweep_receiving(&self, idle: Duration) -> Result<u64, Error> {
        submits::sweep(self, idle).await
    }
}

impl Record {
    /// Reads the record before the commit, because nothing may fail after it.
    async fn commit_accepted(&self, mut tx: Tx, job: JobId) -> Result<Submitted, Error> {
        let record = read_job(&mut tx, job).await?;
        // A job that is still being received is not found. So if it is found, it was accepted.
        self.commit_job(tx, job, |_| true).await?;
        Ok(Submitted { job: record, existed: false })
    }

    /// The job of an earlier accepted submit with this request id, if that submit had the same
    /// content.
    async fn repeated(
        &self,
        tenant: &str,
        client_request_id: Option<&str>,
        content: Digest,
    ) -> Result<Option<JobId>, Error> {
        let Some(request) = client_request_id.filter(|_| stands(Guard::RequestIdOnce)) else {
            return Ok(None);
        };
        same_content(request, self.find_submitted(tenant, request).await?, content)
    }

    /// The answer to a repeated submit.
    async fn existing(&self, job: JobId) -> Result<Submitted, Error> {
        Ok(Submitted { job: self.job(job).await?, existed: true })
    }
}

/// Binds the columns of a job as the first 16 parameters.
pub(in super::super) fn bind_job<'q>(
    insert: QueryScalar<'q, Database, i64, Arguments>,
    job: &'q NewJob,
) -> Result<QueryScalar<'q, Database, i64, Arguments>, Error> {
    Ok(insert
        .bind(id_column(job.id))
        .bind(&job.tenant)
        .bind(&job.client_request_id)
        .bind(&job.name)
        .bind(column(job.priority))
        .bind(digest_column(job.cascade))
        .bind(digest_column(job.encoder))
        .bind(to_json(&job.settings)?)
        .bind(to_json(&job.requested)?)
        .bind(seed_column(job.seed))
        .bind(job.limits.deadline_ms)
        .bind(job.limits.max_workers.map(column))
        .bind(job.limits.max_failed.map(column))
        .bind(job.no_reuse)
        .bind(labels_json(&job.labels)?)
        .bind(job.sharing == Sharing::Sealed))
}

/// Creates a job that takes prompts. Returns its `seq`.
async fn begin(tx: &mut Tx, job: &NewJob) -> Result<i64, Error> {
    if let Some(deadline) = job.limits.deadline_ms {
        check_new("spec.deadline", deadline, now(tx).await?)?;
    }
    insert_job(tx, job).await
}

/// The job that a request id was used for, if its content was the same.
fn same_content(
    request: &str,
    found: Option<(JobId, Digest)>,
    content: Digest,
) -> Result<Option<JobId>, Error> {
    match found {
        None => Ok(None),
        Some((id, known)) if known == content || !stands(Guard::RequestIdContent) => Ok(Some(id)),
        Some((id, _)) => Err(request_id_taken(request, &id.to_string()).into()),
    }
}
