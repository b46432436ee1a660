//! The record in one SQLite file: one writer, a few readers, write-ahead log, every commit on disk before it returns.
//!
//! Bulk statements take JSON lists (`json_each`), as the Postgres backend will take arrays.

mod agreed;
mod audit;
mod commit;
mod conduct;
mod dispatch;
mod forecast;
mod inputs;
mod life;
mod limits;
mod moves;
mod notes;
mod open;
mod pace;
mod query;
mod rows;
mod submit;
mod texts;

use std::time::Duration;

use async_trait::async_trait;
use darkroom_core::{
    cascade::Cascade,
    digest::Digest,
    fair_share,
    forecast::{Forecast, StageSpent},
    id::{JobId, WorkerId},
    job_state::{JobEvent, JobState},
};
use darkroom_queue::task::{PoolId, TaskKey};
use sqlx::{Sqlite, SqlitePool};
use uuid::Uuid;

use super::{
    Error, Store,
    conduct::Aside,
    forecast::StageRate,
    limits::NewDeadline,
    records::{
        Changes, Committed, Dispatched, ImagePage, ImageQuery, ImageRecord, Input, JobPage, JobQuery,
        JobRecord, NewJob, NewPrompt, Release, Report, Submitted, Term,
    },
};

/// A write transaction.
type Tx = sqlx::Transaction<'static, Sqlite>;

/// The record of a farm in a SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    farm: Uuid,
}

impl SqliteStore {
    /// Begins a transaction that holds the write lock from the start, so that what it reads stays true.
    async fn begin_write(&self) -> Result<Tx, Error> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn farm_id(&self) -> Result<Uuid, Error> {
        Ok(self.farm)
    }

    async fn lead(&self, _holder: &str) -> Result<Option<Term>, Error> {
        // One process holds the state folder, so there is one leader and one term.
        Ok(Some(dispatch::ONLY_TERM))
    }

    async fn resign(&self, _holder: &str) -> Result<(), Error> {
        Ok(())
    }

    async fn tell_leader(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn told(&self) -> Result<(), Error> {
        // There is no other process to tell or to be told by.
        std::future::pending().await
    }

    async fn lease(&self) -> Result<Option<Duration>, Error> {
        self.farm_lease().await
    }

    async fn set_lease(&self, from: Option<Duration>, to: Duration) -> Result<Duration, Error> {
        self.agree_on_lease(from, to).await
    }

    async fn register_cascade(&self, cascade: &Cascade) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO cascades (digest, name, encoder, cascade, registered_ms)
             VALUES (?1, ?2, ?3, ?4, CAST(unixepoch('subsec') * 1000 AS INTEGER))
             ON CONFLICT (digest) DO NOTHING",
        )
        .bind(cascade.digest().to_string())
        .bind(&cascade.spec.name)
        .bind(cascade.encoder_digest().to_string())
        .bind(rows::to_json(cascade)?)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    async fn find_submitted(
        &self,
        tenant: &str,
        client_request_id: &str,
    ) -> Result<Option<(JobId, Digest)>, Error> {
        self.find_submitted_job(tenant, client_request_id).await
    }

    async fn submit(&self, job: &NewJob, prompts: &[NewPrompt], content: Digest) -> Result<Submitted, Error> {
        self.submit_job(job, prompts, content).await
    }

    async fn begin(&self, job: &NewJob) -> Result<(), Error> {
        self.begin_job(job).await
    }

    async fn receive(&self, job: JobId, prompts: &[NewPrompt]) -> Result<(), Error> {
        self.receive_prompts(job, prompts).await
    }

    async fn accept(&self, job: JobId, content: Digest) -> Result<Submitted, Error> {
        self.accept_job(job, content).await
    }

    async fn abandon(&self, job: JobId) -> Result<(), Error> {
        self.abandon_job(job).await
    }

    async fn sweep_receiving(&self, idle: Duration) -> Result<u64, Error> {
        self.sweep_received(idle).await
    }

    async fn add_input(&self, input: &Input) -> Result<(), Error> {
        self.note_input(input).await
    }

    async fn inputs(&self, sha256: &[Digest]) -> Result<Vec<Input>, Error> {
        self.known_inputs(sha256).await
    }

    async fn candidates(&self, pool: &PoolId) -> Result<Vec<fair_share::Candidate>, Error> {
        self.ready_jobs(pool).await
    }

    async fn dispatched_count(&self, pool: &PoolId) -> Result<u64, Error> {
        self.count_dispatched(pool).await
    }

    async fn dispatch(
        &self,
        term: Term,
        pool: &PoolId,
        picks: &[fair_share::Pick],
    ) -> Result<Vec<Dispatched>, Error> {
        self.dispatch_picks(term, pool, picks).await
    }

    async fn dispatched(&self, pool: &PoolId) -> Result<Vec<TaskKey>, Error> {
        self.dispatched_tasks(pool).await
    }

    async fn dispatched_of_job(&self, job: JobId) -> Result<Vec<(PoolId, TaskKey)>, Error> {
        self.dispatched_tasks_of(job).await
    }

    async fn commit(&self, pool: &PoolId, reports: &[Report]) -> Result<Committed, Error> {
        self.commit_reports(pool, reports).await
    }

    async fn release(
        &self,
        term: Term,
        pool: &PoolId,
        tasks: &[TaskKey],
        why: &Release,
    ) -> Result<Committed, Error> {
        self.release_tasks(term, pool, tasks, why).await
    }

    async fn spread(&self, limit: u64) -> Result<Committed, Error> {
        self.spread_texts(limit).await
    }

    async fn follow(&self, limit: u64) -> Result<Committed, Error> {
        self.follow_jobs(limit).await
    }

    async fn cancel(&self, job: JobId) -> Result<JobRecord, Error> {
        self.cancel_job(job).await
    }

    async fn pause(&self, job: JobId) -> Result<JobRecord, Error> {
        self.hold_job(job, JobEvent::Pause).await
    }

    async fn resume(&self, job: JobId) -> Result<JobRecord, Error> {
        self.hold_job(job, JobEvent::Resume).await
    }

    async fn retry(&self, job: JobId, deadline: NewDeadline) -> Result<JobRecord, Error> {
        self.retry_job(job, deadline).await
    }

    async fn end_overdue(&self, term: Term, limit: u32) -> Result<Vec<JobId>, Error> {
        self.end_overdue_jobs(term, limit).await
    }

    async fn note_paces(&self, limit: u32) -> Result<(), Error> {
        self.note_job_paces(limit).await
    }

    async fn keep_forecast(&self, job: JobId, forecast: &Forecast) -> Result<bool, Error> {
        self.keep_first_forecast(job, forecast).await
    }

    async fn without_forecast(&self, limit: u32) -> Result<Vec<JobId>, Error> {
        self.jobs_without_forecast(limit).await
    }

    async fn note_spent(&self, job: JobId, spent: &[StageSpent]) -> Result<(), Error> {
        self.note_job_spent(job, spent).await
    }

    async fn note_rates(&self, rates: &[StageRate]) -> Result<(), Error> {
        self.note_stage_rates(rates).await
    }

    async fn rates(&self) -> Result<Vec<StageRate>, Error> {
        self.known_rates().await
    }

    async fn blamed(&self, window: Duration, images: u64) -> Result<Vec<(WorkerId, u64)>, Error> {
        self.blamed_workers(window, images).await
    }

    async fn set_aside(&self, term: Term, worker: &WorkerId, reason: &str) -> Result<(), Error> {
        self.set_worker_aside(term, worker, reason).await
    }

    async fn take_back(&self, term: Term, worker: &WorkerId) -> Result<(), Error> {
        self.take_worker_back(term, worker).await
    }

    async fn asides(&self) -> Result<Vec<Aside>, Error> {
        self.workers_aside().await
    }

    async fn wish_drain(&self, worker: &WorkerId) -> Result<(), Error> {
        self.wish_to_drain(worker).await
    }

    async fn drains(&self) -> Result<Vec<WorkerId>, Error> {
        self.wished_to_drain().await
    }

    async fn forget_conduct(&self, window: Duration) -> Result<(), Error> {
        self.forget_old_conduct(window).await?;
        self.forget_old_drains().await
    }

    async fn job(&self, job: JobId) -> Result<JobRecord, Error> {
        self.job_record(job).await
    }

    async fn jobs(&self, query: &JobQuery) -> Result<JobPage, Error> {
        self.list_jobs(query).await
    }

    async fn images(&self, query: &ImageQuery) -> Result<ImagePage, Error> {
        self.list_images(query).await
    }

    async fn image(&self, job: JobId, index: u64) -> Result<ImageRecord, Error> {
        self.one_image(job, index).await
    }

    async fn changes(&self, job: JobId, after: (u64, Option<u64>), limit: u32) -> Result<Changes, Error> {
        self.changes_after(job, after, limit).await
    }

    async fn notes(&self, job: JobId, limit: u32) -> Result<Vec<String>, Error> {
        self.job_notes(job, limit).await
    }

    async fn ahead(&self, job: JobId, pool: &PoolId) -> Result<u64, Error> {
        self.tasks_ahead(job, pool).await
    }

    async fn active_jobs(&self, priority: u8) -> Result<u64, Error> {
        self.count_active(priority).await
    }

    async fn pending_manifests(&self, limit: u32) -> Result<Vec<(JobId, u32)>, Error> {
        self.unwritten_manifests(limit).await
    }

    async fn manifest_written(
        &self,
        job: JobId,
        generation: u32,
        key: &str,
        sha256: Digest,
    ) -> Result<bool, Error> {
        self.manifest_is_written(job, generation, key, sha256).await
    }

    async fn overlooked(&self) -> Result<u64, Error> {
        self.jobs_overlooked().await
    }

    async fn finish_overlooked(&self) -> Result<Vec<JobId>, Error> {
        self.finish_overlooked_jobs().await
    }

    async fn audit(&self, job: JobId) -> Result<Vec<String>, Error> {
        self.audit_job(job).await
    }

    async fn count(&self, state: JobState) -> Result<u64, Error> {
        self.count_jobs(state).await
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}
