//! Reading jobs and images. Pages go by key (`seq`, index, version), never by offset.

use async_trait::async_trait;
use darkroom_core::id::JobId;
use darkroom_queue::task::PoolId;

use super::{
    super::queries::{JobRow, job_columns, quick_page, records, view},
    Connection, Error, Record,
    deleted_jobs::not_found,
    failures,
    page::{Images, read_images},
    rows::{
        HashColumn, IdColumn, Int, Small, column, digest, digest_column, id_column, job_id, list,
        number,
    },
};
use crate::store::{
    image_pages,
    job_columns::{JobColumns, JobRest},
    job_pages::{self, Beyond, JobHead, JobRows, JobText, Through},
    notes,
    records::{
        Around, Changes, Failures, ImageOrder, ImagePage, ImageQuery, ImageRecord, JobPage,
        JobQuery, JobRecord, Seen, StageCounters,
    },
    roles::Queries,
    row::row,
};

row! {
    /// Columns of a job that every backend has.
    pub(in super::super) struct JobHeadRow {
        id: IdColumn,
        priority: Small,
        cascade: HashColumn,
        encoder: HashColumn,
        generation: Int,
        manifest_sha256: Option<HashColumn>,
        max_workers: Option<Int>,
        ..pub(in super::super) job: JobColumns,
    }
}

impl JobHeadRow {
    /// The job. `pace` is the number of tasks that had passed each stage when its pace was noted.
    pub(in super::super) fn record(
        self,
        stages: Vec<StageCounters>,
        pace: Option<Vec<u64>>,
    ) -> Result<JobRecord, Error> {
        let manifest_sha256 = self.manifest_sha256.map(|column| digest(&column)).transpose()?;
        self.job.record(JobRest {
            id: job_id(&self.id)?,
            priority: number(self.priority)?,
            cascade: digest(&self.cascade)?,
            encoder: digest(&self.encoder)?,
            generation: number(self.generation)?,
            max_workers: self.max_workers.map(number).transpose()?,
            manifest_sha256,
            pace,
            stages,
        })
    }
}

#[async_trait]
impl Queries for Record {
    async fn job(&self, job: JobId) -> Result<JobRecord, Error> {
        read_job(&mut *self.reader().await?, job).await
    }

    async fn is_of(&self, job: JobId, tenant: &str) -> Result<bool, Error> {
        let found: Option<i64> = sqlx::query_scalar(
            "SELECT seq FROM jobs WHERE id = $1 AND tenant = $2 AND state <> 'receiving' AND deleted_ms IS NULL",
        )
        .bind(id_column(job))
        .bind(tenant)
        .fetch_optional(self.reads())
        .await?;
        Ok(found.is_some())
    }

    async fn view(&self, job: JobId, notes: u32) -> Result<(JobRecord, Around), Error> {
        view(self, job, notes).await
    }

    async fn jobs(&self, query: &JobQuery) -> Result<JobPage, Error> {
        let mut tx = self.begin_read().await?;
        job_pages::page(&mut Jobs(&mut tx), query).await
    }

    async fn images(&self, query: &ImageQuery) -> Result<ImagePage, Error> {
        if let Some(page) = quick_page(self, query).await? {
            return Ok(page);
        }
        let mut tx = self.begin_read().await?;
        let seq = find(&mut tx, query.job).await?;
        image_pages::page(&mut Images { tx: &mut tx, job: query.job, seq }, query).await
    }

    async fn failures(&self, job: JobId) -> Result<Failures, Error> {
        let mut tx = self.begin_read().await?;
        let seq = find(&mut tx, job).await?;
        failures::count(&mut tx, seq).await
    }

    async fn image(&self, job: JobId, index: u64) -> Result<ImageRecord, Error> {
        let mut tx = self.begin_read().await?;
        let seq = find(&mut tx, job).await?;
        let mut images = read_images(&mut tx, job, seq, &[column(index)]).await?;
        images.pop().ok_or_else(|| Error::NotFound(format!("job {job} has no image {index}")))
    }

    async fn changes(&self, job: JobId, after: Seen, limit: u32) -> Result<Changes, Error> {
        let mut tx = self.begin_read().await?;
        let record = read_job(&mut tx, job).await?;
        if limit == 0 {
            return Ok(Changes { job: record, images: Vec::new(), more: false });
        }
        let query = ImageQuery::all(job, ImageOrder::Version(after.version, after.index), limit);
        let mut images = Images { tx: &mut tx, job, seq: record.seq };
        let mut page = image_pages::watched(&mut images, &query).await?;
        if page.images.is_empty() && page.next.is_some() {
            // A watcher continues from an image. If this many changes are stale, reading every
            // image of the job once costs less than reading the remaining changes.
            page = images.scan(after, limit).await?;
        }
        Ok(Changes { job: record, images: page.images, more: page.next.is_some() })
    }

    async fn notes(&self, job: JobId, limit: u32) -> Result<Vec<String>, Error> {
        let rows: Vec<String> = sqlx::query_scalar(sql!(
            sqlite:
                "SELECT json_array(n.first_index, n.line, n.images, n.role, n.note)
                 FROM jobs AS j JOIN text_notes AS n ON n.job = j.seq
                 WHERE j.id = $1 ORDER BY n.first_index, n.role, n.embedding, n.ord LIMIT $2",
            postgres:
                "SELECT json_build_array(n.first_index, n.line, n.images, n.role, n.note)::text
                 FROM jobs AS j JOIN text_notes AS n ON n.job = j.seq
                 WHERE j.id = $1 ORDER BY n.first_index, n.role, n.embedding, n.ord LIMIT $2",
        ))
        .bind(id_column(job))
        .bind(i64::from(limit))
        .fetch_all(self.reads())
        .await?;
        notes::sentences(&rows)
    }

    async fn active_jobs(&self, priority: u8) -> Result<u64, Error> {
        let active: i64 = sqlx::query_scalar(sql!(
            sqlite: "SELECT count(*) FROM jobs WHERE state = 'active' AND priority >= $1",
            postgres:
                "SELECT count(*) FROM jobs
                 WHERE (state IN ('active', 'paused') OR follow IS NOT NULL) AND state = 'active' AND priority >= $1",
        ))
        .bind(column(priority))
        .fetch_one(self.reads())
        .await?;
        number(active)
    }

    async fn ahead(&self, job: JobId, pool: &PoolId) -> Result<u64, Error> {
        // Of texts, which many jobs may share, only those that have been dispatched are nobody's in
        // particular.
        let ahead: i64 = sqlx::query_scalar(sql!(
            sqlite:
                "SELECT coalesce(sum(CASE WHEN o.priority > me.priority AND o.state = 'active'
                                          THEN s.ready + s.dispatched ELSE s.dispatched END), 0)
                 FROM jobs AS me
                 JOIN job_stages AS s ON s.pool = $2 AND s.name = $3 AND (s.ready > 0 OR s.dispatched > 0)
                 JOIN jobs AS o ON o.seq = s.job
                 WHERE me.id = $1 AND o.seq <> me.seq",
            postgres:
                "SELECT coalesce(sum(CASE WHEN o.priority > me.priority AND o.state = 'active'
                                          THEN p.ready[s.stage + 2] + p.dispatched[s.stage + 2]
                                          ELSE p.dispatched[s.stage + 2] END), 0)::bigint
                 FROM jobs AS me
                 JOIN jobs AS o ON (o.state IN ('active', 'paused') OR o.follow IS NOT NULL) AND o.seq <> me.seq
                 JOIN job_stages AS s ON s.job = o.seq AND s.pool = $2 AND s.name = $3
                 CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = o.seq
                                     ORDER BY newest.version DESC LIMIT 1) AS p
                 WHERE me.id = $1",
        ))
        .bind(id_column(job))
        .bind(digest_column(pool.digest))
        .bind(pool.stage.as_str())
        .fetch_one(self.reads())
        .await?;
        number(ahead)
    }
}

/// The rows of jobs, as a transaction sees them.
struct Jobs<'a>(&'a mut Connection);

/// Jobs beyond a `seq`, through one index.
macro_rules! heads {
    ($which:literal, $order:literal) => {
        concat!(
            "SELECT seq, tenant, state, name, labels, ",
            sql!(
                sqlite: "created_ms",
                postgres: "(extract(epoch FROM created_at) * 1000)::bigint AS created_ms",
            ),
            " FROM jobs WHERE state <> 'receiving' AND deleted_ms IS NULL AND ",
            $which,
            $order,
            " LIMIT $2"
        )
    };
    ($which:literal, $oldest_first:expr) => {
        if $oldest_first {
            heads!($which, " AND seq > $1 ORDER BY seq")
        } else {
            heads!($which, " AND seq < $1 ORDER BY seq DESC")
        }
    };
}

#[async_trait]
impl JobRows for Jobs<'_> {
    async fn heads(&mut self, through: Through<'_>, beyond: Beyond) -> Result<Vec<JobHead>, Error> {
        let (sql, value) = match through {
            Through::Everyone => (heads!("CAST($3 AS TEXT) = ''", beyond.oldest_first), ""),
            Through::Tenant(tenant) => (heads!("tenant = $3", beyond.oldest_first), tenant),
            Through::State(state) => (heads!("state = $3", beyond.oldest_first), state),
        };
        let heads = sqlx::query_as(sql).bind(beyond.seq).bind(i64::from(beyond.limit)).bind(value);
        Ok(heads.fetch_all(&mut *self.0).await?)
    }

    async fn texts(&mut self, job: i64, position: i64, limit: u32) -> Result<Vec<JobText>, Error> {
        let texts = sqlx::query_as(
            "SELECT position, text, custom_id FROM prompts
             WHERE job = $1 AND position >= $2 ORDER BY position LIMIT $3",
        );
        let texts = texts.bind(job).bind(position).bind(i64::from(limit));
        Ok(texts.fetch_all(&mut *self.0).await?)
    }

    async fn read(&mut self, seqs: &[i64]) -> Result<Vec<JobRecord>, Error> {
        read_seqs(self.0, seqs).await
    }
}

/// A job's `seq`; jobs that are still received are not found.
pub(in super::super) async fn find(tx: &mut Connection, job: JobId) -> Result<i64, Error> {
    let seq: Option<i64> = sqlx::query_scalar(
        "SELECT seq FROM jobs WHERE id = $1 AND state <> 'receiving' AND deleted_ms IS NULL",
    )
    .bind(id_column(job))
    .fetch_optional(&mut *tx)
    .await?;
    match seq {
        Some(seq) => Ok(seq),
        None => Err(not_found(tx, job).await),
    }
}

/// A job's record.
pub(in super::super) async fn read_job(
    connection: &mut Connection,
    job: JobId,
) -> Result<JobRecord, Error> {
    let row: Option<JobRow> = sqlx::query_as(sql!(
        sqlite: job_columns!("id = $1 AND state <> 'receiving' AND deleted_ms IS NULL"),
        postgres: concat!(job_columns!(), "WHERE j.id = $1 AND j.state <> 'receiving' AND j.deleted_ms IS NULL"),
    ))
    .bind(id_column(job))
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Err(not_found(connection, job).await) };
    records(connection, vec![row]).await?.pop().ok_or_else(|| Error::no_job(job))
}

/// The jobs with these `seq`, in no order; those that are still received are left out.
pub(in super::super) async fn read_seqs(
    connection: &mut Connection,
    seqs: &[i64],
) -> Result<Vec<JobRecord>, Error> {
    let rows: Vec<JobRow> = sqlx::query_as(sql!(
        sqlite: job_columns!("seq IN (SELECT value FROM json_each($1)) AND state <> 'receiving' AND deleted_ms IS NULL"),
        postgres: concat!(job_columns!(), "WHERE j.seq = ANY ($1) AND j.state <> 'receiving' AND j.deleted_ms IS NULL"),
    ))
    .bind(list(seqs)?)
    .fetch_all(&mut *connection)
    .await?;
    records(connection, rows).await
}

/// Up to `most` jobs that have not ended, with a `seq` below `before`, newest first.
pub(in super::super) async fn read_live(
    connection: &mut Connection,
    tenant: Option<&str>,
    before: i64,
    most: i64,
) -> Result<Vec<JobRecord>, Error> {
    let rows: Vec<JobRow> = sqlx::query_as(sql!(
        sqlite: job_columns!(
            "state IN ('active', 'paused') AND seq < $1 AND ($2 IS NULL OR tenant = $2)
             ORDER BY seq DESC LIMIT $3"
        ),
        postgres: concat!(
            job_columns!(),
            "WHERE (j.state IN ('active', 'paused') OR j.follow IS NOT NULL) AND j.state IN ('active', 'paused')
               AND j.seq < $1 AND ($2::text IS NULL OR j.tenant = $2)
             ORDER BY j.seq DESC LIMIT $3"
        ),
    ))
    .bind(before)
    .bind(tenant)
    .bind(most)
    .fetch_all(&mut *connection)
    .await?;
    records(connection, rows).await
}
