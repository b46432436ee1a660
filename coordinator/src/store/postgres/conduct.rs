//! Who failed at what others then did, and who is set aside for it.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use darkroom_core::{conduct::aside_seconds, id::WorkerId, retry::MOST_SPARED};
use darkroom_queue::task::{PoolId, TaskKey};

use super::{
    Error, PostgresStore, Tx,
    rows::{column, number, text_column},
};
use crate::store::{
    cause::death_key,
    conduct::{Aside, Conduct, Deed},
    records::Term,
};

impl PostgresStore {
    pub(super) async fn blamed_workers(
        &self,
        window: Duration,
        images: u64,
    ) -> Result<Vec<(WorkerId, u64)>, Error> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT worker, count(DISTINCT (job, idx)) FROM worker_failures
             WHERE at > statement_timestamp() - $1 * interval '1 second' AND done_by IS NOT NULL
             GROUP BY worker HAVING count(DISTINCT (job, idx)) >= $2
             ORDER BY count(DISTINCT (job, idx)) DESC, worker",
        )
        .bind(window.as_secs_f64())
        .bind(column(images))
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(|(worker, images)| Ok((WorkerId(worker), number(images)?))).collect()
    }

    pub(super) async fn set_worker_aside(
        &self,
        term: Term,
        worker: &WorkerId,
        reason: &str,
    ) -> Result<(), Error> {
        let mut tx = self.begin_write().await?;
        self.check_term(&mut tx, term).await?;
        let before: Option<i32> =
            sqlx::query_scalar("SELECT times FROM workers_aside WHERE worker = $1 FOR NO KEY UPDATE")
                .bind(&worker.0)
                .fetch_optional(&mut *tx)
                .await?;
        let before: u32 = number(before.unwrap_or(0))?;
        sqlx::query(
            "INSERT INTO workers_aside AS a (worker, since, until, times, reason)
             VALUES ($1, clock_timestamp(), clock_timestamp() + $2 * interval '1 second', 1, $3)
             ON CONFLICT (worker) DO UPDATE
             SET since = excluded.since, until = excluded.until, times = a.times + 1, reason = excluded.reason",
        )
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
    }

    pub(super) async fn take_worker_back(&self, term: Term, worker: &WorkerId) -> Result<(), Error> {
        let mut tx = self.begin_write().await?;
        self.check_term(&mut tx, term).await?;
        sqlx::query(
            "UPDATE workers_aside SET until = clock_timestamp() WHERE worker = $1 AND until > clock_timestamp()",
        )
        .bind(&worker.0)
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    pub(super) async fn workers_aside(&self) -> Result<Vec<Aside>, Error> {
        let rows: Vec<(String, i64, i64, String)> = sqlx::query_as(
            "SELECT worker, (extract(epoch FROM until) * 1000)::bigint,
                    (extract(epoch FROM until - clock_timestamp()) * 1000)::bigint, reason
             FROM workers_aside WHERE until > clock_timestamp() ORDER BY until, worker",
        )
        .fetch_all(&self.pool)
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
        sqlx::query(
            "DELETE FROM worker_failures WHERE at < statement_timestamp() - $1 * interval '1 second'",
        )
        .bind(window.as_secs_f64())
        .execute(&self.pool)
        .await?;
        sqlx::query("DELETE FROM spared_deaths WHERE at < statement_timestamp() - interval '1 day'")
            .execute(&self.pool)
            .await?;
        sqlx::query("DELETE FROM workers_aside WHERE until < statement_timestamp() - interval '1 day'")
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

struct Columns {
    job: Vec<i64>,
    idx: Vec<i64>,
    stage: Vec<i64>,
    worker: Vec<String>,
}

impl Columns {
    fn of(deeds: &[Deed]) -> Self {
        Self {
            job: deeds.iter().map(|deed| deed.0).collect(),
            idx: deeds.iter().map(|deed| deed.1).collect(),
            stage: deeds.iter().map(|deed| deed.2).collect(),
            worker: deeds.iter().map(|deed| text_column(&deed.3)).collect(),
        }
    }
}

/// Notes one more death with a host for each task, and tells those that are spared it.
pub(super) async fn spare(tx: &mut Tx, pool: &PoolId, tasks: &[TaskKey]) -> Result<HashSet<TaskKey>, Error> {
    let by_name: BTreeMap<String, TaskKey> = tasks.iter().map(|key| (death_key(pool, key), *key)).collect();
    let names: Vec<&str> = by_name.keys().map(String::as_str).collect();
    let deaths: Vec<(String, i32)> = sqlx::query_as(
        "INSERT INTO spared_deaths AS s (task, deaths) SELECT task, 1 FROM unnest($1::text[]) AS t (task)
         ON CONFLICT (task) DO UPDATE SET deaths = s.deaths + 1, at = clock_timestamp()
         RETURNING task, deaths",
    )
    .bind(names)
    .fetch_all(&mut **tx)
    .await?;
    let spared = deaths.into_iter().filter(|(_, deaths)| u32::try_from(*deaths).unwrap_or(0) <= MOST_SPARED);
    Ok(spared.filter_map(|(name, _)| by_name.get(&name).copied()).collect())
}

/// Writes what a bulk says of the workers, whose images' jobs are locked.
pub(super) async fn write(tx: &mut Tx, conduct: &Conduct) -> Result<(), Error> {
    if !conduct.failed.is_empty() {
        let columns = Columns::of(&conduct.failed);
        sqlx::query(
            "INSERT INTO worker_failures (job, idx, stage, worker)
             SELECT DISTINCT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[])
             ON CONFLICT (job, idx, stage, worker) DO UPDATE SET at = excluded.at, done_by = NULL",
        )
        .bind(columns.job)
        .bind(columns.idx)
        .bind(columns.stage)
        .bind(columns.worker)
        .execute(&mut **tx)
        .await?;
    }
    if !conduct.done.is_empty() {
        let columns = Columns::of(&conduct.done);
        sqlx::query(
            "UPDATE worker_failures AS f SET done_by = d.worker
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[]) AS d (job, idx, stage, worker)
             WHERE f.job = d.job AND f.idx = d.idx AND f.stage = d.stage AND f.worker <> d.worker
               AND f.done_by IS NULL",
        )
        .bind(columns.job)
        .bind(columns.idx)
        .bind(columns.stage)
        .bind(columns.worker)
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}
