//! Removal of stored objects that no row needs any more: marks, what leaves, and what became of it.
//!
//! Whoever begins or ceases to name an object is in a transaction that [`Record::begin_referring`]
//! began, or that asked [`leaving_among`] first. Those that look up who needs an object begin with
//! [`Record::begin_marking`], which excludes the former. So nothing changes between the look-up and
//! the mark.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use darkroom_core::{
    guard::{self, Guard, stands},
    id::JobId,
};
use darkroom_queue::task::Outcome;

use super::{
    Error, Record, Tx,
    candidates::{look_up, orphans, suspect},
    deleted_jobs::{clear_next, delete_job, forget_deleted, gone_of},
    retried,
    rows::{column, number, parse},
    unused_texts::forget_texts,
};
use crate::store::{
    records::{Report, Term},
    removal::{
        AGAIN, AGAIN_AT_MOST, Candidate, Cleared, Forgotten, JOB_TOMBSTONE, Leaving, Leavings,
        Marked, SEEN, TOMBSTONE, ms,
    },
    roles::Removal,
    row::row,
};

#[async_trait]
impl Removal for Record {
    async fn delete_job(&self, job: JobId, by: &str, cancel: bool) -> Result<bool, Error> {
        retried(|| delete_job(self, job, by, cancel)).await
    }

    async fn why_not_found(&self, job: JobId, tenant: Option<&str>) -> Result<Error, Error> {
        let mut connection = self.reader().await?;
        Ok(gone_of(&mut connection, job, tenant).await?.unwrap_or_else(|| Error::no_job(job)))
    }

    async fn is_due(&self, now_ms: i64) -> Result<bool, Error> {
        let is_due = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM removals WHERE state = 'candidate' AND due_ms <= $1)
                 OR EXISTS (SELECT 1 FROM removals WHERE state = 'marked' AND due_ms <= $1)
                 OR EXISTS (SELECT 1 FROM removals WHERE state = 'deleted' AND due_ms <= $1)
                 OR EXISTS (SELECT 1 FROM removals WHERE state = 'closed' AND due_ms <= $1)
                 OR EXISTS (SELECT 1 FROM jobs WHERE deleted_ms IS NOT NULL AND cleared >= 0)
                 OR EXISTS (SELECT 1 FROM jobs WHERE deleted_ms IS NOT NULL AND cleared < 0 AND deleted_ms <= $2)
                 OR EXISTS (SELECT 1 FROM deleted_jobs WHERE deleted_ms <= $3)",
        )
        .bind(now_ms)
        .bind(now_ms.saturating_sub(ms(SEEN)))
        .bind(now_ms.saturating_sub(ms(JOB_TOMBSTONE)));
        Ok(is_due.fetch_one(self.reads()).await?)
    }

    async fn clear_deleted(&self, term: Term, now_ms: i64, limit: u32) -> Result<Cleared, Error> {
        retried(|| async {
            let mut tx = self.begin_referring().await?;
            self.check_term(&mut tx, term).await?;
            let cleared = clear_next(&mut tx, now_ms, limit).await?;
            forget_deleted(&mut tx, now_ms).await?;
            tx.commit().await?;
            Ok(cleared)
        })
        .await
    }

    async fn forget_texts(
        &self,
        term: Term,
        (now_ms, before_ms): (i64, i64),
        limit: u32,
    ) -> Result<Option<Forgotten>, Error> {
        retried(|| async {
            let Some(mut tx) = self.begin_marking().await? else { return Ok(None) };
            self.check_term(&mut tx, term).await?;
            let forgotten = forget_texts(&mut tx, (now_ms, before_ms), limit).await?;
            tx.commit().await?;
            Ok(Some(forgotten))
        })
        .await
    }

    async fn suspect(
        &self,
        term: Term,
        now_ms: i64,
        candidates: &[Candidate],
    ) -> Result<(), Error> {
        retried(|| async {
            let mut tx = self.begin_referring().await?;
            self.check_term(&mut tx, term).await?;
            suspect(&mut tx, (now_ms, now_ms), candidates).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    async fn mark(&self, term: Term, now_ms: i64, limit: u32) -> Result<Option<Marked>, Error> {
        retried(|| async {
            let Some(mut tx) = self.begin_marking().await? else { return Ok(None) };
            self.check_term(&mut tx, term).await?;
            let marked = mark(&mut tx, now_ms, limit).await?;
            tx.commit().await?;
            Ok(Some(marked))
        })
        .await
    }

    async fn leaving(&self, term: Term, now_ms: i64, limit: u32) -> Result<Vec<Leaving>, Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            // A leader that was replaced leaves storage alone.
            self.check_term(&mut tx, term).await?;
            let rows: Vec<LeavingRow> = sqlx::query_as(
                "SELECT * FROM (SELECT key, kind, tries, mark FROM removals
                                WHERE state = 'marked' AND due_ms <= $1 ORDER BY due_ms, key LIMIT $2) AS m
                 UNION ALL
                 SELECT * FROM (SELECT key, kind, tries, mark FROM removals
                                WHERE state = 'deleted' AND due_ms <= $1 ORDER BY due_ms, key LIMIT $2) AS d
                 LIMIT $2",
            )
            .bind(now_ms)
            .bind(i64::from(limit))
            .fetch_all(&mut *tx)
            .await?;
            tx.commit().await?;
            let leaving = |row: LeavingRow| {
                let (kind, tries, mark) = (parse(&row.kind)?, number(row.tries)?, number(row.mark)?);
                Ok(Leaving { key: row.key, kind, tries, mark })
            };
            rows.into_iter().map(leaving).collect()
        })
        .await
    }

    async fn note_deleted(&self, term: Term, now_ms: i64, keys: &[String]) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        retried(|| async {
            let mut tx = self.begin_write().await?;
            self.check_term(&mut tx, term).await?;
            let noted = sqlx::query(sql!(
                sqlite:
                    "UPDATE removals
                     SET state = CASE state WHEN 'marked' THEN 'deleted' ELSE 'closed' END,
                         at_ms = $1, due_ms = $2, tries = 0, error = NULL
                     WHERE state IN ('marked', 'deleted') AND due_ms <= $1
                       AND key IN (SELECT value ->> 0 FROM json_each($3))",
                postgres:
                    "UPDATE removals
                     SET state = CASE state WHEN 'marked' THEN 'deleted' ELSE 'closed' END,
                         at_ms = $1, due_ms = $2, tries = 0, error = NULL
                     WHERE key = ANY ($3) AND state IN ('marked', 'deleted') AND due_ms <= $1",
            ))
            .bind(now_ms)
            .bind(now_ms.saturating_add(ms(TOMBSTONE)));
            bind_rows!(noted, keys, |key| key.as_str()).execute(&mut *tx).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    async fn note_not_deleted(
        &self,
        term: Term,
        now_ms: i64,
        faults: &[(String, String)],
    ) -> Result<(), Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            self.check_term(&mut tx, term).await?;
            // By key: the index of what is due would be read once for each fault.
            let noted = sqlx::query(sql!(
                sqlite:
                    "UPDATE removals
                     SET tries = tries + 1, error = f.error,
                         due_ms = $1 + min($2 * (1 << min(tries, 30)), $3)
                     FROM (SELECT value ->> 0 AS key, value ->> 1 AS error FROM json_each($4)) AS f
                     WHERE removals.key = f.key AND +state IN ('marked', 'deleted') AND +due_ms <= $1",
                postgres:
                    "UPDATE removals
                     SET tries = tries + 1, error = f.error,
                         due_ms = $1 + least($2::bigint * (1::bigint << least(tries, 30)::int), $3::bigint)
                     FROM unnest($4::text[], $5::text[]) AS f (key, error)
                     WHERE removals.key = f.key COLLATE \"C\"
                       AND state || '' IN ('marked', 'deleted') AND due_ms + 0 <= $1",
            ))
            .bind(now_ms)
            .bind(ms(AGAIN))
            .bind(ms(AGAIN_AT_MOST));
            bind_rows!(noted, faults, |fault| fault.0.as_str(), fault.1.as_str())
                .execute(&mut *tx)
                .await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    async fn forget_removed(&self, term: Term, now_ms: i64, limit: u32) -> Result<u64, Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            self.check_term(&mut tx, term).await?;
            let forgotten = sqlx::query(guard::text(
                Guard::TombstoneStays,
                "DELETE FROM removals WHERE key IN
                     (SELECT key FROM removals WHERE state = 'closed' AND due_ms <= $1 ORDER BY due_ms, key LIMIT $2)",
                "state = 'closed' AND due_ms <= $1",
                "state <> 'candidate' AND state <> 'marked' AND $1 >= 0",
            ))
            .bind(now_ms)
            .bind(i64::from(limit))
            .execute(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(forgotten.rows_affected())
        })
        .await
    }

    async fn is_undeleted(&self) -> Result<bool, Error> {
        let undeleted =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM removals WHERE state = 'marked')");
        Ok(undeleted.fetch_one(self.reads()).await?)
    }

    async fn leavings(&self) -> Result<Leavings, Error> {
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(
            "SELECT state, count(*), coalesce(sum(CASE WHEN tries > 0 THEN 1 ELSE 0 END), 0)
             FROM removals GROUP BY state",
        )
        .fetch_all(self.reads())
        .await?;
        let mut leavings = Leavings::default();
        for (state, count, failing) in rows {
            let count: u64 = number(count)?;
            match state.as_str() {
                "candidate" => leavings.candidates += count,
                "marked" => leavings.marked += count,
                _ => leavings.deleted += count,
            }
            leavings.failing += number::<u64>(failing)?;
        }
        Ok(leavings)
    }

    async fn orphans(&self, objects: &[Candidate]) -> Result<Vec<String>, Error> {
        orphans(self, objects).await
    }

    async fn removal_count(&self) -> Result<u64, Error> {
        let count: i64 =
            sqlx::query_scalar("SELECT removals FROM farm").fetch_one(self.reads()).await?;
        number(count)
    }

    async fn accept_restored(&self, term: Term, count: u64) -> Result<(), Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            self.check_term(&mut tx, term).await?;
            sqlx::query("UPDATE farm SET removals = $1 WHERE removals < $1")
                .bind(column(count))
                .execute(&mut *tx)
                .await?;
            sqlx::query("UPDATE removals SET state = 'candidate' WHERE state = 'marked'")
                .execute(&mut *tx)
                .await?;
            Ok(tx.commit().await?)
        })
        .await
    }
}

row! {
    struct LeavingRow {
        key: String,
        kind: String,
        tries: i64,
        mark: i64,
    }
}

async fn mark(tx: &mut Tx, now_ms: i64, limit: u32) -> Result<Marked, Error> {
    let rows = look_up(tx, now_ms, limit).await?;
    let more = rows.len() >= limit as usize;
    let (needed, free): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.needed);
    if !needed.is_empty() {
        let dropped = sqlx::query(sql!(
            sqlite:
                "DELETE FROM removals
                 WHERE state = 'candidate' AND key IN (SELECT value ->> 0 FROM json_each($1))",
            postgres: "DELETE FROM removals WHERE key = ANY ($1) AND state = 'candidate'",
        ));
        bind_rows!(dropped, needed, |row| row.key.as_str()).execute(&mut **tx).await?;
    }
    let needed = needed.len() as u64;
    if free.is_empty() {
        return Ok(Marked { needed, more, ..Marked::default() });
    }
    let count: i64 =
        sqlx::query_scalar("UPDATE farm SET removals = removals + 1 RETURNING removals")
            .fetch_one(&mut **tx)
            .await?;
    let marked = sqlx::query(sql!(
        sqlite:
            "UPDATE removals SET state = 'marked', mark = $1, at_ms = $2, due_ms = $2, tries = 0
             WHERE state = 'candidate' AND key IN (SELECT value ->> 0 FROM json_each($3))",
        postgres:
            "UPDATE removals SET state = 'marked', mark = $1, at_ms = $2, due_ms = $2, tries = 0
             WHERE key = ANY ($3) AND state = 'candidate'",
    ))
    .bind(count)
    .bind(now_ms);
    let marked = bind_rows!(marked, free, |row| row.key.as_str()).execute(&mut **tx).await?;
    Ok(Marked { marked: marked.rows_affected(), needed, mark: number(count)?, more })
}

/// The keys among those that results name which are on their way out of storage. Nobody needs them,
/// and nobody can begin to. Until the transaction ends, no other key is marked.
pub(super) async fn leaving_among(
    tx: &mut Tx,
    reports: &[Report],
) -> Result<HashSet<String>, Error> {
    let stored = |report: &Report| match &report.result.outcome {
        Outcome::Done { artifact, .. } => Some(artifact.key.clone()),
        _ => None,
    };
    let keys: Vec<String> = reports.iter().filter_map(stored).collect();
    let found = sqlx::query_scalar(sql!(
        sqlite:
            "SELECT key FROM removals
             WHERE state <> 'candidate' AND key IN (SELECT value ->> 0 FROM json_each($1))",
        postgres: if stands(Guard::MarkAlone) {
            "SELECT key FROM leaving_among($1) AS key"
        } else {
            "SELECT key FROM removals WHERE key = ANY ($1) AND state <> 'candidate'"
        },
    ));
    let found: Vec<String> =
        bind_rows!(found, keys, |key| key.as_str()).fetch_all(&mut **tx).await?;
    Ok(found.into_iter().filter(|_| stands(Guard::LeavingRefused)).collect())
}

/// The latest marks of those of these prefixes under which something is on its way out.
pub(super) async fn leaving_under(
    store: &Record,
    prefixes: &[String],
) -> Result<HashMap<String, u64>, Error> {
    if prefixes.is_empty() {
        return Ok(HashMap::new());
    }
    let found = sqlx::query_as(sql!(
        sqlite:
            "SELECT prefix, max(mark) FROM removals
             WHERE state <> 'candidate' AND prefix IN (SELECT value ->> 0 FROM json_each($1))
             GROUP BY prefix",
        postgres:
            "SELECT prefix, max(mark) FROM removals
             WHERE prefix = ANY ($1) AND state <> 'candidate' GROUP BY prefix",
    ));
    let found: Vec<(String, i64)> =
        bind_rows!(found, prefixes, |prefix| prefix.as_str()).fetch_all(store.reads()).await?;
    found.into_iter().map(|(prefix, mark)| Ok((prefix, number(mark)?))).collect()
}
