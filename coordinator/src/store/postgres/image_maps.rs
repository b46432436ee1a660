//! The states of all images of a job.
//!
//! With an index on the state, no update could be heap-only. So the counts of `image_blocks` are
//! read first. If all 256 images of a block have the same state and stage, nothing else is read;
//! otherwise the rows of the block are.

use darkroom_core::{id::JobId, image_state::ImageState};

use super::{
    Error, Tx,
    block_bits::BLOCK,
    both::{
        deleted_jobs::not_found,
        image_maps::{ChangedRow, Changes},
    },
    rows::{column, number, parse},
};
use crate::store::{
    image_map::{MapPart, MapRun},
    row::row,
};

/// Most runs of changes that are read; if there are more, the whole map is read instead.
const CHANGES: i64 = 2000;

row! {
    /// A job's columns that are read before its images.
    struct JobRow {
        seq: i64,
        version: i64,
        images: i64,
        ready: Vec<i64>,
        dispatched: Vec<i64>,
    }
}

impl JobRow {
    /// The job's map without runs.
    fn part(&self) -> Result<MapPart, Error> {
        let (version, images) = (number(self.version)?, number(self.images)?);
        Ok(MapPart { version, images, runs: Vec::new() })
    }

    /// The stage of all images in a state, if only one stage is possible.
    fn only_stage(&self, state: ImageState) -> Option<usize> {
        // In the lists `encode` comes first.
        let only = |counters: &[i64]| {
            let mut stages = (0..).zip(counters.iter().skip(1)).filter(|(_, count)| **count > 0);
            let first = stages.next().map(|(stage, _)| stage)?;
            stages.next().is_none().then_some(first)
        };
        match state {
            ImageState::Waiting | ImageState::Done => Some(0),
            ImageState::Ready => only(&self.ready),
            ImageState::Dispatched => only(&self.dispatched),
            ImageState::Dead | ImageState::Cancelled => None,
        }
    }
}

row! {
    /// Counts of a block, in the order of [`ImageState::ALL`].
    struct BlockRow {
        block: i64,
        counts: Vec<i32>,
    }
}

/// Runs that cover a part of a job's images, in any order.
pub(super) async fn part(
    tx: &mut Tx,
    job: JobId,
    (first, end): (u64, u64),
) -> Result<(MapPart, Vec<MapRun>), Error> {
    let row = read_job(tx, job).await?;
    let blocks: Vec<BlockRow> = sqlx::query_as(
        "SELECT block, ARRAY[waiting, ready, dispatched, done, dead, cancelled] AS counts
         FROM image_blocks WHERE job = $1 AND block >= $2 AND block <= $3 ORDER BY block",
    )
    .bind(row.seq)
    .bind(column(first) / BLOCK)
    .bind(column(end.saturating_sub(1)) / BLOCK)
    .fetch_all(&mut **tx)
    .await?;
    let (mut runs, mut mixed) = (Vec::with_capacity(blocks.len()), Vec::new());
    for BlockRow { block, counts } in blocks {
        match alike(&row, &counts)? {
            Some((state, stage, count)) => {
                runs.push(MapRun { first: number(block * BLOCK)?, count, state, stage });
            }
            None => mixed.push(block),
        }
    }
    runs.extend(read_blocks(tx, row.seq, &mixed).await?);
    Ok((row.part()?, runs))
}

/// Images that changed after a version; `None` if they are more than `most`.
pub(super) async fn changes(
    tx: &mut Tx,
    job: JobId,
    (after, most): (u64, u32),
) -> Result<Changes, Error> {
    let row = read_job(tx, job).await?;
    let (runs, changes): (i64, i64) = sqlx::query_as(
        "SELECT count(*), coalesce(sum(cardinality(c.images)), 0)::bigint
         FROM (SELECT images FROM image_changes WHERE job = $1 AND version > $2
               ORDER BY version, first LIMIT $3) AS c",
    )
    .bind(row.seq)
    .bind(column(after))
    .bind(CHANGES + 1)
    .fetch_one(&mut **tx)
    .await?;
    if runs > CHANGES || changes > i64::from(most) {
        return Ok(None);
    }
    // A change counts while its image still has that version.
    let rows: Vec<ChangedRow> = sqlx::query_as(
        "SELECT i.idx, i.state::text, i.stage
         FROM (SELECT version, images FROM image_changes WHERE job = $1 AND version > $2
               ORDER BY version, first LIMIT $3) AS c
         CROSS JOIN LATERAL unnest(c.images) AS changed (idx)
         CROSS JOIN LATERAL (SELECT * FROM images AS i
                             WHERE i.job = $1 AND i.idx = changed.idx OFFSET 0) AS i
         WHERE i.version = c.version",
    )
    .bind(row.seq)
    .bind(column(after))
    .bind(CHANGES)
    .fetch_all(&mut **tx)
    .await?;
    Ok(Some((row.part()?, rows)))
}

/// State, stage and number of a block's images, where all are alike.
fn alike(job: &JobRow, counts: &[i32]) -> Result<Option<(ImageState, usize, u64)>, Error> {
    let mut there = ImageState::ALL.into_iter().zip(counts).filter(|(_, count)| **count > 0);
    let (Some((state, count)), None) = (there.next(), there.next()) else { return Ok(None) };
    let Some(stage) = job.only_stage(state) else { return Ok(None) };
    Ok(Some((state, stage, number(*count)?)))
}

/// The images of blocks, in their order.
async fn read_blocks(tx: &mut Tx, seq: i64, blocks: &[i64]) -> Result<Vec<MapRun>, Error> {
    if blocks.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<ChangedRow> = sqlx::query_as(
        "SELECT i.idx, i.state::text, i.stage
         FROM unnest($2::bigint[]) AS b (block)
         CROSS JOIN LATERAL (SELECT idx, state, stage FROM images
                             WHERE job = $1 AND idx >= b.block * 256 AND idx < (b.block + 1) * 256
                             ORDER BY idx LIMIT 256) AS i",
    )
    .bind(seq)
    .bind(blocks)
    .fetch_all(&mut **tx)
    .await?;
    rows.into_iter()
        .map(|(idx, state, stage)| {
            let (state, stage) = (parse(&state)?, number(stage)?);
            Ok(MapRun { first: number(idx)?, count: 1, state, stage })
        })
        .collect()
}

async fn read_job(tx: &mut Tx, job: JobId) -> Result<JobRow, Error> {
    let found: Option<JobRow> = sqlx::query_as(
        "SELECT j.seq, p.version, p.images, p.ready, p.dispatched
         FROM (SELECT seq FROM jobs WHERE id = $1 AND state <> 'receiving' AND deleted_ms IS NULL) AS j
         CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                             ORDER BY newest.version DESC LIMIT 1) AS p",
    )
    .bind(job.0)
    .fetch_optional(&mut **tx)
    .await?;
    match found {
        Some(found) => Ok(found),
        None => Err(not_found(tx, job).await),
    }
}
