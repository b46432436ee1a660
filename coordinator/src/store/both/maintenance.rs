//! Maintenance of the record, and the reason why it cannot be reached.

use async_trait::async_trait;
use darkroom_core::{
    guard::{Guard, stands},
    id::JobId,
    job_state::JobState,
};

use super::{
    super::moves::finish_complete,
    Error, Record, retried,
    rows::{column, number},
    sums,
};
use crate::store::roles::Maintenance;

#[async_trait]
impl Maintenance for Record {
    async fn finish_overlooked(&self) -> Result<Vec<JobId>, Error> {
        retried(|| async {
            let overlooked: Vec<i64> = sqlx::query_scalar(sql!(
                sqlite:
                    "SELECT seq FROM jobs
                     WHERE state IN ('active', 'paused') AND follow IS NULL
                       AND images > 0 AND done + dead + cancelled = images
                       AND NOT EXISTS (SELECT 1 FROM image_commands AS c WHERE c.job = jobs.seq)",
                postgres:
                    "SELECT j.seq FROM jobs AS j
                     CROSS JOIN LATERAL (SELECT * FROM job_progress AS newest WHERE newest.job = j.seq
                                         ORDER BY newest.version DESC LIMIT 1) AS p
                     WHERE (j.state IN ('active', 'paused') OR j.follow IS NOT NULL)
                       AND j.state IN ('active', 'paused') AND j.follow IS NULL
                       AND p.images > 0 AND p.done + p.dead + p.cancelled = p.images
                       AND NOT EXISTS (SELECT FROM image_commands AS c WHERE c.job = j.seq)",
            ))
            .fetch_all(self.reads())
            .await?;
            if overlooked.is_empty() || !stands(Guard::OverlookedSwept) {
                return Ok(Vec::new());
            }
            let mut tx = self.begin_write().await?;
            let finished = finish_complete(&mut tx, &overlooked).await?;
            sqlx::query("UPDATE farm SET jobs_overlooked = jobs_overlooked + $1")
                .bind(column(finished.len()))
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
            Ok(finished)
        })
        .await
    }

    async fn overlooked(&self) -> Result<u64, Error> {
        let found: i64 =
            sqlx::query_scalar("SELECT jobs_overlooked FROM farm").fetch_one(self.reads()).await?;
        number(found)
    }

    async fn prune_changes(&self) -> Result<bool, Error> {
        retried(|| self.prune_next()).await
    }

    async fn audit(&self, job: JobId) -> Result<Vec<String>, Error> {
        let mut tx = self.begin_read().await?;
        sums::audit(&mut tx, job).await
    }

    async fn count(&self, state: JobState) -> Result<u64, Error> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs WHERE state = $1")
            .bind(state.name())
            .fetch_one(self.reads())
            .await?;
        number(count)
    }

    async fn diagnose(&self) -> Option<String> {
        self.why_unreachable().await
    }

    async fn close(&self) {
        self.close_all().await;
    }
}
