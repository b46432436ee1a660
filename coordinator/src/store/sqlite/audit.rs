//! Do a job's counters equal the sums over its rows? (DESIGN invariant 10.)

use darkroom_core::{id::JobId, job_state::JobState};

use super::{Error, SqliteStore};

#[derive(sqlx::FromRow, PartialEq, Eq, Debug)]
struct Sums {
    images: i64,
    done: i64,
    dead: i64,
    cancelled: i64,
}

#[derive(sqlx::FromRow, PartialEq, Eq, Debug)]
struct StageSums {
    stage: i64,
    ready: i64,
    dispatched: i64,
    passed: i64,
}

impl SqliteStore {
    pub(super) async fn audit_job(&self, job: JobId) -> Result<Vec<String>, Error> {
        let mut tx = self.readers.begin().await?;
        let id = job.to_string();
        let counted: Sums = sqlx::query_as("SELECT images, done, dead, cancelled FROM jobs WHERE id = ?1")
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
            "SELECT s.stage, s.ready, s.dispatched, s.passed
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
                         WHERE i.job = s.job AND i.stage + (i.state = 'done') > s.stage) END AS passed
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
            wrong.push(format!("{unstored} images have not the outputs of the stages they have passed"));
        }
        Ok(wrong)
    }

    pub(super) async fn count_jobs(&self, state: JobState) -> Result<u64, Error> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs WHERE state = ?1")
            .bind(state.name())
            .fetch_one(&self.readers)
            .await?;
        super::rows::number(count)
    }
}
