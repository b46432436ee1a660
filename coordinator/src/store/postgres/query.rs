//! Reading jobs. Pages go by key (`seq`), never by offset.

use darkroom_core::{id::JobId, settings::Settings};
use darkroom_queue::task::PoolId;
use uuid::Uuid;

use super::{
    Error, PostgresStore, Tx, forecast,
    rows::{column, digest, from_json, number, parse, seed},
};
use crate::store::{
    limits::Limits,
    notes,
    records::{Around, JobPage, JobQuery, JobRecord, Pace, StageCounters},
};

#[derive(sqlx::FromRow)]
struct JobRow {
    seq: i64,
    id: Uuid,
    tenant: String,
    client_request_id: Option<String>,
    name: String,
    priority: i16,
    state: String,
    follow: Option<String>,
    cascade: Vec<u8>,
    encoder: Vec<u8>,
    settings: String,
    requested: String,
    seed: i64,
    generation: i32,
    created_ms: i64,
    finished_ms: Option<i64>,
    manifest: Option<String>,
    manifest_key: Option<String>,
    manifest_sha256: Option<Vec<u8>>,
    deadline_ms: Option<i64>,
    max_workers: Option<i32>,
    max_failed: Option<i64>,
    end_code: Option<String>,
    end_reason: Option<String>,
    now_ms: i64,
    pace_ms: Option<i64>,
    pace: Option<Vec<i64>>,
    forecast_ms: Option<i64>,
    forecast: Option<String>,
    spent: Option<String>,
    version: i64,
    images: i64,
    texts: i64,
    done: i64,
    dead: i64,
    cancelled: i64,
    ready: Vec<i64>,
    dispatched: Vec<i64>,
    passed: Vec<i64>,
    stages: Vec<String>,
    texts_dispatched: i64,
}

/// A job and what its view shows of the farm, read at once.
#[derive(sqlx::FromRow)]
struct ViewRow {
    #[sqlx(flatten)]
    job: JobRow,
    notes: Vec<String>,
    rivals: i64,
    first_dispatched: Option<i64>,
}

impl PostgresStore {
    pub(super) async fn job_record(&self, job: JobId) -> Result<JobRecord, Error> {
        let mut tx = self.pool.acquire().await?;
        read_jobs(&mut tx, Some(job), &JobQuery { tenant: None, states: Vec::new(), before: None, limit: 1 })
            .await?
            .pop()
            .ok_or_else(|| Error::no_job(job))
    }

    pub(super) async fn viewed(&self, job: JobId, notes: u32) -> Result<(JobRecord, Around), Error> {
        let from = self.viewed_from.get(&job);
        let row: Option<ViewRow> = sqlx::query_as(concat!(
            job_columns!(
                view_dispatched!(),
                ", ARRAY (SELECT json_build_array(n.first_index, n.line, n.images, n.role, n.note)::text
                        FROM text_notes AS n WHERE n.job = j.seq
                        ORDER BY n.first_index, n.role, n.embedding, n.ord LIMIT $2) AS notes,
                   (SELECT count(*) FROM jobs AS o
                    WHERE (o.state IN ('active', 'paused') OR o.follow IS NOT NULL)
                      AND o.state = 'active' AND o.priority >= j.priority) AS rivals,
                   d.first AS first_dispatched
                "
            ),
            "LEFT JOIN LATERAL (SELECT count(*) AS together, count(*) FILTER (WHERE d.job = j.seq) AS own,
                                      min(d.embedding) AS first, max(d.embedding) AS last
                               FROM dispatched_texts AS d
                               WHERE d.encoder = j.encoder AND d.embedding >= $3 AND p.passed[1] <> p.texts) AS d ON TRUE
             WHERE j.id = $1 AND j.state <> 'receiving'"
        ))
        .bind(job.0)
        .bind(i64::from(notes))
        .bind(from.unwrap_or(0))
        .fetch_optional(&self.pool)
        .await?;
        let row = row.ok_or_else(|| Error::no_job(job))?;
        if let Some(first) = row.first_dispatched {
            self.viewed_from.set(job, first, from.is_none());
        }
        let around = Around { notes: notes::sentences(&row.notes)?, rivals: number(row.rivals)? };
        Ok((record(row.job)?, around))
    }

    pub(super) async fn list_jobs(&self, query: &JobQuery) -> Result<JobPage, Error> {
        let mut connection = self.pool.acquire().await?;
        let wider = JobQuery { limit: query.limit.saturating_add(1), ..query.clone() };
        let mut jobs = read_jobs(&mut connection, None, &wider).await?;
        let more = jobs.len() > query.limit as usize;
        jobs.truncate(query.limit as usize);
        Ok(JobPage { jobs, more })
    }

    pub(super) async fn job_notes(&self, job: JobId, limit: u32) -> Result<Vec<String>, Error> {
        let rows: Vec<String> = sqlx::query_scalar(
            "SELECT json_build_array(n.first_index, n.line, n.images, n.role, n.note)::text
             FROM jobs AS j JOIN text_notes AS n ON n.job = j.seq
             WHERE j.id = $1 ORDER BY n.first_index, n.role, n.embedding, n.ord LIMIT $2",
        )
        .bind(job.0)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        notes::sentences(&rows)
    }

    pub(super) async fn count_active(&self, priority: u8) -> Result<u64, Error> {
        let active: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM jobs
             WHERE (state IN ('active', 'paused') OR follow IS NOT NULL) AND state = 'active' AND priority >= $1",
        )
        .bind(i16::from(priority))
        .fetch_one(&self.pool)
        .await?;
        number(active)
    }

    pub(super) async fn tasks_ahead(&self, job: JobId, pool: &PoolId) -> Result<u64, Error> {
        // Of texts, which many jobs may share, only those that have been dispatched are nobody's in particular.
        let ahead: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(CASE WHEN o.priority > me.priority AND o.state = 'active'
                                      THEN p.ready[s.stage + 2] + p.dispatched[s.stage + 2]
                                      ELSE p.dispatched[s.stage + 2] END), 0)::bigint
             FROM jobs AS me
             JOIN jobs AS o ON (o.state IN ('active', 'paused') OR o.follow IS NOT NULL) AND o.seq <> me.seq
             JOIN job_stages AS s ON s.job = o.seq AND s.pool = $2 AND s.name = $3
             CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = o.seq
                                 ORDER BY newest.version DESC LIMIT 1) AS p
             WHERE me.id = $1",
        )
        .bind(job.0)
        .bind(pool.digest.0)
        .bind(pool.stage.as_str())
        .fetch_one(&self.pool)
        .await?;
        number(ahead)
    }
}

/// A job's record within a transaction.
pub(super) async fn read_job(tx: &mut Tx, job: JobId) -> Result<JobRecord, Error> {
    read_jobs(tx, Some(job), &JobQuery { tenant: None, states: Vec::new(), before: None, limit: 1 })
        .await?
        .pop()
        .ok_or_else(|| Error::no_job(job))
}

async fn read_jobs(
    connection: &mut sqlx::PgConnection,
    job: Option<JobId>,
    query: &JobQuery,
) -> Result<Vec<JobRecord>, Error> {
    let states: Vec<_> = query.states.iter().map(|state| state.name()).collect();
    let sql = match (job, &query.tenant) {
        (Some(_), _) => {
            concat!(job_columns!(), "WHERE j.id = $1 AND j.state <> 'receiving' ORDER BY j.seq LIMIT 1")
        }
        (None, Some(_)) => concat!(
            job_columns!(),
            "WHERE j.state <> 'receiving' AND j.tenant = $1 AND j.seq < $2
               AND (cardinality($3::text[]) = 0 OR j.state = ANY ($3))
             ORDER BY j.seq DESC LIMIT $4"
        ),
        (None, None) => concat!(
            job_columns!(),
            "WHERE j.state <> 'receiving' AND j.seq < $1
               AND (cardinality($2::text[]) = 0 OR j.state = ANY ($2))
             ORDER BY j.seq DESC LIMIT $3"
        ),
    };
    let mut select = sqlx::query_as(sql);
    if let Some(job) = job {
        select = select.bind(job.0);
    } else {
        if let Some(tenant) = &query.tenant {
            select = select.bind(tenant);
        }
        select = select.bind(query.before.unwrap_or(i64::MAX)).bind(states).bind(i64::from(query.limit));
    }
    let rows: Vec<JobRow> = select.fetch_all(connection).await?;
    rows.into_iter().map(record).collect()
}

/// How many texts of the job are dispatched, those below `$3` not counted. As a rule all of them were dispatched for it.
/// Otherwise those for others may be its own as well: dispatched texts are neighbours, so the job's texts among them are read
/// in one go and looked up in a hash, which costs a tenth of asking for each.
macro_rules! view_dispatched {
    () => {
        "CASE WHEN d.own = d.together THEN d.own
              WHEN d.last - d.first < 10000
              THEN (SELECT count(*) FROM dispatched_texts AS o
                    WHERE o.encoder = j.encoder AND o.embedding >= $3
                      AND (o.embedding IN (SELECT t.embedding FROM job_texts AS t
                                           WHERE t.job = (SELECT seq FROM jobs WHERE id = $1)
                                             AND t.embedding >= (SELECT min(m.embedding) FROM dispatched_texts AS m
                                                                 WHERE m.encoder = (SELECT encoder FROM jobs WHERE id = $1)
                                                                   AND m.embedding >= $3)
                                             AND t.embedding < (SELECT min(m.embedding) FROM dispatched_texts AS m
                                                                WHERE m.encoder = (SELECT encoder FROM jobs WHERE id = $1)
                                                                  AND m.embedding >= $3) + 10000)) IS TRUE)
              ELSE (SELECT count(*) FROM dispatched_texts AS o
                    JOIN job_texts AS t ON t.job = j.seq AND t.embedding = o.embedding
                    WHERE o.encoder = j.encoder AND o.embedding >= $3) END"
    };
}
use view_dispatched;

/// Every column of [`JobRow`], each job with its newest progress. Texts are not counted as dispatched per job: the
/// dispatched ones are few, so they are counted when asked.
macro_rules! job_columns {
    () => {
        job_columns!(
            "(SELECT count(*) FROM dispatched_texts AS d
              JOIN job_texts AS t ON t.job = j.seq AND t.embedding = d.embedding
              WHERE d.encoder = j.encoder)",
            ""
        )
    };
    ($dispatched:expr, $more:expr) => {
        concat!("SELECT j.seq, j.id, j.tenant, j.client_request_id, j.name, j.priority, j.state, j.follow, j.cascade, j.encoder,
                j.settings, j.requested, j.seed, j.generation,
                (extract(epoch FROM j.created_at) * 1000)::bigint AS created_ms,
                (extract(epoch FROM j.finished_at) * 1000)::bigint AS finished_ms,
                j.manifest, j.manifest_key, j.manifest_sha256,
                (extract(epoch FROM j.deadline) * 1000)::bigint AS deadline_ms, j.max_workers, j.max_failed,
                j.end_code, j.end_reason, (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms,
                (extract(epoch FROM r.before_at) * 1000)::bigint AS pace_ms, r.before AS pace,
                (extract(epoch FROM f.at) * 1000)::bigint AS forecast_ms, f.forecast, f.spent,
                p.version, p.images, p.texts, p.done, p.dead, p.cancelled, p.ready, p.dispatched, p.passed,
                ARRAY (SELECT s.name FROM job_stages AS s WHERE s.job = j.seq ORDER BY s.stage) AS stages,
                CASE WHEN p.passed[1] = p.texts THEN 0 ELSE ",
            $dispatched,
            " END AS texts_dispatched",
            $more,
            "
         FROM jobs AS j
         CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                             ORDER BY newest.version DESC LIMIT 1) AS p
         LEFT JOIN job_paces AS r ON r.job = j.seq
         LEFT JOIN job_forecasts AS f ON f.job = j.seq
         ")
    };
}
use job_columns;

fn record(row: JobRow) -> Result<JobRecord, Error> {
    let settings: Settings = from_json(&row.settings)?;
    let stages = counters(&row)?;
    let pace = match (row.pace_ms, row.pace) {
        (Some(at_ms), Some(passed)) => {
            Some(Pace { at_ms, passed: passed.into_iter().map(number).collect::<Result<_, _>>()? })
        }
        _ => None,
    };
    let manifest = match (row.manifest.as_deref(), row.manifest_key, row.manifest_sha256) {
        (Some("written"), Some(key), Some(sha256)) => Some(Some((key, digest(&sha256)?))),
        (Some(_), ..) => Some(None),
        (None, ..) => None,
    };
    Ok(JobRecord {
        id: JobId(row.id),
        seq: row.seq,
        tenant: row.tenant,
        name: row.name,
        client_request_id: row.client_request_id,
        priority: number(row.priority)?,
        state: parse(&row.state)?,
        following: row.follow.is_some(),
        cascade: digest(&row.cascade)?,
        encoder: digest(&row.encoder)?,
        settings,
        requested: from_json(&row.requested)?,
        seed: seed(row.seed),
        limits: Limits {
            deadline_ms: row.deadline_ms,
            max_workers: row.max_workers.map(number).transpose()?,
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

fn counters(row: &JobRow) -> Result<Vec<StageCounters>, Error> {
    let at = |counts: &[i64], position: usize| counts.get(position).copied().unwrap_or(0);
    let stage = |(position, name): (usize, &String)| {
        let passed = at(&row.passed, position);
        let (total, ready, dispatched) = if position == 0 {
            let ready = row.texts - passed - row.texts_dispatched;
            (row.texts, ready.max(0), row.texts_dispatched)
        } else {
            (row.images, at(&row.ready, position), at(&row.dispatched, position))
        };
        Ok(StageCounters {
            name: name.clone().try_into().map_err(|_| Error::Corrupt("stage name".to_owned()))?,
            total: number(total)?,
            ready: number(ready)?,
            dispatched: number(dispatched)?,
            passed: number(passed)?,
        })
    };
    row.stages.iter().enumerate().map(stage).collect()
}

/// A job's `seq`; jobs that are still received are not found.
pub(super) async fn find(tx: &mut Tx, job: JobId) -> Result<i64, Error> {
    let seq: Option<i64> = sqlx::query_scalar("SELECT seq FROM jobs WHERE id = $1 AND state <> 'receiving'")
        .bind(job.0)
        .fetch_optional(&mut **tx)
        .await?;
    seq.map(column).ok_or_else(|| Error::no_job(job))
}
