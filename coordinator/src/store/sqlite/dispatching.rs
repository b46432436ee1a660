//! Finding what may be dispatched, and marking it so with all that a worker needs.

use std::collections::HashSet;

use darkroom_core::{
    digest::Digest,
    fair_share::Pick,
    guard::{self, Guard},
    image_state::ImageEvent,
    settings::Settings,
    text_state::TextEvent,
};
use darkroom_queue::task::{PoolId, TaskKey};

use super::{
    Error, SqliteStore, Tx,
    both::{
        dispatching::text_key,
        input_row::{ReadyRow, input_columns, input_joins},
        variants,
    },
    moves::apply,
    rows::{column, from_json, number, parse},
    texts,
};
use crate::store::{
    change::Move,
    records::{Dispatched, PreparedText, Work},
    row::row,
    variants::of as variant_of,
};

impl SqliteStore {
    pub(super) async fn count_dispatched_texts(&self, encoder: Digest) -> Result<u64, Error> {
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM embeddings WHERE encoder = ?1 AND state = 'dispatched'",
        )
        .bind(encoder.to_string())
        .fetch_one(&self.readers)
        .await?;
        number(count)
    }

    pub(super) async fn dispatched_texts(&self, encoder: Digest) -> Result<Vec<TaskKey>, Error> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT digest, dispatch FROM embeddings WHERE encoder = ?1 AND state = 'dispatched'",
        )
        .bind(encoder.to_string())
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(|(digest, dispatch)| text_key(&digest, dispatch)).collect()
    }

    pub(super) async fn dispatch_texts(
        &self,
        tx: &mut Tx,
        pool: &PoolId,
        picks: &[Pick],
    ) -> Result<Vec<Dispatched>, Error> {
        let mut dispatched = Vec::new();
        for pick in picks {
            dispatched.extend(dispatch_texts(tx, pool, pick).await?);
        }
        Ok(dispatched)
    }
}

row! {
    struct WantedRow {
        id: i64,
        digest: String,
        prepared: String,
        dispatch: i64,
        suspect: bool,
    }
}

async fn dispatch_texts(tx: &mut Tx, pool: &PoolId, pick: &Pick) -> Result<Vec<Dispatched>, Error> {
    let wanted: Vec<WantedRow> = sqlx::query_as(
        "SELECT e.id, e.digest, e.prepared, e.dispatch, e.suspect
         FROM jobs AS j
         JOIN job_texts AS t ON t.job = j.seq AND t.encoded = 0
         JOIN embeddings AS e ON e.id = t.embedding AND e.state = 'wanted' AND e.encoder = ?2
         WHERE j.id = ?1 AND j.state = 'active'
         ORDER BY t.embedding LIMIT ?3",
    )
    .bind(pick.job.to_string())
    .bind(pool.digest.to_string())
    .bind(column(pick.count))
    .fetch_all(&mut **tx)
    .await?;
    let ids: Vec<i64> = wanted.iter().map(|row| row.id).collect();
    let dispatched: HashSet<i64> =
        texts::change(tx, &ids, &TextEvent::Dispatch).await?.into_iter().collect();
    wanted
        .into_iter()
        .filter(|row| dispatched.contains(&row.id))
        .map(|row| {
            let key = text_key(&row.digest, row.dispatch + 1)?;
            let text = PreparedText { digest: parse(&row.digest)?, prepared: row.prepared };
            Ok(Dispatched { key, suspect: row.suspect, work: Work::Encode { text } })
        })
        .collect()
}

row! {
    struct JobRow {
        seq: i64,
        settings: String,
        stage: i64,
    }
}

pub(super) async fn dispatch_images(
    tx: &mut Tx,
    pool: &PoolId,
    picks: &[Pick],
) -> Result<Vec<Dispatched>, Error> {
    let mut dispatched = Vec::new();
    for pick in picks {
        dispatched.extend(dispatch_of_job(tx, pool, pick).await?);
    }
    Ok(dispatched)
}

async fn dispatch_of_job(
    tx: &mut Tx,
    pool: &PoolId,
    pick: &Pick,
) -> Result<Vec<Dispatched>, Error> {
    let job: Option<JobRow> = sqlx::query_as(guard::text(
        Guard::ActiveOnly,
        "SELECT j.seq, j.settings, s.stage
         FROM jobs AS j JOIN job_stages AS s ON s.job = j.seq
         WHERE j.id = ?1 AND j.state = 'active' AND s.name = ?2 AND s.pool = ?3 AND s.stage >= 0",
        "AND j.state = 'active'",
        "",
    ))
    .bind(pick.job.to_string())
    .bind(pool.stage.as_str())
    .bind(pool.digest.to_string())
    .fetch_optional(&mut **tx)
    .await?;
    let Some(job) = job else { return Ok(Vec::new()) };
    let settings: Settings = from_json(&job.settings)?;
    let ready = ready_images(tx, &job, pick.count).await?;
    let variants = variants::read(tx, job.seq, ready.iter().map(|row| row.image.variant)).await?;
    let settings_of = |row: &ReadyRow| match row.image.variant {
        None => Ok(&settings),
        Some(variant) => variant_of(&variants, variant).map(|settings| &**settings),
    };
    let mut moves = Vec::with_capacity(ready.len());
    let mut unencoded = Vec::new();
    for row in &ready {
        let encoded = row.input.encoded();
        let event = if encoded { ImageEvent::Dispatch } else { ImageEvent::TextsLost };
        if !encoded {
            unencoded.push(row.image.prompt);
        }
        let (at, stages) = ((job.seq, row.image.idx), settings_of(row)?.stages.len());
        moves.extend(Move::by(at, row.image.progress()?, &event, stages));
    }
    texts::want_again(tx, job.seq, &unencoded).await?;
    let applied = apply(tx, &moves).await?.applied;
    ready
        .into_iter()
        .filter(|row| {
            !unencoded.contains(&row.image.prompt) && applied.contains(&(job.seq, row.image.idx))
        })
        .map(|row| {
            let settings = settings_of(&row)?;
            row.dispatched(pick.job, pool, settings)
        })
        .collect()
}

/// The next ready images of a job, each with the inputs of its stage; an input that is not there is
/// NULL.
async fn ready_images(tx: &mut Tx, job: &JobRow, count: u64) -> Result<Vec<ReadyRow>, Error> {
    Ok(sqlx::query_as(
        concat!(
            "SELECT i.job, i.idx, i.prompt, i.variant, i.state, i.stage, i.generation, i.dispatch, i.failures, i.hosts,
                i.suspect, ",
            input_columns!(),
            ", o.key AS low_res_key, o.sha256 AS low_res_sha256, o.size AS low_res_size
         FROM images AS i
         JOIN prompts AS p ON p.job = i.job AND p.position = i.prompt
         ",
            input_joins!(),
            "LEFT JOIN outputs AS o ON o.job = i.job AND o.idx = i.idx AND o.stage = i.stage - 1
         WHERE i.job = ?1 AND i.state = 'ready' AND i.stage = ?2
         ORDER BY i.idx LIMIT ?3"
        ),
    )
    .bind(job.seq)
    .bind(job.stage)
    .bind(column(count))
    .fetch_all(&mut **tx)
    .await?)
}
