//! What may be dispatched, and marking it so with all that a worker needs.

use darkroom_core::{
    fair_share::{Candidate, Pick},
    id::{ImageId, JobId},
    image_state::{ImageEvent, transition},
    settings::Settings,
};
use darkroom_queue::task::{PoolId, Subject, TaskKey};

use super::{
    Error, SqliteStore, Tx,
    moves::apply,
    rows::{ProgressRow, artifact, column, from_json, image_seed, job_id, number, parse, to_json},
    texts,
};
use crate::store::{
    change::{LastError, Move},
    records::{Dispatched, Extras, PreparedText, RenderWork, Term, Work},
};

/// The only term of a record that one process holds.
pub(super) const ONLY_TERM: Term = Term(1);

impl SqliteStore {
    #[expect(clippy::type_complexity, reason = "a statement's columns, which are named where they are read")]
    pub(super) async fn ready_jobs(&self, pool: &PoolId) -> Result<Vec<Candidate>, Error> {
        // Texts, which jobs share, are nobody's in flight and not limited.
        let rows: Vec<(String, String, u8, String, i64, i64, Option<u32>)> = if pool.stage.is_encode() {
            sqlx::query_as(
                "SELECT j.id, j.tenant, j.priority, '', s.total - s.passed, 0, NULL
                 FROM job_stages AS s JOIN jobs AS j ON j.seq = s.job
                 WHERE s.pool = ?1 AND s.stage = -1 AND s.passed < s.total AND j.state = 'active'
                   AND EXISTS (SELECT 1 FROM job_texts AS t
                               JOIN embeddings AS e ON e.id = t.embedding AND e.state = 'wanted'
                               WHERE t.job = j.seq AND t.encoded = 0)
                 ORDER BY j.seq",
            )
            .bind(pool.digest.to_string())
            .fetch_all(&self.readers)
            .await?
        } else {
            sqlx::query_as(
                "SELECT j.id, j.tenant, j.priority, s.compatibility, s.ready, s.dispatched, j.max_workers
                 FROM job_stages AS s JOIN jobs AS j ON j.seq = s.job
                 WHERE s.pool = ?1 AND s.name = ?2 AND s.ready > 0 AND j.state = 'active'
                 ORDER BY j.seq",
            )
            .bind(pool.digest.to_string())
            .bind(pool.stage.as_str())
            .fetch_all(&self.readers)
            .await?
        };
        rows.into_iter()
            .map(|(id, tenant, priority, compatibility, ready, in_flight, max_workers)| {
                Ok(Candidate {
                    job: job_id(&id)?,
                    tenant,
                    priority,
                    compatibility,
                    ready: number(ready)?,
                    in_flight: number(in_flight)?,
                    max_workers,
                })
            })
            .collect()
    }

    pub(super) async fn count_dispatched(&self, pool: &PoolId) -> Result<u64, Error> {
        let count: i64 = if pool.stage.is_encode() {
            sqlx::query_scalar("SELECT count(*) FROM embeddings WHERE encoder = ?1 AND state = 'dispatched'")
                .bind(pool.digest.to_string())
                .fetch_one(&self.readers)
                .await?
        } else {
            sqlx::query_scalar(
                "SELECT coalesce(sum(dispatched), 0) FROM job_stages
                 WHERE pool = ?1 AND name = ?2 AND dispatched > 0",
            )
            .bind(pool.digest.to_string())
            .bind(pool.stage.as_str())
            .fetch_one(&self.readers)
            .await?
        };
        number(count)
    }

    pub(super) async fn dispatch_picks(
        &self,
        term: Term,
        pool: &PoolId,
        picks: &[Pick],
    ) -> Result<Vec<Dispatched>, Error> {
        check_term(term)?;
        let mut tx = self.begin_write().await?;
        let mut dispatched = Vec::new();
        for pick in picks {
            if pool.stage.is_encode() {
                dispatched.extend(dispatch_texts(&mut tx, pool, pick).await?);
            } else {
                dispatched.extend(dispatch_images(&mut tx, pool, pick).await?);
            }
        }
        tx.commit().await?;
        Ok(dispatched)
    }

    pub(super) async fn dispatched_tasks(&self, pool: &PoolId) -> Result<Vec<TaskKey>, Error> {
        if pool.stage.is_encode() {
            let rows: Vec<(String, i64)> = sqlx::query_as(
                "SELECT digest, dispatch FROM embeddings WHERE encoder = ?1 AND state = 'dispatched'",
            )
            .bind(pool.digest.to_string())
            .fetch_all(&self.readers)
            .await?;
            return rows.into_iter().map(|(digest, dispatch)| text_key(&digest, dispatch)).collect();
        }
        let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(
            "SELECT j.id, i.idx, i.generation, i.dispatch
             FROM job_stages AS s
             JOIN jobs AS j ON j.seq = s.job
             JOIN images AS i ON i.job = s.job AND i.state = 'dispatched' AND i.stage = s.stage
             WHERE s.pool = ?1 AND s.name = ?2 AND s.dispatched > 0",
        )
        .bind(pool.digest.to_string())
        .bind(pool.stage.as_str())
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter()
            .map(|(id, idx, generation, dispatch)| image_key(&id, idx, generation, dispatch))
            .collect()
    }

    pub(super) async fn dispatched_tasks_of(&self, job: JobId) -> Result<Vec<(PoolId, TaskKey)>, Error> {
        let rows: Vec<(String, String, i64, i64, i64)> = sqlx::query_as(
            "SELECT s.pool, s.name, i.idx, i.generation, i.dispatch
             FROM jobs AS j
             JOIN job_stages AS s ON s.job = j.seq AND s.stage >= 0
             JOIN images AS i ON i.job = j.seq AND i.state = 'dispatched' AND i.stage = s.stage
             WHERE j.id = ?1",
        )
        .bind(job.to_string())
        .fetch_all(&self.readers)
        .await?;
        let id = job.to_string();
        rows.into_iter()
            .map(|(digest, stage, idx, generation, dispatch)| {
                let stage = stage.try_into().map_err(|_| Error::Corrupt("stage name".to_owned()))?;
                Ok((PoolId { stage, digest: parse(&digest)? }, image_key(&id, idx, generation, dispatch)?))
            })
            .collect()
    }
}

pub(super) fn check_term(term: Term) -> Result<(), Error> {
    if term == ONLY_TERM { Ok(()) } else { Err(Error::NotLeading(term.0)) }
}

fn image_key(job: &str, idx: i64, generation: i64, dispatch: i64) -> Result<TaskKey, Error> {
    Ok(TaskKey {
        subject: Subject::Image(ImageId { job: job_id(job)?, index: number(idx)? }),
        generation: number(generation)?,
        dispatch: number(dispatch)?,
    })
}

fn text_key(digest: &str, dispatch: i64) -> Result<TaskKey, Error> {
    Ok(TaskKey { subject: Subject::Text(parse(digest)?), generation: 0, dispatch: number(dispatch)? })
}

async fn dispatch_texts(tx: &mut Tx, pool: &PoolId, pick: &Pick) -> Result<Vec<Dispatched>, Error> {
    let rows: Vec<(String, String, i64, bool)> = sqlx::query_as(
        "UPDATE embeddings SET state = 'dispatched', dispatch = dispatch + 1
         WHERE state = 'wanted' AND encoder = ?2 AND id IN
               (SELECT e.id FROM jobs AS j
                JOIN job_texts AS t ON t.job = j.seq AND t.encoded = 0
                JOIN embeddings AS e ON e.id = t.embedding AND e.state = 'wanted'
                WHERE j.id = ?1 AND j.state = 'active'
                ORDER BY t.embedding LIMIT ?3)
         RETURNING digest, prepared, dispatch, suspect",
    )
    .bind(pick.job.to_string())
    .bind(pool.digest.to_string())
    .bind(column(pick.count))
    .fetch_all(&mut **tx)
    .await?;
    rows.into_iter()
        .map(|(digest, prepared, dispatch, suspect)| {
            let text = PreparedText { digest: parse(&digest)?, prepared };
            Ok(Dispatched { key: text_key(&digest, dispatch)?, suspect, work: Work::Encode { text } })
        })
        .collect()
}

#[derive(sqlx::FromRow)]
struct JobRow {
    seq: i64,
    settings: String,
    stage: i64,
}

#[derive(sqlx::FromRow)]
struct ReadyRow {
    #[sqlx(flatten)]
    image: ProgressRow,
    text: String,
    negative: String,
    first_index: i64,
    first_seed: i64,
    guided: bool,
    styled: bool,
    extras: Option<String>,
    text_key: Option<String>,
    text_sha256: Option<String>,
    text_size: Option<i64>,
    negative_key: Option<String>,
    negative_sha256: Option<String>,
    negative_size: Option<i64>,
    style_key: Option<String>,
    style_sha256: Option<String>,
    style_size: Option<i64>,
    low_res_key: Option<String>,
    low_res_sha256: Option<String>,
    low_res_size: Option<i64>,
}

impl ReadyRow {
    fn encoded(&self) -> bool {
        self.text_key.is_some()
            && (!self.guided || self.negative_key.is_some())
            && (!self.styled || self.style_key.is_some())
    }
}

async fn dispatch_images(tx: &mut Tx, pool: &PoolId, pick: &Pick) -> Result<Vec<Dispatched>, Error> {
    let job: Option<JobRow> = sqlx::query_as(
        "SELECT j.seq, j.settings, s.stage
         FROM jobs AS j JOIN job_stages AS s ON s.job = j.seq
         WHERE j.id = ?1 AND j.state = 'active' AND s.name = ?2 AND s.pool = ?3 AND s.stage >= 0",
    )
    .bind(pick.job.to_string())
    .bind(pool.stage.as_str())
    .bind(pool.digest.to_string())
    .fetch_optional(&mut **tx)
    .await?;
    let Some(job) = job else { return Ok(Vec::new()) };
    let settings: Settings = from_json(&job.settings)?;
    let stages = settings.stages.len();
    let ready = ready_images(tx, &job, pick.count).await?;
    let mut moves = Vec::with_capacity(ready.len());
    let mut unencoded = Vec::new();
    for row in &ready {
        let encoded = row.encoded();
        let event = if encoded { ImageEvent::Dispatch } else { ImageEvent::TextsLost };
        if !encoded {
            unencoded.push(row.image.prompt);
        }
        let from = row.image.progress()?;
        if let Ok(to) = transition(&from, &event, stages) {
            moves.push(Move { job: job.seq, idx: row.image.idx, from, to, error: LastError::Keep });
        }
    }
    texts::want_again(tx, job.seq, &unencoded).await?;
    let applied = apply(tx, &moves).await?.applied;
    ready
        .into_iter()
        .filter(|row| !unencoded.contains(&row.image.prompt) && applied.contains(&(job.seq, row.image.idx)))
        .map(|row| dispatched_image(pick.job, pool, &settings, row))
        .collect()
}

/// The next ready images of a job, each with the inputs of its stage; an input that is not there is NULL.
async fn ready_images(tx: &mut Tx, job: &JobRow, count: u64) -> Result<Vec<ReadyRow>, Error> {
    Ok(sqlx::query_as(
        "SELECT i.job, i.idx, i.prompt, i.state, i.stage, i.generation, i.dispatch, i.failures, i.hosts,
                i.suspect, p.text, p.negative, p.first_index, p.first_seed,
                p.negative_embedding IS NOT NULL AS guided, p.style_embedding IS NOT NULL AS styled, p.extras,
                t.key AS text_key, t.sha256 AS text_sha256, t.size AS text_size,
                n.key AS negative_key, n.sha256 AS negative_sha256, n.size AS negative_size,
                s.key AS style_key, s.sha256 AS style_sha256, s.size AS style_size,
                o.key AS low_res_key, o.sha256 AS low_res_sha256, o.size AS low_res_size
         FROM images AS i
         JOIN prompts AS p ON p.job = i.job AND p.position = i.prompt
         LEFT JOIN embeddings AS t ON t.id = p.text_embedding AND t.state = 'done'
         LEFT JOIN embeddings AS n ON n.id = p.negative_embedding AND n.state = 'done'
         LEFT JOIN embeddings AS s ON s.id = p.style_embedding AND s.state = 'done'
         LEFT JOIN outputs AS o ON o.job = i.job AND o.idx = i.idx AND o.stage = i.stage - 1
         WHERE i.job = ?1 AND i.state = 'ready' AND i.stage = ?2
         ORDER BY i.idx LIMIT ?3",
    )
    .bind(job.seq)
    .bind(job.stage)
    .bind(column(count))
    .fetch_all(&mut **tx)
    .await?)
}

fn dispatched_image(
    job: JobId,
    pool: &PoolId,
    settings: &Settings,
    row: ReadyRow,
) -> Result<Dispatched, Error> {
    let input = |key: Option<String>, sha256: Option<String>, size: Option<i64>| {
        key.zip(sha256).zip(size).map(|((key, sha256), size)| artifact(key, &sha256, size)).transpose()
    };
    let text_embedding = input(row.text_key, row.text_sha256, row.text_size)?;
    let work = RenderWork {
        cascade: pool.digest,
        settings: settings.clone(),
        stage: number(row.image.stage)?,
        prompt: row.text,
        negative: row.negative,
        seed: image_seed(row.first_seed, row.first_index, row.image.idx),
        text_embedding: text_embedding.ok_or_else(|| Error::Corrupt("embedding without key".to_owned()))?,
        negative_embedding: input(row.negative_key, row.negative_sha256, row.negative_size)?,
        style_embedding: input(row.style_key, row.style_sha256, row.style_size)?,
        extras: Extras::from_json(row.extras.as_deref())?,
        low_res: input(row.low_res_key, row.low_res_sha256, row.low_res_size)?,
    };
    Ok(Dispatched {
        key: TaskKey {
            subject: Subject::Image(ImageId { job, index: number(row.image.idx)? }),
            generation: number(row.image.generation)?,
            dispatch: number(row.image.dispatch + 1)?,
        },
        suspect: row.image.suspect,
        work: Work::Render(Box::new(work)),
    })
}

/// For the bulk queries of this backend: a JSON list of numbers.
pub(super) fn list(numbers: &[i64]) -> Result<String, Error> {
    to_json(numbers)
}
