//! Image rows that follow: the embeddings they waited for, a cancel or retry of their job or of
//! some of its images.

use async_trait::async_trait;

use super::{
    super::following,
    Error, Record, Tx, retried,
    rows::{IdColumn, Int},
};
use crate::store::{records::Committed, roles::Following, row::row};

/// Texts looked at in one transaction.
pub(in super::super) const TEXTS_AT_ONCE: i64 = 256;

#[async_trait]
impl Following for Record {
    async fn spread(&self, limit: u64) -> Result<Committed, Error> {
        retried(|| following::spread(self, limit)).await
    }

    async fn follow(&self, limit: u64) -> Result<Committed, Error> {
        retried(|| following::follow(self, limit)).await
    }
}

row! {
    /// A job whose images follow a command to all of them.
    pub(in super::super) struct FollowRow {
        pub(in super::super) seq: i64,
        pub(in super::super) id: IdColumn,
        pub(in super::super) follow: String,
        pub(in super::super) generation: Int,
    }
}

/// The oldest job whose images have yet to follow.
pub(in super::super) async fn next_job(tx: &mut Tx) -> Result<Option<FollowRow>, Error> {
    Ok(sqlx::query_as(
        "SELECT seq, id, follow, generation FROM jobs WHERE follow IS NOT NULL ORDER BY seq LIMIT 1",
    )
    .fetch_optional(&mut **tx)
    .await?)
}

/// All rows of a job have followed: a cancelled job's manifest may be written, unless some of its
/// images are retried already.
pub(in super::super) async fn followed(tx: &mut Tx, job: &FollowRow) -> Result<(), Error> {
    sqlx::query(sql!(
        sqlite:
            "UPDATE jobs
             SET follow = NULL, version = version + 1,
                 manifest = CASE WHEN follow = 'cancel' AND state NOT IN ('active', 'paused') THEN 'pending'
                                 ELSE manifest END
             WHERE seq = $1 AND follow = $2 AND generation = $3",
        postgres:
            "UPDATE jobs
             SET follow = NULL, manifest_writer = NULL,
                 manifest = CASE WHEN follow = 'cancel' AND state NOT IN ('active', 'paused') THEN 'pending'
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
