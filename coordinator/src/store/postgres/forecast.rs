//! First forecasts, what came of them, and how fast devices were.

use darkroom_core::{
    forecast::{Forecast, StageSpent},
    id::JobId,
};
use darkroom_queue::task::PoolId;
use uuid::Uuid;

use super::{
    Error, PostgresStore,
    rows::{digest, from_json, to_json},
};
use crate::store::forecast::{KeptForecast, StageRate};

impl PostgresStore {
    pub(super) async fn keep_first_forecast(&self, job: JobId, forecast: &Forecast) -> Result<bool, Error> {
        let kept = sqlx::query(
            "INSERT INTO job_forecasts (job, forecast)
             SELECT seq, $2 FROM jobs WHERE id = $1 AND state IN ('active', 'paused')
             ON CONFLICT (job) DO NOTHING",
        )
        .bind(job.0)
        .bind(to_json(forecast)?)
        .execute(&self.pool)
        .await?;
        Ok(kept.rows_affected() == 1)
    }

    pub(super) async fn jobs_without_forecast(&self, limit: u32) -> Result<Vec<JobId>, Error> {
        let jobs: Vec<Uuid> = sqlx::query_scalar(
            "SELECT j.id FROM jobs AS j
             WHERE (j.state IN ('active', 'paused') OR j.follow IS NOT NULL) AND j.state = 'active'
               AND NOT EXISTS (SELECT FROM job_forecasts AS f WHERE f.job = j.seq)
             ORDER BY random() LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        Ok(jobs.into_iter().map(JobId).collect())
    }

    pub(super) async fn note_job_spent(&self, job: JobId, spent: &[StageSpent]) -> Result<(), Error> {
        sqlx::query("UPDATE job_forecasts SET spent = $2 WHERE job = (SELECT seq FROM jobs WHERE id = $1)")
            .bind(job.0)
            .bind(to_json(spent)?)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    pub(super) async fn note_stage_rates(&self, rates: &[StageRate]) -> Result<(), Error> {
        let stages: Vec<&str> = rates.iter().map(|rate| rate.pool.stage.as_str()).collect();
        let pools: Vec<&[u8]> = rates.iter().map(|rate| rate.pool.digest.0.as_slice()).collect();
        let classes: Vec<&str> = rates.iter().map(|rate| rate.device_class.as_str()).collect();
        let seconds: Vec<f64> = rates.iter().map(|rate| rate.seconds_per_pass).collect();
        sqlx::query(
            "INSERT INTO stage_rates (stage, pool, device_class, seconds_per_pass, measured_at)
             SELECT stage, pool, device_class, seconds, clock_timestamp()
             FROM unnest($1::text[], $2::bytea[], $3::text[], $4::float8[]) AS r (stage, pool, device_class, seconds)
             ON CONFLICT (stage, pool, device_class) DO UPDATE
             SET seconds_per_pass = excluded.seconds_per_pass, measured_at = excluded.measured_at",
        )
        .bind(stages)
        .bind(pools)
        .bind(classes)
        .bind(seconds)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    pub(super) async fn known_rates(&self) -> Result<Vec<StageRate>, Error> {
        let rows: Vec<(String, Vec<u8>, String, f64)> = sqlx::query_as(
            "SELECT stage, pool, device_class, seconds_per_pass FROM stage_rates
             ORDER BY stage, pool, device_class",
        )
        .fetch_all(&self.pool)
        .await?;
        let rate = |(stage, pool, device_class, seconds_per_pass): (String, Vec<u8>, _, _)| {
            let stage = stage.try_into().map_err(|_| Error::Corrupt("stage name".to_owned()))?;
            let pool = PoolId { stage, digest: digest(&pool)? };
            Ok(StageRate { pool, device_class, seconds_per_pass })
        };
        rows.into_iter().map(rate).collect()
    }
}

/// A job's first forecast from its columns.
pub(super) fn kept(
    at_ms: Option<i64>,
    forecast: Option<&str>,
    spent: Option<&str>,
) -> Result<Option<KeptForecast>, Error> {
    let (Some(at_ms), Some(forecast)) = (at_ms, forecast) else { return Ok(None) };
    let spent = spent.map(from_json).transpose()?;
    Ok(Some(KeptForecast { at_ms, forecast: from_json(forecast)?, spent }))
}
