//! Images with settings of their own add stages to their job, and change its mix.

use super::{Error, Tx, rows::column};
use crate::store::{records::compatibility, variants::Chunk};

/// A job's row of progress, which Postgres has locked. SQLite has none.
#[derive(Clone, Copy, Default)]
pub(in super::super) struct At {
    /// Stages that have counters already.
    pub(in super::super) stages: usize,
    pub(in super::super) version: i64,
}

/// Counts the images of a chunk that have settings of their own. Stages that none of the job's
/// images passed before get their row.
pub(in super::super) async fn count(
    tx: &mut Tx,
    job: i64,
    at: At,
    chunk: &Chunk<'_>,
) -> Result<(), Error> {
    let Some(longest) = chunk.longest() else { return Ok(()) };
    let new: Vec<_> = longest.stages.iter().enumerate().skip(at.stages).collect();
    if !new.is_empty() {
        let inserted = sqlx::query(sql!(
            sqlite:
                "INSERT INTO job_stages (job, stage, name, pool, compatibility, own)
                 SELECT $1, value ->> 0, value ->> 1, (SELECT cascade FROM jobs WHERE seq = $1), value ->> 2, 0
                 FROM json_each($2) WHERE TRUE
                 ON CONFLICT (job, stage) DO NOTHING",
            postgres:
                "INSERT INTO job_stages (job, stage, name, pool, compatibility)
                 SELECT j.seq, s.stage, s.name, j.cascade, s.compatibility
                 FROM jobs AS j
                 CROSS JOIN unnest($2::smallint[], $3::text[], $4::text[]) AS s (stage, name, compatibility)
                 WHERE j.seq = $1",
        ))
        .bind(job);
        bind_rows!(
            inserted,
            new,
            |(position, stage)| column(*position),
            stage.stage.to_string(),
            compatibility(longest, *position),
        )
        .execute(&mut **tx)
        .await?;
    }
    let before: Option<String> = sqlx::query_scalar(sql!(
        sqlite: "SELECT mix FROM jobs WHERE seq = $1",
        postgres: "SELECT mix FROM job_progress WHERE job = $1 AND version = $2",
    ))
    .bind(job)
    .bind(at.version)
    .fetch_one(&mut **tx)
    .await?;
    let counted = sqlx::query(sql!(
        sqlite:
            "UPDATE jobs SET mix = $3
             WHERE seq = $1 AND state = 'receiving' AND mix IS NOT DISTINCT FROM $4",
        postgres:
            "UPDATE job_progress SET mix = $3
             WHERE job = $1 AND version = $2 AND mix IS NOT DISTINCT FROM $4",
    ))
    .bind(job)
    .bind(at.version)
    .bind(chunk.mixed(before.as_deref())?)
    .bind(before)
    .execute(&mut **tx)
    .await?;
    if counted.rows_affected() == 1 {
        Ok(())
    } else {
        Err(Error::Corrupt("a job changed under its lock".to_owned()))
    }
}
