//! Jobs and their images: get, list, cancel, pause, resume, retry.

use std::time::Duration;

use darkroom_core::{error::UserError, id::JobId, job_state::JobState};
use darkroom_farm_api::Caller;
use darkroom_proto::v1;
use darkroom_queue::Leased;
use prost::Message;
use tokio::time::timeout;

use super::{
    Farm,
    access::{Sight, tenant_filter},
    convert, job_id, listing, progress, refused,
    validate::deadline_ms,
};
use crate::{
    error::Error,
    forecasts,
    store::{
        self,
        limits::NewDeadline,
        records::{Around, Commanded, ImageOrder, JobPosition, JobRecord, Release},
    },
    tasks::by_pool,
};

/// A page is cut when it grows beyond this many bytes. Clients accept 4 MiB by default, but a
/// thousand unread pages must fit in memory.
pub(super) const PAGE_BYTES: usize = 512 << 10;
/// Longest wait for additional information in the answer to a change.
pub(super) const AFTERWARDS: Duration = Duration::from_secs(3);
/// Pause between, and number of, attempts to take back a paused job's tasks.
const TAKE_BACK_AFTER: Duration = Duration::from_millis(500);
const TAKE_BACK_AGAIN: u32 = 120;
/// Most notes in a job's view.
pub(super) const NOTES: u32 = 100;

impl Farm {
    /// A job's view for its user, with its progress.
    pub(super) async fn view(&self, job: JobRecord) -> Result<v1::Job, Error> {
        let around = self.front.around(job.id, job.priority, NOTES).await?;
        self.view_with(job, around).await
    }

    /// A job's view in a listing or an event.
    pub(super) fn listed(&self, job: JobRecord) -> v1::Job {
        let waiting_for = progress::obstacle(&self.shared, &job).unwrap_or_default();
        v1::Job { waiting_for, ..convert::job(job) }
    }

    pub(super) async fn view_with(&self, job: JobRecord, around: Around) -> Result<v1::Job, Error> {
        let wait = progress::wait(&self.shared, self.front.as_ref(), &job).await?;
        let forecast = forecasts::of_job(&self.shared, &job, around.rivals);
        let seconds = forecast
            .as_ref()
            .filter(|_| job.state == JobState::Active)
            .and_then(|left| left.seconds);
        let eta = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let late = eta.and_then(|eta| progress::missed_by(&job, eta));
        let classes = progress::classes(&self.shared, &forecasts::pools(&job), &job.loads());
        let forecast = forecast.map(|left| convert::forecast(&left, job.now_ms, classes));
        let mut view = convert::job(job);
        (view.waiting_for, view.tasks_ahead) = (wait.why, wait.tasks_ahead);
        (view.notes, view.forecast) = (around.notes, forecast);
        (view.eta, view.deadline_missed_by) = (eta.map(message), late.map(message));
        Ok(view)
    }

    /// A job's view after a committed change. An error of the view must not look like an error of
    /// the change.
    pub(super) async fn view_committed(&self, job: JobRecord) -> v1::Job {
        let id = job.id;
        let bare = convert::job(job.clone());
        match timeout(AFTERWARDS, self.view(job)).await {
            Ok(Ok(view)) => return view,
            Ok(Err(error)) => {
                tracing::warn!(job.id = %id, %error, "job answered without its progress")
            }
            Err(_) => {
                tracing::warn!(job.id = %id, "job answered without its progress: it took too long")
            }
        }
        bare
    }

    pub(super) async fn get(
        &self,
        caller: &Caller,
        request: v1::GetJobRequest,
    ) -> Result<v1::Job, Error> {
        let id = self.job_of(caller, "id", &request.id).await?;
        let (job, around) = self.front.view(id, NOTES).await?;
        self.view_with(job, around).await
    }

    pub(super) async fn list(
        &self,
        caller: &Caller,
        request: v1::ListJobsRequest,
    ) -> Result<v1::ListJobsResponse, Error> {
        let tenant = tenant_filter(caller, "tenant", &request.tenant).map_err(refused)?;
        let tokens = self.tokens().await?;
        let (query, tokens) = listing::jobs(&request, tenant, tokens).map_err(refused)?;
        let page = self.front.jobs(&query).await?;
        let mut jobs = Vec::with_capacity(page.jobs.len());
        let (mut bytes, mut next) = (0, page.next);
        let mut last = None;
        for record in page.jobs {
            let position = JobPosition::After(record.seq);
            let job = self.listed(record);
            bytes += job.encoded_len();
            if bytes > PAGE_BYTES && !jobs.is_empty() {
                next = last;
                break;
            }
            jobs.push(job);
            last = Some(position);
        }
        let next_page_token = next.map_or_else(String::new, |next| tokens.token(next));
        Ok(v1::ListJobsResponse { jobs, next_page_token })
    }

    pub(super) async fn images(
        &self,
        caller: &Caller,
        request: v1::ListImagesRequest,
    ) -> Result<v1::ListImagesResponse, Error> {
        let id = self.job_of(caller, "job_id", &request.job_id).await?;
        let query = listing::images(id, &request).map_err(refused)?;
        let stages = self.stage_names.of(self.front.as_ref(), id).await?;
        let page = self.front.images(&query).await?;
        let mut images = Vec::with_capacity(page.images.len());
        let (mut bytes, mut next) = (0, page.next);
        let mut last = None;
        for record in page.images {
            let index = Some(record.id.index);
            let position = match query.order {
                ImageOrder::Index(_) => ImageOrder::Index(index),
                ImageOrder::Version(..) => ImageOrder::Version(record.version, index),
            };
            let image = convert::image(Sight::of(caller), &stages, record);
            bytes += image.encoded_len();
            if bytes > PAGE_BYTES && !images.is_empty() {
                next = last;
                break;
            }
            images.push(image);
            last = Some(position);
        }
        let next_page_token = next.map_or_else(String::new, listing::image_token);
        Ok(v1::ListImagesResponse { images, next_page_token })
    }

    pub(super) async fn cancel(
        &self,
        caller: &Caller,
        request: v1::CancelJobRequest,
    ) -> Result<v1::Job, Error> {
        let id = self.job_of(caller, "id", &request.id).await?;
        // Also listed before the cancel, because the rows change right after it.
        let mut tasks = self.front.dispatched_of_job(id).await?;
        let Commanded { job, changed } = self.front.cancel(id).await?;
        self.call.tell_changed(changed);
        self.shared.events.follow.notify_one();
        self.shared.events.changed(&[id]);
        match self.front.dispatched_of_job(id).await {
            Ok(others) => tasks.extend(others),
            Err(error) => {
                tracing::warn!(job.id = %id, %error, "tasks of a cancelled job stay in the queue until the sweep");
            }
        }
        for (pool, keys) in by_pool(tasks) {
            if let Err(error) = self.shared.queue.remove(&pool, &keys, Leased::Remove).await {
                tracing::warn!(job.id = %id, %error, "tasks of a cancelled job stay in the queue until the sweep");
            }
        }
        Ok(self.view_committed(job).await)
    }

    pub(super) async fn delete(
        &self,
        caller: &Caller,
        request: v1::DeleteJobRequest,
    ) -> Result<v1::DeleteJobResponse, Error> {
        let id = job_id("id", &request.id)?;
        let gone = |id: JobId| v1::DeleteJobResponse { id: id.to_string(), ..Default::default() };
        // A job that is deleted already is not found. Repeating the call is no error.
        let id = match self.job_of(caller, "id", &request.id).await {
            Err(Error::Store(store::Error::Deleted { .. })) => return Ok(gone(id)),
            found => found?,
        };
        let job = match self.front.job(id).await {
            Err(store::Error::Deleted { .. }) => return Ok(gone(id)),
            found => found?,
        };
        let mut tasks = Vec::new();
        if request.cancel {
            tasks = self.front.dispatched_of_job(id).await?;
        }
        let deleted = self.front.delete_job(id, &deleted_by(caller), request.cancel).await?;
        self.shared.events.follow.notify_one();
        self.shared.events.clean.notify_one();
        self.shared.events.webhooks.notify_one();
        self.shared.events.changed(&[id]);
        for (pool, keys) in by_pool(tasks) {
            if let Err(error) = self.shared.queue.remove(&pool, &keys, Leased::Remove).await {
                tracing::warn!(job.id = %id, %error, "tasks of a deleted job stay in the queue until the sweep");
            }
        }
        let tenant = if deleted { job.tenant } else { String::new() };
        Ok(v1::DeleteJobResponse { id: id.to_string(), tenant, deleted })
    }

    pub(super) async fn pause(
        &self,
        caller: &Caller,
        request: v1::PauseJobRequest,
    ) -> Result<v1::Job, Error> {
        let id = self.job_of(caller, "id", &request.id).await?;
        let Commanded { job: paused, changed } = self.front.pause(id).await?;
        self.call.tell_changed(changed);
        if let Err(error) = self.take_back(id).await {
            tracing::warn!(job.id = %id, %error, "tasks of a paused job could not be taken \
                back; they are taken back later, or finish");
            self.shared.tasks.spawn(self.clone().take_back_later(id));
        }
        self.shared.events.changed(&[id]);
        // The job after tasks were taken back, if it can be read.
        let job = timeout(AFTERWARDS, self.front.job(id)).await;
        Ok(self.view_committed(job.ok().and_then(Result::ok).unwrap_or(paused)).await)
    }

    /// Retries a few times while the job is paused.
    async fn take_back_later(self, id: JobId) {
        for _ in 0..TAKE_BACK_AGAIN {
            self.shared.pause(TAKE_BACK_AFTER).await;
            if self.shared.stop.is_cancelled() {
                return;
            }
            match self.front.job(id).await {
                Ok(job) if job.state != JobState::Paused => return,
                Ok(_) => {}
                Err(_) => continue,
            }
            if self.take_back(id).await.is_ok() {
                self.shared.events.changed(&[id]);
                return;
            }
        }
    }

    /// Tasks that are not leased become ready again; running ones finish and commit. Uses the store
    /// that leads, because another store may have old information about this process's leadership.
    async fn take_back(&self, id: JobId) -> Result<(), Error> {
        let Some(term) = self.shared.leadership.term().await? else {
            return Ok(());
        };
        for (pool, keys) in by_pool(self.front.dispatched_of_job(id).await?) {
            let removed = self.shared.queue.remove(&pool, &keys, Leased::Keep).await?;
            let released = self.outcomes.release(term, &pool, &removed, &Release::Returned).await?;
            self.shared.committed(&released);
        }
        Ok(())
    }

    pub(super) async fn resume(
        &self,
        caller: &Caller,
        request: v1::ResumeJobRequest,
    ) -> Result<v1::Job, Error> {
        let id = self.job_of(caller, "id", &request.id).await?;
        let Commanded { job, changed } = self.front.resume(id).await?;
        self.call.tell_changed(changed);
        self.shared.events.dispatch.notify_one();
        self.shared.events.changed(&[id]);
        Ok(self.view_committed(job).await)
    }

    pub(super) async fn retry(
        &self,
        caller: &Caller,
        request: v1::RetryJobRequest,
    ) -> Result<v1::Job, Error> {
        let id = self.job_of(caller, "id", &request.id).await?;
        let deadline = new_deadline(request.deadline, request.no_deadline).map_err(refused)?;
        let Commanded { job, changed } = self.front.retry(id, deadline).await?;
        self.call.tell_changed(changed);
        self.shared.events.follow.notify_one();
        self.shared.events.dispatch.notify_one();
        self.shared.events.changed(&[id]);
        Ok(self.view_committed(job).await)
    }
}

/// Who deletes a job, as it is recorded with it.
fn deleted_by(caller: &Caller) -> String {
    caller.key().map_or_else(|| "a user".to_owned(), |key| format!("key {key}"))
}

/// The deadline that a retry requests.
pub(super) fn new_deadline(
    deadline: Option<prost_types::Timestamp>,
    none: bool,
) -> Result<NewDeadline, UserError> {
    match deadline {
        Some(_) if none => {
            let message = "no_deadline is true, and deadline is set; accepted: one of the two, or \
                neither";
            Err(UserError::invalid("no_deadline", message))
        }
        Some(deadline) => Ok(NewDeadline::At(deadline_ms("deadline", &deadline)?)),
        None if none => Ok(NewDeadline::None),
        None => Ok(NewDeadline::Same),
    }
}

fn message(time: Duration) -> prost_types::Duration {
    // A time beyond its range counts as the longest one.
    prost_types::Duration::try_from(time)
        .unwrap_or(prost_types::Duration { seconds: i64::from(i32::MAX), nanos: 0 })
}
