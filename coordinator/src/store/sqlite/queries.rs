//! Reading jobs with their stages.

use std::collections::HashMap;

use darkroom_core::id::JobId;
use sqlx::SqliteConnection;

use super::{
    Error, SqliteStore,
    both::queries::JobHeadRow,
    rows::{from_json, list, number, stage_name},
};
use crate::store::{
    records::{Around, ImagePage, ImageQuery, JobRecord, StageCounters},
    roles::Queries as _,
    row::row,
};

row! {
    pub(super) struct JobRow {
        pace: Option<String>,
        ..head: JobHeadRow,
    }
}

row! {
    struct StageRow {
        job: i64,
        stage: i64,
        name: String,
        total: i64,
        ready: i64,
        dispatched: i64,
        passed: i64,
        stopped: i64,
    }
}

/// A job and what its view shows of the farm.
pub(super) async fn view(
    store: &SqliteStore,
    job: JobId,
    notes: u32,
) -> Result<(JobRecord, Around), Error> {
    let job = store.job(job).await?;
    let around = store.around(job.id, job.priority, notes).await?;
    Ok((job, around))
}

/// SQLite has no quicker way to read a page.
pub(super) async fn quick_page(
    _: &SqliteStore,
    _: &ImageQuery,
) -> Result<Option<ImagePage>, Error> {
    Ok(None)
}

/// Every column of [`JobRow`].
macro_rules! job_columns {
    ($which:literal) => {
        concat!(
            "SELECT *, CAST(unixepoch('subsec') * 1000 AS INTEGER) AS now_ms,
                (SELECT before_ms FROM job_paces AS r WHERE r.job = jobs.seq) AS pace_ms,
                (SELECT before FROM job_paces AS r WHERE r.job = jobs.seq) AS pace,
                (SELECT at_ms FROM job_forecasts AS f WHERE f.job = jobs.seq) AS forecast_ms,
                (SELECT forecast FROM job_forecasts AS f WHERE f.job = jobs.seq) AS forecast,
                (SELECT spent FROM job_forecasts AS f WHERE f.job = jobs.seq) AS spent
             FROM jobs WHERE ",
            $which
        )
    };
}
pub(super) use job_columns;

/// The jobs of these rows, in their order.
pub(super) async fn records(
    tx: &mut SqliteConnection,
    rows: Vec<JobRow>,
) -> Result<Vec<JobRecord>, Error> {
    let seqs: Vec<i64> = rows.iter().map(|row| row.head.job.seq).collect();
    // Texts are not counted as dispatched per job: the dispatched ones are few, so they are counted
    // when asked.
    let stages: Vec<StageRow> = sqlx::query_as(
        "SELECT s.job, s.stage, s.name,
                CASE s.stage WHEN -1 THEN s.total ELSE j.images END AS total,
                CASE s.stage WHEN -1 THEN s.total - s.passed ELSE s.ready END AS ready,
                CASE s.stage WHEN -1
                    THEN (SELECT count(*) FROM embeddings AS e
                          JOIN job_texts AS t ON t.embedding = e.id AND t.job = s.job
                          WHERE e.encoder = s.pool AND e.state = 'dispatched')
                    ELSE s.dispatched END AS dispatched,
                s.passed, s.stopped
         FROM json_each(?1) AS wanted
         JOIN job_stages AS s ON s.job = wanted.value
         JOIN jobs AS j ON j.seq = s.job
         ORDER BY s.job, s.stage",
    )
    .bind(list(&seqs)?)
    .fetch_all(tx)
    .await?;
    let mut by_job: HashMap<i64, Vec<StageCounters>> = HashMap::new();
    for stage in stages {
        by_job.entry(stage.job).or_default().push(counters(stage)?);
    }
    rows.into_iter()
        .map(|row| {
            let stages = by_job.remove(&row.head.job.seq).unwrap_or_default();
            let pace = row.pace.as_deref().map(from_json).transpose()?;
            row.head.record(stages, pace)
        })
        .collect()
}

fn counters(row: StageRow) -> Result<StageCounters, Error> {
    let dispatched: u64 = number(row.dispatched)?;
    let ready: u64 = number(row.ready)?;
    Ok(StageCounters {
        name: stage_name(row.name)?,
        total: number(row.total)?,
        ready: if row.stage == -1 { ready.saturating_sub(dispatched) } else { ready },
        dispatched,
        passed: number(row.passed)?,
        stopped: number(row.stopped)?,
    })
}
