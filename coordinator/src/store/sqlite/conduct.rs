//! Who failed at what others then did, and who is set aside for it.

use std::{collections::HashSet, time::Duration};

use darkroom_core::{conduct::aside_seconds, id::WorkerId, retry::MOST_SPARED};
use darkroom_queue::task::{PoolId, TaskKey};

use super::{
    Error, SqliteStore, Tx,
    dispatch::check_term,
    limits::now_ms,
    rows::{column, number, to_json},
};
use crate::store::{
    cause::death_key,
    conduct::{Aside, Conduct},
    records::Term,
};

const DAY_MS: i64 = 86_400_000;

impl SqliteStore {
    pub(super) async fn blamed_workers(
        &self,
        window: Duration,
        images: u64,
    ) -> Result<Vec<(WorkerId, u64)>, Error> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT worker, count(*) AS images
             FROM (SELECT DISTINCT worker, job, idx FROM worker_failures
                   WHERE at_ms > CAST(unixepoch('subsec') * 1000 AS INTEGER) - ?1 AND done_by IS NOT NULL)
             GROUP BY worker HAVING images >= ?2
             ORDER BY images DESC, worker",
        )
        .bind(column(window.as_millis()))
        .bind(column(images))
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(|(worker, images)| Ok((WorkerId(worker), number(images)?))).collect()
    }

    pub(super) async fn set_worker_aside(
        &self,
        term: Term,
        worker: &WorkerId,
        reason: &str,
    ) -> Result<(), Error> {
        check_term(term)?;
        let mut tx = self.begin_write().await?;
        let before: Option<u32> = sqlx::query_scalar("SELECT times FROM workers_aside WHERE worker = ?1")
            .bind(&worker.0)
            .fetch_optional(&mut *tx)
            .await?;
        let now = now_ms(&mut tx).await?;
        sqlx::query(
            "INSERT INTO workers_aside (worker, since_ms, until_ms, times, reason) VALUES (?1, ?2, ?3, 1, ?4)
             ON CONFLICT (worker) DO UPDATE
             SET since_ms = excluded.since_ms, until_ms = excluded.until_ms, times = times + 1,
                 reason = excluded.reason",
        )
        .bind(&worker.0)
        .bind(now)
        .bind(now + column(aside_seconds(before.unwrap_or(0))) * 1000)
        .bind(reason)
        .execute(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM worker_failures WHERE worker = ?1 AND done_by IS NOT NULL")
            .bind(&worker.0)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    pub(super) async fn take_worker_back(&self, term: Term, worker: &WorkerId) -> Result<(), Error> {
        check_term(term)?;
        let mut tx = self.begin_write().await?;
        let now = now_ms(&mut tx).await?;
        sqlx::query("UPDATE workers_aside SET until_ms = ?2 WHERE worker = ?1 AND until_ms > ?2")
            .bind(&worker.0)
            .bind(now)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }

    pub(super) async fn workers_aside(&self) -> Result<Vec<Aside>, Error> {
        let rows: Vec<(String, i64, i64, String)> = sqlx::query_as(
            "SELECT worker, until_ms, until_ms - now.ms, reason
             FROM workers_aside, (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) AS ms) AS now
             WHERE until_ms > now.ms ORDER BY until_ms, worker",
        )
        .fetch_all(&self.readers)
        .await?;
        let aside = |(worker, until_ms, left_ms, reason)| Aside {
            worker: WorkerId(worker),
            until_ms,
            left: Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)),
            reason,
        };
        Ok(rows.into_iter().map(aside).collect())
    }

    pub(super) async fn forget_old_conduct(&self, window: Duration) -> Result<(), Error> {
        let mut tx = self.begin_write().await?;
        let now = now_ms(&mut tx).await?;
        sqlx::query("DELETE FROM worker_failures WHERE at_ms < ?1")
            .bind(now - column(window.as_millis()))
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM spared_deaths WHERE at_ms < ?1")
            .bind(now - DAY_MS)
            .execute(&mut *tx)
            .await?;
        sqlx::query("DELETE FROM workers_aside WHERE until_ms < ?1")
            .bind(now - DAY_MS)
            .execute(&mut *tx)
            .await?;
        Ok(tx.commit().await?)
    }
}

/// Notes one more death with a host for each task, and tells those that are spared it.
pub(super) async fn spare(tx: &mut Tx, pool: &PoolId, tasks: &[TaskKey]) -> Result<HashSet<TaskKey>, Error> {
    let mut spared = HashSet::new();
    let now = now_ms(tx).await?;
    for key in tasks {
        let deaths: i64 = sqlx::query_scalar(
            "INSERT INTO spared_deaths (task, deaths, at_ms) VALUES (?1, 1, ?2)
             ON CONFLICT (task) DO UPDATE SET deaths = deaths + 1, at_ms = excluded.at_ms
             RETURNING deaths",
        )
        .bind(death_key(pool, key))
        .bind(now)
        .fetch_one(&mut **tx)
        .await?;
        if deaths <= i64::from(MOST_SPARED) {
            spared.insert(*key);
        }
    }
    Ok(spared)
}

/// Writes what a bulk says of the workers.
pub(super) async fn write(tx: &mut Tx, conduct: &Conduct) -> Result<(), Error> {
    if !conduct.failed.is_empty() {
        sqlx::query(
            "INSERT INTO worker_failures (job, idx, stage, worker, at_ms)
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3,
                    CAST(unixepoch('subsec') * 1000 AS INTEGER)
             FROM json_each(?1) WHERE TRUE
             ON CONFLICT (job, idx, stage, worker) DO UPDATE SET at_ms = excluded.at_ms, done_by = NULL",
        )
        .bind(to_json(&conduct.failed)?)
        .execute(&mut **tx)
        .await?;
    }
    if !conduct.done.is_empty() {
        sqlx::query(
            "UPDATE worker_failures SET done_by = d.value ->> 3
             FROM json_each(?1) AS d
             WHERE worker_failures.job = d.value ->> 0 AND worker_failures.idx = d.value ->> 1
               AND worker_failures.stage = d.value ->> 2 AND worker_failures.worker <> d.value ->> 3
               AND worker_failures.done_by IS NULL",
        )
        .bind(to_json(&conduct.done)?)
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}
