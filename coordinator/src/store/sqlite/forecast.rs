//! First forecasts, what came of them, and how fast devices were.

use darkroom_core::{
    forecast::{Forecast, StageSpent},
    id::JobId,
};
use darkroom_queue::task::PoolId;

use super::{
    Error, SqliteStore,
    rows::{from_json, job_id, parse, to_json},
};
use crate::store::forecast::{KeptForecast, StageRate};

impl SqliteStore {
    pub(super) async fn keep_first_forecast(&self, job: JobId, forecast: &Forecast) -> Result<bool, Error> {
        let kept = sqlx::query(
            "INSERT INTO job_forecasts (job, at_ms, forecast)
             SELECT seq, CAST(unixepoch('subsec') * 1000 AS INTEGER), ?2 FROM jobs
             WHERE id = ?1 AND state IN ('active', 'paused')
             ON CONFLICT (job) DO NOTHING",
        )
        .bind(job.to_string())
        .bind(to_json(forecast)?)
        .execute(&self.writer)
        .await?;
        Ok(kept.rows_affected() == 1)
    }

    pub(super) async fn jobs_without_forecast(&self, limit: u32) -> Result<Vec<JobId>, Error> {
        let jobs: Vec<String> = sqlx::query_scalar(
            "SELECT j.id FROM jobs AS j
             WHERE j.state = 'active' AND NOT EXISTS (SELECT 1 FROM job_forecasts AS f WHERE f.job = j.seq)
             ORDER BY random() LIMIT ?1",
        )
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        jobs.iter().map(|job| job_id(job)).collect()
    }

    pub(super) async fn note_job_spent(&self, job: JobId, spent: &[StageSpent]) -> Result<(), Error> {
        sqlx::query("UPDATE job_forecasts SET spent = ?2 WHERE job = (SELECT seq FROM jobs WHERE id = ?1)")
            .bind(job.to_string())
            .bind(to_json(spent)?)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    pub(super) async fn note_stage_rates(&self, rates: &[StageRate]) -> Result<(), Error> {
        let mut tx = self.begin_write().await?;
        for rate in rates {
            sqlx::query(
                "INSERT INTO stage_rates (stage, pool, device_class, seconds_per_pass, measured_ms)
                 VALUES (?1, ?2, ?3, ?4, CAST(unixepoch('subsec') * 1000 AS INTEGER))
                 ON CONFLICT (stage, pool, device_class) DO UPDATE
                 SET seconds_per_pass = excluded.seconds_per_pass, measured_ms = excluded.measured_ms",
            )
            .bind(rate.pool.stage.as_str())
            .bind(rate.pool.digest.to_string())
            .bind(&rate.device_class)
            .bind(rate.seconds_per_pass)
            .execute(&mut *tx)
            .await?;
        }
        Ok(tx.commit().await?)
    }

    pub(super) async fn known_rates(&self) -> Result<Vec<StageRate>, Error> {
        let rows: Vec<(String, String, String, f64)> = sqlx::query_as(
            "SELECT stage, pool, device_class, seconds_per_pass FROM stage_rates
             ORDER BY stage, pool, device_class",
        )
        .fetch_all(&self.readers)
        .await?;
        let rate = |(stage, pool, device_class, seconds_per_pass): (String, String, _, _)| {
            let stage = stage.try_into().map_err(|_| Error::Corrupt("stage name".to_owned()))?;
            let pool = PoolId { stage, digest: parse(&pool)? };
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
