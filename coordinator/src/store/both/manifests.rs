//! Manifests of ended jobs: which have to be written, and recording those that were.

use async_trait::async_trait;
use darkroom_core::{
    digest::Digest,
    guard::{self, Guard},
    id::JobId,
};

use super::{
    Error, Record,
    commands::{lock, raise},
    retried,
    rows::{column, digest_column, job_id, number},
    webhooks::tell_end,
};
use crate::store::roles::Manifests;

#[async_trait]
impl Manifests for Record {
    async fn pending_manifests(&self, limit: u32) -> Result<Vec<(JobId, u32)>, Error> {
        let rows = self.claim_manifests(i64::from(limit)).await?;
        rows.into_iter().map(|(id, generation)| Ok((job_id(&id)?, number(generation)?))).collect()
    }

    async fn manifest_written(
        &self,
        (job, generation): (JobId, u32),
        key: &str,
        sha256: Digest,
        made_up_for: Option<i64>,
    ) -> Result<bool, Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            let (mut jobs, seq, state) = lock(&mut tx, job).await?;
            let done = sqlx::query(guard::text(
                Guard::ManifestGeneration,
                sql!(
                    sqlite:
                        "UPDATE jobs
                         SET manifest = 'written', manifest_key = $3, manifest_sha256 = $4, version = version + 1,
                             pictures_removed_by = CASE WHEN pictures_removed_ms = $5 THEN NULL ELSE pictures_removed_by END,
                             pictures_removed_ms = nullif(pictures_removed_ms, $5)
                         WHERE seq = $1 AND generation = $2 AND manifest = 'pending'",
                    postgres:
                        "UPDATE jobs
                         SET manifest = 'written', manifest_key = $3, manifest_sha256 = $4,
                             pictures_removed_by = CASE WHEN pictures_removed_ms = $5 THEN NULL ELSE pictures_removed_by END,
                             pictures_removed_ms = nullif(pictures_removed_ms, $5)
                         WHERE seq = $1 AND generation = $2 AND manifest = 'pending'",
                ),
                "generation = $2",
                "$2 > 0",
            ))
            .bind(seq)
            .bind(column(generation))
            .bind(key)
            .bind(digest_column(sha256))
            .bind(made_up_for)
            .execute(&mut *tx)
            .await?;
            if done.rows_affected() == 0 {
                return Ok(false);
            }
            raise(&mut tx, &mut jobs).await?;
            tell_end(&mut tx, seq, job, state).await?;
            tx.commit().await?;
            Ok(true)
        })
        .await
    }
}
