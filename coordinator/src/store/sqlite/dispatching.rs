//! Finding what may be dispatched, and marking it so with all that a worker needs.

use std::collections::{BTreeMap, HashSet};

use darkroom_core::{digest::Digest, fair_share::Pick, text_state::TextEvent};
use darkroom_queue::task::{PoolId, TaskKey};

use super::{
    Error, SqliteStore, Tx,
    both::{
        dispatching::{Source, text_key},
        input_row::{ReadyRow, input_columns, input_joins},
    },
    progress::LockedJobs,
    rows::{column, number, parse},
    texts,
};
use crate::store::{
    change::Applied,
    records::{Dispatched, PreparedText, Work},
    row::row,
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

/// The next ready images of each job, with the inputs of their stage; an input that is not there is
/// NULL.
pub(super) async fn ready_images(
    tx: &mut Tx,
    _: &LockedJobs,
    sources: &[Source],
) -> Result<Vec<ReadyRow>, Error> {
    let mut ready = Vec::new();
    for source in sources {
        let rows = sqlx::query_as(concat!(
            "SELECT i.job, i.idx, i.prompt, i.variant, i.state, i.stage, i.generation, i.dispatch, i.failures, i.hosts AS places,
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
        ))
        .bind(source.seq)
        .bind(source.stage)
        .bind(column(source.count));
        ready.extend(rows.fetch_all(&mut **tx).await?);
    }
    Ok(ready)
}

/// The images whose texts are not encoded any more; their prompts wait for them again.
pub(super) async fn wait_for_texts(tx: &mut Tx, ready: &[ReadyRow]) -> Result<Applied, Error> {
    let (mut waiting, mut prompts) = (Applied::new(), BTreeMap::<i64, Vec<i64>>::new());
    for row in ready.iter().filter(|row| !row.input.encoded()) {
        waiting.insert((row.image.job, row.image.idx));
        prompts.entry(row.image.job).or_default().push(row.image.prompt);
    }
    for (job, prompts) in prompts {
        texts::want_again(tx, job, &prompts).await?;
    }
    Ok(waiting)
}

/// An index finds the ready images of a stage, so no mark is kept.
pub(super) fn mark_seen(_: &mut LockedJobs, _: &Source, _: &[(i64, bool)]) -> Result<(), Error> {
    Ok(())
}
