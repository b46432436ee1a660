//! What may be dispatched, and what is.

use async_trait::async_trait;
use darkroom_core::{
    fair_share::{Candidate, Pick},
    id::{ImageId, JobId},
};
use darkroom_queue::task::{PoolId, Subject, TaskKey};

use super::{
    super::dispatching::dispatch_images,
    Error, Record, retried,
    rows::{
        HashColumn, IdColumn, Int, Small, digest, digest_column, id_column, job_id, number,
        stage_name,
    },
};
use crate::store::{
    records::{Dispatched, Term},
    roles::Dispatching,
};

/// Columns of a candidate: job, tenant, priority, compatibility, ready, in flight, limit on
/// workers.
pub(in super::super) type CandidateRow = (IdColumn, String, Small, String, i64, i64, Option<Int>);

#[async_trait]
impl Dispatching for Record {
    async fn candidates(&self, pool: &PoolId) -> Result<Vec<Candidate>, Error> {
        let candidate = |row: CandidateRow| {
            let (id, tenant, priority, compatibility, ready, in_flight, max_workers) = row;
            Ok(Candidate {
                job: job_id(&id)?,
                tenant,
                priority: number(priority)?,
                compatibility,
                ready: number(ready)?,
                in_flight: number(in_flight)?,
                max_workers: max_workers.map(number).transpose()?,
            })
        };
        self.candidate_rows(pool).await?.into_iter().map(candidate).collect()
    }

    async fn dispatched_count(&self, pool: &PoolId) -> Result<u64, Error> {
        if pool.stage.is_encode() {
            return self.count_dispatched_texts(pool.digest).await;
        }
        let count: i64 = sqlx::query_scalar(sql!(
            sqlite:
                "SELECT coalesce(sum(dispatched), 0) FROM job_stages
                 WHERE pool = $1 AND name = $2 AND dispatched > 0",
            postgres:
                "SELECT coalesce(sum(p.dispatched[s.stage + 2]), 0)::bigint
                 FROM jobs AS j
                 JOIN job_stages AS s ON s.job = j.seq AND s.stage >= 0
                 CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                                     ORDER BY newest.version DESC LIMIT 1) AS p
                 WHERE (j.state IN ('active', 'paused') OR j.follow IS NOT NULL) AND s.pool = $1 AND s.name = $2",
        ))
        .bind(digest_column(pool.digest))
        .bind(pool.stage.as_str())
        .fetch_one(self.reads())
        .await?;
        number(count)
    }

    async fn dispatch(
        &self,
        term: Term,
        pool: &PoolId,
        picks: &[Pick],
    ) -> Result<Vec<Dispatched>, Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            self.check_term(&mut tx, term).await?;
            let dispatched = if pool.stage.is_encode() {
                self.dispatch_texts(&mut tx, pool, picks).await?
            } else {
                dispatch_images(&mut tx, pool, picks).await?
            };
            tx.commit().await?;
            Ok(dispatched)
        })
        .await
    }

    async fn dispatched(&self, pool: &PoolId) -> Result<Vec<TaskKey>, Error> {
        if pool.stage.is_encode() {
            return self.dispatched_texts(pool.digest).await;
        }
        // Postgres goes block by block: of a large job that is new, too little is known for a plan
        // that joins its images to be a good one.
        let rows: Vec<(IdColumn, i64, Int, i64)> = sqlx::query_as(sql!(
            sqlite:
                "SELECT j.id, i.idx, i.generation, i.dispatch
                 FROM job_stages AS s
                 JOIN jobs AS j ON j.seq = s.job
                 JOIN images AS i ON i.job = s.job AND i.state = 'dispatched' AND i.stage = s.stage
                 WHERE s.pool = $1 AND s.name = $2 AND s.dispatched > 0",
            postgres:
                "SELECT j.id, i.idx, i.generation, i.dispatch
                 FROM jobs AS j
                 JOIN job_stages AS s ON s.job = j.seq AND s.stage >= 0
                 JOIN image_blocks AS b ON b.job = j.seq AND b.dispatched > 0
                 CROSS JOIN LATERAL (
                     SELECT i.idx, i.generation, i.dispatch FROM images AS i
                     WHERE i.job = b.job AND i.idx >= b.block * 256 AND i.idx < (b.block + 1) * 256
                       AND i.state = 'dispatched' AND i.stage = s.stage
                     ORDER BY i.idx LIMIT 256) AS i
                 WHERE (j.state IN ('active', 'paused') OR j.follow IS NOT NULL) AND s.pool = $1 AND s.name = $2
                 ORDER BY j.seq, i.idx",
        ))
        .bind(digest_column(pool.digest))
        .bind(pool.stage.as_str())
        .fetch_all(self.reads())
        .await?;
        rows.into_iter()
            .map(|(id, idx, generation, dispatch)| {
                image_key(job_id(&id)?, idx, generation, dispatch)
            })
            .collect()
    }

    async fn dispatched_of_job(&self, job: JobId) -> Result<Vec<(PoolId, TaskKey)>, Error> {
        let rows: Vec<(HashColumn, String, i64, Int, i64)> = sqlx::query_as(sql!(
            sqlite:
                "SELECT s.pool, s.name, i.idx, i.generation, i.dispatch
                 FROM jobs AS j
                 JOIN job_stages AS s ON s.job = j.seq AND s.stage >= 0
                 JOIN images AS i ON i.job = j.seq AND i.state = 'dispatched' AND i.stage = s.stage
                 WHERE j.id = $1",
            postgres:
                "SELECT s.pool, s.name, i.idx, i.generation, i.dispatch
                 FROM jobs AS j
                 JOIN image_blocks AS b ON b.job = j.seq AND b.dispatched > 0
                 CROSS JOIN LATERAL (
                     SELECT i.idx, i.stage, i.generation, i.dispatch FROM images AS i
                     WHERE i.job = b.job AND i.idx >= b.block * 256 AND i.idx < (b.block + 1) * 256
                       AND i.state = 'dispatched'
                     ORDER BY i.idx LIMIT 256) AS i
                 JOIN job_stages AS s ON s.job = j.seq AND s.stage = i.stage
                 WHERE j.id = $1
                 ORDER BY i.idx",
        ))
        .bind(id_column(job))
        .fetch_all(self.reads())
        .await?;
        rows.into_iter()
            .map(|(pool, stage, idx, generation, dispatch)| {
                let stage = stage_name(stage)?;
                let pool = PoolId { stage, digest: digest(&pool)? };
                Ok((pool, image_key(job, idx, generation, dispatch)?))
            })
            .collect()
    }
}

fn image_key(job: JobId, idx: i64, generation: Int, dispatch: i64) -> Result<TaskKey, Error> {
    Ok(TaskKey {
        subject: Subject::Image(ImageId { job, index: number(idx)? }),
        generation: number(generation)?,
        dispatch: number(dispatch)?,
    })
}

/// The key of a text's task.
pub(in super::super) fn text_key(hash: &HashColumn, dispatch: i64) -> Result<TaskKey, Error> {
    let dispatch = number(dispatch)?;
    Ok(TaskKey { subject: Subject::Text(digest(hash)?), generation: 0, dispatch })
}
