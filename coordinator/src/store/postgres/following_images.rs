//! Images that have yet to follow a command, and what becomes of them.

use std::collections::BTreeMap;

use darkroom_core::{id::JobId, image_state::ImageEvent, text_state::TextState};
use darkroom_queue::task::{PoolId, TaskKey};

use super::{
    Error, Tx,
    both::row_types::ProgressRow,
    moves::Applied,
    rows::{digest, number, stage_name},
    texts,
};
use crate::store::{
    change::{self, Move},
    row::row,
};

row! {
    /// An image that has yet to follow, and the texts that it needs.
    pub(super) struct FollowingImage {
        pub(super) idx: i64,
        text_embedding: i64,
        negative_embedding: Option<i64>,
        style_embedding: Option<i64>,
        encoded: bool,
    }
}

impl FollowingImage {
    /// The texts that it needs.
    fn texts(&self) -> impl Iterator<Item = i64> {
        [Some(self.text_embedding), self.negative_embedding, self.style_embedding]
            .into_iter()
            .flatten()
    }
}

row! {
    /// An image as it is under its job's lock, and how many stages it passes.
    struct LockedImage {
        stages: i64,
        ..image: ProgressRow,
    }
}

/// Locks the texts of a chunk's images that are not encoded.
pub(super) async fn lock_texts(
    tx: &mut Tx,
    chunk: &[FollowingImage],
) -> Result<BTreeMap<i64, TextState>, Error> {
    let doubtful = chunk.iter().filter(|image| !image.encoded);
    let doubtful: Vec<i64> = doubtful.flat_map(FollowingImage::texts).collect();
    texts::lock_unencoded(tx, &doubtful).await
}

/// The moves of a chunk's images, whose job is locked, that are as they were when the chunk was
/// read; `event` is told whether an image's texts are encoded.
pub(super) async fn moves_of(
    tx: &mut Tx,
    job: i64,
    chunk: &[FollowingImage],
    unencoded: &BTreeMap<i64, TextState>,
    event: impl Fn(bool) -> ImageEvent<'static>,
) -> Result<Vec<Move>, Error> {
    let by_index: BTreeMap<i64, &FollowingImage> =
        chunk.iter().map(|image| (image.idx, image)).collect();
    let rows: Vec<LockedImage> = sqlx::query_as(
        "SELECT i.job, i.idx, i.prompt, i.variant, i.state::text, i.stage, i.generation, i.dispatch, i.failures, i.hosts, i.suspect,
                coalesce((SELECT v.stages FROM job_variants AS v WHERE v.job = i.job AND v.variant = i.variant),
                         (SELECT json_array_length(settings::json -> 'stages') FROM jobs WHERE seq = $1))::bigint
                    AS stages
         FROM unnest($2::bigint[]) AS wanted (idx)
         CROSS JOIN LATERAL (SELECT * FROM images AS i WHERE i.job = $1 AND i.idx = wanted.idx OFFSET 0) AS i",
    )
    .bind(job)
    .bind(by_index.keys().copied().collect::<Vec<_>>())
    .fetch_all(&mut **tx)
    .await?;
    let mut moves = Vec::with_capacity(rows.len());
    for LockedImage { image: row, stages } in rows {
        let Some(image) = by_index.get(&row.idx) else { continue };
        let waits = image.texts().any(|text| unencoded.contains_key(&text));
        let from = row.progress()?;
        moves.extend(Move::by((row.job, row.idx), from, &event(!waits), number(stages)?));
    }
    Ok(moves)
}

/// The tasks of dispatched images of a job that applied moves cancelled.
pub(super) async fn withdrawn(
    tx: &mut Tx,
    (job, seq): (JobId, i64),
    moves: &[Move],
    applied: &Applied,
) -> Result<Vec<(PoolId, TaskKey)>, Error> {
    let tasks = change::withdrawn(job, moves, applied)?;
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<(i16, String, Vec<u8>)> =
        sqlx::query_as("SELECT stage, name, pool FROM job_stages WHERE job = $1 AND stage >= 0")
            .bind(seq)
            .fetch_all(&mut **tx)
            .await?;
    let mut pools = BTreeMap::new();
    for (stage, name, pool) in rows {
        let pool = PoolId { stage: stage_name(name)?, digest: digest(&pool)? };
        pools.insert(number::<usize>(stage)?, pool);
    }
    change::with_pools(tasks, &pools)
}
