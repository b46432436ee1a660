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
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::{
    ids::Named,
    jobs::{Refused, has_ended, is_settled, request_id},
    plan::Work,
    progress::{Fault, Group, MOST_FAULTS, Progress},
    result_line::Unfinished,
    results::Written,
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
/// At most how many times jobs of a batch are submitted again without requests that the farm refuses.
const MOST_ROUNDS: usize = 100;
/// How long a step waits that could not be done.
const AGAIN: Duration = Duration::from_secs(10);
/// How long a batch tries to write its results before it has failed, milliseconds: a day.
const GIVE_UP_MS: i64 = 24 * 3600 * 1000;

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
        let (turns, tasks) = (Arc::new(Semaphore::new(AT_ONCE)), TaskTracker::new());
        let mut fails = false;
        loop {
            let turn = tokio::select! {
                turn = Arc::clone(&turns).acquire_owned() => turn,
                () = stop.cancelled() => break,
            };
            let Ok(turn) = turn else { break };
            // A new name each time: this process may lose a batch and take it again.
            let (runner, asked) = (Uuid::new_v4(), Instant::now());
            let claimed = tokio::select! {
                claimed = self.site.batches.claim_batch(runner, LEASE) => claimed,
                () = stop.cancelled() => break,
            };
            match claimed {
                Ok(Some(batch)) => {
                    fails = false;
                    let (own, stop) = (self.clone(), stop.clone());
                    tasks.spawn(stop.run_until_cancelled_owned(async move {
                        own.work_on((runner, asked), batch).await;
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
    async fn work_on(&self, (runner, asked): (Uuid, Instant), batch: Batch) {
        let (id, from) = (batch.id, batch.state);
        let told = Named::Batch.show(id);
        let caller =
            Caller::of(Some(batch.tenant.clone()), [Scope::Read, Scope::Submit], batch.key.clone());
        let work = Work { site: Arc::clone(&self.site), caller, batch };
        let step = tokio::select! {
            done = self.step(&work) => done,
            () = self.keep((runner, asked), id) => {
                tracing::debug!(batch = %told, "another runner has taken a batch");
                return;
            }
        };
        match self.site.batches.advance_batch(runner, &step).await {
            Ok(true) => {
                if step.to != from {
                    tracing::info!(batch = %told, status = %step.to, "batch");
                }
                if step.again.is_zero() {
                    self.site.bell.ring();
                }
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(batch = %told, %error, "a step of a batch is not recorded")
            }
        }
    }

    /// The next step of a batch. If it cannot be done, a step that says why: the batch waits, or
    /// has failed if it is too late.
    async fn step(&self, work: &Work) -> Step {
        let (now, error) = match self.site.batches.clock_ms().await {
            Ok(now) => match work.step(now).await {
                Ok(step) => return step,
                Err(error) => (now, error),
            },
            // If the time is unknown, nothing counts as late.
            Err(error) => (i64::MIN, error),
        };
        let told = Named::Batch.show(work.batch.id);
        tracing::warn!(batch = %told, %error, "a step of a batch failed and is tried again");
        held_up(&work.batch, now, error)
    }

    /// Says now and then that this runner still works on a batch. Ends when it has lost it.
    async fn keep(&self, (runner, mut sure): (Uuid, Instant), id: Uuid) {
        loop {
            tokio::time::sleep(RENEWAL).await;
            // The lease counts from when it was asked for, and an answer may never come.
            let asked = Instant::now();
            let renewed = self.site.batches.renew_batch(runner, id, LEASE);
            match tokio::time::timeout_at(sure + LEASE - RENEWAL, renewed).await {
                Ok(Ok(true)) => sure = asked,
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(_)) => {}
            }
        }
    }
}

impl Work {
    /// The next step, with what it has found out.
    async fn step(&self, now_ms: i64) -> Answer<Step> {
        let progress = Progress::read(&self.batch.progress)?;
        let is_over = now_ms >= self.batch.expires_ms;
        match self.batch.state {
            BatchState::Validating => self.validate(progress, is_over).await,
            BatchState::InProgress => self.follow(progress, is_over).await,
            BatchState::Finalizing => self.finalize(progress).await,
            BatchState::Cancelling => self.cancel(progress).await,
            BatchState::Completed
            | BatchState::Failed
            | BatchState::Expired
            | BatchState::Cancelled => Ok(next(&self.batch, self.batch.state, &progress, AGAIN)),
        }
    }

    /// Reads the file and submits the jobs.
    async fn validate(&self, mut progress: Progress, is_over: bool) -> Answer<Step> {
        if progress.jobs.iter().any(|group| group.job.is_none()) {
            self.note_jobs(&mut progress).await?;
        }
        if is_over {
            if progress.jobs.iter().any(|group| group.job.is_some()) {
                // What is done by now is in the results.
                return Ok(self.next(BatchState::InProgress, &progress, Duration::ZERO));
            }
            let why = progress.waiting_for.take();
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            let message = format!("the batch's time was over before its jobs were accepted{why}");
            let error = UserError::new(Code::DeadlineExceeded, "BATCH_EXPIRED", message);
            return Ok(self.fail(progress, vec![Fault::of(error, None)]));
        }
        if progress.total == 0 {
            return match self.plan().await {
                // What the file becomes is noted before anything is submitted.
                Ok(Ok(plan)) => Ok(self.next(BatchState::Validating, &plan, Duration::ZERO)),
                Ok(Err(faults)) => Ok(self.fail(progress, faults)),
                // Its row is gone. If storage has lost the file, it may be found again.
                Err(error) if error.reason == "NOT_FOUND" => {
                    Ok(self.fail(progress, vec![Fault::of(error, None)]))
                }
                Err(error) => Err(error),
            };
        }
        for position in 0..progress.jobs.len() {
            let group = &progress.jobs[position];
            if group.job.is_some() || group.refused.is_some() {
                continue;
            }
            match self.submit(&progress, position).await {
                Ok(job) => progress.jobs[position].job = Some(job),
                Err(Refused::Later(error)) => {
                    progress.waiting_for = Some(error.message);
                    let again = pause(error.retry_after);
                    return Ok(self.next(BatchState::Validating, &progress, again));
                }
                Err(Refused::Requests(blamed, error)) if progress.refusals.len() < MOST_ROUNDS => {
                    progress.refuse_alone(position, &blamed, &error);
                    return Ok(self.next(BatchState::Validating, &progress, Duration::ZERO));
                }
                Err(Refused::Requests(blamed, error)) => {
                    let line = blamed.first().map(|one| one.line);
                    progress.jobs[position].refused = Some(Fault::of(error, line));
                }
                Err(Refused::Job(fault)) => progress.jobs[position].refused = Some(fault),
            }
        }
        progress.waiting_for = None;
        match refusal(&progress) {
            None => Ok(self.next(BatchState::InProgress, &progress, POLL)),
            Some(faults) => Ok(self.fail(progress, faults)),
        }
    }

    fn fail(&self, progress: Progress, faults: Vec<Fault>) -> Step {
        fail(&self.batch, progress, faults)
    }

    /// Notes the jobs that were accepted, but whose step was not recorded.
    async fn note_jobs(&self, progress: &mut Progress) -> Answer<Vec<v1::Job>> {
        let jobs = self.known_jobs().await?;
        for (position, group) in progress.jobs.iter_mut().enumerate() {
            let id = request_id(&self.batch, position);
            let is_it =
                |job: &&v1::Job| job.spec.as_ref().is_some_and(|spec| spec.client_request_id == id);
            if group.job.is_none() {
                group.job = jobs.iter().find(is_it).map(|job| job.id.clone());
            }
        }
        Ok(jobs)
    }

    /// Waits for the jobs.
    async fn follow(&self, progress: Progress, is_over: bool) -> Answer<Step> {
        let jobs = self.jobs(&progress).await?;
        let Followed { progress, to, cancels } = followed(progress, &jobs, is_over);
        if cancels {
            self.cancel_jobs(&jobs).await?;
        }
        let again = if to == BatchState::InProgress { LOOK } else { Duration::ZERO };
        Ok(self.next(to, &progress, again))
    }

    async fn finalize(&self, mut progress: Progress) -> Answer<Step> {
        let unfinished = if progress.expired { Unfinished::Expired } else { Unfinished::JobGone };
        let began = self.since(BatchState::Finalizing);
        let Some(Written { completed, cut_off, output, errors }) =
            self.write_results(&progress, unfinished, began).await?
        else {
            return Ok(self.write_anew(progress));
        };
        progress.waiting_for = None;
        progress.completed = Some(completed);
        let state = finished(progress.expired, cut_off);
        Ok(Step { output, errors, ..self.next(state, &progress, Duration::ZERO) })
    }

    /// Cancels the jobs, waits for their ends, and writes what was done.
    async fn cancel(&self, mut progress: Progress) -> Answer<Step> {
        progress.waiting_for = None;
        let jobs = self.note_jobs(&mut progress).await?;
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
        let Some(Written { completed, output, errors, .. }) =
            self.write_results(&progress, Unfinished::Cancelled, began).await?
        else {
            return Ok(self.write_anew(progress));
        };
        progress.completed = Some(completed);
        Ok(Step { output, errors, ..self.next(BatchState::Cancelled, &progress, Duration::ZERO) })
    }

    /// Something has changed since the results were written first, so both files are written anew.
    fn write_anew(&self, mut progress: Progress) -> Step {
        progress.output = Some(Named::fresh());
        progress.errors = Some(Named::fresh());
        self.next(self.batch.state, &progress, POLL)
    }

    /// When the batch came into a state, milliseconds since 1970.
    fn since(&self, state: BatchState) -> i64 {
        since(&self.batch, state)
    }

    fn next(&self, to: BatchState, progress: &Progress, again: Duration) -> Step {
        next(&self.batch, to, progress, again)
    }
}

/// Why a batch without any accepted job has failed. `None`: it goes on, because there is a job, or
/// because each of its requests was refused by itself, so the file of errors says why.
fn refusal(progress: &Progress) -> Option<Vec<Fault>> {
    let whole: Vec<_> = progress.jobs.iter().filter(|group| group.requests > 0).collect();
    let refused: Vec<_> = whole.iter().filter_map(|group| group.refused.clone()).collect();
    if refused.is_empty() || refused.len() < whole.len() {
        return None;
    }
    let alone =
        progress.refusals.iter().map(|one| one.fault.clone().at(one.lines.first().copied()));
    Some(refused.into_iter().chain(alone).take(MOST_FAULTS).collect())
}

/// How far the jobs of a batch have come.
struct Followed {
    progress: Progress,
    /// The batch's state from now on.
    to: BatchState,
    /// Whether the jobs that go on are to be cancelled.
    cancels: bool,
}

/// What to do about a batch whose jobs are like this.
fn followed(mut progress: Progress, jobs: &[v1::Job], is_over: bool) -> Followed {
    progress.waiting_for = None;
    if jobs.iter().all(is_settled) {
        let was_never_submitted = |group: &Group| group.job.is_none() && group.refused.is_none();
        progress.expired |= is_over && progress.jobs.iter().any(was_never_submitted);
        progress.output = Some(Named::fresh());
        progress.errors = Some(Named::fresh());
        return Followed { progress, to: BatchState::Finalizing, cancels: false };
    }
    let cancels = is_over && !jobs.iter().all(has_ended);
    progress.expired |= cancels;
    Followed { progress, to: BatchState::InProgress, cancels }
}

/// The end of a batch whose results are written. If its time was over, but nothing was cut off, it
/// is complete.
fn finished(expired: bool, cut_off: u64) -> BatchState {
    if expired && cut_off > 0 { BatchState::Expired } else { BatchState::Completed }
}

/// A step that could not be done: the batch says why, and the step is tried again. If results could
/// not be written for [`GIVE_UP_MS`], or if the notes cannot be read when its time is over, the
/// batch has failed.
fn held_up(batch: &Batch, now_ms: i64, error: UserError) -> Step {
    let again = pause(error.retry_after);
    let progress = Progress::read(&batch.progress);
    let writes = [BatchState::Finalizing, BatchState::Cancelling].contains(&batch.state);
    let is_late = writes && now_ms.saturating_sub(since(batch, batch.state)) >= GIVE_UP_MS;
    if is_late || progress.is_err() && now_ms >= batch.expires_ms {
        return fail(batch, progress.unwrap_or_default(), vec![Fault::of(error, None)]);
    }
    match progress {
        Ok(progress) => {
            let waiting_for = Some(error.message);
            next(batch, batch.state, &Progress { waiting_for, ..progress }, again)
        }
        Err(_) => stay(batch, batch.progress.clone(), again),
    }
}

fn fail(batch: &Batch, progress: Progress, faults: Vec<Fault>) -> Step {
    let progress = Progress { faults, waiting_for: None, ..progress };
    next(batch, BatchState::Failed, &progress, Duration::ZERO)
}

/// When a batch came into a state, milliseconds since 1970.
fn since(batch: &Batch, state: BatchState) -> i64 {
    batch.since_ms.get(&state).copied().unwrap_or_default()
}

fn next(batch: &Batch, to: BatchState, progress: &Progress, again: Duration) -> Step {
    // Notes are texts and numbers, which always have a form.
    let progress = serde_json::to_string(progress).unwrap_or_default();
    Step { to, ..stay(batch, progress, again) }
}

fn stay(batch: &Batch, progress: String, again: Duration) -> Step {
    let Batch { id, state, output, errors, .. } = *batch;
    Step { id, from: state, to: state, progress, output, errors, again }
}

/// How long a step waits that cannot be done now.
fn pause(retry_after: Option<Duration>) -> Duration {
    retry_after.unwrap_or(AGAIN).clamp(POLL, 30 * AGAIN)
}

#[cfg(test)]
mod tests;
