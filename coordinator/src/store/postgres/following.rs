//! Image rows that follow: the embeddings they waited for, a cancel or retry of their job or of
//! some of its images.

use std::collections::BTreeMap;

use darkroom_core::{id::JobId, image_command::ImageCommand, text_state::TextState};

use super::{
    Error, PostgresStore, Tx,
    both::following::{FollowRow, TEXTS_AT_ONCE, followed, next_job},
    following_images::{FollowingImage, lock_texts, moves_of},
    image_commands,
    moves::{apply, finish, save_and_finish},
    progress::{LockedJob, LockedJobs},
    rows::column,
    spread::{self, Spreading},
    texts,
};
use crate::store::records::Committed;

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

/// Lets images follow a command to their job, or to some of its images.
pub(super) async fn follow(store: &PostgresStore, limit: u64) -> Result<Committed, Error> {
    let mut tx = store.begin_write().await?;
    let Some(job) = next_job(&mut tx).await? else {
        return image_commands::follow(tx, limit).await;
    };
    let cancel = job.follow == "cancel";
    let chunk = chunk_to_follow(&mut tx, &job, limit).await?;
    // Texts before jobs; a cancel needs none.
    let unencoded = if cancel { BTreeMap::new() } else { lock_texts(&mut tx, &chunk).await? };
    let dead: Vec<i64> = unencoded
        .iter()
        .filter(|(_, state)| **state == TextState::Dead)
        .map(|(id, _)| *id)
        .collect();
    let revived = texts::revive(&mut tx, &dead).await?;
    let waiting = texts::jobs_of(&mut tx, &revived).await?;
    let mut jobs =
        LockedJobs::lock(&mut tx, waiting.iter().map(|(job, _)| *job).chain([job.seq])).await?;
    texts::want_in_jobs(&mut jobs, &waiting);
    // The generation too: a job that was cancelled, retried and cancelled again has other
    // rows to follow.
    let unchanged: bool = sqlx::query_scalar(
        "SELECT follow IS NOT DISTINCT FROM $2 AND generation = $3 FROM jobs WHERE seq = $1",
    )
    .bind(job.seq)
    .bind(&job.follow)
    .bind(job.generation)
    .fetch_one(&mut *tx)
    .await?;
    if !unchanged {
        // Another coordinator was faster, or the user turned round.
        return Ok(Committed { more: true, ..Committed::default() });
    }
    let command = if cancel { ImageCommand::Cancel } else { ImageCommand::Retry };
    let event = |encoded| command.event(encoded);
    let moves = moves_of(&mut tx, job.seq, &chunk, &unencoded, event).await?;
    let applied = apply(&mut tx, &mut jobs, &moves).await?;
    let mut finished = Vec::new();
    if column(chunk.len()) < column(limit) {
        finished = end_following(&mut tx, &mut jobs, &job, cancel).await?;
    }
    jobs.save(&mut tx).await?;
    tx.commit().await?;
    let changed = applied.len() as u64;
    Ok(Committed {
        changed,
        jobs: vec![JobId(job.id)],
        finished,
        more: true,
        ..Committed::default()
    })
}

/// The next images that have yet to follow, found through the blocks that have some.
async fn chunk_to_follow(
    tx: &mut Tx,
    job: &FollowRow,
    limit: u64,
) -> Result<Vec<FollowingImage>, Error> {
    Ok(sqlx::query_as(
        "SELECT i.idx, p.text_embedding, p.negative_embedding, p.style_embedding,
                t.state = 'done' AND coalesce(n.state = 'done', TRUE) AND coalesce(s.state = 'done', TRUE) AS encoded
         FROM (SELECT i.idx, i.prompt
               FROM image_blocks AS b
               CROSS JOIN LATERAL (
                   SELECT i.idx, i.prompt FROM images AS i
                   WHERE i.job = b.job AND i.idx >= b.block * 256 AND i.idx < (b.block + 1) * 256
                     AND CASE WHEN $2 THEN i.state IN ('waiting', 'ready', 'dispatched')
                              ELSE i.state IN ('dead', 'cancelled') END
                   ORDER BY i.idx LIMIT 256) AS i
               WHERE b.job = $1
                 AND CASE WHEN $2 THEN b.waiting + b.ready + b.dispatched ELSE b.dead + b.cancelled END > 0
               ORDER BY b.block LIMIT $3) AS i
         JOIN prompts AS p ON p.job = $1 AND p.position = i.prompt
         JOIN embeddings AS t ON t.id = p.text_embedding
         LEFT JOIN embeddings AS n ON n.id = p.negative_embedding
         LEFT JOIN embeddings AS s ON s.id = p.style_embedding",
    )
    .bind(job.seq)
    .bind(job.follow == "cancel")
    .bind(column(limit))
    .fetch_all(&mut **tx)
    .await?)
}

/// All rows have followed; a retried job may end again.
async fn end_following(
    tx: &mut Tx,
    jobs: &mut LockedJobs,
    job: &FollowRow,
    cancel: bool,
) -> Result<Vec<JobId>, Error> {
    followed(tx, job).await?;
    if let Some(job) = jobs.get_mut(job.seq) {
        job.raise();
    }
    if cancel {
        return Ok(vec![JobId(job.id)]);
    }
    let complete = jobs.get(job.seq).is_some_and(LockedJob::complete);
    if complete { finish(tx, jobs, &[job.seq]).await } else { Ok(Vec::new()) }
}
