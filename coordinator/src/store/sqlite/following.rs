//! Image rows that follow: the embeddings they waited for, or a command.

use std::collections::HashMap;

use darkroom_core::text_state::Outlook;

use super::{
    Error, SqliteStore, Tx,
    both::{
        following::TEXTS_AT_ONCE, following_images::Chunk, moves::save_and_finish,
        row_types::ProgressRow,
    },
    moves::apply,
    progress::LockedJobs,
    rows::{column, list, number, outlook_column, outlook_of, to_json},
};
use crate::store::{
    change::{Applied, Move},
    records::Committed,
    row::row,
};

row! {
    struct FollowingPrompt {
        job: i64,
        position: i64,
        first_index: i64,
        images: i64,
        text: String,
        negative: Option<String>,
        style: Option<String>,
        stages: i64,
        error_code: Option<String>,
        error: Option<String>,
    }
}

impl FollowingPrompt {
    fn outlook(&self) -> Result<Outlook, Error> {
        outlook_of([Some(&self.text), self.negative.as_deref(), self.style.as_deref()])
    }
}

/// Lets images follow the texts they waited for.
pub(super) async fn spread(store: &SqliteStore, limit: u64) -> Result<Committed, Error> {
    let mut tx = store.begin_write().await?;
    let texts: Vec<i64> = sqlx::query_scalar(
        "SELECT id FROM embeddings WHERE spread = 0 AND state IN ('done', 'dead') ORDER BY id LIMIT ?1",
    )
    .bind(TEXTS_AT_ONCE)
    .fetch_all(&mut *tx)
    .await?;
    if texts.is_empty() {
        return Ok(Committed::default());
    }
    let mut more = column(texts.len()) == TEXTS_AT_ONCE;
    let ids = list(&texts)?;
    let mut prompts = following_prompts(&mut tx, &ids, limit).await?;
    let complete = column(prompts.len()) < column(limit);
    let enough = cut_at(&mut prompts, limit);
    if complete && !enough {
        sqlx::query(
            "UPDATE embeddings SET spread = 1 WHERE id IN (SELECT value FROM json_each(?1))",
        )
        .bind(&ids)
        .execute(&mut *tx)
        .await?;
    } else {
        more = true;
    }
    let mut jobs = LockedJobs::default();
    let changed = move_images(&mut tx, &mut jobs, &prompts).await?.len() as u64;
    let (jobs, finished) = save_and_finish(&mut tx, &mut jobs).await?;
    tx.commit().await?;
    Ok(Committed { changed, jobs, finished, more, ..Committed::default() })
}

/// Prompts that wait for one of the texts and for no other text.
async fn following_prompts(
    tx: &mut Tx,
    ids: &str,
    limit: u64,
) -> Result<Vec<FollowingPrompt>, Error> {
    Ok(sqlx::query_as(concat!(
        "WITH waiting (job, position) AS (
             SELECT job, position FROM prompts
             WHERE encoded = 0 AND text_embedding IN (SELECT value FROM json_each(?1))
             UNION
             SELECT job, position FROM prompts
             WHERE encoded = 0 AND negative_embedding IN (SELECT value FROM json_each(?1))
             UNION
             SELECT job, position FROM prompts
             WHERE encoded = 0 AND style_embedding IN (SELECT value FROM json_each(?1)))
         SELECT p.job, p.position, p.first_index, p.images,
                t.state AS text, n.state AS negative, s.state AS style,
                ",
        stages_of!("p"),
        " AS stages,
                CASE 'dead' WHEN t.state THEN t.error_code WHEN n.state THEN n.error_code ELSE s.error_code END AS error_code,
                CASE 'dead' WHEN t.state THEN t.error WHEN n.state THEN n.error ELSE s.error END AS error
         FROM waiting AS w
         JOIN prompts AS p ON p.job = w.job AND p.position = w.position
         JOIN embeddings AS t ON t.id = p.text_embedding
         LEFT JOIN embeddings AS n ON n.id = p.negative_embedding
         LEFT JOIN embeddings AS s ON s.id = p.style_embedding
         WHERE t.state = 'dead' OR n.state = 'dead' OR s.state = 'dead'
            OR (t.state = 'done' AND coalesce(n.state = 'done', TRUE) AND coalesce(s.state = 'done', TRUE))
         LIMIT ?2",
    ))
    .bind(ids)
    .bind(column(limit))
    .fetch_all(&mut **tx)
    .await?)
}

/// Keeps the first prompts, with about `limit` images together. Returns whether it removed some.
fn cut_at(prompts: &mut Vec<FollowingPrompt>, limit: u64) -> bool {
    let mut images = 0;
    let fits = prompts
        .iter()
        .take_while(|prompt| {
            let before = images;
            images += prompt.images;
            before < column(limit)
        })
        .count();
    let cut = fits < prompts.len();
    prompts.truncate(fits);
    cut
}

async fn move_images(
    tx: &mut Tx,
    jobs: &mut LockedJobs,
    prompts: &[FollowingPrompt],
) -> Result<Applied, Error> {
    let row = |p: &FollowingPrompt| {
        Ok((
            p.job,
            p.position,
            outlook_column(p.outlook()?),
            p.first_index,
            p.first_index + p.images,
        ))
    };
    let rows: Vec<_> = prompts.iter().map(row).collect::<Result<_, Error>>()?;
    let rows = to_json(&rows)?;
    sqlx::query(
        "UPDATE prompts SET encoded = f.value ->> 2
         FROM json_each(?1) AS f
         WHERE prompts.job = f.value ->> 0 AND prompts.position = f.value ->> 1 AND prompts.encoded = 0",
    )
    .bind(&rows)
    .execute(&mut **tx)
    .await?;
    let images: Vec<ProgressRow> = sqlx::query_as(
        "SELECT i.job, i.idx, i.prompt, i.variant, i.state, i.stage, i.generation, i.dispatch, i.failures, i.hosts AS places, i.suspect
         FROM json_each(?1) AS f
         CROSS JOIN images AS i ON i.job = f.value ->> 0 AND i.idx >= f.value ->> 3 AND i.idx < f.value ->> 4
         WHERE i.state = 'waiting'",
    )
    .bind(&rows)
    .fetch_all(&mut **tx)
    .await?;
    let by_position: HashMap<(i64, i64), &FollowingPrompt> =
        prompts.iter().map(|prompt| ((prompt.job, prompt.position), prompt)).collect();
    let mut moves = Vec::with_capacity(images.len());
    for row in images {
        let Some(prompt) = by_position.get(&(row.job, row.prompt)) else { continue };
        let failure = (prompt.error_code.as_deref(), prompt.error.as_deref());
        let (at, stages) = ((row.job, row.idx), number(prompt.stages)?);
        moves.extend(Move::by_texts(at, row.progress()?, prompt.outlook()?, failure, stages));
    }
    apply(tx, jobs, &moves).await
}

row! {
    /// An image that has yet to follow, and how many stages it passes.
    pub(super) struct FollowingImage {
        encoded: bool,
        stages: i64,
        ..image: ProgressRow,
    }
}

impl FollowingImage {
    pub(super) fn idx(&self) -> i64 {
        self.image.idx
    }

    /// Its prompt, if that has texts which are not encoded.
    pub(super) fn unencoded_prompt(&self) -> Option<i64> {
        Some(self.image.prompt).filter(|_| !self.encoded)
    }
}

/// A chunk needs no lock in a write transaction. Texts are wanted again by
/// [`revive_of_job`](super::texts::revive_of_job) and
/// [`revive_of_images`](super::texts::revive_of_images).
pub(super) async fn lock_chunk(tx: &mut Tx, chunk: &Chunk) -> Result<(LockedJobs, ()), Error> {
    Ok((LockedJobs::lock(tx, [chunk.seq]).await?, ()))
}

/// Moves of a chunk's images.
pub(super) async fn moves_of(_: &mut Tx, chunk: &Chunk, (): &()) -> Result<Vec<Move>, Error> {
    let mut moves = Vec::with_capacity(chunk.images.len());
    for FollowingImage { image, encoded, stages } in &chunk.images {
        let (at, from) = ((chunk.seq, image.idx), image.progress()?);
        moves.extend(Move::by(at, from, &chunk.change.event(*encoded), number(*stages)?));
    }
    Ok(moves)
}
