//! Removal of jobs, and of stored objects that no row needs any more.
//!
//! Whoever begins or ceases to name an object is in a transaction that [`Record::begin_referring`]
//! began, or that asked [`leaving_among`] first. Those that look up who needs an object begin with
//! [`Record::begin_marking`], which excludes the former. So nothing changes between the look-up and
//! the mark.

use std::collections::{BTreeSet, HashMap, HashSet};

use async_trait::async_trait;
use darkroom_core::{
    error::{Code, UserError},
    guard::{self, Guard, stands},
    id::JobId,
    job_state::{JobEvent, transition},
};
use darkroom_queue::task::Outcome;

use super::{
    super::progress::LockedJobs,
    Connection, Error, Record, Tx,
    clock::now_ms,
    commands::{lock, raise},
    retried,
    rows::{HashColumn, IdColumn, column, digest, id_column, job_id, list, number, parse},
};
use crate::store::{
    limits::timestamp,
    records::{Report, Term},
    removal::{
        Candidate, Cleared, FORGOTTEN, JOB_TOMBSTONE, Leaving, Leavings, Marked, SEEN, TOMBSTONE,
        again_ms, ms,
    },
    roles::Removal,
    row::row,
};

/// Rows of job tables, besides those of images, that one statement removes.
const ROWS: i64 = 5000;

/// Whether somebody needs the object of a row `c` with key, kind and source.
macro_rules! is_needed {
    () => {
        sql!(
            sqlite:
                "CASE c.kind
                     WHEN 'output' THEN EXISTS (SELECT 1 FROM outputs AS o
                                                WHERE o.key = c.key AND o.removed_ms IS NULL)
                     WHEN 'preview' THEN EXISTS (SELECT 1 FROM outputs AS o WHERE o.key = c.source)
                     WHEN 'embedding' THEN EXISTS (SELECT 1 FROM embeddings AS e
                                                   WHERE e.digest = c.source AND e.key = c.key)
                     WHEN 'manifest' THEN EXISTS (SELECT 1 FROM jobs AS j WHERE j.id = c.source)
                     WHEN 'sheet' THEN FALSE
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
                                                   WHERE e.digest = decode(c.source, 'hex') AND e.key = c.key)
                     WHEN 'manifest' THEN EXISTS (SELECT FROM jobs AS j WHERE j.id = c.source::uuid)
                     WHEN 'sheet' THEN FALSE
                     ELSE TRUE END",
        )
    };
}

#[async_trait]
impl Removal for Record {
    async fn delete_job(&self, job: JobId, by: &str, cancel: bool) -> Result<bool, Error> {
        retried(|| delete_job(self, job, by, cancel)).await
    }

    async fn why_not_found(&self, job: JobId, tenant: Option<&str>) -> Result<Error, Error> {
        let mut connection = self.reader().await?;
        Ok(gone_of(&mut connection, job, tenant).await?.unwrap_or_else(|| Error::no_job(job)))
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
    ) -> Result<Option<u64>, Error> {
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

    async fn leaving(&self, now_ms: i64, limit: u32) -> Result<Vec<Leaving>, Error> {
        let rows: Vec<LeavingRow> = sqlx::query_as(
            "SELECT * FROM (SELECT key, kind, tries FROM removals
                            WHERE state = 'marked' AND due_ms <= $1 ORDER BY due_ms, key LIMIT $2) AS m
             UNION ALL
             SELECT * FROM (SELECT key, kind, tries FROM removals
                            WHERE state = 'deleted' AND due_ms <= $1 ORDER BY due_ms, key LIMIT $2) AS d
             LIMIT $2",
        )
        .bind(now_ms)
        .bind(i64::from(limit))
        .fetch_all(self.reads())
        .await?;
        let leaving = |row: LeavingRow| {
            Ok(Leaving { key: row.key, kind: parse(&row.kind)?, tries: number(row.tries)? })
        };
        rows.into_iter().map(leaving).collect()
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
            for (key, error) in faults {
                let tries: Option<i64> = sqlx::query_scalar(
                    "SELECT tries FROM removals WHERE key = $1 AND state IN ('marked', 'deleted')",
                )
                .bind(key)
                .fetch_optional(&mut *tx)
                .await?;
                let Some(tries) = tries else { continue };
                sqlx::query(
                    "UPDATE removals SET tries = tries + 1, error = $3, due_ms = $4
                     WHERE key = $1 AND tries = $2 AND state IN ('marked', 'deleted')",
                )
                .bind(key)
                .bind(tries)
                .bind(error)
                .bind(now_ms.saturating_add(again_ms(number(tries)?)))
                .execute(&mut *tx)
                .await?;
            }
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
        let found = bind_rows!(
            found,
            objects,
            |one| one.key.as_str(),
            one.kind.name(),
            one.source.as_str()
        );
        Ok(found.fetch_all(self.reads()).await?)
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
    }
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
    let now: i64 = sqlx::query_scalar(concat!("SELECT ", now_ms!())).fetch_one(&mut **tx).await?;
    let previews = keys.iter().map(|key| Candidate::previews(key));
    let previews: Vec<Candidate> = previews.collect();
    let outputs = keys.into_iter().map(Candidate::output);
    let candidates: BTreeSet<Candidate> = outputs.chain(previews).collect();
    let candidates: Vec<Candidate> = candidates.into_iter().collect();
    suspect(tx, (now, now.saturating_add(ms(FORGOTTEN))), &candidates).await
}

row! {
    struct CandidateRow {
        key: String,
        needed: bool,
    }
}

async fn mark(tx: &mut Tx, now_ms: i64, limit: u32) -> Result<Marked, Error> {
    let rows: Vec<CandidateRow> = sqlx::query_as(guard::text(
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
    .await?;
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

async fn delete_job(store: &Record, job: JobId, by: &str, cancel: bool) -> Result<bool, Error> {
    let mut tx = store.begin_write().await?;
    let (mut jobs, seq, state) = match lock(&mut tx, job).await {
        Err(Error::Deleted { .. }) => return Ok(false),
        locked => locked?,
    };
    if !state.terminal() && !cancel {
        return Err(not_ended(job, state.name()).into());
    }
    let next = if state.terminal() { state } else { transition(state, JobEvent::Cancel)? };
    let deleted = sqlx::query(concat!(
        sql!(
            sqlite:
                "UPDATE jobs
                 SET version = version + 1, follow = CASE WHEN $3 <> $2 THEN 'cancel' ELSE follow END,
                     finished_ms = coalesce(finished_ms, CAST(unixepoch('subsec') * 1000 AS INTEGER)), ",
            postgres:
                "UPDATE jobs
                 SET follow = CASE WHEN $3 <> $2 THEN 'cancel' ELSE follow END,
                     finished_at = coalesce(finished_at, clock_timestamp()), ",
        ),
        "state = $3, manifest = CASE WHEN manifest = 'pending' THEN NULL ELSE manifest END,
         deleted_by = $4, deleted_ms = ",
        now_ms!(),
        " WHERE seq = $1 AND state = $2 AND deleted_ms IS NULL",
    ))
    .bind(seq)
    .bind(state.name())
    .bind(next.name())
    .bind(by)
    .execute(&mut *tx)
    .await?;
    if deleted.rows_affected() != 1 {
        return Err(Error::Corrupt("a job changed while it was locked".to_owned()));
    }
    raise(&mut tx, &mut jobs).await?;
    store.commit_repeatable(tx).await?;
    Ok(true)
}

fn not_ended(job: JobId, state: &str) -> UserError {
    let message = format!(
        "job {job} is {state}; accepted: a job that has ended, or cancel it first (`darkroom rm --cancel {job}`)"
    );
    UserError::new(Code::FailedPrecondition, "JOB_NOT_ENDED", message)
}

/// That a job was deleted, as an error; `None` if it was not.
pub(in super::super) async fn gone(
    connection: &mut Connection,
    job: JobId,
) -> Result<Option<Error>, Error> {
    gone_of(connection, job, None).await
}

/// Why a job is not found.
pub(in super::super) async fn not_found(connection: &mut Connection, job: JobId) -> Error {
    match gone(connection, job).await {
        Ok(Some(gone)) => gone,
        Ok(None) => Error::no_job(job),
        Err(error) => error,
    }
}

async fn gone_of(
    connection: &mut Connection,
    job: JobId,
    tenant: Option<&str>,
) -> Result<Option<Error>, Error> {
    let deleted: Option<i64> = sqlx::query_scalar(sql!(
        sqlite:
            "SELECT deleted_ms FROM jobs WHERE id = $1 AND deleted_ms IS NOT NULL AND ($2 IS NULL OR tenant = $2)
             UNION ALL
             SELECT deleted_ms FROM deleted_jobs WHERE id = $1 AND ($2 IS NULL OR tenant = $2)",
        postgres:
            "SELECT deleted_ms FROM jobs
             WHERE id = $1 AND deleted_ms IS NOT NULL AND ($2::text IS NULL OR tenant = $2)
             UNION ALL
             SELECT deleted_ms FROM deleted_jobs WHERE id = $1 AND ($2::text IS NULL OR tenant = $2)",
    ))
    .bind(id_column(job))
    .bind(tenant)
    .fetch_optional(connection)
    .await?;
    let at = |ms: i64| timestamp(ms - ms.rem_euclid(1000)).to_string();
    Ok(deleted.map(|ms| Error::Deleted { job, at: at(ms) }))
}

row! {
    struct DeletedRow {
        id: IdColumn,
        seq: i64,
        cleared: i64,
        deleted_ms: i64,
    }
}

/// Removes a part of the job that was deleted first.
async fn clear_next(tx: &mut Tx, now_ms: i64, limit: u32) -> Result<Cleared, Error> {
    let found: Option<DeletedRow> = sqlx::query_as(
        "SELECT seq, id, cleared, deleted_ms FROM jobs
         WHERE deleted_ms IS NOT NULL AND follow IS NULL
           AND NOT EXISTS (SELECT 1 FROM image_commands AS c WHERE c.job = jobs.seq)
         ORDER BY deleted_ms, seq LIMIT 1",
    )
    .fetch_optional(&mut **tx)
    .await?;
    let Some(job) = found else { return Ok(Cleared::default()) };
    LockedJobs::lock(tx, [job.seq]).await?;
    let last: Option<i64> = sqlx::query_scalar("SELECT max(idx) FROM images WHERE job = $1")
        .bind(job.seq)
        .fetch_one(&mut **tx)
        .await?;
    if last.is_some_and(|last| last >= job.cleared) {
        let end = job.cleared.saturating_add(i64::from(limit));
        let images = clear_images(tx, (job.seq, job.cleared, end), now_ms).await?;
        return Ok(Cleared { images, jobs: 0, more: true });
    }
    if clear_texts(tx, job.seq, now_ms).await? || clear_rest(tx, job.seq).await? {
        return Ok(Cleared { more: true, ..Cleared::default() });
    }
    if job.deleted_ms.saturating_add(ms(SEEN)) > now_ms {
        return Ok(Cleared::default());
    }
    suspect(tx, (now_ms, now_ms), &[Candidate::manifests(job_id(&job.id)?)]).await?;
    for rows in [
        "INSERT INTO deleted_jobs (id, tenant, client_request_id, deleted_ms, deleted_by)
         SELECT id, tenant, client_request_id, deleted_ms, coalesce(deleted_by, '') FROM jobs WHERE seq = $1",
        sql!(
            sqlite:
                "INSERT INTO deleted_usage (day, tenant, images, device_us)
                 SELECT date(created_ms / 1000, 'unixepoch'), tenant, images, device_us FROM jobs WHERE seq = $1
                 ON CONFLICT (day, tenant) DO UPDATE
                 SET images = images + excluded.images, device_us = device_us + excluded.device_us",
            postgres:
                "INSERT INTO deleted_usage (day, tenant, images, device_us)
                 SELECT to_char(j.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), j.tenant, p.images, p.device_us
                 FROM jobs AS j
                 CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                                     ORDER BY newest.version DESC LIMIT 1) AS p
                 WHERE j.seq = $1
                 ON CONFLICT (day, tenant) DO UPDATE
                 SET images = deleted_usage.images + excluded.images,
                     device_us = deleted_usage.device_us + excluded.device_us",
        ),
        "DELETE FROM job_stages WHERE job = $1",
        "DELETE FROM job_paces WHERE job = $1",
        "DELETE FROM job_forecasts WHERE job = $1",
        "DELETE FROM job_variants WHERE job = $1",
        sql!(sqlite: "SELECT 1 WHERE $1 < 0", postgres: "DELETE FROM job_progress WHERE job = $1"),
        "DELETE FROM jobs WHERE seq = $1 AND deleted_ms IS NOT NULL",
    ] {
        sqlx::query(rows).bind(job.seq).execute(&mut **tx).await?;
    }
    Ok(Cleared { images: 0, jobs: 1, more: true })
}

/// Removes the rows of a deleted job's images in a range of indices, and those of the prompts that
/// end there.
async fn clear_images(
    tx: &mut Tx,
    (job, first, end): (i64, i64, i64),
    now_ms: i64,
) -> Result<u64, Error> {
    let keys: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT key FROM outputs WHERE job = $1 AND idx >= $2 AND idx < $3",
    )
    .bind(job)
    .bind(first)
    .bind(end)
    .fetch_all(&mut **tx)
    .await?;
    let previews: Vec<Candidate> = keys.iter().map(|key| Candidate::previews(key)).collect();
    let candidates: Vec<Candidate> =
        keys.into_iter().map(Candidate::output).chain(previews).collect();
    suspect(tx, (now_ms, now_ms), &candidates).await?;
    for rows in [
        "DELETE FROM outputs WHERE job = $1 AND idx >= $2 AND idx < $3",
        "DELETE FROM attempts WHERE job = $1 AND idx >= $2 AND idx < $3",
        "DELETE FROM worker_failures WHERE job = $1 AND idx >= $2 AND idx < $3",
        "DELETE FROM prompts
         WHERE job = $1 AND first_index + images <= $3
           AND position >= (SELECT min(i.prompt) FROM images AS i WHERE i.job = $1 AND i.idx >= $2 AND i.idx < $3)
           AND position <= (SELECT max(i.prompt) FROM images AS i WHERE i.job = $1 AND i.idx >= $2 AND i.idx < $3)",
        "UPDATE jobs SET cleared = $3 WHERE seq = $1 AND cleared = $2",
    ] {
        sqlx::query(rows).bind(job).bind(first).bind(end).execute(&mut **tx).await?;
    }
    let images = sqlx::query("DELETE FROM images WHERE job = $1 AND idx >= $2 AND idx < $3")
        .bind(job)
        .bind(first)
        .bind(end)
        .execute(&mut **tx)
        .await?;
    Ok(images.rows_affected())
}

/// Removes what a deleted job needs of texts, and notes which of them no job needs now. Returns
/// whether it removed something.
async fn clear_texts(tx: &mut Tx, job: i64, now_ms: i64) -> Result<bool, Error> {
    let texts: Vec<i64> = sqlx::query_scalar(
        "SELECT embedding FROM job_texts WHERE job = $1 ORDER BY embedding LIMIT $2",
    )
    .bind(job)
    .bind(ROWS)
    .fetch_all(&mut **tx)
    .await?;
    let (Some(first), Some(last)) = (texts.first(), texts.last()) else { return Ok(false) };
    sqlx::query("DELETE FROM job_texts WHERE job = $1 AND embedding >= $2 AND embedding <= $3")
        .bind(job)
        .bind(*first)
        .bind(*last)
        .execute(&mut **tx)
        .await?;
    sqlx::query(sql!(
        sqlite:
            "INSERT INTO unused_texts (embedding, since_ms)
             SELECT w.value, $1 FROM json_each($2) AS w
             WHERE NOT EXISTS (SELECT 1 FROM job_texts AS t WHERE t.embedding = w.value)
             ON CONFLICT (embedding) DO UPDATE SET since_ms = excluded.since_ms",
        postgres:
            "INSERT INTO unused_texts (embedding, since_ms)
             SELECT w.id, $1 FROM unnest($2::bigint[]) AS w (id)
             WHERE NOT EXISTS (SELECT FROM job_texts AS t WHERE t.embedding = w.id)
             ON CONFLICT (embedding) DO UPDATE SET since_ms = excluded.since_ms",
    ))
    .bind(now_ms)
    .bind(list(&texts)?)
    .execute(&mut **tx)
    .await?;
    Ok(true)
}

/// Removes other rows of a deleted job, of which there may be many. Returns whether there may be
/// more.
async fn clear_rest(tx: &mut Tx, job: i64) -> Result<bool, Error> {
    let tables: &[&str] = sql!(
        sqlite: &[
            "DELETE FROM prompts WHERE job = $1 AND position IN
                 (SELECT position FROM prompts WHERE job = $1 LIMIT $2)",
            "DELETE FROM text_notes WHERE job = $1 AND $2 > 0",
        ],
        postgres: &[
            "DELETE FROM prompts WHERE job = $1 AND position IN
                 (SELECT position FROM prompts WHERE job = $1 ORDER BY position LIMIT $2)",
            "DELETE FROM text_notes WHERE job = $1 AND $2 > 0",
            "DELETE FROM job_notes WHERE job = $1 AND $2 > 0",
            "DELETE FROM image_blocks WHERE job = $1 AND block IN
                 (SELECT block FROM image_blocks WHERE job = $1 ORDER BY block LIMIT $2)",
            "DELETE FROM image_changes WHERE job = $1 AND version IN
                 (SELECT version FROM image_changes WHERE job = $1 ORDER BY version, first LIMIT $2)",
        ],
    );
    let mut more = false;
    for rows in tables {
        let removed = sqlx::query(*rows).bind(job).bind(ROWS).execute(&mut **tx).await?;
        more |= removed.rows_affected() >= u64::try_from(ROWS).unwrap_or(u64::MAX);
    }
    Ok(more)
}

/// Forgets jobs that were deleted long ago.
async fn forget_deleted(tx: &mut Tx, now_ms: i64) -> Result<(), Error> {
    sqlx::query(
        "DELETE FROM deleted_jobs WHERE id IN
             (SELECT id FROM deleted_jobs WHERE deleted_ms <= $1 ORDER BY deleted_ms LIMIT $2)",
    )
    .bind(now_ms.saturating_sub(ms(JOB_TOMBSTONE)))
    .bind(ROWS)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

row! {
    struct UnusedRow {
        id: i64,
        digest: HashColumn,
        key: Option<String>,
        needed: bool,
        dispatched: bool,
    }
}

/// Removes texts that no job needs. Nobody can begin to need one until the transaction ends.
async fn forget_texts(
    tx: &mut Tx,
    (now_ms, before_ms): (i64, i64),
    limit: u32,
) -> Result<u64, Error> {
    let rows: Vec<UnusedRow> = sqlx::query_as(sql!(
        sqlite:
            "SELECT e.id, e.digest, e.key, e.state = 'dispatched' AS dispatched,
                    EXISTS (SELECT 1 FROM job_texts AS t WHERE t.embedding = e.id) AS needed
             FROM (SELECT embedding FROM unused_texts WHERE since_ms <= $1 ORDER BY since_ms LIMIT $2) AS u
             CROSS JOIN embeddings AS e ON e.id = u.embedding",
        postgres:
            "SELECT e.id, e.digest, e.key,
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
    let mut candidates = Vec::new();
    for row in rows.iter().filter(is_free) {
        let Some(key) = &row.key else { continue };
        candidates.push(Candidate::embedding(key.clone(), digest(&row.digest)?));
    }
    suspect(tx, (now_ms, now_ms), &candidates).await?;
    let statements = sql!(
        sqlite: [
            "DELETE FROM unused_texts WHERE embedding IN (SELECT value FROM json_each($1))",
            "DELETE FROM embeddings WHERE id IN (SELECT value FROM json_each($1))",
            "UPDATE unused_texts SET since_ms = since_ms + 60000 WHERE embedding IN (SELECT value FROM json_each($1))",
        ],
        postgres: [
            "DELETE FROM unused_texts WHERE embedding = ANY ($1)",
            "WITH told AS (DELETE FROM spreading_texts WHERE embedding = ANY ($1))
             DELETE FROM embeddings WHERE id = ANY ($1)",
            "UPDATE unused_texts SET since_ms = since_ms + 60000 WHERE embedding = ANY ($1)",
        ],
    );
    let settled: Vec<i64> = free.iter().chain(&needed).copied().collect();
    for (statement, ids) in statements.into_iter().zip([&settled, &free, &running]) {
        if !ids.is_empty() {
            sqlx::query(statement).bind(list(ids)?).execute(&mut **tx).await?;
        }
    }
    Ok(free.len() as u64)
}
