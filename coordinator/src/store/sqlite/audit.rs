//! Do a job's counters equal the sums over its rows? (DESIGN invariant 10.)

use darkroom_core::id::JobId;
use sqlx::SqliteConnection;

use super::Error;
use crate::store::{attempt::KEPT, row::row};

row! {
    #[derive(PartialEq, Eq, Debug)]
    struct Sums {
        images: i64,
        done: i64,
        dead: i64,
        cancelled: i64,
    }
}

row! {
    #[derive(PartialEq, Eq, Debug)]
    struct StageSums {
        stage: i64,
        ready: i64,
        dispatched: i64,
        passed: i64,
        stopped: i64,
    }
}

/// What in a job's counters disagrees with its rows, as of one moment.
pub(super) async fn audit(tx: &mut SqliteConnection, job: JobId) -> Result<Vec<String>, Error> {
    let id = job.to_string();
    let counted: Sums =
        sqlx::query_as("SELECT images, done, dead, cancelled FROM jobs WHERE id = ?1")
            .bind(&id)
            .fetch_one(&mut *tx)
            .await?;
    let rows: Sums = sqlx::query_as(
        "SELECT count(*) AS images, coalesce(sum(i.state = 'done'), 0) AS done,
                coalesce(sum(i.state = 'dead'), 0) AS dead,
                coalesce(sum(i.state = 'cancelled'), 0) AS cancelled
         FROM jobs AS j JOIN images AS i ON i.job = j.seq WHERE j.id = ?1",
    )
    .bind(&id)
    .fetch_one(&mut *tx)
    .await?;
    let mut wrong = Vec::new();
    if counted != rows {
        wrong.push(format!("the job counts {counted:?}, its rows are {rows:?}"));
    }
    let counted: Vec<StageSums> = sqlx::query_as(
        "SELECT s.stage, s.ready, s.dispatched, s.passed, s.stopped
         FROM jobs AS j JOIN job_stages AS s ON s.job = j.seq WHERE j.id = ?1 ORDER BY s.stage",
    )
    .bind(&id)
    .fetch_all(&mut *tx)
    .await?;
    let rows: Vec<StageSums> = sqlx::query_as(
        "SELECT s.stage,
                CASE s.stage WHEN -1 THEN 0 ELSE
                    (SELECT count(*) FROM images AS i
                     WHERE i.job = s.job AND i.state = 'ready' AND i.stage = s.stage) END AS ready,
                CASE s.stage WHEN -1 THEN 0 ELSE
                    (SELECT count(*) FROM images AS i
                     WHERE i.job = s.job AND i.state = 'dispatched' AND i.stage = s.stage) END AS dispatched,
                CASE s.stage WHEN -1 THEN
                    (SELECT count(*) FROM job_texts AS t WHERE t.job = s.job AND t.encoded = 1)
                ELSE
                    (SELECT count(*) FROM images AS i
                     WHERE i.job = s.job AND i.stage + (i.state = 'done') > s.stage) END AS passed,
                (SELECT count(*) FROM images AS i
                 LEFT JOIN job_variants AS v ON v.job = i.job AND v.variant = i.variant
                 WHERE i.job = s.job AND i.state IN ('dead', 'cancelled') AND i.stage <= s.stage
                   AND s.stage < coalesce(v.stages, (SELECT count(*) FROM job_stages AS o
                                                     WHERE o.job = s.job AND o.stage >= 0 AND o.own))) AS stopped
         FROM jobs AS j JOIN job_stages AS s ON s.job = j.seq WHERE j.id = ?1 ORDER BY s.stage",
    )
    .bind(&id)
    .fetch_all(&mut *tx)
    .await?;
    for (counted, rows) in counted.iter().zip(&rows).filter(|(counted, rows)| counted != rows) {
        wrong.push(format!("a stage counts {counted:?}, its rows are {rows:?}"));
    }
    let unstored: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM jobs AS j JOIN images AS i ON i.job = j.seq
         WHERE j.id = ?1 AND (SELECT count(*) FROM outputs AS o WHERE o.job = i.job AND o.idx = i.idx)
                             <> i.stage + (i.state = 'done')",
    )
    .bind(&id)
    .fetch_one(&mut *tx)
    .await?;
    if unstored > 0 {
        wrong
            .push(format!("{unstored} images have not the outputs of the stages they have passed"));
    }
    let astray: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM jobs AS j JOIN images AS i ON i.job = j.seq
         JOIN prompts AS p ON p.job = i.job AND p.position = i.prompt
         LEFT JOIN job_variants AS v ON v.job = i.job AND v.variant = i.variant
         WHERE j.id = ?1
           AND (i.variant IS DISTINCT FROM p.variant OR i.variant IS NOT NULL AND v.job IS NULL
                OR i.stage >= coalesce(v.stages, (SELECT count(*) FROM job_stages AS s
                                                  WHERE s.job = i.job AND s.stage >= 0 AND s.own)))",
    )
    .bind(&id)
    .fetch_one(&mut *tx)
    .await?;
    if astray > 0 {
        wrong.push(format!(
            "{astray} images have other settings than their prompt, or go beyond theirs"
        ));
    }
    let crowded: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT a.idx FROM jobs AS j JOIN attempts AS a ON a.job = j.seq
                               WHERE j.id = ?1 GROUP BY a.idx HAVING count(*) > ?2)",
    )
    .bind(&id)
    .bind(KEPT)
    .fetch_one(&mut *tx)
    .await?;
    if crowded > 0 {
        wrong.push(format!("{crowded} images have more attempts than are kept"));
    }
    Ok(wrong)
}
