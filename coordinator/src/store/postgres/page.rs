//! Reading images, and the rows of a page; see [`crate::store::image_pages`].

use darkroom_core::id::JobId;
use sqlx::{FromRow as _, PgPool, Row as _, ValueRef as _};

use super::{
    Error,
    block_bits::{BLOCK, set_in},
    both::{
        page::{ImageRow, Images, OutputRow, StateWalk, output, record},
        variants,
    },
    rows::column,
};
use crate::store::{
    records::{ImageOrder, ImagePage, ImageRecord},
    variants::Known,
};

/// The images after an index, in order. It is the most frequent query, so it is one statement. A
/// row has an image and one of its outputs, if it has any.
pub(super) async fn following(
    pool: &PgPool,
    job: JobId,
    after: i64,
    limit: u32,
) -> Result<ImagePage, Error> {
    let rows = sqlx::query(
        "SELECT i.job, i.idx, i.prompt, i.variant, i.state::text, i.stage, i.generation, i.dispatch, i.failures, i.hosts AS places,
                i.suspect, i.error_code, i.error, i.version, p.text, p.negative, p.extras, p.custom_id,
                p.labels, p.line, p.first_index, p.first_seed, o.stage AS output_stage, o.key, o.sha256, o.size, o.seconds, o.worker, o.device_class, o.removed_ms
         FROM (SELECT seq FROM jobs WHERE id = $1 AND state <> 'receiving' AND deleted_ms IS NULL) AS j
         CROSS JOIN LATERAL (SELECT * FROM images WHERE job = j.seq AND idx > $2 ORDER BY idx LIMIT $3) AS i
         CROSS JOIN LATERAL (SELECT * FROM prompts AS p
                             WHERE p.job = i.job AND p.position = i.prompt OFFSET 0) AS p
         LEFT JOIN outputs AS o ON o.job = i.job AND o.idx = i.idx
         ORDER BY i.idx, o.stage",
    )
    .bind(job.0)
    .bind(after)
    .bind(i64::from(limit) + 1)
    .fetch_all(pool)
    .await?;
    let of_prompts: Vec<Option<i32>> =
        rows.iter().map(|row| row.try_get("variant")).collect::<Result<_, _>>()?;
    let variants = match rows.first() {
        Some(first) if of_prompts.iter().any(Option::is_some) => {
            let mut connection = pool.acquire().await?;
            variants::read(&mut connection, first.try_get("job")?, of_prompts.into_iter()).await?
        }
        _ => Known::default(),
    };
    let mut images: Vec<ImageRecord> = Vec::new();
    for row in &rows {
        let idx: i64 = row.try_get("idx")?;
        if images.last().is_none_or(|image| column(image.id.index) != idx) {
            images.push(record(job, ImageRow::from_row(row)?, &variants, Vec::new())?);
        }
        if !row.try_get_raw("key")?.is_null()
            && let Some(image) = images.last_mut()
        {
            image.outputs.push(output(OutputRow::from_row(row)?)?);
        }
    }
    let more = images.len() > limit as usize;
    images.truncate(limit as usize);
    let next = images.last().filter(|_| more).map(|last| ImageOrder::Index(Some(last.id.index)));
    Ok(ImagePage { images, next })
}

/// A block that has images in a state, and their bits if they are known.
type StateBlock = (String, i64, Option<String>);

/// Blocks that are read at first for each state.
const BLOCKS: i64 = 4;

impl Images<'_> {
    /// Indexes of images in some states. Each state has an index of its blocks. A block's bits say
    /// which of its images are in the state, so no other image is read.
    pub(super) async fn by_state(&mut self, walk: &StateWalk<'_>) -> Result<Vec<i64>, Error> {
        let StateWalk { states, from, limit } = *walk;
        let limit = limit as usize;
        let states: Vec<&str> = states.iter().map(|state| state.name()).collect();
        let (mut indexes, mut block, mut blocks) = (Vec::new(), from / BLOCK, BLOCKS);
        while indexes.len() < limit {
            let mut found = self.blocks(&states, block, blocks).await?;
            // The last block up to which the blocks of every state were read.
            let last = |state: &str| {
                let mut of_state = found.iter().filter(|(of, ..)| of == state);
                let last = of_state.nth(usize::try_from(blocks - 1).unwrap_or(usize::MAX));
                last.map(|(_, block, _)| *block)
            };
            let end = states.iter().filter_map(|state| last(state)).min();
            found.retain(|(_, block, _)| end.is_none_or(|end| *block <= end));
            indexes.extend(self.in_blocks(&states, &found, from).await?);
            let Some(end) = end else { break };
            (block, blocks) = (end + 1, blocks * 4);
        }
        indexes.truncate(limit);
        Ok(indexes)
    }

    /// The next blocks of each state in order, at most `limit` per state.
    async fn blocks(
        &mut self,
        states: &[&str],
        from: i64,
        limit: i64,
    ) -> Result<Vec<StateBlock>, Error> {
        let found = sqlx::query_as(
            "SELECT state, block, bits FROM (
             (SELECT 'waiting' AS state, block, waiting_bits::text AS bits FROM image_blocks
              WHERE job = $1 AND waiting_block >= $2 AND 'waiting' = ANY ($3::text[]) ORDER BY waiting_block LIMIT $4)
             UNION ALL
             (SELECT 'ready' AS state, block, ready_bits::text AS bits FROM image_blocks
              WHERE job = $1 AND ready_block >= $2 AND 'ready' = ANY ($3::text[]) ORDER BY ready_block LIMIT $4)
             UNION ALL
             (SELECT 'dispatched' AS state, block, dispatched_bits::text AS bits FROM image_blocks
              WHERE job = $1 AND dispatched_block >= $2 AND 'dispatched' = ANY ($3::text[]) ORDER BY dispatched_block LIMIT $4)
             UNION ALL
             (SELECT 'done' AS state, block, done_bits::text AS bits FROM image_blocks
              WHERE job = $1 AND done_block >= $2 AND 'done' = ANY ($3::text[]) ORDER BY done_block LIMIT $4)
             UNION ALL
             (SELECT 'dead' AS state, block, dead_bits::text AS bits FROM image_blocks
              WHERE job = $1 AND dead_block >= $2 AND 'dead' = ANY ($3::text[]) ORDER BY dead_block LIMIT $4)
             UNION ALL
             (SELECT 'cancelled' AS state, block, cancelled_bits::text AS bits FROM image_blocks
              WHERE job = $1 AND cancelled_block >= $2 AND 'cancelled' = ANY ($3::text[]) ORDER BY cancelled_block LIMIT $4)) AS b
             ORDER BY block",
        );
        let found = found.bind(self.seq).bind(from).bind(states).bind(limit);
        Ok(found.fetch_all(&mut *self.tx).await?)
    }

    /// The images of blocks that are in some states, from an index on, in order.
    async fn in_blocks(
        &mut self,
        states: &[&str],
        blocks: &[StateBlock],
        from: i64,
    ) -> Result<Vec<i64>, Error> {
        let mut indexes = Vec::new();
        let mut unknown = Vec::new();
        for (_, block, bits) in blocks {
            match bits {
                Some(bits) => indexes.extend(set_in(*block, bits)?),
                None => unknown.push(*block),
            }
        }
        if !unknown.is_empty() {
            unknown.dedup();
            let looked_at: Vec<i64> = sqlx::query_scalar(
                "SELECT i.idx FROM unnest($2::bigint[]) AS b (block)
                 CROSS JOIN LATERAL (SELECT idx, state FROM images AS i
                                     WHERE i.job = $1 AND i.idx >= b.block * 256 AND i.idx < (b.block + 1) * 256
                                     OFFSET 0) AS i
                 WHERE i.state = ANY ($3::image_state[])",
            )
            .bind(self.seq)
            .bind(unknown)
            .bind(states)
            .fetch_all(&mut *self.tx)
            .await?;
            indexes.extend(looked_at);
        }
        indexes.retain(|index| *index >= from);
        indexes.sort_unstable();
        Ok(indexes)
    }
}
