//! Image rows that follow: the embeddings they waited for, a cancel or retry of their job or of
//! some of its images.

use async_trait::async_trait;
use darkroom_core::image_command::ImageCommand;

use super::{
    super::{
        following::{FollowingImage, lock_chunk, moves_of, spread},
        moves::{apply, end_followed},
    },
    Error, Record, Tx, following_commands,
    following_images::{Change, Chunk, following_images},
    retried,
    rows::{IdColumn, Int, column, job_id},
};
use crate::store::{records::Committed, roles::Following, row::row};

/// Most texts per transaction.
pub(in super::super) const TEXTS_AT_ONCE: i64 = 256;

#[async_trait]
impl Following for Record {
    async fn spread(&self, limit: u64) -> Result<Committed, Error> {
        retried(|| spread(self, limit)).await
    }

    async fn follow(&self, limit: u64) -> Result<Committed, Error> {
        retried(|| follow(self, limit)).await
    }
}

row! {
    /// A job whose images follow a command to all of them.
    struct FollowRow {
        seq: i64,
        id: IdColumn,
        follow: String,
        generation: Int,
    }
}

/// Lets images follow a command to their job, or to some of its images.
async fn follow(store: &Record, limit: u64) -> Result<Committed, Error> {
    let mut tx = store.begin_write().await?;
    let Some(job) = next_job(&mut tx).await? else {
        return following_commands::follow(tx, limit).await;
    };
    let command = if job.follow == "cancel" { ImageCommand::Cancel } else { ImageCommand::Retry };
    let images = images_to_follow(&mut tx, &job, limit).await?;
    let chunk = Chunk { seq: job.seq, change: Change::Follow(command), images };
    let (mut jobs, unencoded) = lock_chunk(&mut tx, &chunk).await?;
    if !unchanged(&mut tx, &job).await? {
        // Another coordinator was faster, or the user gave another command.
        return Ok(Committed { more: true, ..Committed::default() });
    }
    let moves = moves_of(&mut tx, &chunk, &unencoded).await?;
    let applied = apply(&mut tx, &mut jobs, &moves).await?;
    let mut finished = Vec::new();
    if column(chunk.images.len()) < column(limit) {
        all_followed(&mut tx, &job).await?;
        if let Some(job) = jobs.get_mut(job.seq) {
            job.raise();
        }
        // A retried job may end again.
        finished = match command {
            ImageCommand::Cancel => vec![job_id(&job.id)?],
            ImageCommand::Retry => end_followed(&mut tx, &mut jobs, job.seq).await?,
        };
    }
    jobs.save(&mut tx).await?;
    tx.commit().await?;
    Ok(Committed {
        changed: applied.len() as u64,
        jobs: vec![job_id(&job.id)?],
        finished,
        more: true,
        ..Committed::default()
    })
}

/// The oldest job whose images have yet to follow.
async fn next_job(tx: &mut Tx) -> Result<Option<FollowRow>, Error> {
    Ok(sqlx::query_as(
        "SELECT seq, id, follow, generation FROM jobs WHERE follow IS NOT NULL ORDER BY seq LIMIT 1",
    )
    .fetch_optional(&mut **tx)
    .await?)
}

/// Whether a job, which is locked, is as it was read. The generation too: a job that was cancelled,
/// retried and cancelled again has other rows to follow.
async fn unchanged(tx: &mut Tx, job: &FollowRow) -> Result<bool, Error> {
    Ok(sqlx::query_scalar(
        "SELECT follow IS NOT DISTINCT FROM $2 AND generation = $3 FROM jobs WHERE seq = $1",
    )
    .bind(job.seq)
    .bind(&job.follow)
    .bind(job.generation)
    .fetch_one(&mut **tx)
    .await?)
}

/// The next images that have yet to follow. Postgres finds them through the blocks that have some.
async fn images_to_follow(
    tx: &mut Tx,
    job: &FollowRow,
    limit: u64,
) -> Result<Vec<FollowingImage>, Error> {
    Ok(sqlx::query_as(sql!(
        sqlite: following_images!(
            "images AS i",
            r#"WHERE i.job = $1
               AND i.state IN (SELECT value FROM json_each(
                   CASE WHEN $2 THEN '["waiting", "ready", "dispatched"]' ELSE '["dead", "cancelled"]' END))
             LIMIT $3"#
        ),
        postgres: following_images!(
            "(SELECT i.idx, i.prompt
              FROM image_blocks AS b
              CROSS JOIN LATERAL (
                  SELECT i.idx, i.prompt FROM images AS i
                  WHERE i.job = b.job AND i.idx >= b.block * 256 AND i.idx < (b.block + 1) * 256
                    AND CASE WHEN $2 THEN i.state IN ('waiting', 'ready', 'dispatched')
                             ELSE i.state IN ('dead', 'cancelled') END
                  ORDER BY i.idx LIMIT 256) AS i
              WHERE b.job = $1
                AND CASE WHEN $2 THEN b.waiting + b.ready + b.dispatched ELSE b.dead + b.cancelled END > 0
              ORDER BY b.block LIMIT $3) AS i",
            ""
        ),
    ))
    .bind(job.seq)
    .bind(job.follow == "cancel")
    .bind(column(limit))
    .fetch_all(&mut **tx)
    .await?)
}

/// Records that all images of a job have followed. The manifest of a cancelled job may be written
/// now, unless some of its images are being retried already.
async fn all_followed(tx: &mut Tx, job: &FollowRow) -> Result<(), Error> {
    sqlx::query(sql!(
        sqlite:
            "UPDATE jobs
             SET follow = NULL, version = version + 1,
                 manifest = CASE WHEN follow = 'cancel' AND state NOT IN ('active', 'paused')
                                      AND deleted_ms IS NULL THEN 'pending'
                                 ELSE manifest END
             WHERE seq = $1 AND follow = $2 AND generation = $3",
        postgres:
            "UPDATE jobs
             SET follow = NULL, manifest_writer = NULL,
                 manifest = CASE WHEN follow = 'cancel' AND state NOT IN ('active', 'paused')
                                      AND deleted_ms IS NULL THEN 'pending'
                                 ELSE manifest END
             WHERE seq = $1 AND follow = $2 AND generation = $3",
    ))
    .bind(job.seq)
    .bind(&job.follow)
    .bind(job.generation)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
