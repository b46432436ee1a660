//! Works on the batches of a farm, one step after the other. What a step has found out is in the
//! batch's row before the next one begins, so after a crash another runner, perhaps of another
//! coordinator, goes on from there.

use std::{sync::Arc, time::Duration};

use darkroom_core::{
    batch_state::BatchState,
    error::{Code, UserError},
};
use darkroom_farm_api::{
    Answer, Caller, Scope,
    batches::{Batch, Step},
};
use darkroom_proto::v1;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::{
    ids::Named,
    jobs::{Refused, is_settled},
    plan::Work,
    progress::{Fault, Progress},
    results::{Unfinished, Written},
};
use crate::site::Site;

/// Batches that a coordinator works on at one time.
const AT_ONCE: usize = 4;
/// How long a runner has a batch for itself without saying that it still works.
const LEASE: Duration = Duration::from_secs(20);
/// How often it says so.
const RENEWAL: Duration = Duration::from_secs(5);
/// How often the record is asked for a batch that is due.
const POLL: Duration = Duration::from_secs(1);
/// How long a batch waits for its jobs before it looks again.
const LOOK: Duration = Duration::from_secs(2);
/// How long a step waits that could not be done.
const AGAIN: Duration = Duration::from_secs(10);

/// Works on batches until it is told to stop.
#[derive(Clone)]
pub struct BatchRunner {
    site: Arc<Site>,
}

impl BatchRunner {
    pub(crate) fn new(site: Arc<Site>) -> Self {
        Self { site }
    }

    /// Runs until `stop`. A step that is under way then is left, and done again by whoever runs
    /// next.
    pub async fn run(self, stop: CancellationToken) {
        let runner = Uuid::new_v4();
        let (turns, tasks) = (Arc::new(Semaphore::new(AT_ONCE)), TaskTracker::new());
        let mut fails = false;
        loop {
            let turn = tokio::select! {
                turn = Arc::clone(&turns).acquire_owned() => turn,
                () = stop.cancelled() => break,
            };
            let Ok(turn) = turn else { break };
            let claimed = tokio::select! {
                claimed = self.site.batches.claim_batch(runner, LEASE) => claimed,
                () = stop.cancelled() => break,
            };
            match claimed {
                Ok(Some(batch)) => {
                    fails = false;
                    let (own, stop) = (self.clone(), stop.clone());
                    tasks.spawn(stop.run_until_cancelled_owned(async move {
                        own.work_on(runner, batch).await;
                        drop(turn);
                    }));
                    continue;
                }
                Ok(None) => fails = false,
                // Once, because the record says more about its own trouble.
                Err(error) if !fails => {
                    fails = true;
                    tracing::warn!(%error, "no batch can be looked for; trying again");
                }
                Err(_) => {}
            }
            drop(turn);
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = self.site.bell.rung() => {}
                () = stop.cancelled() => break,
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Does a step of a batch, while it is this runner's.
    async fn work_on(&self, runner: Uuid, batch: Batch) {
        let (id, from) = (batch.id, batch.state);
        let told = Named::Batch.show(id);
        let caller =
            Caller::of(Some(batch.tenant.clone()), [Scope::Read, Scope::Submit], batch.key.clone());
        let work = Work { site: Arc::clone(&self.site), caller, batch };
        let done = tokio::select! {
            done = work.step() => done,
            () = self.keep(runner, id) => {
                tracing::debug!(batch = %told, "another runner has taken a batch");
                return;
            }
        };
        let step = match done {
            Ok(step) => step,
            Err(error) => {
                tracing::warn!(batch = %told, %error, "a step of a batch failed and is tried again");
                let again = error.retry_after.unwrap_or(AGAIN).clamp(POLL, 30 * AGAIN);
                work.stay(work.batch.progress.clone(), again)
            }
        };
        match self.site.batches.advance_batch(runner, &step).await {
            Ok(true) if step.to != from => {
                tracing::info!(batch = %told, status = %step.to, "batch");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(batch = %told, %error, "a step of a batch is not recorded")
            }
        }
    }

    /// Says now and then that this runner still works on a batch. Ends when it has lost it.
    async fn keep(&self, runner: Uuid, id: Uuid) {
        let mut sure = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(RENEWAL).await;
            match self.site.batches.renew_batch(runner, id, LEASE).await {
                Ok(true) => sure = tokio::time::Instant::now(),
                Ok(false) => return,
                Err(_) if sure.elapsed() >= LEASE => return,
                Err(_) => {}
            }
        }
    }
}

impl Work {
    /// The next step, with what it has found out.
    async fn step(&self) -> Answer<Step> {
        let progress = Progress::read(&self.batch.progress)?;
        match self.batch.state {
            BatchState::Validating => self.validate(progress).await,
            BatchState::InProgress => self.follow(progress).await,
            BatchState::Finalizing => self.finalize(progress).await,
            BatchState::Cancelling => self.cancel(progress).await,
            BatchState::Completed
            | BatchState::Failed
            | BatchState::Expired
            | BatchState::Cancelled => Ok(self.next(self.batch.state, &progress, AGAIN)),
        }
    }

    /// Reads the file and submits the jobs.
    async fn validate(&self, mut progress: Progress) -> Answer<Step> {
        if progress.total == 0 {
            match self.plan().await {
                Ok(Ok(plan)) => progress = plan,
                Ok(Err(faults)) => {
                    progress.faults = faults;
                    return Ok(self.next(BatchState::Failed, &progress, Duration::ZERO));
                }
                Err(error) if error.code == Code::NotFound => {
                    progress.faults = vec![Fault::of(error, None)];
                    return Ok(self.next(BatchState::Failed, &progress, Duration::ZERO));
                }
                Err(error) => return Err(error),
            }
            // What the file becomes is noted before anything is submitted.
            return Ok(self.next(BatchState::Validating, &progress, Duration::ZERO));
        }
        if self.is_over() {
            let why = progress.waiting_for.take().unwrap_or_default();
            let message = format!("the batch's time was over before its jobs were accepted: {why}");
            return self.fail(progress, Fault::of(expired(message), None)).await;
        }
        for position in 0..progress.jobs.len() {
            if progress.jobs[position].job.is_some() {
                continue;
            }
            match self.submit(&progress, position).await {
                Ok(job) => progress.jobs[position].job = Some(job),
                Err(Refused::Later(error)) => {
                    progress.waiting_for = Some(error.message);
                    let again = error.retry_after.unwrap_or(AGAIN).clamp(POLL, 30 * AGAIN);
                    return Ok(self.next(BatchState::Validating, &progress, again));
                }
                Err(Refused::Batch(fault)) => return self.fail(progress, fault).await,
            }
        }
        progress.waiting_for = None;
        Ok(self.next(BatchState::InProgress, &progress, POLL))
    }

    /// Cancels the jobs that were accepted already, and fails the batch.
    async fn fail(&self, mut progress: Progress, fault: Fault) -> Answer<Step> {
        let jobs = self.known_jobs().await?;
        self.cancel_jobs(&jobs).await?;
        progress.faults = vec![fault];
        Ok(self.next(BatchState::Failed, &progress, Duration::ZERO))
    }

    /// Waits for the jobs.
    async fn follow(&self, mut progress: Progress) -> Answer<Step> {
        let jobs = self.jobs(&progress).await?;
        if jobs.iter().all(is_settled) {
            progress.output = Some(Named::fresh());
            progress.errors = Some(Named::fresh());
            return Ok(self.next(BatchState::Finalizing, &progress, Duration::ZERO));
        }
        if self.is_over() {
            self.cancel_jobs(&jobs).await?;
            progress.expired = true;
        }
        Ok(self.next(BatchState::InProgress, &progress, LOOK))
    }

    async fn finalize(&self, mut progress: Progress) -> Answer<Step> {
        let unfinished = if progress.expired { Unfinished::Expired } else { Unfinished::JobGone };
        let Written { completed, output, errors } =
            self.write_results(&progress, unfinished, self.since(BatchState::Finalizing)).await?;
        let has_all = completed == progress.total;
        progress.completed = Some(completed);
        // Its time was over, but everything was done by then.
        let state =
            if progress.expired && !has_all { BatchState::Expired } else { BatchState::Completed };
        Ok(Step { output, errors, ..self.next(state, &progress, Duration::ZERO) })
    }

    /// Cancels the jobs, waits for their ends, and writes what was done.
    async fn cancel(&self, mut progress: Progress) -> Answer<Step> {
        let jobs = self.known_jobs().await?;
        self.cancel_jobs(&jobs).await?;
        if !jobs.iter().all(is_settled) {
            return Ok(self.next(BatchState::Cancelling, &progress, POLL));
        }
        if progress.total == 0 {
            progress.completed = Some(0);
            return Ok(self.next(BatchState::Cancelled, &progress, Duration::ZERO));
        }
        if progress.output.is_none() {
            progress.output = Some(Named::fresh());
            progress.errors = Some(Named::fresh());
            return Ok(self.next(BatchState::Cancelling, &progress, Duration::ZERO));
        }
        let began = self.since(BatchState::Cancelling);
        let Written { completed, output, errors } =
            self.write_results(&progress, Unfinished::Cancelled, began).await?;
        progress.completed = Some(completed);
        Ok(Step { output, errors, ..self.next(BatchState::Cancelled, &progress, Duration::ZERO) })
    }

    /// The jobs of the batch that were not deleted.
    pub(super) async fn jobs(&self, progress: &Progress) -> Answer<Vec<v1::Job>> {
        let mut jobs = Vec::new();
        for id in progress.jobs.iter().filter_map(|group| group.job.clone()) {
            match self.site.farm.get_job(&self.caller, v1::GetJobRequest { id }).await {
                Ok(job) => jobs.push(job),
                Err(error) if error.code == Code::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(jobs)
    }

    fn is_over(&self) -> bool {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
        now >= self.batch.expires_ms
    }

    /// When the batch came into a state, milliseconds since 1970.
    fn since(&self, state: BatchState) -> i64 {
        self.batch.since_ms.get(&state).copied().unwrap_or_default()
    }

    fn next(&self, to: BatchState, progress: &Progress, again: Duration) -> Step {
        // Notes are texts and numbers, which always have a form.
        let progress = serde_json::to_string(progress).unwrap_or_default();
        Step { to, ..self.stay(progress, again) }
    }

    fn stay(&self, progress: String, again: Duration) -> Step {
        let Batch { id, state, output, errors, .. } = self.batch;
        Step { id, from: state, to: state, progress, output, errors, again }
    }
}

fn expired(message: String) -> UserError {
    UserError::new(Code::DeadlineExceeded, "BATCH_EXPIRED", message)
}
