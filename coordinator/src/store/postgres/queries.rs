//! Reading jobs with their stages and their newest progress.

use darkroom_core::id::JobId;
use sqlx::PgConnection;

use super::{
    Error, PostgresStore,
    both::{deleted_jobs::not_found, queries::JobHeadRow},
    page,
    rows::{column, number, stage_name},
};
use crate::store::{
    notes,
    records::{Around, ImageOrder, ImagePage, ImageQuery, JobRecord, StageCounters},
    row::row,
};

row! {
    pub(super) struct JobRow {
        pace: Option<Vec<i64>>,
        texts: i64,
        ready: Vec<i64>,
        dispatched: Vec<i64>,
        passed: Vec<i64>,
        stopped: Vec<i64>,
        stages: Vec<String>,
        texts_dispatched: i64,
        ..head: JobHeadRow,
    }
}

row! {
    /// A job and what its view shows of the farm, read at once.
    struct ViewRow {
        notes: Vec<String>,
        rivals: i64,
        first_dispatched: Option<i64>,
        ..job: JobRow,
    }
}

/// A job and what its view shows of the farm.
pub(super) async fn view(
    store: &PostgresStore,
    job: JobId,
    notes: u32,
) -> Result<(JobRecord, Around), Error> {
    let from = store.viewed_from.get(&job);
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
         WHERE j.id = $1 AND j.state <> 'receiving' AND j.deleted_ms IS NULL"
    ))
    .bind(job.0)
    .bind(i64::from(notes))
    .bind(from.unwrap_or(0))
    .fetch_optional(&store.pool)
    .await?;
    let Some(row) = row else {
        return Err(not_found(&mut *store.pool.acquire().await?, job).await);
    };
    if let Some(first) = row.first_dispatched {
        store.viewed_from.set(job, first, from.is_none());
    }
    let around = Around { notes: notes::sentences(&row.notes)?, rivals: number(row.rivals)? };
    Ok((record(row.job)?, around))
}

/// A page of images by index only, which is the most frequent query. `None` if the query has other
/// conditions, or if it finds nothing.
pub(super) async fn quick_page(
    store: &PostgresStore,
    query: &ImageQuery,
) -> Result<Option<ImagePage>, Error> {
    let (ImageOrder::Index(after), [], true) =
        (query.order, query.states.as_slice(), query.filter.is_empty())
    else {
        return Ok(None);
    };
    let after = after.map_or(-1, column);
    let found = page::following(&store.pool, query.job, after, query.limit).await?;
    Ok(Some(found).filter(|found| !found.images.is_empty()))
}

/// The jobs of these rows, in their order.
pub(super) async fn records(
    _: &mut PgConnection,
    rows: Vec<JobRow>,
) -> Result<Vec<JobRecord>, Error> {
    rows.into_iter().map(record).collect()
}

/// The number of the job's texts that are dispatched, from `$3` on. Usually all of them were
/// dispatched for this job. But a text that was dispatched for another job may be this job's too.
/// Dispatched texts have neighbouring numbers. So the job's texts in that range are read at once
/// and looked up in a hash, which costs a tenth of one lookup per text.
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
pub(super) use view_dispatched;

/// Every column of [`JobRow`], each job with its newest progress. Texts are not counted as
/// dispatched per job: the dispatched ones are few, so they are counted when asked.
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
        concat!("SELECT j.seq, j.id, j.tenant, j.client_request_id, j.name, j.labels, j.priority, j.state, j.follow, j.cascade, j.encoder,
                j.settings, j.requested, j.seed, j.generation, j.no_reuse,
                j.pictures_removed_ms, j.pictures_removed_by,
                (extract(epoch FROM j.created_at) * 1000)::bigint AS created_ms,
                (extract(epoch FROM j.finished_at) * 1000)::bigint AS finished_ms,
                j.manifest, j.manifest_key, j.manifest_sha256,
                (extract(epoch FROM j.deadline) * 1000)::bigint AS deadline_ms, j.max_workers, j.max_failed,
                j.end_code, j.end_reason, (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms,
                (extract(epoch FROM r.before_at) * 1000)::bigint AS pace_ms, r.before AS pace,
                (extract(epoch FROM f.at) * 1000)::bigint AS forecast_ms, f.forecast, f.spent,
                p.version, p.device_us, p.mix, p.images, p.texts, p.done, p.dead, p.cancelled, p.ready,
                p.dispatched, p.passed, p.stopped,
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
pub(super) use job_columns;

fn record(row: JobRow) -> Result<JobRecord, Error> {
    let stages = counters(&row)?;
    let pace = row.pace.map(|passed| passed.into_iter().map(number).collect::<Result<_, _>>());
    row.head.record(stages, pace.transpose()?)
}

fn counters(row: &JobRow) -> Result<Vec<StageCounters>, Error> {
    let at = |counts: &[i64], position: usize| counts.get(position).copied().unwrap_or(0);
    let stage = |(position, name): (usize, &String)| {
        let passed = at(&row.passed, position);
        let (total, ready, dispatched) = if position == 0 {
            let ready = row.texts - passed - row.texts_dispatched;
            (row.texts, ready.max(0), row.texts_dispatched)
        } else {
            (row.head.job.images, at(&row.ready, position), at(&row.dispatched, position))
        };
        Ok(StageCounters {
            name: stage_name(name.clone())?,
            total: number(total)?,
            ready: number(ready)?,
            dispatched: number(dispatched)?,
            passed: number(passed)?,
            stopped: number(at(&row.stopped, position))?,
        })
    };
    row.stages.iter().enumerate().map(stage).collect()
}
