//! Dispatches texts to the encoder's queue, and lists those that are dispatched.
//!
//! A row of `dispatched_texts` marks a text as dispatched. Its dispatch number is higher than the
//! text's own. So the text's own row, which is wide, is written only once, with its result.

use std::collections::{BTreeMap, HashSet};

use darkroom_core::{
    digest::Digest,
    fair_share::Pick,
    guard::{self, Guard},
    id::JobId,
};
use darkroom_queue::task::{PoolId, TaskKey};
use uuid::Uuid;

use super::{
    Error, PostgresStore, Tx,
    both::dispatching::{NOTHING, text_key},
    progress::{LockedJobs, seqs_of},
    rows::{column, digest, number},
};
use crate::store::{
    records::{Dispatched, PreparedText, Work},
    row::row,
};

impl PostgresStore {
    pub(super) async fn count_dispatched_texts(&self, encoder: Digest) -> Result<u64, Error> {
        let from = self.dispatched_from.get(&encoder);
        let (count, first): (i64, Option<i64>) = sqlx::query_as(
            "SELECT count(*), min(embedding) FROM dispatched_texts WHERE encoder = $1 AND embedding >= $2",
        )
        .bind(encoder.0)
        .bind(from.unwrap_or(0))
        .fetch_one(&self.pool)
        .await?;
        if let Some(first) = first {
            self.dispatched_from.set(encoder, first, from.is_none());
        }
        number(count)
    }

    pub(super) async fn dispatched_texts(&self, encoder: Digest) -> Result<Vec<TaskKey>, Error> {
        let rows: Vec<(Vec<u8>, i64)> = sqlx::query_as(
            "SELECT e.digest, d.dispatch FROM dispatched_texts AS d JOIN embeddings AS e ON e.id = d.embedding
             WHERE d.encoder = $1 AND e.state = 'wanted' AND d.dispatch > e.dispatch
             ORDER BY d.embedding",
        )
        .bind(encoder.0)
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(|(digest, dispatch)| text_key(&digest, dispatch)).collect()
    }

    pub(super) async fn dispatch_texts(
        &self,
        tx: &mut Tx,
        pool: &PoolId,
        picks: &[Pick],
    ) -> Result<Vec<Dispatched>, Error> {
        let mut counts: BTreeMap<JobId, i64> = BTreeMap::new();
        for pick in picks {
            *counts.entry(pick.job).or_default() += column(pick.count);
        }
        let ids: Vec<Uuid> = counts.keys().map(|job| job.0).collect();
        let seqs = seqs_of(tx, &ids).await?;
        let mut jobs = LockedJobs::lock(tx, seqs.into_values()).await?;
        // This must be read under the lock: a job that was just paused or cancelled gets nothing.
        let active: Vec<i64> =
            sqlx::query_scalar("SELECT seq FROM jobs WHERE seq = ANY ($1) AND state = 'active'")
                .bind(jobs.iter_mut().map(|job| job.job).collect::<Vec<_>>())
                .fetch_all(&mut **tx)
                .await?;
        jobs.retain(&active);
        let wanted = wanted_texts(tx, pool, &mut jobs, &counts).await?;
        let rows = mark(tx, pool, &wanted).await?;
        let marked: HashSet<i64> = rows.iter().map(|row| row.id).collect();
        raise_low_water(&mut jobs, &counts, &wanted, &marked);
        jobs.save(tx).await?;
        if let Some(first) = marked.iter().min() {
            self.dispatched_from.lower(&pool.digest, *first);
        }
        rows.into_iter().map(TextRow::dispatched).collect()
    }
}

row! {
    struct TextRow {
        id: i64,
        digest: Vec<u8>,
        prepared: String,
        dispatch: i64,
        suspect: bool,
    }
}

impl TextRow {
    fn dispatched(self) -> Result<Dispatched, Error> {
        let text = PreparedText { digest: digest(&self.digest)?, prepared: self.prepared };
        let key = text_key(&self.digest, self.dispatch)?;
        Ok(Dispatched { key, suspect: self.suspect, work: Work::Encode { text } })
    }
}

/// The next texts that each job wants, (job, text) in order of the text.
async fn wanted_texts(
    tx: &mut Tx,
    pool: &PoolId,
    jobs: &mut LockedJobs,
    counts: &BTreeMap<JobId, i64>,
) -> Result<Vec<(i64, i64)>, Error> {
    let from: Vec<(i64, i64, i64)> = jobs
        .iter_mut()
        .map(|job| (job.job, job.wanted_from(), counts.get(&job.id()).copied().unwrap_or(0)))
        .collect();
    Ok(sqlx::query_as(guard::text(
        Guard::TextOnce,
        "SELECT w.job, next.id
         FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS w (job, low, count)
         CROSS JOIN LATERAL (SELECT e.id FROM job_texts AS t
                             CROSS JOIN LATERAL (SELECT e.id FROM embeddings AS e
                                                 WHERE e.id = t.embedding
                                                   AND e.state = 'wanted' AND e.encoder = $4 OFFSET 0) AS e
                             WHERE t.job = w.job AND t.embedding >= w.low
                               AND NOT EXISTS (SELECT FROM dispatched_texts AS d
                                               WHERE d.encoder = $4 AND d.embedding = t.embedding)
                             ORDER BY t.embedding LIMIT w.count) AS next",
        "d.embedding = t.embedding",
        "FALSE",
    ))
    .bind(from.iter().map(|(job, ..)| *job).collect::<Vec<_>>())
    .bind(from.iter().map(|(_, low, _)| *low).collect::<Vec<_>>())
    .bind(from.iter().map(|(.., count)| *count).collect::<Vec<_>>())
    .bind(pool.digest.0)
    .fetch_all(&mut **tx)
    .await?)
}

/// Marks texts as dispatched. It skips texts that another transaction has locked, because texts
/// must be locked before jobs. A text that several jobs want is dispatched for the first of them.
/// The statement looks each text up by itself: the planner expects a handful of texts, and its join
/// would compare all with all.
async fn mark(tx: &mut Tx, pool: &PoolId, wanted: &[(i64, i64)]) -> Result<Vec<TextRow>, Error> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut wanted: Vec<(i64, i64)> = wanted.iter().map(|(job, text)| (*text, *job)).collect();
    wanted.sort_unstable();
    wanted.dedup_by_key(|(text, _)| *text);
    let (texts, jobs): (Vec<i64>, Vec<i64>) = wanted.into_iter().unzip();
    Ok(sqlx::query_as(guard::text(
        Guard::TextOnce,
        "WITH free AS (
             SELECT w.job, e.* FROM unnest($1::bigint[], $2::bigint[]) AS w (text, job)
             CROSS JOIN LATERAL (SELECT id, digest, prepared, dispatch, suspect FROM embeddings
                                 WHERE id = w.text AND state = 'wanted' FOR NO KEY UPDATE SKIP LOCKED) AS e),
         marked AS (
             INSERT INTO dispatched_texts AS d (encoder, embedding, dispatch, job)
             SELECT $3, id, dispatch + 1, job FROM free
             ON CONFLICT (encoder, embedding) DO NOTHING
             RETURNING d.embedding)
         SELECT id, digest, prepared, dispatch + 1 AS dispatch, suspect
         FROM free WHERE (id IN (SELECT embedding FROM marked)) IS TRUE ORDER BY id",
        "DO NOTHING",
        "DO UPDATE SET dispatch = d.dispatch + 1",
    ))
    .bind(texts)
    .bind(jobs)
    .bind(pool.digest.0)
    .fetch_all(&mut **tx)
    .await?)
}

/// The next search of a job begins at its first text that was not marked, or behind the last one
/// that was.
fn raise_low_water(
    jobs: &mut LockedJobs,
    counts: &BTreeMap<JobId, i64>,
    wanted: &[(i64, i64)],
    marked: &HashSet<i64>,
) {
    let mut found: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (job, text) in wanted {
        found.entry(*job).or_default().push(*text);
    }
    for job in jobs.iter_mut() {
        let texts = found.remove(&job.job).unwrap_or_default();
        let left = texts.iter().filter(|text| !marked.contains(text)).min();
        let all = column(texts.len()) < counts.get(&job.id()).copied().unwrap_or(0);
        let low = match (left, texts.last()) {
            (Some(left), _) => *left,
            (None, Some(last)) if !all => last + 1,
            _ => NOTHING,
        };
        job.set_wanted_from(low);
    }
}
