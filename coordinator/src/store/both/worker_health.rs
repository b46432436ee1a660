//! Workers that failed at images which other workers then finished, and workers that are set aside.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use async_trait::async_trait;
use darkroom_core::{id::WorkerId, retry::MOST_SPARED, worker_health::aside_seconds};
use darkroom_queue::task::{PoolId, TaskKey};

use super::{
    Error, Record, Tx, retried,
    rows::{Int, column, names, number, text_column},
};
use crate::store::{
    cause::death_key,
    records::Term,
    roles::WorkerHealth,
    worker_health::{Aside, AsideRow, DRAIN_KEPT, HealthNotes},
};

#[async_trait]
impl WorkerHealth for Record {
    async fn blamed(&self, window: Duration, images: u64) -> Result<Vec<(WorkerId, u64)>, Error> {
        let rows: Vec<(String, i64)> = sqlx::query_as(sql!(
            sqlite:
                "SELECT worker, count(*) AS images
                 FROM (SELECT DISTINCT worker, job, idx FROM worker_failures
                       WHERE at_ms > CAST((unixepoch('subsec') - $1) * 1000 AS INTEGER) AND done_by IS NOT NULL)
                 GROUP BY worker HAVING images >= $2
                 ORDER BY images DESC, worker",
            postgres:
                "SELECT worker, count(DISTINCT (job, idx)) FROM worker_failures
                 WHERE at > statement_timestamp() - $1 * interval '1 second' AND done_by IS NOT NULL
                 GROUP BY worker HAVING count(DISTINCT (job, idx)) >= $2
                 ORDER BY count(DISTINCT (job, idx)) DESC, worker",
        ))
        .bind(window.as_secs_f64())
        .bind(column(images))
        .fetch_all(self.reads())
        .await?;
        rows.into_iter().map(|(worker, images)| Ok((WorkerId(worker), number(images)?))).collect()
    }

    async fn set_aside(&self, term: Term, worker: &WorkerId, reason: &str) -> Result<(), Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            self.check_term(&mut tx, term).await?;
            let before: Option<Int> = sqlx::query_scalar(sql!(
                sqlite: "SELECT times FROM workers_aside WHERE worker = $1",
                postgres: "SELECT times FROM workers_aside WHERE worker = $1 FOR NO KEY UPDATE",
            ))
            .bind(&worker.0)
            .fetch_optional(&mut *tx)
            .await?;
            let before: u32 = number(before.unwrap_or(0))?;
            sqlx::query(sql!(
                sqlite:
                    "INSERT INTO workers_aside (worker, since_ms, until_ms, times, reason)
                     SELECT $1, now.ms, now.ms + $2 * 1000, 1, $3
                     FROM (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) AS ms) AS now WHERE TRUE
                     ON CONFLICT (worker) DO UPDATE
                     SET since_ms = excluded.since_ms, until_ms = excluded.until_ms, times = times + 1,
                         reason = excluded.reason",
                postgres:
                    "INSERT INTO workers_aside AS a (worker, since, until, times, reason)
                     VALUES ($1, clock_timestamp(), clock_timestamp() + $2 * interval '1 second', 1, $3)
                     ON CONFLICT (worker) DO UPDATE
                     SET since = excluded.since, until = excluded.until, times = a.times + 1,
                         reason = excluded.reason",
            ))
            .bind(&worker.0)
            .bind(column(aside_seconds(before)))
            .bind(text_column(reason))
            .execute(&mut *tx)
            .await?;
            sqlx::query("DELETE FROM worker_failures WHERE worker = $1 AND done_by IS NOT NULL")
                .bind(&worker.0)
                .execute(&mut *tx)
                .await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    async fn take_back(&self, term: Term, worker: &WorkerId) -> Result<(), Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            self.check_term(&mut tx, term).await?;
            sqlx::query(sql!(
                sqlite:
                    "UPDATE workers_aside SET until_ms = CAST(unixepoch('subsec') * 1000 AS INTEGER)
                     WHERE worker = $1 AND until_ms > CAST(unixepoch('subsec') * 1000 AS INTEGER)",
                postgres:
                    "UPDATE workers_aside SET until = clock_timestamp()
                     WHERE worker = $1 AND until > clock_timestamp()",
            ))
            .bind(&worker.0)
            .execute(&mut *tx)
            .await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    async fn asides(&self) -> Result<Vec<Aside>, Error> {
        let rows: Vec<AsideRow> = sqlx::query_as(sql!(
            sqlite:
                "SELECT worker, until_ms, until_ms - now.ms AS left_ms, reason
                 FROM workers_aside, (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) AS ms) AS now
                 WHERE until_ms > now.ms ORDER BY until_ms, worker",
            postgres:
                "SELECT worker, (extract(epoch FROM until) * 1000)::bigint AS until_ms,
                        (extract(epoch FROM until - clock_timestamp()) * 1000)::bigint AS left_ms, reason
                 FROM workers_aside WHERE until > clock_timestamp() ORDER BY until, worker",
        ))
        .fetch_all(self.reads())
        .await?;
        Ok(rows.into_iter().map(Aside::from).collect())
    }

    async fn command_drain(&self, worker: &WorkerId) -> Result<bool, Error> {
        let added = sqlx::query(sql!(
            sqlite:
                "INSERT INTO worker_drains (worker, at_ms)
                 VALUES ($1, CAST(unixepoch('subsec') * 1000 AS INTEGER)) ON CONFLICT (worker) DO NOTHING",
            postgres: "INSERT INTO worker_drains (worker) VALUES ($1) ON CONFLICT (worker) DO NOTHING",
        ))
        .bind(&worker.0)
        .execute(self.writes())
        .await?;
        if added.rows_affected() > 0 {
            return Ok(true);
        }
        // It is remembered for as long from now.
        sqlx::query(sql!(
            sqlite:
                "UPDATE worker_drains SET at_ms = CAST(unixepoch('subsec') * 1000 AS INTEGER) WHERE worker = $1",
            postgres: "UPDATE worker_drains SET at = clock_timestamp() WHERE worker = $1",
        ))
        .bind(&worker.0)
        .execute(self.writes())
        .await?;
        Ok(false)
    }

    async fn drains(&self) -> Result<Vec<WorkerId>, Error> {
        let workers: Vec<String> =
            sqlx::query_scalar("SELECT worker FROM worker_drains ORDER BY worker")
                .fetch_all(self.reads())
                .await?;
        Ok(workers.into_iter().map(WorkerId).collect())
    }

    async fn forget_worker_health(&self, window: Duration) -> Result<(), Error> {
        sqlx::query(sql!(
            sqlite:
                "DELETE FROM worker_failures WHERE at_ms < CAST((unixepoch('subsec') - $1) * 1000 AS INTEGER)",
            postgres:
                "DELETE FROM worker_failures WHERE at < statement_timestamp() - $1 * interval '1 second'",
        ))
        .bind(window.as_secs_f64())
        .execute(self.writes())
        .await?;
        sqlx::query(sql!(
            sqlite:
                "DELETE FROM spared_deaths WHERE at_ms < CAST((unixepoch('subsec') - 86400) * 1000 AS INTEGER)",
            postgres: "DELETE FROM spared_deaths WHERE at < statement_timestamp() - interval '1 day'",
        ))
        .execute(self.writes())
        .await?;
        sqlx::query(sql!(
            sqlite:
                "DELETE FROM workers_aside WHERE until_ms < CAST((unixepoch('subsec') - 86400) * 1000 AS INTEGER)",
            postgres: "DELETE FROM workers_aside WHERE until < statement_timestamp() - interval '1 day'",
        ))
        .execute(self.writes())
        .await?;
        sqlx::query(sql!(
            sqlite:
                "DELETE FROM worker_drains WHERE at_ms < CAST((unixepoch('subsec') - $1) * 1000 AS INTEGER)",
            postgres: "DELETE FROM worker_drains WHERE at < statement_timestamp() - $1 * interval '1 second'",
        ))
        .bind(DRAIN_KEPT.as_secs_f64())
        .execute(self.writes())
        .await?;
        Ok(())
    }
}

/// Counts one more death of a host for each task. Returns the tasks for which it does not count as
/// a failure.
pub(in super::super) async fn spare(
    tx: &mut Tx,
    pool: &PoolId,
    tasks: &[TaskKey],
) -> Result<HashSet<TaskKey>, Error> {
    let by_name: BTreeMap<String, TaskKey> =
        tasks.iter().map(|key| (death_key(pool, key), *key)).collect();
    let known: Vec<&str> = by_name.keys().map(String::as_str).collect();
    let deaths: Vec<(String, Int)> = sqlx::query_as(sql!(
        sqlite:
            "INSERT INTO spared_deaths (task, deaths, at_ms)
             SELECT value, 1, CAST(unixepoch('subsec') * 1000 AS INTEGER) FROM json_each($1) WHERE TRUE
             ON CONFLICT (task) DO UPDATE SET deaths = deaths + 1, at_ms = excluded.at_ms
             RETURNING task, deaths",
        postgres:
            "INSERT INTO spared_deaths AS s (task, deaths) SELECT task, 1 FROM unnest($1::text[]) AS t (task)
             ON CONFLICT (task) DO UPDATE SET deaths = s.deaths + 1, at = clock_timestamp()
             RETURNING task, deaths",
    ))
    .bind(names(&known)?)
    .fetch_all(&mut **tx)
    .await?;
    let spared =
        deaths.into_iter().filter(|(_, deaths)| u32::try_from(*deaths).unwrap_or(0) <= MOST_SPARED);
    Ok(spared.filter_map(|(name, _)| by_name.get(&name).copied()).collect())
}

/// Writes what a bulk of results tells about workers. The jobs of the images are locked.
pub(in super::super) async fn write(tx: &mut Tx, worker_health: &HealthNotes) -> Result<(), Error> {
    for (outcomes, statement) in [
        (
            &worker_health.failed,
            sql!(
                sqlite:
                    "INSERT INTO worker_failures (job, idx, stage, worker, at_ms)
                     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3,
                            CAST(unixepoch('subsec') * 1000 AS INTEGER)
                     FROM json_each($1) WHERE TRUE
                     ON CONFLICT (job, idx, stage, worker) DO UPDATE SET at_ms = excluded.at_ms, done_by = NULL",
                postgres:
                    "INSERT INTO worker_failures (job, idx, stage, worker)
                     SELECT DISTINCT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[])
                     ON CONFLICT (job, idx, stage, worker) DO UPDATE SET at = excluded.at, done_by = NULL",
            ),
        ),
        (
            &worker_health.done,
            sql!(
                sqlite:
                    "UPDATE worker_failures SET done_by = d.value ->> 3
                     FROM json_each($1) AS d
                     WHERE worker_failures.job = d.value ->> 0 AND worker_failures.idx = d.value ->> 1
                       AND worker_failures.stage = d.value ->> 2 AND worker_failures.worker <> d.value ->> 3
                       AND worker_failures.done_by IS NULL",
                postgres:
                    "UPDATE worker_failures AS f SET done_by = d.worker
                     FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[]) AS d (job, idx, stage, worker)
                     WHERE f.job = d.job AND f.idx = d.idx AND f.stage = d.stage AND f.worker <> d.worker
                       AND f.done_by IS NULL",
            ),
        ),
    ] {
        if outcomes.is_empty() {
            continue;
        }
        bind_rows!(
            sqlx::query(statement),
            outcomes,
            |outcome| outcome.job,
            outcome.idx,
            column(outcome.stage),
            text_column(&outcome.worker.0),
        )
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}
