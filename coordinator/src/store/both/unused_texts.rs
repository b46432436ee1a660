//! Texts that no job has needed for a while.

use super::{
    Error, Tx,
    candidates::suspect,
    rows::{HashColumn, digest, list, number},
};
use crate::store::{
    removal::{Candidate, Forgotten},
    row::row,
};

row! {
    struct UnusedRow {
        id: i64,
        digest: HashColumn,
        key: Option<String>,
        size: Option<i64>,
        needed: bool,
        dispatched: bool,
    }
}

/// Removes texts that no job needs. Nobody can begin to need one until the transaction ends.
pub(super) async fn forget_texts(
    tx: &mut Tx,
    (now_ms, before_ms): (i64, i64),
    limit: u32,
) -> Result<Forgotten, Error> {
    let rows: Vec<UnusedRow> = sqlx::query_as(sql!(
        sqlite:
            "SELECT e.id, e.digest, e.key, e.size, e.state = 'dispatched' AS dispatched,
                    EXISTS (SELECT 1 FROM job_texts AS t WHERE t.embedding = e.id) AS needed
             FROM (SELECT embedding FROM unused_texts WHERE since_ms <= $1 ORDER BY since_ms LIMIT $2) AS u
             CROSS JOIN embeddings AS e ON e.id = u.embedding",
        postgres:
            "SELECT e.id, e.digest, e.key, e.size,
                    EXISTS (SELECT FROM dispatched_texts AS d
                            WHERE d.encoder = e.encoder AND d.embedding = e.id) AS dispatched,
                    EXISTS (SELECT FROM job_texts AS t WHERE t.embedding = e.id) AS needed
             FROM (SELECT embedding FROM unused_texts WHERE since_ms <= $1 ORDER BY since_ms LIMIT $2) AS u
             CROSS JOIN LATERAL (SELECT * FROM embeddings AS e WHERE e.id = u.embedding OFFSET 0) AS e",
    ))
    .bind(before_ms)
    .bind(i64::from(limit))
    .fetch_all(&mut **tx)
    .await?;
    let is_free = |row: &&UnusedRow| !row.needed && !row.dispatched;
    let free: Vec<i64> = rows.iter().filter(is_free).map(|row| row.id).collect();
    let needed: Vec<i64> = rows.iter().filter(|row| row.needed).map(|row| row.id).collect();
    let running = rows.iter().filter(|row| !row.needed && row.dispatched);
    let running: Vec<i64> = running.map(|row| row.id).collect();
    let (mut candidates, mut sizes) = (Vec::new(), Vec::new());
    for row in rows.iter().filter(is_free) {
        let Some(key) = &row.key else { continue };
        sizes.push(number(row.size.unwrap_or(0))?);
        candidates.push(Candidate::embedding(key.clone(), digest(&row.digest)?));
    }
    suspect(tx, (now_ms, now_ms), &candidates).await?;
    let statements = sql!(
        sqlite: [
            "DELETE FROM unused_texts WHERE embedding IN (SELECT value FROM json_each($1))",
            "DELETE FROM embeddings WHERE id IN (SELECT value FROM json_each($1))",
            "UPDATE unused_texts SET since_ms = $2 + 60000 WHERE embedding IN (SELECT value FROM json_each($1))",
        ],
        postgres: [
            "DELETE FROM unused_texts WHERE embedding = ANY ($1)",
            "WITH told AS (DELETE FROM spreading_texts WHERE embedding = ANY ($1))
             DELETE FROM embeddings WHERE id = ANY ($1)",
            "UPDATE unused_texts SET since_ms = $2 + 60000 WHERE embedding = ANY ($1)",
        ],
    );
    let settled: Vec<i64> = free.iter().chain(&needed).copied().collect();
    let [unused, embeddings, later] = statements;
    for (statement, ids) in [(unused, &settled), (embeddings, &free)] {
        if !ids.is_empty() {
            sqlx::query(statement).bind(list(ids)?).execute(&mut **tx).await?;
        }
    }
    if !running.is_empty() {
        sqlx::query(later).bind(list(&running)?).bind(before_ms).execute(&mut **tx).await?;
    }
    let more = rows.len() >= limit as usize;
    Ok(Forgotten { texts: free.len() as u64, sizes, more })
}
