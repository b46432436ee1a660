//! Recent progress of jobs, their first forecasts, the time they really took, and the speed of
//! devices.

use async_trait::async_trait;
use darkroom_core::{
    forecast::{Forecast, PACE_SECONDS, StageSpent},
    id::JobId,
};
use darkroom_queue::task::PoolId;

use super::{
    Error, Record,
    rows::{HashColumn, IdColumn, digest, digest_column, id_column, job_id, stage_name, to_json},
};
use crate::store::{forecast::StageRate, roles::Forecasts};

#[async_trait]
impl Forecasts for Record {
    async fn note_paces(&self, limit: u32) -> Result<(), Error> {
        if !self.paces_due().await? {
            return Ok(());
        }
        // Postgres touches only rows that are due, so that a job's row has a new version once a
        // period.
        sqlx::query(sql!(
            sqlite:
                "INSERT INTO job_paces (job, before_ms, before, latest_ms, latest)
                 SELECT p.job, p.now_ms, p.passed, p.now_ms, p.passed
                 FROM (SELECT j.seq AS job, now.ms AS now_ms,
                              (SELECT json_group_array(s.passed)
                               FROM (SELECT passed FROM job_stages WHERE job = j.seq ORDER BY stage) AS s) AS passed
                       FROM (SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER) AS ms) AS now
                       CROSS JOIN jobs AS j LEFT JOIN job_paces AS r ON r.job = j.seq
                       WHERE j.state = 'active'
                         AND (r.job IS NULL OR r.latest_ms < now.ms - CAST($2 * 1000 AS INTEGER))
                       ORDER BY j.seq LIMIT $1) AS p
                 WHERE TRUE
                 ON CONFLICT (job) DO UPDATE
                 SET before_ms = latest_ms, before = latest, latest_ms = excluded.latest_ms, latest = excluded.latest",
            postgres:
                "INSERT INTO job_paces AS r (job, before_at, before, latest_at, latest)
                 SELECT j.seq, clock_timestamp(), p.passed, clock_timestamp(), p.passed
                 FROM jobs AS j
                 CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                                     ORDER BY newest.version DESC LIMIT 1) AS p
                 LEFT JOIN job_paces AS known ON known.job = j.seq
                 WHERE (j.state IN ('active', 'paused') OR j.follow IS NOT NULL) AND j.state = 'active'
                   AND (known.job IS NULL OR known.latest_at < statement_timestamp() - $2 * interval '1 second')
                 ORDER BY j.seq LIMIT $1
                 ON CONFLICT (job) DO UPDATE
                 SET before_at = r.latest_at, before = r.latest, latest_at = excluded.latest_at, latest = excluded.latest",
        ))
        .bind(i64::from(limit))
        .bind(PACE_SECONDS)
        .execute(self.writes())
        .await?;
        sqlx::query(sql!(
            sqlite:
                "DELETE FROM job_paces
                 WHERE job NOT IN (SELECT seq FROM jobs WHERE state IN ('active', 'paused'))",
            postgres:
                "DELETE FROM job_paces AS r
                 WHERE NOT EXISTS (SELECT FROM jobs AS j WHERE j.seq = r.job AND j.state IN ('active', 'paused'))",
        ))
        .execute(self.writes())
        .await?;
        Ok(())
    }

    async fn keep_forecast(&self, job: JobId, forecast: &Forecast) -> Result<bool, Error> {
        let kept = sqlx::query(sql!(
            sqlite:
                "INSERT INTO job_forecasts (job, at_ms, forecast)
                 SELECT seq, CAST(unixepoch('subsec') * 1000 AS INTEGER), $2 FROM jobs
                 WHERE id = $1 AND state IN ('active', 'paused')
                 ON CONFLICT (job) DO NOTHING",
            postgres:
                "INSERT INTO job_forecasts (job, forecast)
                 SELECT seq, $2 FROM jobs WHERE id = $1 AND state IN ('active', 'paused')
                 ON CONFLICT (job) DO NOTHING",
        ))
        .bind(id_column(job))
        .bind(to_json(forecast)?)
        .execute(self.writes())
        .await?;
        Ok(kept.rows_affected() == 1)
    }

    async fn without_forecast(&self, limit: u32) -> Result<Vec<JobId>, Error> {
        let jobs: Vec<IdColumn> = sqlx::query_scalar(sql!(
            sqlite:
                "SELECT j.id FROM jobs AS j
                 WHERE j.state = 'active' AND NOT EXISTS (SELECT 1 FROM job_forecasts AS f WHERE f.job = j.seq)
                 ORDER BY random() LIMIT $1",
            postgres:
                "SELECT j.id FROM jobs AS j
                 WHERE (j.state IN ('active', 'paused') OR j.follow IS NOT NULL) AND j.state = 'active'
                   AND NOT EXISTS (SELECT FROM job_forecasts AS f WHERE f.job = j.seq)
                 ORDER BY random() LIMIT $1",
        ))
        .bind(i64::from(limit))
        .fetch_all(self.reads())
        .await?;
        let mut ids = Vec::with_capacity(jobs.len());
        for job in &jobs {
            ids.push(job_id(job)?);
        }
        Ok(ids)
    }

    async fn note_spent(&self, job: JobId, spent: &[StageSpent]) -> Result<(), Error> {
        sqlx::query(
            "UPDATE job_forecasts SET spent = $2 WHERE job = (SELECT seq FROM jobs WHERE id = $1)",
        )
        .bind(id_column(job))
        .bind(to_json(spent)?)
        .execute(self.writes())
        .await?;
        Ok(())
    }

    async fn note_rates(&self, rates: &[StageRate]) -> Result<(), Error> {
        let noted = sqlx::query(sql!(
            sqlite:
                "INSERT INTO stage_rates (stage, pool, device_class, seconds_per_pass, measured_ms)
                 SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, CAST(unixepoch('subsec') * 1000 AS INTEGER)
                 FROM json_each($1) WHERE TRUE
                 ON CONFLICT (stage, pool, device_class) DO UPDATE
                 SET seconds_per_pass = excluded.seconds_per_pass, measured_ms = excluded.measured_ms",
            postgres:
                "INSERT INTO stage_rates (stage, pool, device_class, seconds_per_pass, measured_at)
                 SELECT stage, pool, device_class, seconds, clock_timestamp()
                 FROM unnest($1::text[], $2::bytea[], $3::text[], $4::float8[]) AS r (stage, pool, device_class, seconds)
                 ON CONFLICT (stage, pool, device_class) DO UPDATE
                 SET seconds_per_pass = excluded.seconds_per_pass, measured_at = excluded.measured_at",
        ));
        bind_rows!(
            noted,
            rates,
            |rate| rate.pool.stage.as_str(),
            digest_column(rate.pool.digest),
            rate.device_class.as_str(),
            rate.seconds_per_pass,
        )
        .execute(self.writes())
        .await?;
        Ok(())
    }

    async fn rates(&self) -> Result<Vec<StageRate>, Error> {
        let rows: Vec<(String, HashColumn, String, f64)> = sqlx::query_as(
            "SELECT stage, pool, device_class, seconds_per_pass FROM stage_rates
             ORDER BY stage, pool, device_class",
        )
        .fetch_all(self.reads())
        .await?;
        let rate = |(stage, pool, device_class, seconds_per_pass): (String, HashColumn, _, _)| {
            let stage = stage_name(stage)?;
            let pool = PoolId { stage, digest: digest(&pool)? };
            Ok(StageRate { pool, device_class, seconds_per_pass })
        };
        rows.into_iter().map(rate).collect()
    }
}
