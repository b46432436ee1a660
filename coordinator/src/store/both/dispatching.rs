//! What may be dispatched, and what is.

use async_trait::async_trait;
use darkroom_core::{
    fair_share::{Candidate, Pick},
    guard::{self, Guard},
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
    row::row,
};

/// A mark of Postgres, below which nothing is to be found: there is nothing from here on either.
pub(in super::super) const NOTHING: i64 = i64::MAX;

row! {
    struct CandidateRow {
        id: IdColumn,
        tenant: String,
        priority: Small,
        compatibility: String,
        ready: i64,
        in_flight: i64,
        max_workers: Option<Int>,
    }
}

impl CandidateRow {
    fn candidate(self) -> Result<Candidate, Error> {
        Ok(Candidate {
            job: job_id(&self.id)?,
            tenant: self.tenant,
            priority: number(self.priority)?,
            compatibility: self.compatibility,
            ready: number(self.ready)?,
            in_flight: number(self.in_flight)?,
            max_workers: self.max_workers.map(number).transpose()?,
        })
    }
}

#[async_trait]
impl Dispatching for Record {
    async fn candidates(&self, pool: &PoolId) -> Result<Vec<Candidate>, Error> {
        // Texts, which jobs share, are nobody's in flight and not limited.
        let rows: Vec<CandidateRow> = sqlx::query_as(guard::text(
            Guard::ActiveOnly,
            sql!(
                sqlite: if pool.stage.is_encode() {
                    "SELECT j.id, j.tenant, j.priority, '' AS compatibility, s.total - s.passed AS ready, 0 AS in_flight,
                            NULL AS max_workers
                     FROM job_stages AS s JOIN jobs AS j ON j.seq = s.job
                     WHERE s.pool = $1 AND s.stage = -1 AND s.passed < s.total AND j.state = 'active'
                       AND EXISTS (SELECT 1 FROM job_texts AS t
                                   JOIN embeddings AS e ON e.id = t.embedding AND e.state = 'wanted'
                                   WHERE t.job = j.seq AND t.encoded = 0)
                     ORDER BY j.seq"
                } else {
                    "SELECT j.id, j.tenant, j.priority, s.compatibility, s.ready, s.dispatched AS in_flight, j.max_workers
                     FROM job_stages AS s JOIN jobs AS j ON j.seq = s.job
                     WHERE s.pool = $1 AND s.name = $2 AND s.ready > 0 AND j.state = 'active'
                     ORDER BY j.seq"
                },
                postgres:
                    "SELECT j.id, j.tenant, j.priority, s.compatibility,
                            CASE s.stage WHEN -1 THEN p.texts - p.passed[1] ELSE p.ready[s.stage + 2] END AS ready,
                            p.dispatched[s.stage + 2] AS in_flight,
                            CASE s.stage WHEN -1 THEN NULL ELSE j.max_workers END AS max_workers
                     FROM jobs AS j
                     JOIN job_stages AS s ON s.job = j.seq
                     CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                                         ORDER BY newest.version DESC LIMIT 1) AS p
                     WHERE (j.state IN ('active', 'paused') OR j.follow IS NOT NULL) AND j.state = 'active'
                       AND s.pool = $1 AND s.name = $2
                       AND CASE s.stage WHEN -1 THEN p.texts - p.passed[1] ELSE p.ready[s.stage + 2] END > 0
                       AND (s.stage >= 0 OR p.low[1] < $3)
                     ORDER BY j.seq",
            ),
            "AND j.state = 'active'",
            "",
        ))
        .bind(digest_column(pool.digest))
        .bind(pool.stage.as_str())
        .bind(NOTHING)
        .fetch_all(self.reads())
        .await?;
        rows.into_iter().map(CandidateRow::candidate).collect()
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
