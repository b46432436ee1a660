//! Objects that may have become superfluous, and who needs them.

use std::collections::BTreeSet;

use darkroom_core::guard::{self, Guard};

use super::{Error, Record, Tx, clock::now};
use crate::store::{
    removal::{Candidate, FORGOTTEN, ms},
    row::row,
};

/// Whether somebody needs the object of a row `c` with key, kind and source.
macro_rules! is_needed {
    () => {
        sql!(
            sqlite:
                "CASE c.kind
                     WHEN 'output' THEN EXISTS (SELECT 1 FROM outputs AS o
                                                WHERE o.key = c.key AND o.removed_ms IS NULL)
                     WHEN 'preview' THEN EXISTS (SELECT 1 FROM outputs AS o WHERE o.key = c.source)
                     WHEN 'embedding' THEN EXISTS (SELECT 1 FROM embeddings AS e WHERE e.key = c.key)
                     WHEN 'input' THEN EXISTS (SELECT 1 FROM job_inputs AS u WHERE u.key = c.key)
                                    OR EXISTS (SELECT 1 FROM tenant_inputs AS i WHERE i.key = c.key)
                     WHEN 'manifest' THEN EXISTS (SELECT 1 FROM jobs AS j WHERE j.id = c.source)
                     WHEN 'file' THEN EXISTS (SELECT 1 FROM files AS f WHERE f.id = c.source AND f.key = c.key)
                     ELSE TRUE END",
            postgres:
                "CASE c.kind
                     WHEN 'output' THEN EXISTS (SELECT FROM outputs AS o
                                                WHERE hashtextextended(o.key, 0) = hashtextextended(c.source, 0)
                                                  AND o.key = c.key AND o.removed_ms IS NULL)
                     WHEN 'preview' THEN EXISTS (SELECT FROM outputs AS o
                                                 WHERE hashtextextended(o.key, 0) = hashtextextended(c.source, 0)
                                                   AND o.key = c.source)
                     WHEN 'embedding' THEN EXISTS (SELECT FROM embeddings AS e
                                                   WHERE hashtextextended(e.key, 0) = hashtextextended(c.key, 0)
                                                     AND e.key = c.key)
                     WHEN 'input' THEN EXISTS (SELECT FROM job_inputs AS u WHERE u.key = c.key)
                                    OR EXISTS (SELECT FROM tenant_inputs AS i WHERE i.key = c.key)
                     WHEN 'manifest' THEN EXISTS (SELECT FROM jobs AS j WHERE j.id = c.source::uuid)
                     WHEN 'file' THEN EXISTS (SELECT FROM files AS f WHERE f.id = c.source::uuid AND f.key = c.key)
                     ELSE TRUE END",
        )
    };
}

/// Adds candidates that are to be looked at from a time on. Those that are on their way out already
/// stay as they are.
pub(super) async fn suspect(
    tx: &mut Tx,
    (now_ms, due_ms): (i64, i64),
    candidates: &[Candidate],
) -> Result<(), Error> {
    if candidates.is_empty() {
        return Ok(());
    }
    let added = sqlx::query(sql!(
        sqlite:
            "INSERT INTO removals (key, prefix, kind, source, state, at_ms, due_ms)
             SELECT c.value ->> 0, c.value ->> 1, c.value ->> 2, c.value ->> 3, 'candidate', $1, $2
             FROM json_each($3) AS c WHERE TRUE
             ON CONFLICT (key) DO NOTHING",
        postgres:
            "INSERT INTO removals (key, prefix, kind, source, state, at_ms, due_ms)
             SELECT c.key, c.prefix, c.kind, c.source, 'candidate', $1, $2
             FROM unnest($3::text[], $4::text[], $5::text[], $6::text[]) AS c (key, prefix, kind, source)
             ON CONFLICT (key) DO NOTHING",
    ))
    .bind(now_ms)
    .bind(due_ms);
    bind_rows!(
        added,
        candidates,
        |one| one.key.as_str(),
        one.prefix(),
        one.kind.name(),
        one.source.as_str()
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Outputs whose rows a rewind has deleted are looked at later, because mostly they are stored and
/// named again by then.
pub(super) async fn suspect_forgotten(tx: &mut Tx, keys: Vec<String>) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let now = now(tx).await?;
    let previews = keys.iter().map(|key| Candidate::previews(key));
    let previews: Vec<Candidate> = previews.collect();
    let outputs = keys.into_iter().map(Candidate::output);
    let candidates: BTreeSet<Candidate> = outputs.chain(previews).collect();
    let candidates: Vec<Candidate> = candidates.into_iter().collect();
    suspect(tx, (now, now.saturating_add(ms(FORGOTTEN))), &candidates).await
}

row! {
    pub(super) struct CandidateRow {
        pub(super) key: String,
        pub(super) needed: bool,
    }
}

/// Looks up who needs the next candidates. The transaction excludes all who might begin to need one.
pub(super) async fn look_up(
    tx: &mut Tx,
    now_ms: i64,
    limit: u32,
) -> Result<Vec<CandidateRow>, Error> {
    Ok(sqlx::query_as(guard::text(
        Guard::ReferencedStays,
        concat!(
            "SELECT c.key, ",
            is_needed!(),
            " AS needed
             FROM (SELECT key, kind, source FROM removals
                   WHERE state = 'candidate' AND due_ms <= $1 ORDER BY due_ms, key LIMIT $2) AS c",
        ),
        "o.removed_ms IS NULL)",
        "FALSE)",
    ))
    .bind(now_ms)
    .bind(i64::from(limit))
    .fetch_all(&mut **tx)
    .await?)
}

/// The keys of those of these objects that no row names, not even as removed.
pub(super) async fn orphans(store: &Record, objects: &[Candidate]) -> Result<Vec<String>, Error> {
    if objects.is_empty() {
        return Ok(Vec::new());
    }
    let found = sqlx::query_scalar(sql!(
        sqlite: concat!(
            "SELECT c.key FROM (SELECT value ->> 0 AS key, value ->> 1 AS kind, value ->> 2 AS source
                                FROM json_each($1)) AS c
             WHERE NOT EXISTS (SELECT 1 FROM removals AS r WHERE r.key = c.key)
               AND NOT EXISTS (SELECT 1 FROM outputs AS o WHERE c.kind = 'output' AND o.key = c.key)
               AND NOT ",
            is_needed!(),
        ),
        postgres: concat!(
            "SELECT c.key FROM unnest($1::text[], $2::text[], $3::text[]) AS c (key, kind, source)
             WHERE NOT EXISTS (SELECT FROM removals AS r WHERE r.key = c.key)
               AND NOT EXISTS (SELECT FROM outputs AS o
                               WHERE c.kind = 'output' AND o.key = c.key
                                 AND hashtextextended(o.key, 0) = hashtextextended(c.key, 0))
               AND NOT ",
            is_needed!(),
        ),
    ));
    let found =
        bind_rows!(found, objects, |one| one.key.as_str(), one.kind.name(), one.source.as_str());
    Ok(found.fetch_all(store.reads()).await?)
}
