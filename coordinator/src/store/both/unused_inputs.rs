//! Uploads that no job uses any more: since when, and their end.
//!
//! An upload has a row for its tenant. The row keeps the picture in storage, and so does the use by
//! a job. A row that a job of its tenant uses has no time. Others have the time since when none
//! does, which may be earlier than a use that began since: whoever is about to remove the row looks
//! that up first.

use darkroom_core::retention::Subject;

use super::{
    Error, Tx,
    candidates::suspect,
    rows::{HashColumn, digest},
};
use crate::store::{removal::Candidate, row::row};

/// Uses of pictures that one statement removes.
const ROWS: i64 = 5000;

/// Uploads that the policies do not keep any longer at `$1`, milliseconds since 1970, unless a job
/// uses them: at most `$2`. One look-up for each tenant, so that what others keep is not read.
macro_rules! expired_inputs {
    ($columns:literal, $only:literal) => {
        concat!(
            "WITH RECURSIVE holders (tenant) AS (
                 SELECT min(tenant) FROM tenant_inputs WHERE unused_ms IS NOT NULL
                 UNION ALL
                 SELECT (SELECT min(i.tenant) FROM tenant_inputs AS i
                         WHERE i.unused_ms IS NOT NULL AND i.tenant > h.tenant)
                 FROM holders AS h WHERE h.tenant IS NOT NULL),
             kept (tenant, policy, until) AS (
                 SELECT h.tenant, coalesce(own.tenant, ''),
                        $1 - 1000 * CASE WHEN own.tenant IS NULL THEN farms.seconds ELSE own.seconds END
                 FROM holders AS h
                 LEFT JOIN retention AS own ON own.tenant = h.tenant AND own.subject = $3 AND own.outcome = ''
                 LEFT JOIN retention AS farms ON farms.tenant = '' AND farms.subject = $3 AND farms.outcome = ''
                 WHERE h.tenant IS NOT NULL)
             SELECT ",
            $columns,
            ", EXISTS (SELECT 1 FROM job_inputs AS u JOIN jobs AS j ON j.seq = u.job
                       WHERE u.key = i.key AND j.tenant = i.tenant) AS needed
             FROM kept AS k
             JOIN tenant_inputs AS i ON i.tenant = k.tenant AND i.unused_ms <= k.until
             ",
            $only,
            " LIMIT $2"
        )
    };
}

row! {
    struct UnusedRow {
        sha256: HashColumn,
        tenant: String,
        key: String,
        content: HashColumn,
        needed: bool,
    }
}

/// Removes about `limit` uploads that the policies do not keep any longer and that no job of their
/// tenant uses. Returns how many pictures these were, and whether there may be more. Nobody can begin
/// to need one until the transaction ends.
pub(super) async fn forget_inputs(
    tx: &mut Tx,
    now_ms: i64,
    limit: u32,
) -> Result<(u64, bool), Error> {
    let rows: Vec<UnusedRow> = sqlx::query_as(expired_inputs!(
        "i.sha256, i.tenant, i.key, coalesce(i.canonical, i.sha256) AS content",
        ""
    ))
    .bind(now_ms)
    .bind(i64::from(limit))
    .bind(Subject::Inputs.name())
    .fetch_all(&mut **tx)
    .await?;
    let more = rows.len() >= limit as usize;
    let (needed, free): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.needed);
    let statements = [
        (
            &needed,
            sql!(
                sqlite:
                    "UPDATE tenant_inputs SET unused_ms = NULL
                     WHERE (sha256, tenant) IN (SELECT value ->> 0, value ->> 1 FROM json_each($1))",
                postgres:
                    "UPDATE tenant_inputs AS i SET unused_ms = NULL
                     FROM unnest($1::bytea[], $2::text[]) AS w (sha256, tenant)
                     WHERE i.sha256 = w.sha256 AND i.tenant = w.tenant",
            ),
        ),
        (
            &free,
            sql!(
                sqlite:
                    "DELETE FROM tenant_inputs
                     WHERE (sha256, tenant) IN (SELECT value ->> 0, value ->> 1 FROM json_each($1))",
                postgres:
                    "DELETE FROM tenant_inputs AS i
                     USING unnest($1::bytea[], $2::text[]) AS w (sha256, tenant)
                     WHERE i.sha256 = w.sha256 AND i.tenant = w.tenant",
            ),
        ),
    ];
    for (rows, statement) in statements {
        if !rows.is_empty() {
            let changed = sqlx::query(statement);
            let changed = bind_rows!(changed, rows, |row| row.sha256.clone(), row.tenant.as_str());
            changed.execute(&mut **tx).await?;
        }
    }
    let candidate = |row: &UnusedRow| Ok(Candidate::input(row.key.clone(), digest(&row.content)?));
    let mut candidates: Vec<Candidate> =
        free.iter().map(candidate).collect::<Result<_, Error>>()?;
    candidates.sort_unstable();
    candidates.dedup();
    suspect(tx, (now_ms, now_ms), &candidates).await?;
    let pictures = free.iter().filter(|row| row.sha256 == row.content).count();
    Ok((pictures as u64, more))
}

/// How many pictures the policy of a tenant (`$4`, empty: of all others) would remove, and how many
/// bytes. Stops at `$2` uploads.
pub(super) const DUE: &str = concat!(
    "SELECT coalesce(sum(CASE WHEN due.is_stored THEN 1 ELSE 0 END), 0),
            CAST(coalesce(sum(CASE WHEN due.is_stored THEN due.size ELSE 0 END), 0) AS BIGINT)
     FROM (",
    expired_inputs!(
        "i.size, (i.canonical IS NULL OR i.canonical = i.sha256) AS is_stored",
        "WHERE k.policy = $4"
    ),
    ") AS due WHERE NOT due.needed"
);

/// Removes uses of pictures by a job that was deleted. Returns whether it removed something.
pub(super) async fn clear_inputs(tx: &mut Tx, job: i64, now_ms: i64) -> Result<bool, Error> {
    let keys: Vec<String> =
        sqlx::query_scalar("SELECT key FROM job_inputs WHERE job = $1 ORDER BY key LIMIT $2")
            .bind(job)
            .bind(ROWS)
            .fetch_all(&mut **tx)
            .await?;
    let (Some(first), Some(last)) = (keys.first(), keys.last()) else { return Ok(false) };
    note_unused(tx, (job, first, last), now_ms).await?;
    sqlx::query("DELETE FROM job_inputs WHERE job = $1 AND key >= $2 AND key <= $3")
        .bind(job)
        .bind(first)
        .bind(last)
        .execute(&mut **tx)
        .await?;
    Ok(true)
}

/// Notes that a job is about to end its use of pictures in a range of keys. Its row must be there.
pub(in super::super) async fn note_unused(
    tx: &mut Tx,
    (job, first, last): (i64, &str, &str),
    now_ms: i64,
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE tenant_inputs SET unused_ms = $4
         WHERE tenant = (SELECT tenant FROM jobs WHERE seq = $1)
           AND key IN (SELECT u.key FROM job_inputs AS u WHERE u.job = $1 AND u.key >= $2 AND u.key <= $3)",
    )
    .bind(job)
    .bind(first)
    .bind(last)
    .bind(now_ms)
    .execute(&mut **tx)
    .await?;
    // An upload's row brings the picture here when it goes. Without one, as when an operator has
    // used another tenant's, the last use does.
    let alone: Vec<String> = sqlx::query_scalar(
        "SELECT u.key FROM job_inputs AS u
         WHERE u.job = $1 AND u.key >= $2 AND u.key <= $3
           AND NOT EXISTS (SELECT 1 FROM tenant_inputs AS i WHERE i.key = u.key)
         ORDER BY u.key",
    )
    .bind(job)
    .bind(first)
    .bind(last)
    .fetch_all(&mut **tx)
    .await?;
    let candidates: Vec<Candidate> =
        alone.iter().filter_map(|key| Candidate::listed(key)).collect();
    suspect(tx, (now_ms, now_ms), &candidates).await
}
