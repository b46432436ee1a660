//! Image rows that follow the embeddings they waited for.

use super::{
    Error, PostgresStore,
    both::following::TEXTS_AT_ONCE,
    moves::save_and_finish,
    progress::LockedJobs,
    rows::column,
    spread::{self, Spreading},
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
