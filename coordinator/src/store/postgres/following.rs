//! Image rows that follow: the embeddings they waited for, or a command.

use std::collections::BTreeMap;

use darkroom_core::text_state::TextState;

use super::{
    Error, PostgresStore, Tx,
    both::{
        following::TEXTS_AT_ONCE, following_images::Chunk, moves::save_and_finish,
        row_types::ProgressRow,
    },
    progress::LockedJobs,
    rows::{column, number},
    spread::{self, Spreading},
    texts,
};
use crate::store::{change::Move, records::Committed, row::row};

/// Lets images follow the texts they waited for.
pub(super) async fn spread(store: &PostgresStore, limit: u64) -> Result<Committed, Error> {
    let from = store.spread_from.get(&());
    let mut tx = store.begin_write().await?;
    let spreading: Vec<Spreading> = sqlx::query_as(
        "SELECT id, embedding, role, after_job, after_position FROM spreading_texts
         WHERE id >= $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED",
    )
    .bind(from.unwrap_or(0))
    .bind(TEXTS_AT_ONCE)
    .fetch_all(&mut *tx)
    .await?;
    let Some(first) = spreading.first() else {
        if from.is_none() {
            store.spread_from.set((), 0, true);
        }
        return Ok(Committed::default());
    };
    store.spread_from.set((), first.id, from.is_none());
    let mut prompts = spread::prompts_of(&mut tx, &spreading, limit).await?;
    let cut = spread::cut_at(&mut prompts, limit);
    let mut jobs =
        LockedJobs::lock(&mut tx, spread::following(&prompts).map(|prompt| prompt.job)).await?;
    let (applied, _) = spread::follow(&mut tx, &store.plans, &mut jobs, &prompts, &[]).await?;
    let (jobs, finished) = save_and_finish(&mut tx, &mut jobs).await?;
    spread::remember(&mut tx, &spreading, prompts.last().filter(|_| cut)).await?;
    tx.commit().await?;
    let more = cut || column(spreading.len()) == TEXTS_AT_ONCE;
    Ok(Committed { changed: applied.len() as u64, jobs, finished, more, ..Committed::default() })
}

row! {
    /// An image that has yet to follow, and the texts that it needs.
    pub(super) struct FollowingImage {
        idx: i64,
        text_embedding: i64,
        negative_embedding: Option<i64>,
        style_embedding: Option<i64>,
        encoded: bool,
    }
}

impl FollowingImage {
    pub(super) fn idx(&self) -> i64 {
        self.idx
    }

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

/// Texts that are not encoded, with their states.
type Unencoded = BTreeMap<i64, TextState>;

/// Locks the texts that a chunk needs (none for a cancel), and then jobs. Texts that were given up
/// are wanted again. Returns the chunk's job, and the jobs that need such texts.
pub(super) async fn lock_chunk(
    tx: &mut Tx,
    chunk: &Chunk,
) -> Result<(LockedJobs, Unencoded), Error> {
    let Chunk { seq, change, ref images } = *chunk;
    let doubtful = images.iter().filter(|image| !image.encoded && change.needs_texts());
    let doubtful: Vec<i64> = doubtful.flat_map(FollowingImage::texts).collect();
    let unencoded = texts::lock_unencoded(tx, &doubtful).await?;
    let dead = unencoded.iter().filter(|(_, state)| **state == TextState::Dead);
    let revived = texts::revive(tx, &dead.map(|(id, _)| *id).collect::<Vec<_>>()).await?;
    let waiting = texts::jobs_of(tx, &revived).await?;
    let seqs = waiting.iter().map(|(job, _)| *job).chain([seq]);
    let mut jobs = LockedJobs::lock(tx, seqs).await?;
    texts::want_in_jobs(&mut jobs, &waiting);
    Ok((jobs, unencoded))
}

/// Moves of a chunk's images, as they are under the job's lock.
pub(super) async fn moves_of(
    tx: &mut Tx,
    chunk: &Chunk,
    unencoded: &Unencoded,
) -> Result<Vec<Move>, Error> {
    let by_index: BTreeMap<i64, &FollowingImage> =
        chunk.images.iter().map(|image| (image.idx, image)).collect();
    let rows: Vec<LockedImage> = sqlx::query_as(
        "SELECT i.job, i.idx, i.prompt, i.variant, i.state::text, i.stage, i.generation, i.dispatch, i.failures, i.hosts AS places, i.suspect,
                coalesce((SELECT v.stages FROM job_variants AS v WHERE v.job = i.job AND v.variant = i.variant),
                         (SELECT json_array_length(settings::json -> 'stages') FROM jobs WHERE seq = $1))::bigint
                    AS stages
         FROM unnest($2::bigint[]) AS wanted (idx)
         CROSS JOIN LATERAL (SELECT * FROM images AS i WHERE i.job = $1 AND i.idx = wanted.idx OFFSET 0) AS i",
    )
    .bind(chunk.seq)
    .bind(by_index.keys().copied().collect::<Vec<_>>())
    .fetch_all(&mut **tx)
    .await?;
    let mut moves = Vec::with_capacity(rows.len());
    for LockedImage { image: row, stages } in rows {
        let Some(image) = by_index.get(&row.idx) else { continue };
        let waits = image.texts().any(|text| unencoded.contains_key(&text));
        let from = row.progress()?;
        let event = chunk.change.event(!waits);
        moves.extend(Move::by((row.job, row.idx), from, &event, number(stages)?));
    }
    Ok(moves)
}
