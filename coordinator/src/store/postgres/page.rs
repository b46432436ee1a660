//! Reading images. Pages go by key (index, version), never by offset.

use std::collections::HashMap;

use darkroom_core::id::{ImageId, JobId};

use sqlx::{FromRow as _, Row as _, ValueRef as _};

use super::{
    Error, PostgresStore, Tx,
    progress::{BLOCK, CHANGES},
    query::{find, read_job},
    rows::{ProgressRow, artifact, column, image_seed, number},
};
use crate::store::records::{
    Changes, Extras, ImageOrder, ImagePage, ImageQuery, ImageRecord, Output, naming,
};

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
    output_stage: i16,
    key: String,
    sha256: Vec<u8>,
    size: i64,
    seconds: f64,
    worker: String,
    device_class: String,
}

impl PostgresStore {
    pub(super) async fn list_images(&self, query: &ImageQuery) -> Result<ImagePage, Error> {
        if let (ImageOrder::Index(after), []) = (query.order, query.states.as_slice()) {
            let page = self.following(query.job, after.map_or(-1, column), query.limit).await?;
            if !page.images.is_empty() {
                return Ok(page);
            }
        }
        let mut tx = self.begin_read().await?;
        let seq = find(&mut tx, query.job).await?;
        page(&mut tx, query, seq).await
    }

    /// The images that follow an index, in order: in one statement, because it is asked most. A row is an image and one of
    /// its outputs, if it has any.
    async fn following(&self, job: JobId, after: i64, limit: u32) -> Result<ImagePage, Error> {
        let rows = sqlx::query(
            "SELECT i.job, i.idx, i.prompt, i.state::text, i.stage, i.generation, i.dispatch, i.failures, i.hosts,
                    i.suspect, i.error_code, i.error, i.version, p.text, p.negative, p.extras, p.custom_id,
                    p.labels, p.line, p.first_index, p.first_seed, o.stage AS output_stage, o.key, o.sha256, o.size, o.seconds, o.worker, o.device_class
             FROM (SELECT seq FROM jobs WHERE id = $1 AND state <> 'receiving') AS j
             CROSS JOIN LATERAL (SELECT * FROM images WHERE job = j.seq AND idx > $2 ORDER BY idx LIMIT $3) AS i
             CROSS JOIN LATERAL (SELECT * FROM prompts AS p
                                 WHERE p.job = i.job AND p.position = i.prompt OFFSET 0) AS p
             LEFT JOIN outputs AS o ON o.job = i.job AND o.idx = i.idx
             ORDER BY i.idx, o.stage",
        )
        .bind(job.0)
        .bind(after)
        .bind(i64::from(limit) + 1)
        .fetch_all(&self.pool)
        .await?;
        let mut images: Vec<ImageRecord> = Vec::new();
        for row in &rows {
            let idx: i64 = row.try_get("idx")?;
            if images.last().is_none_or(|image| column(image.id.index) != idx) {
                images.push(record(job, ImageRow::from_row(row)?, Vec::new())?);
            }
            if !row.try_get_raw("key")?.is_null()
                && let Some(image) = images.last_mut()
            {
                image.outputs.push(output(OutputRow::from_row(row)?)?);
            }
        }
        let more = images.len() > limit as usize;
        images.truncate(limit as usize);
        Ok(ImagePage { images, more })
    }

    pub(super) async fn one_image(&self, job: JobId, index: u64) -> Result<ImageRecord, Error> {
        let mut tx = self.begin_read().await?;
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
        let mut tx = self.begin_read().await?;
        let record = read_job(&mut tx, job).await?;
        if limit == 0 {
            return Ok(Changes { job: record, images: Vec::new(), more: false });
        }
        let order = ImageOrder::Version(after.0, after.1);
        let query = ImageQuery { job, states: Vec::new(), order, limit };
        let page = page(&mut tx, &query, record.seq).await?;
        Ok(Changes { job: record, images: page.images, more: page.more })
    }
}

async fn page(tx: &mut Tx, query: &ImageQuery, seq: i64) -> Result<ImagePage, Error> {
    let limit = i64::from(query.limit) + 1;
    let states: Vec<_> = query.states.iter().map(|state| state.name()).collect();
    let mut indexes: Vec<i64> = match query.order {
        ImageOrder::Index(_) if states.is_empty() => return Ok(ImagePage::default()),
        ImageOrder::Index(after) => by_state(tx, seq, &states, after.map_or(-1, column), limit).await?,
        ImageOrder::Version(version, index) => {
            let after = (column(version), index.map_or(i64::MAX, column));
            by_version(tx, seq, &states, after, limit).await?
        }
    };
    let more = indexes.len() > query.limit as usize;
    indexes.truncate(query.limit as usize);
    Ok(ImagePage { images: read_images(tx, query.job, seq, &indexes).await?, more })
}

/// Runs of changes that are looked through before all images are.
const RUNS: i64 = 32;

/// Indexes of images that changed after a version, in order of version. Whoever follows a job finds them in the next
/// runs of changes; where those are mostly stale, because their images have changed again, one look at every image of
/// the job costs less.
async fn by_version(
    tx: &mut Tx,
    seq: i64,
    states: &[&str],
    after: (i64, i64),
    limit: i64,
) -> Result<Vec<i64>, Error> {
    // Runs come in order, and of the last one perhaps not every image: so a run more is asked for.
    let mut changed: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT c.version, i.idx
         FROM (SELECT version, first, images FROM image_changes
               WHERE job = $1 AND version >= $2 AND (version > $2 OR last > $3)
               ORDER BY version, first LIMIT $6) AS c
         CROSS JOIN LATERAL unnest(c.images) AS changed (idx)
         CROSS JOIN LATERAL (SELECT * FROM images AS i WHERE i.job = $1 AND i.idx = changed.idx OFFSET 0) AS i
         WHERE i.version = c.version AND (c.version > $2 OR changed.idx > $3)
           AND (cardinality($4::text[]) = 0 OR i.state = ANY ($4::image_state[]))
         ORDER BY c.version, c.first LIMIT $5",
    )
    .bind(seq)
    .bind(after.0)
    .bind(after.1)
    .bind(states)
    .bind(limit + column(CHANGES))
    .bind(RUNS)
    .fetch_all(&mut **tx)
    .await?;
    changed.sort_unstable();
    if column(changed.len()) < limit && runs(tx, seq, after).await? >= RUNS {
        changed = sqlx::query_as(
            "SELECT version, idx FROM images
             WHERE job = $1 AND (version, idx) > ($2, $3)
               AND (cardinality($4::text[]) = 0 OR state = ANY ($4::image_state[]))
             ORDER BY version, idx LIMIT $5",
        )
        .bind(seq)
        .bind(after.0)
        .bind(after.1)
        .bind(states)
        .bind(limit)
        .fetch_all(&mut **tx)
        .await?;
    }
    Ok(changed.into_iter().map(|(_, idx)| idx).collect())
}

/// How many runs of changes come after a version, but no more than are looked through.
async fn runs(tx: &mut Tx, seq: i64, after: (i64, i64)) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT FROM image_changes
                               WHERE job = $1 AND version >= $2 AND (version > $2 OR last > $3)
                               LIMIT $4) AS c",
    )
    .bind(seq)
    .bind(after.0)
    .bind(after.1)
    .bind(RUNS)
    .fetch_one(&mut **tx)
    .await?)
}

/// Indexes of images in some states, found through the blocks that have some, so that a page costs much the same
/// whatever lies between.
async fn by_state(tx: &mut Tx, seq: i64, states: &[&str], after: i64, limit: i64) -> Result<Vec<i64>, Error> {
    // Blocks come in order, and of the last one perhaps not every image: so a block more is asked for.
    let mut indexes: Vec<i64> = sqlx::query_scalar(
        "SELECT i.idx
         FROM image_blocks AS b
         CROSS JOIN LATERAL (
             SELECT i.idx FROM images AS i
             WHERE i.job = $1 AND i.idx >= greatest(b.block * 256, $3 + 1) AND i.idx < (b.block + 1) * 256
               AND i.state = ANY ($2::image_state[])
             ORDER BY i.idx LIMIT 256) AS i
         WHERE b.job = $1 AND b.block >= ($3 + 1) / 256
           AND (b.waiting > 0 AND 'waiting' = ANY ($2::text[]) OR b.ready > 0 AND 'ready' = ANY ($2::text[])
                OR b.dispatched > 0 AND 'dispatched' = ANY ($2::text[]) OR b.done > 0 AND 'done' = ANY ($2::text[])
                OR b.dead > 0 AND 'dead' = ANY ($2::text[]) OR b.cancelled > 0 AND 'cancelled' = ANY ($2::text[]))
         ORDER BY b.block LIMIT $4",
    )
    .bind(seq)
    .bind(states)
    .bind(after)
    .bind(limit + BLOCK)
    .fetch_all(&mut **tx)
    .await?;
    indexes.sort_unstable();
    Ok(indexes)
}

/// The images with these indexes, in this order.
async fn read_images(tx: &mut Tx, job: JobId, seq: i64, indexes: &[i64]) -> Result<Vec<ImageRecord>, Error> {
    let rows: Vec<ImageRow> = sqlx::query_as(
        "SELECT i.job, i.idx, i.prompt, i.state::text, i.stage, i.generation, i.dispatch, i.failures, i.hosts, i.suspect,
                i.error_code, i.error, i.version, p.text, p.negative, p.extras, p.custom_id, p.labels, p.line,
                p.first_index, p.first_seed
         FROM unnest($2::bigint[]) WITH ORDINALITY AS wanted (idx, position)
         CROSS JOIN LATERAL (SELECT * FROM images AS i WHERE i.job = $1 AND i.idx = wanted.idx OFFSET 0) AS i
         CROSS JOIN LATERAL (SELECT * FROM prompts AS p
                             WHERE p.job = i.job AND p.position = i.prompt OFFSET 0) AS p
         ORDER BY wanted.position",
    )
    .bind(seq)
    .bind(indexes)
    .fetch_all(&mut **tx)
    .await?;
    with_outputs(tx, job, seq, rows).await
}

/// Images with what their stages stored.
async fn with_outputs(
    tx: &mut Tx,
    job: JobId,
    seq: i64,
    rows: Vec<ImageRow>,
) -> Result<Vec<ImageRecord>, Error> {
    let indexes: Vec<i64> = rows.iter().map(|row| row.image.idx).collect();
    let outputs: Vec<OutputRow> = sqlx::query_as(
        "SELECT o.idx, o.stage AS output_stage, o.key, o.sha256, o.size, o.seconds, o.worker, o.device_class
         FROM unnest($2::bigint[]) AS wanted (idx)
         CROSS JOIN LATERAL (SELECT * FROM outputs AS o WHERE o.job = $1 AND o.idx = wanted.idx OFFSET 0) AS o
         ORDER BY o.idx, o.stage",
    )
    .bind(seq)
    .bind(indexes)
    .fetch_all(&mut **tx)
    .await?;
    let mut by_image: HashMap<i64, Vec<Output>> = HashMap::new();
    for row in outputs {
        by_image.entry(row.idx).or_default().push(output(row)?);
    }
    rows.into_iter()
        .map(|row| {
            let outputs = by_image.remove(&row.image.idx).unwrap_or_default();
            record(job, row, outputs)
        })
        .collect()
}

fn record(job: JobId, row: ImageRow, outputs: Vec<Output>) -> Result<ImageRecord, Error> {
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
        outputs,
    })
}

fn output(row: OutputRow) -> Result<Output, Error> {
    Ok(Output {
        stage: number(row.output_stage)?,
        artifact: artifact(row.key, &row.sha256, row.size)?,
        seconds: row.seconds,
        worker: row.worker,
        device_class: row.device_class,
    })
}
