//! Reading jobs and images. Pages go by key (`seq`, index, version), never by offset.

use std::collections::HashMap;

use darkroom_core::{
    id::{ImageId, JobId},
    image_state::ImageState,
    settings::Settings,
};
use darkroom_queue::task::PoolId;
use sqlx::{Sqlite, SqliteConnection};

use super::{
    Error, SqliteStore, forecast,
    rows::{ProgressRow, artifact, column, from_json, image_seed, job_id, number, parse, seed, to_json},
};
use crate::store::{
    limits::Limits,
    notes,
    records::{
        Changes, Extras, ImageOrder, ImagePage, ImageQuery, ImageRecord, JobPage, JobQuery, JobRecord,
        Output, Pace, StageCounters, naming,
    },
};

#[derive(sqlx::FromRow)]
struct JobRow {
    seq: i64,
    id: String,
    tenant: String,
    client_request_id: Option<String>,
    name: String,
    priority: u8,
    state: String,
    follow: Option<String>,
    cascade: String,
    encoder: String,
    settings: String,
    requested: String,
    seed: i64,
    version: i64,
    generation: i64,
    images: i64,
    done: i64,
    dead: i64,
    cancelled: i64,
    created_ms: i64,
    finished_ms: Option<i64>,
    manifest: Option<String>,
    manifest_key: Option<String>,
    manifest_sha256: Option<String>,
    deadline_ms: Option<i64>,
    max_workers: Option<u32>,
    max_failed: Option<i64>,
    end_code: Option<String>,
    end_reason: Option<String>,
    now_ms: i64,
    pace_ms: Option<i64>,
    pace: Option<String>,
    forecast_ms: Option<i64>,
    forecast: Option<String>,
    spent: Option<String>,
}

#[derive(sqlx::FromRow)]
struct StageRow {
    job: i64,
    stage: i64,
    name: String,
    total: i64,
    ready: i64,
    dispatched: i64,
    passed: i64,
}

#[derive(sqlx::FromRow)]
struct ImageRow {
    #[sqlx(flatten)]
    image: ProgressRow,
    error_code: Option<String>,
    error: Option<String>,
    version: i64,
    text: String,
    negative: String,
    extras: Option<String>,
    custom_id: Option<String>,
    labels: Option<String>,
    line: Option<i64>,
    first_index: i64,
    first_seed: i64,
}

#[derive(sqlx::FromRow)]
struct OutputRow {
    idx: i64,
    stage: i64,
    key: String,
    sha256: String,
    size: i64,
    seconds: f64,
    worker: String,
    device_class: String,
}

impl SqliteStore {
    pub(super) async fn job_record(&self, job: JobId) -> Result<JobRecord, Error> {
        let mut tx = self.readers.begin().await?;
        read_job(&mut tx, job).await
    }

    pub(super) async fn list_jobs(&self, query: &JobQuery) -> Result<JobPage, Error> {
        let states: Vec<_> = query.states.iter().map(|state| state.name()).collect();
        let mut tx = self.readers.begin().await?;
        let mut rows: Vec<JobRow> = sqlx::query_as(
            "SELECT *, CAST(unixepoch('subsec') * 1000 AS INTEGER) AS now_ms,
                (SELECT before_ms FROM job_paces AS r WHERE r.job = jobs.seq) AS pace_ms,
                (SELECT before FROM job_paces AS r WHERE r.job = jobs.seq) AS pace,
                (SELECT at_ms FROM job_forecasts AS f WHERE f.job = jobs.seq) AS forecast_ms,
                (SELECT forecast FROM job_forecasts AS f WHERE f.job = jobs.seq) AS forecast,
                (SELECT spent FROM job_forecasts AS f WHERE f.job = jobs.seq) AS spent
             FROM jobs
             WHERE state <> 'receiving' AND seq < ?1
               AND (?2 IS NULL OR tenant = ?2)
               AND (?3 = '[]' OR state IN (SELECT value FROM json_each(?3)))
             ORDER BY seq DESC LIMIT ?4",
        )
        .bind(query.before.unwrap_or(i64::MAX))
        .bind(&query.tenant)
        .bind(to_json(&states)?)
        .bind(i64::from(query.limit) + 1)
        .fetch_all(&mut *tx)
        .await?;
        let more = rows.len() > query.limit as usize;
        rows.truncate(query.limit as usize);
        Ok(JobPage { jobs: with_stages(&mut tx, rows).await?, more })
    }

    pub(super) async fn list_images(&self, query: &ImageQuery) -> Result<ImagePage, Error> {
        let mut tx = self.readers.begin().await?;
        let seq = find(&mut tx, query.job).await?;
        page(&mut tx, query, seq).await
    }

    pub(super) async fn one_image(&self, job: JobId, index: u64) -> Result<ImageRecord, Error> {
        let mut tx = self.readers.begin().await?;
        let seq = find(&mut tx, job).await?;
        let mut images = read_images(&mut tx, job, seq, &[column(index)]).await?;
        images.pop().ok_or_else(|| Error::NotFound(format!("job {job} has no image {index}")))
    }

    pub(super) async fn changes_after(
        &self,
        job: JobId,
        after: (u64, Option<u64>),
        limit: u32,
    ) -> Result<Changes, Error> {
        let mut tx = self.readers.begin().await?;
        let record = read_job(&mut tx, job).await?;
        if limit == 0 {
            return Ok(Changes { job: record, images: Vec::new(), more: false });
        }
        let order = ImageOrder::Version(after.0, after.1);
        let query = ImageQuery { job, states: Vec::new(), order, limit };
        let page = page(&mut tx, &query, record.seq).await?;
        Ok(Changes { job: record, images: page.images, more: page.more })
    }

    pub(super) async fn job_notes(&self, job: JobId, limit: u32) -> Result<Vec<String>, Error> {
        let rows: Vec<String> = sqlx::query_scalar(
            "SELECT json_array(n.first_index, n.line, n.images, n.role, n.note)
             FROM jobs AS j JOIN text_notes AS n ON n.job = j.seq
             WHERE j.id = ?1 ORDER BY n.first_index, n.role, n.embedding, n.ord LIMIT ?2",
        )
        .bind(job.to_string())
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        notes::sentences(&rows)
    }

    pub(super) async fn count_active(&self, priority: u8) -> Result<u64, Error> {
        let active: i64 =
            sqlx::query_scalar("SELECT count(*) FROM jobs WHERE state = 'active' AND priority >= ?1")
                .bind(priority)
                .fetch_one(&self.readers)
                .await?;
        number(active)
    }

    pub(super) async fn tasks_ahead(&self, job: JobId, pool: &PoolId) -> Result<u64, Error> {
        let ahead: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(CASE WHEN o.priority > me.priority AND o.state = 'active'
                                      THEN s.ready + s.dispatched ELSE s.dispatched END), 0)
             FROM jobs AS me
             JOIN job_stages AS s ON s.pool = ?2 AND s.name = ?3 AND (s.ready > 0 OR s.dispatched > 0)
             JOIN jobs AS o ON o.seq = s.job
             WHERE me.id = ?1 AND o.seq <> me.seq",
        )
        .bind(job.to_string())
        .bind(pool.digest.to_string())
        .bind(pool.stage.as_str())
        .fetch_one(&self.readers)
        .await?;
        number(ahead)
    }
}

async fn find(tx: &mut SqliteConnection, job: JobId) -> Result<i64, Error> {
    let seq: Option<i64> = sqlx::query_scalar("SELECT seq FROM jobs WHERE id = ?1 AND state <> 'receiving'")
        .bind(job.to_string())
        .fetch_optional(tx)
        .await?;
    seq.ok_or_else(|| Error::no_job(job))
}

pub(super) async fn read_job(
    tx: &mut sqlx::Transaction<'static, Sqlite>,
    job: JobId,
) -> Result<JobRecord, Error> {
    let row: Option<JobRow> = sqlx::query_as(
        "SELECT *, CAST(unixepoch('subsec') * 1000 AS INTEGER) AS now_ms,
                (SELECT before_ms FROM job_paces AS r WHERE r.job = jobs.seq) AS pace_ms,
                (SELECT before FROM job_paces AS r WHERE r.job = jobs.seq) AS pace,
                (SELECT at_ms FROM job_forecasts AS f WHERE f.job = jobs.seq) AS forecast_ms,
                (SELECT forecast FROM job_forecasts AS f WHERE f.job = jobs.seq) AS forecast,
                (SELECT spent FROM job_forecasts AS f WHERE f.job = jobs.seq) AS spent
             FROM jobs WHERE id = ?1 AND state <> 'receiving'",
    )
    .bind(job.to_string())
    .fetch_optional(&mut **tx)
    .await?;
    let row = row.ok_or_else(|| Error::no_job(job))?;
    with_stages(tx, vec![row]).await?.pop().ok_or_else(|| Error::no_job(job))
}

async fn with_stages(tx: &mut SqliteConnection, rows: Vec<JobRow>) -> Result<Vec<JobRecord>, Error> {
    let seqs: Vec<i64> = rows.iter().map(|row| row.seq).collect();
    // Texts are not counted as dispatched per job: the dispatched ones are few, so they are counted when asked.
    let stages: Vec<StageRow> = sqlx::query_as(
        "SELECT s.job, s.stage, s.name,
                CASE s.stage WHEN -1 THEN s.total ELSE j.images END AS total,
                CASE s.stage WHEN -1 THEN s.total - s.passed ELSE s.ready END AS ready,
                CASE s.stage WHEN -1
                    THEN (SELECT count(*) FROM embeddings AS e
                          JOIN job_texts AS t ON t.embedding = e.id AND t.job = s.job
                          WHERE e.encoder = s.pool AND e.state = 'dispatched')
                    ELSE s.dispatched END AS dispatched,
                s.passed
         FROM json_each(?1) AS wanted
         JOIN job_stages AS s ON s.job = wanted.value
         JOIN jobs AS j ON j.seq = s.job
         ORDER BY s.job, s.stage",
    )
    .bind(to_json(&seqs)?)
    .fetch_all(tx)
    .await?;
    let mut by_job: HashMap<i64, Vec<StageCounters>> = HashMap::new();
    for stage in stages {
        by_job.entry(stage.job).or_default().push(counters(stage)?);
    }
    rows.into_iter()
        .map(|row| {
            let stages = by_job.remove(&row.seq).unwrap_or_default();
            job_record(row, stages)
        })
        .collect()
}

fn counters(row: StageRow) -> Result<StageCounters, Error> {
    let dispatched: u64 = number(row.dispatched)?;
    let ready: u64 = number(row.ready)?;
    Ok(StageCounters {
        name: row.name.try_into().map_err(|_| Error::Corrupt("stage name".to_owned()))?,
        total: number(row.total)?,
        ready: if row.stage == -1 { ready.saturating_sub(dispatched) } else { ready },
        dispatched,
        passed: number(row.passed)?,
    })
}

fn job_record(row: JobRow, stages: Vec<StageCounters>) -> Result<JobRecord, Error> {
    let pace = match (row.pace_ms, &row.pace) {
        (Some(at_ms), Some(passed)) => Some(Pace { at_ms, passed: from_json(passed)? }),
        _ => None,
    };
    let settings: Settings = from_json(&row.settings)?;
    let manifest = match (row.manifest.as_deref(), row.manifest_key, row.manifest_sha256) {
        (Some("written"), Some(key), Some(sha256)) => Some(Some((key, parse(&sha256)?))),
        (Some(_), ..) => Some(None),
        (None, ..) => None,
    };
    Ok(JobRecord {
        id: job_id(&row.id)?,
        seq: row.seq,
        tenant: row.tenant,
        name: row.name,
        client_request_id: row.client_request_id,
        priority: row.priority,
        state: parse(&row.state)?,
        following: row.follow.is_some(),
        cascade: parse(&row.cascade)?,
        encoder: parse(&row.encoder)?,
        settings,
        requested: from_json(&row.requested)?,
        seed: seed(row.seed),
        limits: Limits {
            deadline_ms: row.deadline_ms,
            max_workers: row.max_workers,
            max_failed: row.max_failed.map(number).transpose()?,
        },
        end: row.end_code.zip(row.end_reason),
        now_ms: row.now_ms,
        pace,
        forecast: forecast::kept(row.forecast_ms, row.forecast.as_deref(), row.spent.as_deref())?,
        version: number(row.version)?,
        generation: number(row.generation)?,
        images: number(row.images)?,
        done: number(row.done)?,
        dead: number(row.dead)?,
        cancelled: number(row.cancelled)?,
        created_ms: row.created_ms,
        finished_ms: row.finished_ms,
        manifest,
        stages,
    })
}

async fn page(tx: &mut SqliteConnection, query: &ImageQuery, seq: i64) -> Result<ImagePage, Error> {
    let limit = i64::from(query.limit) + 1;
    let mut indexes = match query.order {
        ImageOrder::Index(after) => {
            let after = after.map_or(-1, column);
            if query.states.is_empty() {
                sqlx::query_scalar("SELECT idx FROM images WHERE job = ?1 AND idx > ?2 ORDER BY idx LIMIT ?3")
                    .bind(seq)
                    .bind(after)
                    .bind(limit)
                    .fetch_all(&mut *tx)
                    .await?
            } else {
                by_state(tx, seq, &query.states, after, limit).await?
            }
        }
        ImageOrder::Version(version, index) => {
            let states: Vec<_> = query.states.iter().map(|state| state.name()).collect();
            sqlx::query_scalar(
                "SELECT idx FROM images
                 WHERE job = ?1 AND (version, idx) > (?2, ?3)
                   AND (?4 = '[]' OR state IN (SELECT value FROM json_each(?4)))
                 ORDER BY version, idx LIMIT ?5",
            )
            .bind(seq)
            .bind(column(version))
            .bind(index.map_or(i64::MAX, column))
            .bind(to_json(&states)?)
            .bind(limit)
            .fetch_all(&mut *tx)
            .await?
        }
    };
    let more = indexes.len() > query.limit as usize;
    indexes.truncate(query.limit as usize);
    Ok(ImagePage { images: read_images(tx, query.job, seq, &indexes).await?, more })
}

/// Indexes of images in some states: one walk of the index per state and stage, merged, so that a page costs the
/// same whatever lies between.
async fn by_state(
    tx: &mut SqliteConnection,
    seq: i64,
    states: &[ImageState],
    after: i64,
    limit: i64,
) -> Result<Vec<i64>, Error> {
    let stages: i64 = sqlx::query_scalar("SELECT count(*) FROM job_stages WHERE job = ?1 AND stage >= 0")
        .bind(seq)
        .fetch_one(&mut *tx)
        .await?;
    let mut indexes: Vec<i64> = Vec::new();
    for state in states {
        for stage in 0..stages {
            let some: Vec<i64> = sqlx::query_scalar(
                "SELECT idx FROM images
                 WHERE job = ?1 AND state = ?2 AND stage = ?3 AND idx > ?4
                 ORDER BY idx LIMIT ?5",
            )
            .bind(seq)
            .bind(state.name())
            .bind(stage)
            .bind(after)
            .bind(limit)
            .fetch_all(&mut *tx)
            .await?;
            indexes.extend(some);
        }
    }
    indexes.sort_unstable();
    indexes.dedup();
    indexes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(indexes)
}

/// The images with these indexes, in this order.
async fn read_images(
    tx: &mut SqliteConnection,
    job: JobId,
    seq: i64,
    indexes: &[i64],
) -> Result<Vec<ImageRecord>, Error> {
    let wanted = to_json(indexes)?;
    let rows: Vec<ImageRow> = sqlx::query_as(
        "SELECT i.job, i.idx, i.prompt, i.state, i.stage, i.generation, i.dispatch, i.failures, i.hosts, i.suspect,
                i.error_code, i.error, i.version, p.text, p.negative, p.extras, p.custom_id, p.labels, p.line,
                p.first_index, p.first_seed
         FROM json_each(?2) AS wanted
         CROSS JOIN images AS i ON i.job = ?1 AND i.idx = wanted.value
         JOIN prompts AS p ON p.job = i.job AND p.position = i.prompt
         ORDER BY wanted.key",
    )
    .bind(seq)
    .bind(&wanted)
    .fetch_all(&mut *tx)
    .await?;
    let outputs: Vec<OutputRow> = sqlx::query_as(
        "SELECT o.idx, o.stage, o.key, o.sha256, o.size, o.seconds, o.worker, o.device_class
         FROM json_each(?2) AS wanted
         CROSS JOIN outputs AS o ON o.job = ?1 AND o.idx = wanted.value
         ORDER BY o.idx, o.stage",
    )
    .bind(seq)
    .bind(&wanted)
    .fetch_all(&mut *tx)
    .await?;
    let mut by_image: HashMap<i64, Vec<Output>> = HashMap::new();
    for row in outputs {
        by_image.entry(row.idx).or_default().push(output(row)?);
    }
    rows.into_iter()
        .map(|row| {
            Ok(ImageRecord {
                id: ImageId { job, index: number(row.image.idx)? },
                progress: row.image.progress()?,
                seed: image_seed(row.first_seed, row.first_index, row.image.idx),
                prompt: row.text,
                negative: row.negative,
                extras: Extras::from_json(row.extras.as_deref())?,
                naming: naming(row.custom_id, row.labels.as_deref(), row.line)?,
                error: row.error_code.zip(row.error),
                version: number(row.version)?,
                outputs: by_image.remove(&row.image.idx).unwrap_or_default(),
            })
        })
        .collect()
}

fn output(row: OutputRow) -> Result<Output, Error> {
    Ok(Output {
        stage: number(row.stage)?,
        artifact: artifact(row.key, &row.sha256, row.size)?,
        seconds: row.seconds,
        worker: row.worker,
        device_class: row.device_class,
    })
}
