//! A user's commands to a job. Its image rows follow later.

use async_trait::async_trait;
use darkroom_core::{
    guard::{self, Guard},
    id::JobId,
    job_state::{JobEvent, JobState, transition},
};

use super::{
    super::{
        progress::{LockedJob, LockedJobs},
        texts::revive_of_job,
    },
    Error, Record, Tx,
    deleted_jobs::not_found,
    limiting,
    metering::Before,
    queries::{find, read_job},
    retried,
    rows::parse,
};
use crate::store::{
    limits::{NewDeadline, after_retry},
    records::{Commanded, JobRecord},
    roles::Commands,
};

#[async_trait]
impl Commands for Record {
    async fn cancel(&self, job: JobId) -> Result<Commanded, Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            let (mut jobs, seq, state) = lock(&mut tx, job).await?;
            let changed = transition(state, JobEvent::Cancel)? != state;
            if changed {
                sqlx::query(guard::text(
                    Guard::JobExpected,
                    sql!(
                        sqlite:
                            "UPDATE jobs
                             SET state = 'cancelled', follow = 'cancel', version = version + 1,
                                 finished_ms = CAST(unixepoch('subsec') * 1000 AS INTEGER)
                             WHERE seq = $1 AND state = $2",
                        postgres:
                            "UPDATE jobs SET state = 'cancelled', follow = 'cancel', finished_at = clock_timestamp()
                             WHERE seq = $1 AND state = $2",
                    ),
                    "state = $2",
                    "$2 <> ''",
                ))
                .bind(seq)
                .bind(state.name())
                .execute(&mut *tx)
                .await?;
                raise(&mut tx, &mut jobs).await?;
            }
            let same = |now: &JobRecord, commanded: &JobRecord| now.state == commanded.state;
            Ok(Commanded { job: self.commit_command(tx, job, same).await?, changed })
        })
        .await
    }

    async fn pause(&self, job: JobId) -> Result<Commanded, Error> {
        retried(|| self.hold(job, JobEvent::Pause)).await
    }

    async fn resume(&self, job: JobId) -> Result<Commanded, Error> {
        retried(|| self.hold(job, JobEvent::Resume)).await
    }

    async fn retry(&self, job: JobId, deadline: NewDeadline) -> Result<Commanded, Error> {
        retried(|| async {
            let mut tx = self.begin_write().await?;
            let (mut jobs, seq, state) = lock(&mut tx, job).await?;
            let next = transition(state, JobEvent::Retry)?;
            let waiting = Before::read(&mut tx, seq).await?;
            let (limits, now_ms) = limiting::read(&mut tx, seq).await?;
            let deadline = after_retry(job, limits, deadline, now_ms)?;
            // After a retry during a cancel, the rows follow the retry instead.
            sqlx::query(guard::text(
                Guard::JobExpected,
                sql!(
                    sqlite:
                        "UPDATE jobs
                         SET state = $3, follow = 'retry', version = version + 1, generation = generation + 1,
                             finished_ms = NULL, end_code = NULL, end_reason = NULL, deadline_ms = $4,
                             manifest = NULL, manifest_key = NULL, manifest_sha256 = NULL
                         WHERE seq = $1 AND state = $2",
                    postgres:
                        "UPDATE jobs
                         SET state = $3, follow = 'retry', generation = generation + 1, finished_at = NULL,
                             end_code = NULL, end_reason = NULL, deadline = to_timestamp($4::float8 / 1000),
                             manifest = NULL, manifest_key = NULL, manifest_sha256 = NULL, manifest_writer = NULL,
                             prune_from = 0
                         WHERE seq = $1 AND state = $2",
                ),
                "state = $2",
                "$2 <> ''",
            ))
            .bind(seq)
            .bind(state.name())
            .bind(next.name())
            .bind(deadline)
            .execute(&mut *tx)
            .await?;
            raise(&mut tx, &mut jobs).await?;
            revive_of_job(&mut tx, seq).await?;
            waiting.check(&mut tx).await?;
            // Only a retry makes a generation.
            let made = |now: &JobRecord, commanded: &JobRecord| {
                now.generation >= commanded.generation
            };
            Ok(Commanded { job: self.commit_command(tx, job, made).await?, changed: true })
        })
        .await
    }
}

impl Record {
    /// Pauses or resumes a job.
    async fn hold(&self, job: JobId, event: JobEvent) -> Result<Commanded, Error> {
        let mut tx = self.begin_write().await?;
        let (mut jobs, seq, state) = lock(&mut tx, job).await?;
        let next = transition(state, event)?;
        let changed = next != state;
        if changed {
            let hold = sql!(
                sqlite: "UPDATE jobs SET state = $3, version = version + 1 WHERE seq = $1 AND state = $2",
                postgres: "UPDATE jobs SET state = $3 WHERE seq = $1 AND state = $2",
            );
            sqlx::query(guard::text(Guard::JobExpected, hold, "state = $2", "$2 <> ''"))
                .bind(seq)
                .bind(state.name())
                .bind(next.name())
                .execute(&mut *tx)
                .await?;
            raise(&mut tx, &mut jobs).await?;
        }
        let same = |now: &JobRecord, commanded: &JobRecord| now.state == commanded.state;
        Ok(Commanded { job: self.commit_command(tx, job, same).await?, changed })
    }

    /// Reads the record before the commit, because nothing may fail after it.
    async fn commit_command(
        &self,
        mut tx: Tx,
        job: JobId,
        made: impl Fn(&JobRecord, &JobRecord) -> bool,
    ) -> Result<JobRecord, Error> {
        let commanded = read_job(&mut tx, job).await?;
        self.commit_job(tx, job, |now| made(now, &commanded)).await?;
        Ok(commanded)
    }
}

/// Locks an accepted job. Its state cannot change until the transaction ends.
pub(in super::super) async fn lock(
    tx: &mut Tx,
    job: JobId,
) -> Result<(LockedJobs, i64, JobState), Error> {
    let seq = find(tx, job).await?;
    let jobs = LockedJobs::lock(tx, [seq]).await?;
    let state: Option<String> =
        sqlx::query_scalar("SELECT state FROM jobs WHERE seq = $1 AND deleted_ms IS NULL")
            .bind(seq)
            .fetch_optional(&mut **tx)
            .await?;
    // It may have been deleted since it was found.
    match state {
        Some(state) => Ok((jobs, seq, parse(&state)?)),
        None => Err(not_found(tx, job).await),
    }
}

/// Raises the version of locked jobs. SQLite's statements have raised it already.
pub(in super::super) async fn raise(tx: &mut Tx, jobs: &mut LockedJobs) -> Result<(), Error> {
    jobs.iter_mut().for_each(LockedJob::raise);
    jobs.save(tx).await
}
