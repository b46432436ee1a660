//! Which tasks may be dispatched, and which are dispatched.

use std::collections::{BTreeMap, HashMap, VecDeque};

use async_trait::async_trait;
use darkroom_core::{
    fair_share::{Candidate, Pick},
    guard::{self, Guard},
    id::{ImageId, JobId},
    image_state::ImageEvent,
    settings::Settings,
};
use darkroom_queue::task::{PoolId, Subject, TaskKey};

use super::{
    super::{
        dispatching::{mark_seen, ready_images, wait_for_texts},
        moves::apply,
        progress::LockedJobs,
    },
    Error, Record, Tx,
    input_row::ReadyRow,
    moves::save_and_finish,
    retried,
    rows::{
        HashColumn, IdColumn, Int, Small, digest, digest_column, from_json, id_column, job_id,
        list, number, stage_name,
    },
    variants,
};
use crate::store::{
    change::Move,
    records::{Dispatched, Term},
    roles::Dispatching,
    row::row,
    variants::{Known, of as variant_of},
};

/// A low-water mark of Postgres that says that there is nothing to find at all.
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
        // Jobs share texts. So texts do not count as in flight for any job, and have no limit.
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
        // Postgres reads block by block. It has no statistics about a large new job yet, so its
        // plan for a join over all images would be a bad one.
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

row! {
    /// A job to dispatch images from.
    pub(in super::super) struct Source {
        pub(in super::super) seq: i64,
        id: IdColumn,
        settings: String,
        pub(in super::super) stage: Small,
        =/// Images to dispatch.
        pub(in super::super) count: u64,
    }
}

/// The settings of a job's images, by the number of their variant.
struct JobSettings {
    seq: i64,
    own: Settings,
    variants: Known,
}

impl JobSettings {
    fn of(&self, row: &ReadyRow) -> Result<&Settings, Error> {
        match row.image.variant {
            None => Ok(&self.own),
            Some(variant) => Ok(variant_of(&self.variants, number(variant)?)?),
        }
    }
}

async fn dispatch_images(
    tx: &mut Tx,
    pool: &PoolId,
    picks: &[Pick],
) -> Result<Vec<Dispatched>, Error> {
    let (mut jobs, sources) = lock_sources(tx, pool, picks).await?;
    let mut ready = ready_images(tx, &jobs, &sources).await?;
    ready.sort_unstable_by_key(|row| (row.image.job, row.image.idx));
    let waiting = wait_for_texts(tx, &ready).await?;
    let settings = settings_of(tx, &sources, &ready).await?;
    let by_seq: HashMap<i64, &JobSettings> = settings.values().map(|job| (job.seq, job)).collect();
    let mut moves = Vec::with_capacity(ready.len());
    for row in &ready {
        let at = (row.image.job, row.image.idx);
        let event = match (row.input.encoded(), waiting.contains(&at)) {
            (true, _) => ImageEvent::Dispatch,
            (false, true) => ImageEvent::TextsLost,
            // Its texts were encoded again just now.
            (false, false) => continue,
        };
        let Some(job) = by_seq.get(&row.image.job) else { continue };
        moves.extend(Move::by(at, row.image.progress()?, &event, job.of(row)?.stages.len()));
    }
    let applied = apply(tx, &mut jobs, &moves).await?;
    let mut by_job: HashMap<i64, VecDeque<ReadyRow>> = HashMap::new();
    for row in ready {
        by_job.entry(row.image.job).or_default().push_back(row);
    }
    for source in &sources {
        let rows = by_job.get(&source.seq).into_iter().flatten();
        let seen: Vec<_> = rows
            .map(|row| (row.image.idx, applied.contains(&(source.seq, row.image.idx))))
            .collect();
        mark_seen(&mut jobs, source, &seen)?;
    }
    save_and_finish(tx, &mut jobs).await?;
    let mut dispatched = Vec::with_capacity(applied.len());
    for pick in picks {
        let Some(job) = settings.get(&pick.job) else { continue };
        let Some(rows) = by_job.get_mut(&job.seq) else { continue };
        let count = usize::try_from(pick.count).unwrap_or(usize::MAX).min(rows.len());
        for row in rows.drain(..count) {
            if row.input.encoded() && applied.contains(&(row.image.job, row.image.idx)) {
                let settings = job.of(&row)?;
                dispatched.push(row.dispatched(pick.job, pool, settings)?);
            }
        }
    }
    Ok(dispatched)
}

/// Locks the picked jobs that are active and have the pool's stage. A job may be picked more than
/// once.
async fn lock_sources(
    tx: &mut Tx,
    pool: &PoolId,
    picks: &[Pick],
) -> Result<(LockedJobs, Vec<Source>), Error> {
    let mut counts: BTreeMap<JobId, u64> = BTreeMap::new();
    for pick in picks {
        *counts.entry(pick.job).or_default() += pick.count;
    }
    let ids: Vec<JobId> = counts.keys().copied().collect();
    let seqs = sqlx::query_scalar(sql!(
        sqlite: "SELECT seq FROM jobs WHERE id IN (SELECT value ->> 0 FROM json_each($1))",
        postgres: "SELECT seq FROM jobs WHERE id = ANY ($1)",
    ));
    let seqs: Vec<i64> = bind_rows!(seqs, ids, |id| id_column(*id)).fetch_all(&mut **tx).await?;
    let jobs = LockedJobs::lock(tx, seqs.iter().copied()).await?;
    let mut sources: Vec<Source> = sqlx::query_as(guard::text(
        Guard::ActiveOnly,
        sql!(
            sqlite:
                "SELECT j.seq, j.id, j.settings, s.stage
                 FROM jobs AS j JOIN job_stages AS s ON s.job = j.seq
                 WHERE j.seq IN (SELECT value FROM json_each($1)) AND j.state = 'active'
                   AND s.stage >= 0 AND s.name = $2 AND s.pool = $3",
            postgres:
                "SELECT j.seq, j.id, j.settings, s.stage
                 FROM jobs AS j JOIN job_stages AS s ON s.job = j.seq
                 WHERE j.seq = ANY ($1) AND j.state = 'active' AND s.stage >= 0 AND s.name = $2 AND s.pool = $3",
        ),
        "AND j.state = 'active'",
        "",
    ))
    .bind(list(&seqs)?)
    .bind(pool.stage.as_str())
    .bind(digest_column(pool.digest))
    .fetch_all(&mut **tx)
    .await?;
    sources.retain(|source| jobs.get(source.seq).is_some());
    for source in &mut sources {
        source.count = counts.get(&job_id(&source.id)?).copied().unwrap_or(0);
    }
    Ok((jobs, sources))
}

/// The settings of the jobs, and the settings that only some of their ready images have.
async fn settings_of(
    tx: &mut Tx,
    sources: &[Source],
    ready: &[ReadyRow],
) -> Result<HashMap<JobId, JobSettings>, Error> {
    let mut settings = HashMap::with_capacity(sources.len());
    for source in sources {
        let rows = ready.iter().filter(|row| row.image.job == source.seq);
        let variants = variants::read(tx, source.seq, rows.map(|row| row.image.variant)).await?;
        let own = from_json(&source.settings)?;
        settings.insert(job_id(&source.id)?, JobSettings { seq: source.seq, own, variants });
    }
    Ok(settings)
}
