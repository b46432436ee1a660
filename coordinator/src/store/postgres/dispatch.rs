//! What may be dispatched, and marking it so with all that a worker needs.
//!
//! The search for ready images begins at the job's low-water mark for the stage and skips the blocks that have none,
//! so that it costs the same whatever was dispatched before, and whatever dead rows are left of it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use darkroom_core::{
    artifact::ArtifactRef,
    fair_share::{Candidate, Pick},
    guard::{self, Guard},
    id::{ImageId, JobId},
    image_state::{ImageEvent, ImageProgress, transition},
    settings::Settings,
};
use darkroom_queue::task::{PoolId, Subject, TaskKey};
use uuid::Uuid;

use super::{
    Error, PostgresStore, Tx,
    moves::{apply, save_and_finish},
    progress::{BLOCK, LockedJob, LockedJobs, NOTHING},
    rows::{ProgressRow, artifact, column, digest, from_json, image_seed, number},
    texts,
};
use crate::store::{
    change::{LastError, Move},
    records::{Dispatched, Extras, RenderWork, Term, Work},
};

impl PostgresStore {
    #[expect(clippy::type_complexity, reason = "a statement's columns, which are named where they are read")]
    pub(super) async fn ready_jobs(&self, pool: &PoolId) -> Result<Vec<Candidate>, Error> {
        // Texts, which jobs share, are nobody's in flight and not limited.
        let rows: Vec<(Uuid, String, i16, String, i64, i64, Option<i32>)> = sqlx::query_as(guard::text(
            Guard::ActiveOnly,
            "SELECT j.id, j.tenant, j.priority, s.compatibility,
                    CASE s.stage WHEN -1 THEN p.texts - p.passed[1] ELSE p.ready[s.stage + 2] END,
                    p.dispatched[s.stage + 2], CASE s.stage WHEN -1 THEN NULL ELSE j.max_workers END
             FROM jobs AS j
             JOIN job_stages AS s ON s.job = j.seq
             CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                                 ORDER BY newest.version DESC LIMIT 1) AS p
             WHERE (j.state IN ('active', 'paused') OR j.follow IS NOT NULL) AND j.state = 'active'
               AND s.pool = $1 AND s.name = $2
               AND CASE s.stage WHEN -1 THEN p.texts - p.passed[1] ELSE p.ready[s.stage + 2] END > 0
               AND (s.stage >= 0 OR p.low[1] < $3)
             ORDER BY j.seq",
            "AND j.state = 'active'",
            "",
        ))
        .bind(pool.digest.0)
        .bind(pool.stage.as_str())
        .bind(NOTHING)
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|(id, tenant, priority, compatibility, ready, in_flight, max_workers)| {
                let (priority, ready, in_flight) = (number(priority)?, number(ready)?, number(in_flight)?);
                let max_workers = max_workers.map(number).transpose()?;
                Ok(Candidate {
                    job: JobId(id),
                    tenant,
                    priority,
                    compatibility,
                    ready,
                    in_flight,
                    max_workers,
                })
            })
            .collect()
    }

    pub(super) async fn count_dispatched(&self, pool: &PoolId) -> Result<u64, Error> {
        if pool.stage.is_encode() {
            return self.count_dispatched_texts(pool.digest).await;
        }
        let count: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(p.dispatched[s.stage + 2]), 0)::bigint
             FROM jobs AS j
             JOIN job_stages AS s ON s.job = j.seq AND s.stage >= 0
             CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                                 ORDER BY newest.version DESC LIMIT 1) AS p
             WHERE (j.state IN ('active', 'paused') OR j.follow IS NOT NULL) AND s.pool = $1 AND s.name = $2",
        )
        .bind(pool.digest.0)
        .bind(pool.stage.as_str())
        .fetch_one(&self.pool)
        .await?;
        number(count)
    }

    pub(super) async fn dispatch_picks(
        &self,
        term: Term,
        pool: &PoolId,
        picks: &[Pick],
    ) -> Result<Vec<Dispatched>, Error> {
        let mut tx = self.begin_write().await?;
        self.check_term(&mut tx, term).await?;
        let dispatched = if pool.stage.is_encode() {
            self.dispatch_texts(&mut tx, pool, picks).await?
        } else {
            dispatch_images(&mut tx, pool, picks).await?
        };
        tx.commit().await?;
        Ok(dispatched)
    }

    /// Block by block: of a large job that is new, too little is known for a plan that joins its images to be a good one.
    pub(super) async fn dispatched_tasks(&self, pool: &PoolId) -> Result<Vec<TaskKey>, Error> {
        if pool.stage.is_encode() {
            return self.dispatched_texts(pool.digest).await;
        }
        let rows: Vec<(Uuid, i64, i32, i64)> = sqlx::query_as(
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
        )
        .bind(pool.digest.0)
        .bind(pool.stage.as_str())
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|(id, idx, generation, dispatch)| image_key(JobId(id), idx, generation, dispatch))
            .collect()
    }

    pub(super) async fn dispatched_tasks_of(&self, job: JobId) -> Result<Vec<(PoolId, TaskKey)>, Error> {
        let rows: Vec<(Vec<u8>, String, i64, i32, i64)> = sqlx::query_as(
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
        )
        .bind(job.0)
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|(pool, stage, idx, generation, dispatch)| {
                let stage = stage.try_into().map_err(|_| Error::Corrupt("stage name".to_owned()))?;
                let pool = PoolId { stage, digest: digest(&pool)? };
                Ok((pool, image_key(job, idx, generation, dispatch)?))
            })
            .collect()
    }
}

fn image_key(job: JobId, idx: i64, generation: i32, dispatch: i64) -> Result<TaskKey, Error> {
    Ok(TaskKey {
        subject: Subject::Image(ImageId { job, index: number(idx)? }),
        generation: number(generation)?,
        dispatch: number(dispatch)?,
    })
}

/// A job to dispatch from.
#[derive(sqlx::FromRow)]
struct Source {
    seq: i64,
    id: Uuid,
    settings: String,
    stage: i16,
    #[sqlx(skip)]
    count: u64,
}

#[derive(sqlx::FromRow)]
struct ReadyRow {
    #[sqlx(flatten)]
    image: ProgressRow,
    #[sqlx(flatten)]
    input: InputRow,
}

/// Columns of an [`InputRow`] but its image's key and its low-resolution picture; of `p`, `t`, `n` and `s` as
/// [`input_joins`] names them.
macro_rules! input_columns {
    () => {
        "p.text, p.negative, p.first_index, p.first_seed, p.text_embedding, p.negative_embedding, p.style_embedding,
         p.extras, t.key AS text_key, t.sha256 AS text_sha256, t.size AS text_size,
         n.key AS negative_key, n.sha256 AS negative_sha256, n.size AS negative_size,
         s.key AS style_key, s.sha256 AS style_sha256, s.size AS style_size"
    };
}
pub(super) use input_columns;

/// The texts of prompt `p`; one that is not encoded is NULL.
macro_rules! input_joins {
    () => {
        "LEFT JOIN embeddings AS t ON t.id = p.text_embedding AND t.state = 'done'
         LEFT JOIN embeddings AS n ON n.id = p.negative_embedding AND n.state = 'done'
         LEFT JOIN embeddings AS s ON s.id = p.style_embedding AND s.state = 'done'
        "
    };
}
pub(super) use input_joins;

/// What a stage of an image needs.
#[derive(sqlx::FromRow)]
pub(super) struct InputRow {
    text: String,
    negative: String,
    first_index: i64,
    first_seed: i64,
    text_embedding: i64,
    negative_embedding: Option<i64>,
    style_embedding: Option<i64>,
    extras: Option<String>,
    text_key: Option<String>,
    text_sha256: Option<Vec<u8>>,
    text_size: Option<i64>,
    negative_key: Option<String>,
    negative_sha256: Option<Vec<u8>>,
    negative_size: Option<i64>,
    style_key: Option<String>,
    style_sha256: Option<Vec<u8>>,
    style_size: Option<i64>,
    #[sqlx(default)]
    low_res_key: Option<String>,
    #[sqlx(default)]
    low_res_sha256: Option<Vec<u8>>,
    #[sqlx(default)]
    low_res_size: Option<i64>,
}

impl InputRow {
    /// With what the stage before has stored just now.
    pub(super) fn after(mut self, artifact: &ArtifactRef) -> Self {
        self.low_res_key = Some(artifact.key.clone());
        self.low_res_sha256 = Some(artifact.sha256.0.to_vec());
        self.low_res_size = Some(column(artifact.size));
        self
    }

    pub(super) fn encoded(&self) -> bool {
        self.text_key.is_some()
            && (self.negative_embedding.is_none() || self.negative_key.is_some())
            && (self.style_embedding.is_none() || self.style_key.is_some())
    }

    /// The texts that it needs.
    fn texts(&self) -> impl Iterator<Item = i64> {
        [Some(self.text_embedding), self.negative_embedding, self.style_embedding].into_iter().flatten()
    }
}

async fn dispatch_images(tx: &mut Tx, pool: &PoolId, picks: &[Pick]) -> Result<Vec<Dispatched>, Error> {
    let (mut jobs, sources) = lock_sources(tx, pool, picks).await?;
    let mut ready = ready_images(tx, &jobs, &sources).await?;
    ready.sort_unstable_by_key(|row| (row.image.job, row.image.idx));
    let (moves, unencoded) = judge(tx, &jobs, &ready).await?;
    let applied = apply(tx, &mut jobs, &moves).await?;
    let mut by_job: HashMap<i64, VecDeque<ReadyRow>> = HashMap::new();
    for row in ready {
        by_job.entry(row.image.job).or_default().push_back(row);
    }
    let mut settings: HashMap<JobId, (i64, Settings)> = HashMap::new();
    for source in &sources {
        let rows = by_job.get(&source.seq);
        let found = rows.map_or(0, VecDeque::len) as u64;
        let left = rows.into_iter().flatten().find(|row| !applied.contains(&(source.seq, row.image.idx)));
        // The blocks come in order, and of the last one perhaps not every image.
        let last = rows.into_iter().flatten().map(|row| row.image.idx).max();
        let low = match (left, last) {
            (Some(left), _) => left.image.idx,
            (None, Some(last)) if found >= source.count => last - last % BLOCK,
            _ => NOTHING,
        };
        if let Some(job) = jobs.get_mut(source.seq) {
            job.set_ready_from(number(source.stage)?, low);
        }
        settings.insert(JobId(source.id), (source.seq, from_json(&source.settings)?));
    }
    save_and_finish(tx, &mut jobs).await?;
    let mut dispatched = Vec::with_capacity(applied.len());
    for pick in picks {
        let Some((seq, settings)) = settings.get(&pick.job) else { continue };
        let Some(rows) = by_job.get_mut(seq) else { continue };
        let count = usize::try_from(pick.count).unwrap_or(usize::MAX).min(rows.len());
        for row in rows.drain(..count) {
            let key = (row.image.job, row.image.idx);
            if applied.contains(&key) && !unencoded.contains(&key) {
                let mut image = row.image.progress()?;
                image.dispatch += 1;
                dispatched.push(dispatched_image(pick.job, pool, settings, (key.1, &image), row.input)?);
            }
        }
    }
    Ok(dispatched)
}

/// Locks the picked jobs that are active and have the pool's stage. A job may be picked more than once.
async fn lock_sources(
    tx: &mut Tx,
    pool: &PoolId,
    picks: &[Pick],
) -> Result<(LockedJobs, Vec<Source>), Error> {
    let mut counts: BTreeMap<Uuid, u64> = BTreeMap::new();
    for pick in picks {
        *counts.entry(pick.job.0).or_default() += pick.count;
    }
    let ids: Vec<Uuid> = counts.keys().copied().collect();
    let seqs = super::progress::seqs_of(tx, &ids).await?;
    let jobs = LockedJobs::lock(tx, seqs.into_values()).await?;
    let mut sources: Vec<Source> = sqlx::query_as(guard::text(
        Guard::ActiveOnly,
        "SELECT j.seq, j.id, j.settings, s.stage
         FROM jobs AS j JOIN job_stages AS s ON s.job = j.seq
         WHERE j.id = ANY ($1) AND j.state = 'active' AND s.stage >= 0 AND s.name = $2 AND s.pool = $3",
        "AND j.state = 'active'",
        "",
    ))
    .bind(&ids)
    .bind(pool.stage.as_str())
    .bind(pool.digest.0)
    .fetch_all(&mut **tx)
    .await?;
    for source in &mut sources {
        source.count = counts.get(&source.id).copied().unwrap_or(0);
    }
    sources.retain(|source| jobs.get(source.seq).is_some());
    Ok((jobs, sources))
}

/// The next ready images of each job, with the inputs of their stage; an input that is not there is NULL.
async fn ready_images(tx: &mut Tx, jobs: &LockedJobs, sources: &[Source]) -> Result<Vec<ReadyRow>, Error> {
    let low = |source: &Source| {
        jobs.get(source.seq).map_or(0, |job| job.ready_from(usize::try_from(source.stage).unwrap_or(0)))
    };
    Ok(sqlx::query_as(
        concat!(
            "SELECT next.*, ",
            input_columns!(),
            ", o.key AS low_res_key, o.sha256 AS low_res_sha256, o.size AS low_res_size
         FROM unnest($1::bigint[], $2::smallint[], $3::bigint[], $4::bigint[]) AS w (job, stage, low, count)
         CROSS JOIN LATERAL (
             SELECT i.*
             FROM image_blocks AS b
             CROSS JOIN LATERAL (
                 SELECT i.job, i.idx, i.prompt, i.state::text, i.stage, i.generation, i.dispatch, i.failures, i.hosts,
                        i.suspect
                 FROM images AS i
                 WHERE i.job = w.job AND i.idx >= greatest(b.block * 256, w.low) AND i.idx < (b.block + 1) * 256
                   AND i.state = 'ready' AND i.stage = w.stage
                 ORDER BY i.idx LIMIT 256) AS i
             WHERE b.job = w.job AND b.block >= w.low / 256 AND b.ready > 0
             ORDER BY b.block LIMIT w.count) AS next
         JOIN prompts AS p ON p.job = next.job AND p.position = next.prompt
        ",
            input_joins!(),
            "LEFT JOIN outputs AS o ON o.job = next.job AND o.idx = next.idx AND o.stage = next.stage - 1"
        ),
    )
    .bind(sources.iter().map(|source| source.seq).collect::<Vec<_>>())
    .bind(sources.iter().map(|source| source.stage).collect::<Vec<_>>())
    .bind(sources.iter().map(low).collect::<Vec<_>>())
    .bind(sources.iter().map(|source| column(source.count)).collect::<Vec<_>>())
    .fetch_all(&mut **tx)
    .await?)
}

/// Dispatches every image whose texts are encoded; the others (their rows come second) wait for them again.
async fn judge(
    tx: &mut Tx,
    jobs: &LockedJobs,
    ready: &[ReadyRow],
) -> Result<(Vec<Move>, super::moves::Applied), Error> {
    // Rare: an embedding was lost after its images had become ready.
    let doubtful = ready.iter().map(|row| &row.input).filter(|row| !row.encoded());
    let doubtful: Vec<i64> = doubtful.flat_map(InputRow::texts).collect();
    let lost = texts::lock_unencoded(tx, &doubtful).await?;
    let dead: Vec<i64> = lost.iter().filter(|(_, state)| *state == "dead").map(|(text, _)| *text).collect();
    texts::spread_again(tx, &dead).await?;
    let (mut moves, mut unencoded) = (Vec::with_capacity(ready.len()), super::moves::Applied::new());
    for row in ready {
        let stages = jobs.get(row.image.job).map_or(0, LockedJob::stages);
        let event = if row.input.encoded() {
            ImageEvent::Dispatch
        } else {
            unencoded.insert((row.image.job, row.image.idx));
            if !row.input.texts().any(|text| lost.contains_key(&text)) {
                // Encoded again just now.
                continue;
            }
            ImageEvent::TextsLost
        };
        let from = row.image.progress()?;
        if let Ok(to) = transition(&from, &event, stages) {
            moves.push(Move { job: row.image.job, idx: row.image.idx, from, to, error: LastError::Keep });
        }
    }
    Ok((moves, unencoded))
}

/// The task of an image, by index and as it is once dispatched.
pub(super) fn dispatched_image(
    job: JobId,
    pool: &PoolId,
    settings: &Settings,
    (idx, image): (i64, &ImageProgress),
    row: InputRow,
) -> Result<Dispatched, Error> {
    let input = |key: Option<String>, sha256: Option<Vec<u8>>, size: Option<i64>| {
        key.zip(sha256).zip(size).map(|((key, sha256), size)| artifact(key, &sha256, size)).transpose()
    };
    let text_embedding = input(row.text_key, row.text_sha256, row.text_size)?;
    let work = RenderWork {
        cascade: pool.digest,
        settings: settings.clone(),
        stage: image.stage,
        prompt: row.text,
        negative: row.negative,
        seed: image_seed(row.first_seed, row.first_index, idx),
        text_embedding: text_embedding.ok_or_else(|| Error::Corrupt("embedding without key".to_owned()))?,
        negative_embedding: input(row.negative_key, row.negative_sha256, row.negative_size)?,
        style_embedding: input(row.style_key, row.style_sha256, row.style_size)?,
        extras: Extras::from_json(row.extras.as_deref())?,
        low_res: input(row.low_res_key, row.low_res_sha256, row.low_res_size)?,
    };
    Ok(Dispatched {
        key: TaskKey {
            subject: Subject::Image(ImageId { job, index: number(idx)? }),
            generation: image.generation,
            dispatch: image.dispatch,
        },
        suspect: image.suspect,
        work: Work::Render(Box::new(work)),
    })
}
