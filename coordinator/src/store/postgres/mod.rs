//! The record in Postgres, for farms of several coordinators: bulk statements take arrays, nothing is held while work
//! runs, time is the server's.
//!
//! One method is one transaction of a few round trips, whatever the number of rows. Locks are taken in one order:
//! texts by id, then jobs by `seq` (see `progress`); where a rare path must break it and Postgres finds a deadlock,
//! the transaction runs again. What a store that is read by old snapshots must avoid is told in the schema.

mod agreed;
mod audit;
mod commit;
mod conduct;
mod dispatch;
mod dispatch_text;
pub(super) mod fault;
mod forecast;
mod inputs;
mod leadership;
mod life;
mod limits;
mod missing;
mod moves;
mod notes;
mod onward;
mod open;
mod outcome;
mod outputs;
mod pace;
mod page;
mod plans;
mod progress;
mod prune;
mod query;
mod receive;
mod rows;
mod servers;
mod session;
mod spread;
mod submit;
mod texts;
mod url;
mod why;

use std::{sync::Arc, time::Duration};

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
use sqlx::{PgPool, Postgres, postgres::PgListener};
use uuid::Uuid;

use super::{
    Error, Store,
    conduct::Aside,
    forecast::StageRate,
    limits::NewDeadline,
    records::{
        Around, Changes, Committed, Dispatched, ImagePage, ImageQuery, ImageRecord, Input, JobPage, JobQuery,
        JobRecord, NewJob, NewPrompt, Onward, Release, Report, Submitted, Term,
    },
};
pub use open::Options;

/// A transaction.
type Tx = sqlx::Transaction<'static, Postgres>;

/// The record of a farm in a Postgres database.
#[derive(Debug)]
pub struct PostgresStore {
    pool: PgPool,
    servers: Arc<servers::Servers>,
    farm: Uuid,
    identity: String,
    settle: Duration,
    /// This process, as writer of manifests.
    process: Uuid,
    leadership: leadership::Leadership,
    listener: tokio::sync::Mutex<Option<PgListener>>,
    spread_from: spread::SpreadFrom,
    dispatched_from: dispatch_text::DispatchedFrom<Digest>,
    viewed_from: dispatch_text::DispatchedFrom<JobId>,
    plans: plans::KnownPlans,
}

/// How often a transaction that lost against another one is run again.
const ATTEMPTS: u32 = 8;

/// Runs a transaction, and again when it lost against another one.
async fn retried<T, F: Future<Output = Result<T, Error>>>(transaction: impl Fn() -> F) -> Result<T, Error> {
    let mut attempt = 1;
    loop {
        match transaction().await {
            Err(error) if attempt < ATTEMPTS && fault::conflict(&error) => {
                tracing::debug!(attempt, %error, "transaction runs again");
                attempt += 1;
            }
            done => return done,
        }
    }
}

impl PostgresStore {
    /// Begins a transaction in which every statement sees what was committed before it.
    async fn begin_write(&self) -> Result<Tx, Error> {
        Ok(self.pool.begin().await?)
    }

    /// Begins a transaction that reads the record as of one moment.
    async fn begin_read(&self) -> Result<Tx, Error> {
        Ok(self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn farm_id(&self) -> Result<Uuid, Error> {
        Ok(self.farm)
    }

    async fn lead(&self, holder: &str) -> Result<Option<Term>, Error> {
        self.take_lead(holder).await
    }

    async fn resign(&self, holder: &str) -> Result<(), Error> {
        self.give_lead_up(holder).await
    }

    async fn tell_leader(&self) -> Result<(), Error> {
        self.notify_leader().await
    }

    async fn told(&self) -> Result<(), Error> {
        self.notified().await
    }

    async fn lease(&self) -> Result<Option<Duration>, Error> {
        self.farm_lease().await
    }

    async fn set_lease(&self, from: Option<Duration>, to: Duration) -> Result<Duration, Error> {
        self.agree_on_lease(from, to).await
    }

    async fn register_cascade(&self, cascade: &Cascade) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO cascades (digest, name, encoder, cascade) VALUES ($1, $2, $3, $4::jsonb)
             ON CONFLICT (digest) DO NOTHING",
        )
        .bind(cascade.digest().0)
        .bind(&cascade.spec.name)
        .bind(cascade.encoder_digest().0)
        .bind(rows::to_json(cascade)?)
        .execute(&self.pool)
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
        retried(|| self.submit_job(job, prompts, content)).await
    }

    async fn begin(&self, job: &NewJob) -> Result<(), Error> {
        retried(|| self.begin_job(job)).await
    }

    async fn receive(&self, job: JobId, prompts: &[NewPrompt]) -> Result<(), Error> {
        retried(|| self.receive_prompts(job, prompts)).await
    }

    async fn accept(&self, job: JobId, content: Digest) -> Result<Submitted, Error> {
        retried(|| self.accept_job(job, content)).await
    }

    async fn abandon(&self, job: JobId) -> Result<(), Error> {
        retried(|| self.abandon_job(job)).await
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
        retried(|| self.dispatch_picks(term, pool, picks)).await
    }

    async fn dispatched(&self, pool: &PoolId) -> Result<Vec<TaskKey>, Error> {
        self.dispatched_tasks(pool).await
    }

    async fn dispatched_of_job(&self, job: JobId) -> Result<Vec<(PoolId, TaskKey)>, Error> {
        self.dispatched_tasks_of(job).await
    }

    async fn commit(&self, pool: &PoolId, reports: &[Report]) -> Result<Committed, Error> {
        Ok(retried(|| self.commit_reports(pool, reports, &[])).await?.0)
    }

    async fn commit_onward(
        &self,
        pool: &PoolId,
        reports: &[Report],
        onward: &[Onward],
    ) -> Result<(Committed, Vec<(PoolId, Dispatched)>), Error> {
        retried(|| self.commit_reports(pool, reports, onward)).await
    }

    async fn release(
        &self,
        term: Term,
        pool: &PoolId,
        tasks: &[TaskKey],
        why: &Release,
    ) -> Result<Committed, Error> {
        retried(|| self.release_tasks(term, pool, tasks, why)).await
    }

    async fn spread(&self, limit: u64) -> Result<Committed, Error> {
        retried(|| self.spread_texts(limit)).await
    }

    async fn follow(&self, limit: u64) -> Result<Committed, Error> {
        retried(|| self.follow_jobs(limit)).await
    }

    async fn cancel(&self, job: JobId) -> Result<JobRecord, Error> {
        retried(|| self.cancel_job(job)).await
    }

    async fn pause(&self, job: JobId) -> Result<JobRecord, Error> {
        retried(|| self.hold_job(job, JobEvent::Pause)).await
    }

    async fn resume(&self, job: JobId) -> Result<JobRecord, Error> {
        retried(|| self.hold_job(job, JobEvent::Resume)).await
    }

    async fn retry(&self, job: JobId, deadline: NewDeadline) -> Result<JobRecord, Error> {
        retried(|| self.retry_job(job, deadline)).await
    }

    async fn end_overdue(&self, term: Term, limit: u32) -> Result<Vec<JobId>, Error> {
        retried(|| self.end_overdue_jobs(term, limit)).await
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
        retried(|| self.set_worker_aside(term, worker, reason)).await
    }

    async fn take_back(&self, term: Term, worker: &WorkerId) -> Result<(), Error> {
        retried(|| self.take_worker_back(term, worker)).await
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

    async fn view(&self, job: JobId, notes: u32) -> Result<(JobRecord, Around), Error> {
        self.viewed(job, notes).await
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
        self.claim_manifests(limit).await
    }

    async fn manifest_written(
        &self,
        job: JobId,
        generation: u32,
        key: &str,
        sha256: Digest,
    ) -> Result<bool, Error> {
        retried(|| self.manifest_is_written(job, generation, key, sha256)).await
    }

    async fn overlooked(&self) -> Result<u64, Error> {
        self.jobs_overlooked().await
    }

    async fn finish_overlooked(&self) -> Result<Vec<JobId>, Error> {
        retried(|| self.finish_overlooked_jobs()).await
    }

    async fn prune_changes(&self) -> Result<bool, Error> {
        retried(|| self.prune_job_changes()).await
    }

    async fn audit(&self, job: JobId) -> Result<Vec<String>, Error> {
        self.audit_job(job).await
    }

    async fn count(&self, state: JobState) -> Result<u64, Error> {
        self.count_jobs(state).await
    }

    async fn diagnose(&self) -> Option<String> {
        Some(self.servers.diagnose().await?.message)
    }

    async fn close(&self) {
        if let Ok(mut listener) = self.listener.try_lock() {
            listener.take();
        }
        self.servers.leave(&self.pool);
        self.pool.close().await;
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.servers.leave(&self.pool);
    }
}
