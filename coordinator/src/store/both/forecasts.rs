//! How far jobs had come a while ago, first forecasts and what came of them, and how fast devices
//! were.

use async_trait::async_trait;
use darkroom_core::{
    forecast::{Forecast, StageSpent},
    id::JobId,
};
use darkroom_queue::task::PoolId;

use super::{
    super::forecasts,
    Error, Record,
    rows::{HashColumn, IdColumn, digest, digest_column, id_column, job_id, stage_name, to_json},
};
use crate::store::{forecast::StageRate, roles::Forecasts};

#[async_trait]
impl Forecasts for Record {
    async fn note_paces(&self, limit: u32) -> Result<(), Error> {
        forecasts::note_paces(self, i64::from(limit)).await
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
