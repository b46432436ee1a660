//! What waits in the pools, what was done there, and what tenants used.
//!
//! A commit only inserts into `work_log`. If every commit updated a shared total, commits in
//! Postgres would wait for each other, and the total would collect dead row versions. Once a
//! minute, the leader adds the rows to the totals. Readers add both, so they see every commit at
//! once.

use std::time::Duration;

use async_trait::async_trait;
use darkroom_core::{digest::Digest, id::StageName};
use darkroom_queue::task::PoolId;

use super::{
    Error, Record, Tx, retried,
    rows::{HashColumn, column, digest, digest_column, from_json, number, stage_name},
};
use crate::store::{
    history::{
        Depth, HistoryColumns, HistoryQuery, HistoryRow, MINUTE, RecentWork, Sizes, UsageColumns,
        UsageQuery, UsageRow, Work, WorkColumns,
    },
    records::Term,
    roles::History,
    row::row,
    spent::Spent,
};

row! {
    struct DepthRow {
        name: String,
        pool: HashColumn,
        ready: i64,
        dispatched: i64,
        oldest_ms: Option<i64>,
        settings: Option<String>,
        mix: Option<String>,
        images: i64,
    }
}

row! {
    struct WorkRow {
        stage: String,
        pool: HashColumn,
        ..work: WorkColumns,
    }
}

row! {
    struct PointRow {
        stage: String,
        pool: HashColumn,
        ..columns: HistoryColumns,
    }
}

#[async_trait]
impl History for Record {
    async fn clock_ms(&self) -> Result<i64, Error> {
        Ok(sqlx::query_scalar(sql!(
            sqlite: "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)",
            postgres: "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint",
        ))
        .fetch_one(self.reads())
        .await?)
    }

    async fn depths(&self) -> Result<Vec<Depth>, Error> {
        let mut tx = self.begin_read().await?;
        let images: Vec<DepthRow> = sqlx::query_as(sql!(
            sqlite:
                "SELECT s.name, s.pool, min(j.settings) AS settings,
                        min(j.mix) AS mix, min(j.images) AS images,
                        sum(CASE j.state WHEN 'active' THEN s.ready ELSE 0 END) AS ready,
                        sum(s.dispatched) AS dispatched,
                        max(CASE j.state WHEN 'active'
                            THEN CAST(unixepoch('subsec') * 1000 AS INTEGER) - s.ready_since_ms END) AS oldest_ms
                 FROM (SELECT seq FROM jobs WHERE state IN ('active', 'paused')
                       UNION SELECT seq FROM jobs WHERE follow IS NOT NULL) AS open
                 JOIN jobs AS j ON j.seq = open.seq
                 JOIN job_stages AS s ON s.job = j.seq AND s.stage >= 0 AND (s.ready > 0 OR s.dispatched > 0)
                 GROUP BY s.name, s.pool, s.compatibility, CASE WHEN j.mix IS NOT NULL THEN j.seq END
                 ORDER BY s.name, s.pool, s.compatibility, min(j.seq)",
            postgres:
                "SELECT s.name, s.pool, min(j.settings) AS settings,
                        min(p.mix) AS mix, min(p.images) AS images,
                        sum(CASE j.state WHEN 'active' THEN p.ready[s.stage + 2] ELSE 0 END)::bigint AS ready,
                        sum(p.dispatched[s.stage + 2])::bigint AS dispatched,
                        max(CASE WHEN j.state = 'active' AND p.ready_since[s.stage + 2] > 0
                            THEN (extract(epoch FROM clock_timestamp()) * 1000)::bigint - p.ready_since[s.stage + 2]
                            END) AS oldest_ms
                 FROM jobs AS j
                 JOIN job_stages AS s ON s.job = j.seq AND s.stage >= 0
                 CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                                     ORDER BY newest.version DESC LIMIT 1) AS p
                 WHERE (j.state IN ('active', 'paused') OR j.follow IS NOT NULL)
                   AND (p.ready[s.stage + 2] > 0 OR p.dispatched[s.stage + 2] > 0)
                 GROUP BY s.name, s.pool, s.compatibility, CASE WHEN p.mix IS NOT NULL THEN j.seq END
                 ORDER BY s.name, s.pool, s.compatibility, min(j.seq)",
        ))
        .fetch_all(&mut *tx)
        .await?;
        // Every dispatched text is needed by at least one job.
        let texts: Vec<DepthRow> = sqlx::query_as(sql!(
            sqlite:
                "SELECT 'encode' AS name, t.pool, NULL AS settings, NULL AS mix, 0 AS images,
                        max(sum(t.wanted) - sum(t.dispatched), 0) AS ready, sum(t.dispatched) AS dispatched,
                        CASE WHEN sum(t.wanted) > sum(t.dispatched) THEN max(t.age_ms) END AS oldest_ms
                 FROM (SELECT s.pool, s.total - s.passed AS wanted, 0 AS dispatched,
                              CAST(unixepoch('subsec') * 1000 AS INTEGER) - j.created_ms AS age_ms
                       FROM jobs AS j
                       JOIN job_stages AS s ON s.job = j.seq AND s.stage = -1 AND s.passed < s.total
                       WHERE j.state = 'active'
                       UNION ALL
                       SELECT encoder, 0, count(*), NULL FROM embeddings WHERE state = 'dispatched'
                       GROUP BY encoder) AS t
                 GROUP BY t.pool ORDER BY t.pool",
            postgres:
                "SELECT 'encode' AS name, t.pool, NULL::text AS settings,
                        NULL::text AS mix, 0::bigint AS images,
                        greatest(sum(t.wanted) - sum(t.dispatched), 0)::bigint AS ready,
                        sum(t.dispatched)::bigint AS dispatched,
                        CASE WHEN sum(t.wanted) > sum(t.dispatched) THEN max(t.age_ms) END AS oldest_ms
                 FROM (SELECT j.encoder AS pool, p.texts - p.passed[1] AS wanted, 0 AS dispatched,
                              (extract(epoch FROM clock_timestamp() - j.created_at) * 1000)::bigint AS age_ms
                       FROM jobs AS j
                       CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                                           ORDER BY newest.version DESC LIMIT 1) AS p
                       WHERE (j.state IN ('active', 'paused') OR j.follow IS NOT NULL) AND j.state = 'active'
                         AND p.texts > p.passed[1]
                       UNION ALL
                       SELECT encoder, 0, count(*), NULL FROM dispatched_texts GROUP BY encoder) AS t
                 GROUP BY t.pool ORDER BY t.pool",
        ))
        .fetch_all(&mut *tx)
        .await?;
        images.into_iter().chain(texts).map(depth).collect()
    }

    async fn recent_work(&self) -> Result<RecentWork, Error> {
        let mut tx = self.begin_read().await?;
        let (from, now_ms): (i64, i64) = sqlx::query_as(sql!(
            sqlite: "SELECT unixepoch() / 60 * 60 - 60, CAST(unixepoch('subsec') * 1000 AS INTEGER)",
            postgres:
                "SELECT floor(extract(epoch FROM now) / 60)::bigint * 60 - 60,
                        (extract(epoch FROM now) * 1000)::bigint
                 FROM (SELECT clock_timestamp() AS now) AS n",
        ))
        .fetch_one(&mut *tx)
        .await?;
        let rows: Vec<WorkRow> = sqlx::query_as(sql!(
            sqlite:
                "SELECT stage, pool, sum(done) AS done, sum(failed) AS failed, sum(batches) AS batches,
                        sum(device_us) AS device_us
                 FROM (SELECT stage, pool, done, failed, batches, device_us FROM work_log
                       WHERE at_ms >= $1 * 1000
                       UNION ALL
                       SELECT stage, pool, done, failed, batches, device_us FROM history
                       WHERE minute >= $1)
                 GROUP BY stage, pool HAVING sum(done) > 0 OR sum(failed) > 0 OR sum(batches) > 0
                 ORDER BY stage, pool",
            postgres:
                "SELECT stage, pool, sum(done)::bigint AS done, sum(failed)::bigint AS failed,
                        sum(batches) AS batches, sum(device_us)::bigint AS device_us
                 FROM (SELECT stage, pool, done, failed, batches, device_us FROM work_log
                       WHERE at >= to_timestamp($1::float8)
                       UNION ALL
                       SELECT stage, pool, done, failed, batches, device_us FROM history
                       WHERE minute >= $1) AS w
                 GROUP BY stage, pool HAVING sum(done) > 0 OR sum(failed) > 0 OR sum(batches) > 0
                 ORDER BY stage, pool",
        ))
        .bind(from)
        .fetch_all(&mut *tx)
        .await?;
        let pools: Vec<Work> = rows
            .into_iter()
            .map(|row| row.work.of(pool(row.stage, &row.pool)?))
            .collect::<Result<_, Error>>()?;
        #[expect(clippy::cast_precision_loss, reason = "two minutes")]
        let seconds = (now_ms - from * 1000) as f64 / 1000.0;
        Ok(RecentWork { seconds, pools })
    }

    async fn note_history(&self, term: Term, sizes: &[Sizes]) -> Result<Duration, Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            self.check_term(&mut tx, term).await?;
            add_up(&mut tx).await?;
            note(&mut tx, sizes).await?;
            let left: f64 = sqlx::query_scalar(sql!(
                sqlite: "SELECT (unixepoch() / 60 + 1) * 60 - unixepoch('subsec')",
                postgres: "SELECT 60 - (extract(epoch FROM clock_timestamp())::numeric % 60)::float8",
            ))
            .fetch_one(&mut *tx)
            .await?;
            tx.commit().await?;
            Ok(Duration::try_from_secs_f64(left).unwrap_or_default())
        })
        .await
    }

    async fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryRow>, Error> {
        let rows: Vec<PointRow> = sqlx::query_as(sql!(
            sqlite:
                "SELECT stage, pool, (minute - $1) / $3 * $3 + $1 AS at, count(ready) AS minutes,
                        sum(done) AS done, sum(failed) AS failed, sum(batches) AS batches,
                        sum(device_us) AS device_us, sum(reused) AS reused, avg(ready) AS ready, avg(dispatched) AS dispatched,
                        avg(leased) AS leased, avg(workers) AS workers, max(oldest_ms) AS oldest_ms
                 FROM (SELECT minute, stage, pool, done, failed, batches, device_us, reused, ready, dispatched,
                              leased, workers, oldest_ms
                       FROM history WHERE minute >= $1 AND minute < $2
                       UNION ALL
                       SELECT at_ms / 60000 * 60, stage, pool, done, failed, batches, device_us, reused,
                              NULL, NULL, NULL, NULL, NULL
                       FROM work_log WHERE at_ms >= $1 * 1000 AND at_ms < $2 * 1000)
                 WHERE ($4 IS NULL OR stage = $4) AND ($5 IS NULL OR pool = $5)
                 GROUP BY stage, pool, 3 ORDER BY stage, pool, 3 LIMIT $6",
            postgres:
                "SELECT stage, pool, (minute - $1) / $3 * $3 + $1 AS at, count(ready) AS minutes,
                        sum(done)::bigint AS done, sum(failed)::bigint AS failed, sum(batches) AS batches,
                        sum(device_us)::bigint AS device_us, sum(reused)::bigint AS reused, avg(ready)::float8 AS ready,
                        avg(dispatched)::float8 AS dispatched, avg(leased)::float8 AS leased,
                        avg(workers)::float8 AS workers, max(oldest_ms) AS oldest_ms
                 FROM (SELECT minute, stage, pool, done, failed, batches, device_us, reused, ready, dispatched, leased,
                              workers, oldest_ms
                       FROM history WHERE minute >= $1 AND minute < $2
                       UNION ALL
                       SELECT floor(extract(epoch FROM at) / 60)::bigint * 60, stage, pool, done, failed, batches,
                              device_us, reused, NULL, NULL, NULL, NULL, NULL
                       FROM work_log WHERE at >= to_timestamp($1::float8) AND at < to_timestamp($2::float8)) AS m
                 WHERE ($4::text IS NULL OR stage = $4) AND ($5::bytea IS NULL OR pool = $5)
                 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT $6",
        ))
        .bind(query.from)
        .bind(query.to)
        .bind(query.step.max(MINUTE))
        .bind(query.stage.as_ref().map(StageName::as_str))
        .bind(query.digest.map(digest_column))
        .bind(i64::from(query.limit))
        .fetch_all(self.reads())
        .await?;
        rows.into_iter().map(|row| row.columns.of(pool(row.stage, &row.pool)?)).collect()
    }

    async fn prune_history(
        &self,
        term: Term,
        pools: Duration,
        days: Duration,
    ) -> Result<(), Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            self.check_term(&mut tx, term).await?;
            sqlx::query(sql!(
                sqlite: "DELETE FROM history WHERE minute < unixepoch() - $1",
                postgres:
                    "DELETE FROM history WHERE minute < extract(epoch FROM clock_timestamp())::bigint - $1",
            ))
            .bind(column(pools.as_secs()))
            .execute(&mut *tx)
            .await?;
            for statement in OLD_DAYS {
                sqlx::query(statement).bind(days.as_secs_f64()).execute(&mut *tx).await?;
            }
            Ok(tx.commit().await?)
        })
        .await
    }

    async fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageRow>, Error> {
        let (after_day, after_tenant) = query.after.clone().unzip();
        let rows: Vec<UsageColumns> = sqlx::query_as(sql!(
            sqlite:
                "SELECT day, tenant, sum(done) AS done, sum(failed) AS failed, sum(device_us) AS device_us
                 FROM (SELECT day, tenant, done, failed, device_us FROM usage_days
                       UNION ALL
                       SELECT date(at_ms / 1000, 'unixepoch'), tenant, done, failed, device_us
                       FROM work_log WHERE tenant IS NOT NULL)
                 WHERE day BETWEEN $1 AND $2 AND ($3 IS NULL OR tenant = $3)
                   AND ($4 IS NULL OR day < $4 OR day = $4 AND tenant > $5)
                 GROUP BY day, tenant ORDER BY day DESC, tenant LIMIT $6",
            postgres:
                "SELECT day, tenant, sum(done)::bigint AS done, sum(failed)::bigint AS failed,
                        sum(device_us)::bigint AS device_us
                 FROM (SELECT day, tenant, done, failed, device_us FROM usage_days
                       UNION ALL
                       SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD') COLLATE \"C\", tenant, done,
                              failed, device_us
                       FROM work_log WHERE tenant IS NOT NULL) AS u
                 WHERE day BETWEEN $1 AND $2 AND ($3::text IS NULL OR tenant = $3)
                   AND ($4::text IS NULL OR day < $4 OR day = $4 AND tenant > $5)
                 GROUP BY day, tenant ORDER BY day DESC, tenant LIMIT $6",
        ))
        .bind(&query.from)
        .bind(&query.to)
        .bind(&query.tenant)
        .bind(after_day)
        .bind(after_tenant)
        .bind(i64::from(query.limit))
        .fetch_all(self.reads())
        .await?;
        rows.into_iter().map(UsageColumns::row).collect()
    }
}

/// The first day (UTC) that is kept, if days are kept for `$1` seconds.
macro_rules! first_kept {
    () => {
        sql!(
            sqlite: "date(unixepoch() - $1, 'unixepoch')",
            postgres: "to_char(clock_timestamp() AT TIME ZONE 'UTC' - $1 * interval '1 second', 'YYYY-MM-DD')",
        )
    };
}

/// Removes old days. What jobs have used is still the sum of all days: the day `''` of
/// `deleted_usage` has the difference.
const OLD_DAYS: [&str; 4] = [
    concat!(
        "INSERT INTO deleted_usage AS d (day, tenant, images, device_us)
         SELECT '', old.tenant, 0, sum(old.device_us)
         FROM (SELECT tenant, -device_us AS device_us FROM usage_days WHERE day < ",
        first_kept!(),
        " UNION ALL
               SELECT tenant, device_us FROM deleted_usage WHERE day <> '' AND day < ",
        first_kept!(),
        ") AS old WHERE TRUE GROUP BY old.tenant
         ON CONFLICT (day, tenant) DO UPDATE SET device_us = d.device_us + excluded.device_us",
    ),
    concat!("DELETE FROM usage_days WHERE day < ", first_kept!()),
    concat!("DELETE FROM deleted_usage WHERE day <> '' AND day < ", first_kept!()),
    concat!("DELETE FROM submitted_days WHERE day < ", first_kept!()),
];

/// Adds the sums over results to their minutes and to their tenants' days. A row that is committed
/// late is added later, to the same minute.
async fn add_up(tx: &mut Tx) -> Result<(), Error> {
    let statements: &[&'static str] = sql!(
        sqlite:
            &[
                "INSERT INTO history (minute, stage, pool, done, failed, batches, device_us, reused)
                 SELECT at_ms / 60000 * 60, stage, pool, sum(done), sum(failed), sum(batches), sum(device_us), sum(reused)
                 FROM work_log WHERE TRUE GROUP BY 1, 2, 3
                 ON CONFLICT (minute, stage, pool) DO UPDATE
                 SET done = done + excluded.done, failed = failed + excluded.failed,
                     batches = batches + excluded.batches, device_us = device_us + excluded.device_us,
                     reused = reused + excluded.reused",
                "INSERT INTO usage_days (day, tenant, done, failed, device_us)
                 SELECT date(at_ms / 1000, 'unixepoch'), tenant, sum(done), sum(failed), sum(device_us)
                 FROM work_log WHERE tenant IS NOT NULL GROUP BY 1, 2
                 ON CONFLICT (day, tenant) DO UPDATE
                 SET done = done + excluded.done, failed = failed + excluded.failed,
                     device_us = device_us + excluded.device_us",
                "DELETE FROM work_log",
            ],
        postgres:
            &["WITH taken AS (DELETE FROM usage_log RETURNING *),
               days AS (
                   INSERT INTO submitted_days AS d (day, tenant, images)
                   SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), tenant, sum(images)::bigint
                   FROM taken GROUP BY 1, 2 HAVING sum(images) <> 0
                   ON CONFLICT (day, tenant) DO UPDATE SET images = d.images + excluded.images)
               INSERT INTO stored_bytes AS s (tenant, bytes)
               SELECT tenant, sum(bytes)::bigint FROM taken GROUP BY tenant HAVING sum(bytes) <> 0
               ON CONFLICT (tenant) DO UPDATE SET bytes = s.bytes + excluded.bytes",
              "WITH taken AS (DELETE FROM work_log RETURNING *),
               days AS (
                   INSERT INTO usage_days AS u (day, tenant, done, failed, device_us)
                   SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), tenant, sum(done)::bigint, sum(failed)::bigint,
                          sum(device_us)::bigint
                   FROM taken WHERE tenant IS NOT NULL GROUP BY 1, 2
                   ON CONFLICT (day, tenant) DO UPDATE
                   SET done = u.done + excluded.done, failed = u.failed + excluded.failed,
                       device_us = u.device_us + excluded.device_us)
               INSERT INTO history AS h (minute, stage, pool, done, failed, batches, device_us, reused)
               SELECT floor(extract(epoch FROM at) / 60)::bigint * 60, stage, pool, sum(done)::bigint, sum(failed)::bigint,
                      sum(batches), sum(device_us)::bigint, sum(reused)::bigint
               FROM taken GROUP BY 1, 2, 3
               ON CONFLICT (minute, stage, pool) DO UPDATE
               SET done = h.done + excluded.done, failed = h.failed + excluded.failed,
                   batches = h.batches + excluded.batches, device_us = h.device_us + excluded.device_us,
                   reused = h.reused + excluded.reused"],
    );
    for statement in statements {
        sqlx::query(*statement).execute(&mut **tx).await?;
    }
    Ok(())
}

/// Writes the pools' sizes into this minute's rows that have none yet.
async fn note(tx: &mut Tx, sizes: &[Sizes]) -> Result<(), Error> {
    let noted = sqlx::query(sql!(
        sqlite:
            "INSERT INTO history (minute, stage, pool, ready, dispatched, leased, workers, oldest_ms)
             SELECT unixepoch() / 60 * 60, s.value ->> 0, s.value ->> 1, s.value ->> 2,
                    s.value ->> 3, s.value ->> 4, s.value ->> 5, s.value ->> 6
             FROM json_each($1) AS s WHERE TRUE
             ON CONFLICT (minute, stage, pool) DO UPDATE
             SET ready = excluded.ready, dispatched = excluded.dispatched, leased = excluded.leased,
                 workers = excluded.workers, oldest_ms = excluded.oldest_ms
             WHERE history.ready IS NULL",
        postgres:
            "INSERT INTO history AS h (minute, stage, pool, ready, dispatched, leased, workers, oldest_ms)
             SELECT floor(extract(epoch FROM clock_timestamp()) / 60)::bigint * 60, s.*
             FROM unnest($1::text[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
                 AS s
             ON CONFLICT (minute, stage, pool) DO UPDATE
             SET ready = excluded.ready, dispatched = excluded.dispatched, leased = excluded.leased,
                 workers = excluded.workers, oldest_ms = excluded.oldest_ms
             WHERE h.ready IS NULL",
    ));
    bind_rows!(
        noted,
        sizes,
        |one| one.pool.stage.as_str(),
        digest_column(one.pool.digest),
        column(one.ready),
        column(one.dispatched),
        column(one.leased),
        column(one.workers),
        one.oldest_ms.map(column),
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Logs the outcomes of texts.
pub(in super::super) async fn log_texts(
    tx: &mut Tx,
    pool: &PoolId,
    spent: Option<Spent>,
) -> Result<(), Error> {
    let Some(spent) = spent else { return Ok(()) };
    sqlx::query(sql!(
        sqlite:
            "INSERT INTO work_log (at_ms, stage, pool, done, failed, batches, device_us)
             VALUES (CAST(unixepoch('subsec') * 1000 AS INTEGER), $1, $2, $3, $4, $5, $6)",
        postgres:
            "INSERT INTO work_log (stage, pool, done, failed, batches, device_us) VALUES ($1, $2, $3, $4, $5, $6)",
    ))
    .bind(pool.stage.as_str())
    .bind(digest_column(pool.digest))
    .bind(spent.done)
    .bind(spent.failed)
    .bind(spent.batches)
    .bind(spent.device_us)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Logs how many texts of a submitted job had been encoded before.
pub(in super::super) async fn log_reused(
    tx: &mut Tx,
    encoder: Digest,
    texts: usize,
) -> Result<(), Error> {
    if texts == 0 {
        return Ok(());
    }
    sqlx::query(sql!(
        sqlite:
            "INSERT INTO work_log (at_ms, stage, pool, done, failed, batches, device_us, reused)
             VALUES (CAST(unixepoch('subsec') * 1000 AS INTEGER), $1, $2, 0, 0, 0, 0, $3)",
        postgres:
            "INSERT INTO work_log (stage, pool, done, failed, batches, device_us, reused) VALUES ($1, $2, 0, 0, 0, 0, $3)",
    ))
    .bind(StageName::ENCODE)
    .bind(digest_column(encoder))
    .bind(column(texts))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

fn pool(stage: String, hash: &HashColumn) -> Result<PoolId, Error> {
    Ok(PoolId { stage: stage_name(stage)?, digest: digest(hash)? })
}

fn depth(row: DepthRow) -> Result<Depth, Error> {
    Ok(Depth {
        pool: pool(row.name, &row.pool)?,
        settings: row.settings.as_deref().map(from_json).transpose()?,
        mix: row.mix.as_deref().map(from_json).transpose()?.unwrap_or_default(),
        images: number(row.images)?,
        ready: number(row.ready)?,
        dispatched: number(row.dispatched)?,
        oldest_ms: row.oldest_ms.map(|age| u64::try_from(age).unwrap_or(0)),
    })
}
