//! What the images with settings of their own mean for their job: its stages and its mix.

use super::{
    Error, Tx,
    rows::{column, to_json},
};
use crate::store::{records::compatibility, variants::Chunk};

/// How many stages an image passes, or those of a prompt; the argument is the alias of its row.
macro_rules! stages_of {
    ($row:literal) => {
        concat!(
            "coalesce((SELECT v.stages FROM job_variants AS v WHERE v.job = ",
            $row,
            ".job AND v.variant = ",
            $row,
            ".variant), (SELECT count(*) FROM job_stages AS o WHERE o.job = ",
            $row,
            ".job AND o.stage >= 0 AND o.own))"
        )
    };
}
pub(super) use stages_of;

/// Counts the images of a chunk that have settings of their own. Stages that none of the job's
/// images passed before get their row.
pub(super) async fn count(tx: &mut Tx, job: i64, chunk: &Chunk<'_>) -> Result<(), Error> {
    let Some(longest) = chunk.longest() else { return Ok(()) };
    let stage = |(position, stage): (usize, &darkroom_core::settings::StageSettings)| {
        (column(position), stage.stage.to_string(), compatibility(longest, position))
    };
    let stages: Vec<_> = longest.stages.iter().enumerate().map(stage).collect();
    sqlx::query(
        "INSERT INTO job_stages (job, stage, name, pool, compatibility, own)
         SELECT ?1, value ->> 0, value ->> 1, (SELECT cascade FROM jobs WHERE seq = ?1), value ->> 2, 0
         FROM json_each(?2) WHERE TRUE
         ON CONFLICT (job, stage) DO NOTHING",
    )
    .bind(job)
    .bind(to_json(&stages)?)
    .execute(&mut **tx)
    .await?;
    let before: Option<String> = sqlx::query_scalar("SELECT mix FROM jobs WHERE seq = ?1")
        .bind(job)
        .fetch_one(&mut **tx)
        .await?;
    let counted = sqlx::query(
        "UPDATE jobs SET mix = ?2 WHERE seq = ?1 AND state = 'receiving' AND mix IS NOT DISTINCT FROM ?3",
    )
    .bind(job)
    .bind(chunk.mixed(before.as_deref())?)
    .bind(before)
    .execute(&mut **tx)
    .await?;
    if counted.rows_affected() == 1 {
        Ok(())
    } else {
        Err(Error::Corrupt("a job changed under a write transaction".to_owned()))
    }
}
