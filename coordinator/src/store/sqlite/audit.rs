//! Do a job's counters equal the sums over its rows? (DESIGN invariant 10.)

use sqlx::SqliteConnection;

use super::Error;
use crate::store::row::row;

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

/// Which of a job's counters disagree with its rows, as of one moment.
pub(super) async fn counters(tx: &mut SqliteConnection, seq: i64) -> Result<Vec<String>, Error> {
    let counted: Sums =
        sqlx::query_as("SELECT images, done, dead, cancelled FROM jobs WHERE seq = ?1")
            .bind(seq)
            .fetch_one(&mut *tx)
            .await?;
    let rows: Sums = sqlx::query_as(
        "SELECT count(*) AS images, coalesce(sum(state = 'done'), 0) AS done,
                coalesce(sum(state = 'dead'), 0) AS dead,
                coalesce(sum(state = 'cancelled'), 0) AS cancelled
         FROM images WHERE job = ?1",
    )
    .bind(seq)
    .fetch_one(&mut *tx)
    .await?;
    let mut wrong = Vec::new();
    if counted != rows {
        wrong.push(format!("the job counts {counted:?}, its rows are {rows:?}"));
    }
    let counted: Vec<StageSums> = sqlx::query_as(
        "SELECT stage, ready, dispatched, passed, stopped FROM job_stages WHERE job = ?1 ORDER BY stage",
    )
    .bind(seq)
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
         FROM job_stages AS s WHERE s.job = ?1 ORDER BY s.stage",
    )
    .bind(seq)
    .fetch_all(&mut *tx)
    .await?;
    for (counted, rows) in counted.iter().zip(&rows).filter(|(counted, rows)| counted != rows) {
        wrong.push(format!("a stage counts {counted:?}, its rows are {rows:?}"));
    }
    Ok(wrong)
}

/// Counts of what must not be, each with what it is.
pub(super) const CHECKS: &[(&str, &str)] = &[
    (
        "SELECT count(*) FROM images AS i
         WHERE i.job = ?1 AND (SELECT count(*) FROM outputs AS o WHERE o.job = i.job AND o.idx = i.idx)
                              <> i.stage + (i.state = 'done')",
        "images have not the outputs of the stages they have passed",
    ),
    (
        "SELECT count(*) FROM images AS i
         JOIN prompts AS p ON p.job = i.job AND p.position = i.prompt
         LEFT JOIN job_variants AS v ON v.job = i.job AND v.variant = i.variant
         WHERE i.job = ?1
           AND (i.variant IS DISTINCT FROM p.variant OR i.variant IS NOT NULL AND v.job IS NULL
                OR i.stage >= coalesce(v.stages, (SELECT count(*) FROM job_stages AS s
                                                  WHERE s.job = i.job AND s.stage >= 0 AND s.own)))",
        "images have other settings than their prompt, or go beyond theirs",
    ),
    (
        "SELECT count(*) FROM (SELECT idx FROM attempts WHERE job = ?1 GROUP BY idx HAVING count(*) > 20)",
        "images have more attempts than are kept",
    ),
];
