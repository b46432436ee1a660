//! Reading images, and the rows of a page; see [`crate::store::image_pages`].

use std::collections::HashMap;

use async_trait::async_trait;
use darkroom_core::{id::JobId, image_state::ImageState};

use super::{
    Connection, Error,
    row_types::ProgressRow,
    rows::{HashColumn, Small, artifact, column, list, number, parse},
    variants,
};
use crate::store::{
    image_pages::{Changed, ImageRows, PromptWords},
    job_columns::ImageColumns,
    records::{ImageOrder, ImagePage, ImageRecord, Output, Seen},
    row::row,
    variants::{Known, of as variant_of},
};

row! {
    pub(in super::super) struct ImageRow {
        ..pub(in super::super) image: ProgressRow,
        ..columns: ImageColumns,
    }
}

row! {
    pub(in super::super) struct OutputRow {
        pub(in super::super) idx: i64,
        output_stage: Small,
        key: String,
        sha256: HashColumn,
        size: i64,
        seconds: f64,
        worker: String,
        device_class: String,
        removed_ms: Option<i64>,
    }
}

/// The images of a job, as a transaction sees them.
pub(in super::super) struct Images<'a> {
    pub(in super::super) tx: &'a mut Connection,
    pub(in super::super) job: JobId,
    pub(in super::super) seq: i64,
}

/// Images in some states, from an index on.
pub(in super::super) struct StateWalk<'a> {
    pub(in super::super) states: &'a [ImageState],
    pub(in super::super) from: i64,
    pub(in super::super) limit: u32,
}

#[async_trait]
impl ImageRows for Images<'_> {
    async fn indexes(
        &mut self,
        states: &[ImageState],
        from: i64,
        limit: u32,
    ) -> Result<Vec<i64>, Error> {
        if !states.is_empty() {
            return self.by_state(&StateWalk { states, from, limit }).await;
        }
        let indexes = sqlx::query_scalar(
            "SELECT idx FROM images WHERE job = $1 AND idx >= $2 ORDER BY idx LIMIT $3",
        );
        let indexes = indexes.bind(self.seq).bind(from).bind(i64::from(limit));
        Ok(indexes.fetch_all(&mut *self.tx).await?)
    }

    /// An entry whose image has changed since has no state.
    async fn changes(&mut self, after: (i64, i64), limit: u32) -> Result<Vec<Changed>, Error> {
        // Runs come in order, and the images of a run too, since nothing has to be sorted: so no
        // run is read beyond the last entry.
        let mut changes: Vec<(i64, i64, Option<String>)> = sqlx::query_as(sql!(
            sqlite:
                "SELECT version, idx, state FROM images
                 WHERE job = $1 AND (version, idx) > ($2, $3) ORDER BY version, idx LIMIT $4",
            postgres:
                "SELECT e.version, e.idx, i.state
                 FROM (SELECT c.version, c.first, changed.idx
                       FROM (SELECT version, first, images FROM image_changes
                             WHERE job = $1 AND version >= $2 AND (version > $2 OR last > $3)
                             ORDER BY version, first LIMIT $4) AS c
                       CROSS JOIN LATERAL unnest(c.images) AS changed (idx)
                       WHERE c.version > $2 OR changed.idx > $3
                       ORDER BY c.version, c.first LIMIT $4) AS e
                 LEFT JOIN LATERAL (SELECT i.state::text FROM images AS i
                                    WHERE i.job = $1 AND i.idx = e.idx AND i.version = e.version OFFSET 0) AS i ON TRUE
                 ORDER BY e.version, e.first",
        ))
        .bind(self.seq)
        .bind(after.0)
        .bind(after.1)
        .bind(i64::from(limit))
        .fetch_all(&mut *self.tx)
        .await?;
        changes.sort_unstable();
        let changed = |(version, idx, state): (i64, i64, Option<String>)| {
            Ok(Changed { at: (version, idx), state: state.as_deref().map(parse).transpose()? })
        };
        changes.into_iter().map(changed).collect()
    }

    async fn prompts(&mut self, index: i64, limit: u32) -> Result<Vec<PromptWords>, Error> {
        let prompts = sqlx::query_as("SELECT first_index, CAST(images AS BIGINT) AS images, text, custom_id, labels FROM prompts
             WHERE job = $1 AND position >= (SELECT prompt FROM images WHERE job = $1 AND idx = $2)
             ORDER BY position LIMIT $3");
        let prompts = prompts.bind(self.seq).bind(index).bind(i64::from(limit));
        Ok(prompts.fetch_all(&mut *self.tx).await?)
    }

    async fn prompts_of(&mut self, indexes: &[i64]) -> Result<Vec<PromptWords>, Error> {
        let prompts = sqlx::query_as(sql!(
            sqlite:
                "SELECT p.first_index, p.images, p.text, p.custom_id, p.labels
                 FROM (SELECT DISTINCT i.prompt FROM json_each($2) AS wanted
                       CROSS JOIN images AS i ON i.job = $1 AND i.idx = wanted.value) AS u
                 CROSS JOIN prompts AS p ON p.job = $1 AND p.position = u.prompt",
            postgres:
                "SELECT p.first_index, p.images::bigint, p.text, p.custom_id, p.labels
                 FROM (SELECT DISTINCT i.prompt FROM unnest($2::bigint[]) AS wanted (idx)
                       CROSS JOIN LATERAL (SELECT prompt FROM images AS i
                                           WHERE i.job = $1 AND i.idx = wanted.idx OFFSET 0) AS i) AS u
                 CROSS JOIN LATERAL (SELECT * FROM prompts AS p
                                     WHERE p.job = $1 AND p.position = u.prompt OFFSET 0) AS p",
        ));
        Ok(prompts.bind(self.seq).bind(list(indexes)?).fetch_all(&mut *self.tx).await?)
    }

    async fn read(&mut self, indexes: &[i64]) -> Result<Vec<ImageRecord>, Error> {
        read_images(self.tx, self.job, self.seq, indexes).await
    }
}

impl Images<'_> {
    /// The images that have changed since. Reads every image of the job.
    pub(in super::super) async fn scan(
        &mut self,
        after: Seen,
        limit: u32,
    ) -> Result<ImagePage, Error> {
        let mut indexes: Vec<i64> = sqlx::query_scalar(
            "SELECT idx FROM images WHERE job = $1 AND (version, idx) > ($2, $3)
             ORDER BY version, idx LIMIT $4",
        )
        .bind(self.seq)
        .bind(column(after.version))
        .bind(after.index.map_or(i64::MAX, column))
        .bind(i64::from(limit) + 1)
        .fetch_all(&mut *self.tx)
        .await?;
        let more = indexes.len() > limit as usize;
        indexes.truncate(limit as usize);
        let images = self.read(&indexes).await?;
        let last = images.last().filter(|_| more);
        let next = last.map(|image| ImageOrder::Version(image.version, Some(image.id.index)));
        Ok(ImagePage { images, next })
    }
}

/// The images with these indexes, in this order.
pub(in super::super) async fn read_images(
    tx: &mut Connection,
    job: JobId,
    seq: i64,
    indexes: &[i64],
) -> Result<Vec<ImageRecord>, Error> {
    let rows: Vec<ImageRow> = sqlx::query_as(sql!(
        sqlite:
            "SELECT i.job, i.idx, i.prompt, i.variant, i.state, i.stage, i.generation, i.dispatch, i.failures, i.hosts AS places, i.suspect,
                    i.error_code, i.error, i.version, p.text, p.negative, p.extras, p.custom_id, p.labels, p.line,
                    p.first_index, p.first_seed
             FROM json_each($2) AS wanted
             CROSS JOIN images AS i ON i.job = $1 AND i.idx = wanted.value
             JOIN prompts AS p ON p.job = i.job AND p.position = i.prompt
             ORDER BY wanted.key",
        postgres:
            "SELECT i.job, i.idx, i.prompt, i.variant, i.state::text, i.stage, i.generation, i.dispatch, i.failures, i.hosts AS places, i.suspect,
                    i.error_code, i.error, i.version, p.text, p.negative, p.extras, p.custom_id, p.labels, p.line,
                    p.first_index, p.first_seed
             FROM unnest($2::bigint[]) WITH ORDINALITY AS wanted (idx, position)
             CROSS JOIN LATERAL (SELECT * FROM images AS i WHERE i.job = $1 AND i.idx = wanted.idx OFFSET 0) AS i
             CROSS JOIN LATERAL (SELECT * FROM prompts AS p
                                 WHERE p.job = i.job AND p.position = i.prompt OFFSET 0) AS p
             ORDER BY wanted.position",
    ))
    .bind(seq)
    .bind(list(indexes)?)
    .fetch_all(&mut *tx)
    .await?;
    with_outputs(tx, job, seq, rows).await
}

/// Images with the outputs of their stages.
async fn with_outputs(
    tx: &mut Connection,
    job: JobId,
    seq: i64,
    rows: Vec<ImageRow>,
) -> Result<Vec<ImageRecord>, Error> {
    let indexes: Vec<i64> = rows.iter().map(|row| row.image.idx).collect();
    let outputs: Vec<OutputRow> = sqlx::query_as(sql!(
        sqlite:
            "SELECT o.idx, o.stage AS output_stage, o.key, o.sha256, o.size, o.seconds, o.worker, o.device_class, o.removed_ms
             FROM json_each($2) AS wanted
             CROSS JOIN outputs AS o ON o.job = $1 AND o.idx = wanted.value
             ORDER BY o.idx, o.stage",
        postgres:
            "SELECT o.idx, o.stage AS output_stage, o.key, o.sha256, o.size, o.seconds, o.worker, o.device_class, o.removed_ms
             FROM unnest($2::bigint[]) AS wanted (idx)
             CROSS JOIN LATERAL (SELECT * FROM outputs AS o WHERE o.job = $1 AND o.idx = wanted.idx OFFSET 0) AS o
             ORDER BY o.idx, o.stage",
    ))
    .bind(seq)
    .bind(list(&indexes)?)
    .fetch_all(&mut *tx)
    .await?;
    let mut by_image: HashMap<i64, Vec<Output>> = HashMap::new();
    for row in outputs {
        by_image.entry(row.idx).or_default().push(output(row)?);
    }
    let variants = variants::read(tx, seq, rows.iter().map(|row| row.image.variant)).await?;
    rows.into_iter()
        .map(|row| {
            let outputs = by_image.remove(&row.image.idx).unwrap_or_default();
            record(job, row, &variants, outputs)
        })
        .collect()
}

pub(in super::super) fn record(
    job: JobId,
    row: ImageRow,
    variants: &Known,
    outputs: Vec<Output>,
) -> Result<ImageRecord, Error> {
    let of_variant = |variant| variant_of(variants, number(variant)?).cloned();
    let settings = row.image.variant.map(of_variant).transpose()?;
    row.columns.record((job, row.image.idx), row.image.progress()?, settings, outputs)
}

pub(in super::super) fn output(row: OutputRow) -> Result<Output, Error> {
    Ok(Output {
        stage: number(row.output_stage)?,
        artifact: artifact(row.key, &row.sha256, row.size)?,
        seconds: row.seconds,
        worker: row.worker,
        device_class: row.device_class,
        removed_ms: row.removed_ms,
    })
}
