//! Files whose time is over, and batches that ended long ago.

use darkroom_core::retention::Subject;

use super::{Error, Record, Tx, files::delete_files, rows::IdColumn};
use crate::store::{batches::ForgottenFiles, row::row};

/// Until when (`$1`, milliseconds since 1970, less the time that the policies on `$3` say) each
/// tenant's own rows of a table go. One look-up for each tenant, so that what others keep is not
/// read.
macro_rules! kept {
    ($table:literal, $which:literal) => {
        concat!(
            "WITH RECURSIVE holders (tenant) AS (
                 SELECT min(tenant) FROM ", $table, " WHERE ", $which, "
                 UNION ALL
                 SELECT (SELECT min(r.tenant) FROM ", $table, " AS r WHERE r.", $which, " AND r.tenant > h.tenant)
                 FROM holders AS h WHERE h.tenant IS NOT NULL),
             kept (tenant, policy, until) AS (
                 SELECT h.tenant, coalesce(own.tenant, ''),
                        $1 - 1000 * CASE WHEN own.tenant IS NULL THEN farms.seconds ELSE own.seconds END
                 FROM holders AS h
                 LEFT JOIN retention AS own ON own.tenant = h.tenant AND own.subject = $3 AND own.outcome = ''
                 LEFT JOIN retention AS farms ON farms.tenant = '' AND farms.subject = $3 AND farms.outcome = ''
                 WHERE h.tenant IS NOT NULL)
             "
        )
    };
}

/// At most `$2` files that are kept no longer and that no open batch reads: those whose own time is
/// over, and those that say nothing of their end and that a policy does not keep.
macro_rules! expired_files {
    ($columns:literal, $only:literal) => {
        concat!(
            kept!("files", "expires_ms IS NULL"),
            "SELECT ", $columns, "
             FROM (SELECT f.id, f.size, k.policy FROM kept AS k
                   JOIN files AS f ON f.tenant = k.tenant AND f.expires_ms IS NULL AND f.created_ms <= k.until
                   UNION ALL
                   SELECT f.id, f.size,
                          coalesce((SELECT own.tenant FROM retention AS own
                                    WHERE own.tenant = f.tenant AND own.subject = $3 AND own.outcome = ''), '')
                   FROM files AS f WHERE f.expires_ms <= $1) AS e
             WHERE NOT EXISTS (SELECT 1 FROM batches AS b WHERE b.input = e.id AND b.ended_ms IS NULL)",
            $only,
            " LIMIT $2"
        )
    };
}

/// At most `$2` batches that ended before the files of that time go, and none of whose files is
/// left.
macro_rules! expired_batches {
    () => {
        "SELECT b.id FROM kept AS k
         JOIN batches AS b ON b.tenant = k.tenant AND b.ended_ms IS NOT NULL AND b.ended_ms <= k.until
         WHERE NOT EXISTS (SELECT 1 FROM files AS f WHERE f.id IN (b.input, b.output, b.errors))
         LIMIT $2"
    };
}

const FILES: &str = expired_files!("e.id", "");
const BATCHES: &str = concat!(kept!("batches", "ended_ms IS NOT NULL"), expired_batches!());

/// How many files the policy of a tenant (`$4`, empty: of all others) would remove, and how many
/// bytes. Stops at `$2`.
pub(super) const DUE: &str = concat!(
    "SELECT count(*), CAST(coalesce(sum(due.size), 0) AS BIGINT) FROM (",
    expired_files!("e.size", " AND e.policy = $4"),
    ") AS due"
);

row! {
    struct Id {
        id: IdColumn,
    }
}

/// Whether there is something to forget.
pub(super) async fn is_due(store: &Record, now_ms: i64) -> Result<bool, Error> {
    for statement in [FILES, BATCHES] {
        let one: Option<Id> = sqlx::query_as(statement)
            .bind(now_ms)
            .bind(1_i64)
            .bind(Subject::Files.name())
            .fetch_optional(store.reads())
            .await?;
        if one.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes up to about `limit` files and about `limit` batches.
pub(super) async fn forget(tx: &mut Tx, now_ms: i64, limit: u32) -> Result<ForgottenFiles, Error> {
    let found: Vec<Id> = sqlx::query_as(FILES)
        .bind(now_ms)
        .bind(i64::from(limit))
        .bind(Subject::Files.name())
        .fetch_all(&mut **tx)
        .await?;
    let mut ids: Vec<IdColumn> = found.into_iter().map(|row| row.id).collect();
    ids.sort_unstable();
    let mut more = ids.len() >= limit as usize;
    lock(tx, &ids).await?;
    let files = if ids.is_empty() { 0 } else { delete_files(tx, &ids, now_ms).await? };
    let batches = sqlx::query(concat!(
        kept!("batches", "ended_ms IS NOT NULL"),
        "DELETE FROM batches WHERE ended_ms IS NOT NULL AND id IN (",
        expired_batches!(),
        ")",
    ))
    .bind(now_ms)
    .bind(i64::from(limit))
    .bind(Subject::Files.name())
    .execute(&mut **tx)
    .await?;
    let batches = batches.rows_affected();
    more |= batches >= u64::from(limit);
    Ok(ForgottenFiles { files, batches, more })
}

/// Locks these files: who begins to read one waits, and who has begun to is seen from here on.
async fn lock(tx: &mut Tx, ids: &[IdColumn]) -> Result<(), Error> {
    let statement: Option<&'static str> = sql!(
        sqlite: None,
        postgres: Some("SELECT id FROM files WHERE id = ANY ($1) ORDER BY id FOR UPDATE"),
    );
    if let Some(statement) = statement.filter(|_| !ids.is_empty()) {
        let locked = sqlx::query(statement);
        bind_rows!(locked, ids, |id| id.to_owned()).execute(&mut **tx).await?;
    }
    Ok(())
}
