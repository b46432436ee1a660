//! What the images with settings of their own mean for their job: its stages and its mix.

use darkroom_core::settings::StageSettings;

use super::{Error, Tx, progress::LockedJobs, rows::stage_column};
use crate::store::{records::compatibility, variants::Chunk};

/// Counts the images of a chunk that have settings of their own; their job is locked. Stages that
/// none of the job's images passed before get their row and their counters.
pub(super) async fn count(
    tx: &mut Tx,
    jobs: &mut LockedJobs,
    job: i64,
    chunk: &Chunk<'_>,
) -> Result<(), Error> {
    let Some((longest, locked)) = chunk.longest().zip(jobs.get_mut(job)) else { return Ok(()) };
    let begin = locked.stages();
    if longest.stages.len() > begin {
        locked.lengthen(longest.stages.len());
        let new = || longest.stages.iter().enumerate().skip(begin);
        let position = |(position, _): (usize, &StageSettings)| stage_column(position);
        let name = |(_, stage): (usize, &StageSettings)| stage.stage.to_string();
        let key = |(position, _): (usize, &StageSettings)| compatibility(longest, position);
        sqlx::query(
            "INSERT INTO job_stages (job, stage, name, pool, compatibility)
             SELECT j.seq, s.stage, s.name, j.cascade, s.compatibility
             FROM jobs AS j
             CROSS JOIN unnest($2::smallint[], $3::text[], $4::text[]) AS s (stage, name, compatibility)
             WHERE j.seq = $1",
        )
        .bind(job)
        .bind(new().map(position).collect::<Vec<_>>())
        .bind(new().map(name).collect::<Vec<_>>())
        .bind(new().map(key).collect::<Vec<_>>())
        .execute(&mut **tx)
        .await?;
    }
    let version = locked.version();
    let before: Option<String> =
        sqlx::query_scalar("SELECT mix FROM job_progress WHERE job = $1 AND version = $2")
            .bind(job)
            .bind(version)
            .fetch_one(&mut **tx)
            .await?;
    let counted = sqlx::query("UPDATE job_progress SET mix = $3 WHERE job = $1 AND version = $2")
        .bind(job)
        .bind(version)
        .bind(chunk.mixed(before.as_deref())?)
        .execute(&mut **tx)
        .await?;
    if counted.rows_affected() == 1 {
        Ok(())
    } else {
        Err(Error::Corrupt("a job changed under its lock".to_owned()))
    }
}
