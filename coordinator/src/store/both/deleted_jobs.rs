//! Jobs that were deleted: how they are found, and how their rows are removed.

use darkroom_core::{
    error::{Code, UserError},
    id::JobId,
    job_state::{JobEvent, transition},
};

use super::{
    super::progress::LockedJobs,
    Connection, Error, Record, Tx,
    candidates::suspect,
    clock::now_ms,
    commands::{lock, raise},
    rows::{IdColumn, id_column, job_id, list},
    unused_inputs::clear_inputs,
    webhooks::tell_end,
};
use crate::store::{
    limits::timestamp,
    removal::{Candidate, Cleared, JOB_TOMBSTONE, SEEN, ms},
    row::row,
};

/// In the place of the first index whose rows are there: all rows but the job's own are removed.
const ALL_CLEARED: i64 = -1;
/// Rows of job tables, besides those of images, that one statement removes.
const ROWS: i64 = 5000;

/// Deletes a job that has ended, or that this cancels. `false`: it is deleted already.
pub(super) async fn delete_job(
    store: &Record,
    job: JobId,
    by: &str,
    cancel: bool,
) -> Result<bool, Error> {
    let mut tx = store.begin_write().await?;
    let (mut jobs, seq, state) = match lock(&mut tx, job).await {
        Err(Error::Deleted { .. }) => return Ok(false),
        locked => locked?,
    };
    if !state.terminal() && !cancel {
        return Err(not_ended(job, state.name()).into());
    }
    let next = if state.terminal() { state } else { transition(state, JobEvent::Cancel)? };
    // The end of the others is told when their manifest is written, and this one gets none.
    let told: bool =
        sqlx::query_scalar("SELECT coalesce(manifest = 'written', false) FROM jobs WHERE seq = $1")
            .bind(seq)
            .fetch_one(&mut *tx)
            .await?;
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
    if !told {
        tell_end(&mut tx, seq, job, next).await?;
    }
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

/// That a job was deleted, as an error; `None` if it was not. With a tenant, only its jobs count.
pub(super) async fn gone_of(
    connection: &mut Connection,
    job: JobId,
    tenant: Option<&str>,
) -> Result<Option<Error>, Error> {
    let found: Option<i64> = sqlx::query_scalar(sql!(
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
    Ok(found.map(|ms| deleted(job, ms)))
}

/// That the job of an earlier submit with this request id was deleted, as an error, after its last
/// row is gone; `None` if there was none that the farm knows of.
pub(super) async fn gone_submit(
    connection: &mut Connection,
    tenant: &str,
    client_request_id: &str,
) -> Result<Option<Error>, Error> {
    let found: Option<(IdColumn, i64)> = sqlx::query_as(
        "SELECT id, deleted_ms FROM deleted_jobs WHERE tenant = $1 AND client_request_id = $2",
    )
    .bind(tenant)
    .bind(client_request_id)
    .fetch_optional(connection)
    .await?;
    found.map(|(id, ms)| Ok(deleted(job_id(&id)?, ms))).transpose()
}

/// Whether a job that this transaction is about to accept repeats the submit of one whose last row
/// is gone. Asked after the job was found to be the only one with its request id: the row of a
/// deleted one goes in the transaction that notes it here.
pub(super) async fn repeats_deleted(tx: &mut Tx, seq: i64) -> Result<bool, Error> {
    let repeats = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM jobs AS j
                        JOIN deleted_jobs AS d ON d.tenant = j.tenant AND d.client_request_id = j.client_request_id
                        WHERE j.seq = $1)",
    );
    Ok(repeats.bind(seq).fetch_one(&mut **tx).await?)
}

fn deleted(job: JobId, ms: i64) -> Error {
    Error::Deleted { job, at: timestamp(ms - ms.rem_euclid(1000)).to_string() }
}

row! {
    struct DeletedRow {
        id: IdColumn,
        seq: i64,
        cleared: i64,
    }
}

/// Removes a part of a deleted job: first the own rows of those that are cleared and were seen for
/// long enough, then rows of the others, in the order in which they were deleted.
pub(super) async fn clear_next(tx: &mut Tx, now_ms: i64, limit: u32) -> Result<Cleared, Error> {
    let seen = now_ms.saturating_sub(ms(SEEN));
    let found: Option<DeletedRow> = sqlx::query_as(
        "SELECT seq, id, cleared FROM jobs
         WHERE deleted_ms IS NOT NULL AND cleared < 0 AND deleted_ms <= $1
         ORDER BY deleted_ms, seq LIMIT 1",
    )
    .bind(seen)
    .fetch_optional(&mut **tx)
    .await?;
    if let Some(job) = found {
        LockedJobs::lock(tx, [job.seq]).await?;
        clear_job(tx, &job, now_ms).await?;
        return Ok(Cleared { images: 0, jobs: 1, more: true });
    }
    let found: Option<DeletedRow> = sqlx::query_as(
        "SELECT seq, id, cleared FROM jobs
         WHERE deleted_ms IS NOT NULL AND cleared >= 0 AND follow IS NULL
           AND state NOT IN ('receiving', 'active', 'paused')
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
    if clear_texts(tx, job.seq, now_ms).await?
        || clear_inputs(tx, job.seq, now_ms).await?
        || clear_rest(tx, job.seq).await?
    {
        return Ok(Cleared { more: true, ..Cleared::default() });
    }
    // Only its own row is left, which waits until watchers of the farm have seen it. Other jobs do
    // not wait for that.
    sqlx::query("UPDATE jobs SET cleared = $2 WHERE seq = $1 AND cleared = $3")
        .bind(job.seq)
        .bind(ALL_CLEARED)
        .bind(job.cleared)
        .execute(&mut **tx)
        .await?;
    Ok(Cleared { more: true, ..Cleared::default() })
}

/// Removes the last rows of a deleted job, and keeps what the farm must still know of it.
async fn clear_job(tx: &mut Tx, job: &DeletedRow, now_ms: i64) -> Result<(), Error> {
    suspect(tx, (now_ms, now_ms), &[Candidate::manifests(job_id(&job.id)?)]).await?;
    for rows in [
        sql!(
            sqlite:
                "INSERT INTO deleted_jobs (id, tenant, client_request_id, deleted_ms, deleted_by, seq, version, changed)
                 SELECT id, tenant, client_request_id, deleted_ms, coalesce(deleted_by, ''), seq, version, changed
                 FROM jobs WHERE seq = $1",
            postgres:
                "INSERT INTO deleted_jobs (id, tenant, client_request_id, deleted_ms, deleted_by, seq, version, changed)
                 SELECT j.id, j.tenant, j.client_request_id, j.deleted_ms, coalesce(j.deleted_by, ''), j.seq, p.version,
                        p.changed
                 FROM jobs AS j
                 CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                                     ORDER BY newest.version DESC LIMIT 1) AS p
                 WHERE j.seq = $1",
        ),
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
    Ok(())
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

/// Forgets jobs that were deleted long ago. Watchers who have not heard of them must read
/// everything again.
pub(super) async fn forget_deleted(tx: &mut Tx, now_ms: i64) -> Result<(), Error> {
    let before = now_ms.saturating_sub(ms(JOB_TOMBSTONE));
    let told: Option<String> = sqlx::query_scalar(sql!(
        sqlite:
            "SELECT CAST(changed AS TEXT) FROM (SELECT changed FROM deleted_jobs WHERE deleted_ms <= $1
                                                ORDER BY deleted_ms, id LIMIT $2)
             ORDER BY changed DESC LIMIT 1",
        postgres:
            "SELECT d.changed::text FROM (SELECT changed FROM deleted_jobs WHERE deleted_ms <= $1
                                          ORDER BY deleted_ms, id LIMIT $2) AS d
             ORDER BY d.changed DESC LIMIT 1",
    ))
    .bind(before)
    .bind(ROWS)
    .fetch_optional(&mut **tx)
    .await?;
    let Some(told) = told else { return Ok(()) };
    sqlx::query(sql!(
        sqlite:
            "UPDATE farm SET forgotten_changes = CAST($1 AS INTEGER)
             WHERE forgotten_changes < CAST($1 AS INTEGER)",
        postgres: "UPDATE farm SET forgotten_changes = $1::xid8 WHERE forgotten_changes < $1::xid8",
    ))
    .bind(told)
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "DELETE FROM deleted_jobs WHERE id IN
             (SELECT id FROM deleted_jobs WHERE deleted_ms <= $1 ORDER BY deleted_ms, id LIMIT $2)",
    )
    .bind(before)
    .bind(ROWS)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
