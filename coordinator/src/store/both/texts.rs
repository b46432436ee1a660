//! Results of stage `encode`.

use std::collections::HashMap;

use darkroom_core::digest::Digest;
use darkroom_queue::task::PoolId;

use super::{
    super::texts::tell,
    Error, Record, Tx, history,
    row_types::TextRow,
    rows::{HashColumn, digest, digest_column, digests},
};
use crate::store::{
    cause::{Bulk, Cause, Settled},
    judged_texts::{self, JudgedText},
    row::row,
    spent::Spent,
};

row! {
    struct NamedRow {
        digest: HashColumn,
        ..text: TextRow,
    }
}

/// Applies what happened to texts of an encoder's pool.
pub(super) async fn settle_texts(
    store: &Record,
    tx: &mut Tx,
    bulk: Bulk<'_>,
) -> Result<Settled, Error> {
    let Bulk { pool, causes, .. } = bulk;
    let texts = read_judged(tx, pool, causes).await?;
    let (settled, changed) = judged_texts::judge(texts, causes);
    if changed.is_empty() {
        return Ok(settled);
    }
    history::log_texts(tx, pool, Spent::of_all(causes, &settled.fates)).await?;
    let told = tell(store, tx, bulk, &changed).await?;
    Ok(Settled { fates: settled.fates, changed: settled.changed, ..told })
}

/// The current state of the texts that causes are about. Postgres locks them, in order of id.
async fn read_judged<'a>(
    tx: &mut Tx,
    pool: &PoolId,
    causes: &[Cause<'_>],
) -> Result<HashMap<Digest, JudgedText<'a>>, Error> {
    // If this statement waited for another result of the text, it sees the dispatch row as it was
    // before that result. The text's own dispatch number then shows that the dispatch has ended.
    let rows: Vec<NamedRow> = sqlx::query_as(sql!(
        sqlite:
            "SELECT digest, id, state, dispatch, failures, hosts AS places, suspect FROM embeddings
             WHERE encoder = $2 AND digest IN (SELECT value FROM json_each($1))",
        postgres:
            "SELECT e.id, e.digest, e.failures, e.hosts AS places, e.suspect,
                    CASE WHEN e.state = 'wanted' AND d.dispatch > e.dispatch THEN 'dispatched' ELSE e.state END AS state,
                    greatest(e.dispatch, coalesce(d.dispatch, 0)) AS dispatch
             FROM embeddings AS e
             LEFT JOIN dispatched_texts AS d ON d.encoder = $2 AND d.embedding = e.id
             WHERE e.digest = ANY ($1) AND e.encoder = $2
             ORDER BY e.id FOR NO KEY UPDATE OF e",
    ))
    .bind(digests(&judged_texts::texts_of(causes))?)
    .bind(digest_column(pool.digest))
    .fetch_all(&mut **tx)
    .await?;
    let judged = |row: NamedRow| {
        Ok((digest(&row.digest)?, JudgedText::new(row.text.id, row.text.progress()?)))
    };
    rows.into_iter().map(judged).collect()
}
