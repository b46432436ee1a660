//! Jobs and their images: get, list, cancel, pause, resume, retry.

use std::time::Duration;

use darkroom_core::{error::UserError, id::JobId, job_state::JobState};
use darkroom_proto::v1;
use darkroom_queue::Leased;
use prost::Message;
use tokio::time::timeout;

use super::{
    Farm, convert, job_id, progress, refused,
    validate::{MAX_TENANT, deadline_ms, limit},
};
use crate::{
    service::Error,
    store::{
        limits::NewDeadline,
        records::{Around, ImageOrder, ImageQuery, JobQuery, JobRecord, Release},
    },
    tasks::by_pool,
};

/// Entries of a page when the request names no size, and at most.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;
/// A page is cut when it grows beyond this, well below what clients accept by default (4 MiB): a thousand pages that nobody
/// reads must fit in memory.
pub(super) const PAGE_BYTES: usize = 512 << 10;
/// Longest that an answer waits for what is only told beside a change that is made.
pub(super) const AFTERWARDS: Duration = Duration::from_secs(3);
/// How often, and how many times, what a paused job has in the queue is taken back where that failed.
const TAKE_BACK_AFTER: Duration = Duration::from_millis(500);
const TAKE_BACK_AGAIN: u32 = 120;
/// Notes told with a job.
pub(super) const NOTES: u32 = 100;

impl Farm {
    /// A job as its user sees it, with what is known of its progress.
    pub(super) async fn view(&self, job: JobRecord) -> Result<v1::Job, Error> {
        let around = self.shared.front.around(job.id, job.priority, NOTES).await?;
        self.view_with(job, around).await
    }

    pub(super) async fn view_with(&self, job: JobRecord, around: Around) -> Result<v1::Job, Error> {
        let wait = progress::wait(&self.shared, &job).await?;
        let forecast = progress::forecast(&self.shared, &job, around.rivals);
        let seconds =
            forecast.as_ref().filter(|_| job.state == JobState::Active).and_then(|left| left.seconds);
        let eta = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let late = eta.and_then(|eta| progress::missed_by(&job, eta));
        let classes = progress::classes(&self.shared, &progress::pools(&job), &job.settings);
        let forecast = forecast.map(|left| convert::forecast(&left, job.now_ms, classes));
        let mut view = convert::job(job);
        (view.waiting_for, view.tasks_ahead) = (wait.why, wait.tasks_ahead);
        (view.notes, view.forecast) = (around.notes, forecast);
        (view.eta, view.deadline_missed_by) = (eta.map(message), late.map(message));
        Ok(view)
    }

    /// A job after a change of it that is committed: a view that fails must not look like a change that failed.
    pub(super) async fn view_committed(&self, job: JobRecord) -> v1::Job {
        let id = job.id;
        let bare = convert::job(job.clone());
        match timeout(AFTERWARDS, self.view(job)).await {
            Ok(Ok(view)) => return view,
            Ok(Err(error)) => {
                tracing::warn!(job.id = %id, %error, "a job is answered without its surroundings")
            }
            Err(_) => {
                tracing::warn!(job.id = %id, "a job is answered without its surroundings: they take too long")
            }
        }
        bare
    }

    pub(super) async fn get(&self, request: v1::GetJobRequest) -> Result<v1::Job, Error> {
        let (job, around) = self.shared.front.view(job_id("id", &request.id)?, NOTES).await?;
        self.view_with(job, around).await
    }

    pub(super) async fn list(&self, request: v1::ListJobsRequest) -> Result<v1::ListJobsResponse, Error> {
        let states: Vec<_> = request
            .states
            .iter()
            .map(|state| convert::job_state_from(*state))
            .collect::<Result<_, _>>()
            .map_err(refused)?;
        limit("tenant", &request.tenant, MAX_TENANT).map_err(refused)?;
        let before = match request.page_token.as_str() {
            "" => None,
            token => Some(token.parse().map_err(|_| bad_token(token))?),
        };
        let query = JobQuery {
            tenant: Some(request.tenant).filter(|tenant| !tenant.is_empty()),
            states,
            before,
            limit: page_size(request.page_size)?,
        };
        let page = self.shared.front.jobs(&query).await?;
        let count = page.jobs.len();
        let mut jobs = Vec::with_capacity(count);
        let (mut bytes, mut token) = (0, String::new());
        for record in page.jobs {
            let next = record.seq.to_string();
            let job = convert::job(record);
            bytes += job.encoded_len();
            if bytes > PAGE_BYTES && !jobs.is_empty() {
                break;
            }
            jobs.push(job);
            token = next;
        }
        let more = page.more || jobs.len() < count;
        Ok(v1::ListJobsResponse { jobs, next_page_token: if more { token } else { String::new() } })
    }

    pub(super) async fn images(
        &self,
        request: v1::ListImagesRequest,
    ) -> Result<v1::ListImagesResponse, Error> {
        let states: Vec<_> = request
            .states
            .iter()
            .map(|state| convert::image_state_from(*state))
            .collect::<Result<_, _>>()
            .map_err(refused)?;
        let id = job_id("job_id", &request.job_id)?;
        let by_version = request.changed_since > 0;
        let order = order(&request)?;
        let query = ImageQuery { job: id, states, order, limit: page_size(request.page_size)? };
        let stages = self.stage_names.of(self.shared.front.as_ref(), id).await?;
        let page = self.shared.front.images(&query).await?;
        let count = page.images.len();
        let mut images = Vec::with_capacity(count);
        let (mut bytes, mut token) = (0, String::new());
        for record in page.images {
            let next = if by_version {
                format!("v{}.{}", record.version, record.id.index)
            } else {
                format!("i{}", record.id.index)
            };
            let image = convert::image(&stages, record);
            bytes += image.encoded_len();
            if bytes > PAGE_BYTES && !images.is_empty() {
                break;
            }
            images.push(image);
            token = next;
        }
        let more = page.more || images.len() < count;
        Ok(v1::ListImagesResponse { images, next_page_token: if more { token } else { String::new() } })
    }

    pub(super) async fn cancel(&self, id: &str) -> Result<v1::Job, Error> {
        let id = job_id("id", id)?;
        // Listed before as well: the rows follow the cancel at once.
        let mut tasks = self.shared.front.dispatched_of_job(id).await?;
        let job = self.shared.front.cancel(id).await?;
        self.shared.events.follow.notify_one();
        self.shared.events.changed(&[id]);
        match self.shared.front.dispatched_of_job(id).await {
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

    pub(super) async fn pause(&self, id: &str) -> Result<v1::Job, Error> {
        let id = job_id("id", id)?;
        let paused = self.shared.front.pause(id).await?;
        if let Err(error) = self.take_back(id).await {
            tracing::warn!(job.id = %id, %error, "what a paused job has in the queue is taken back later, or finishes");
            self.shared.tasks.spawn(self.clone().take_back_later(id));
        }
        self.shared.events.changed(&[id]);
        // As it is after what was taken back, if that can be read.
        let job = timeout(AFTERWARDS, self.shared.front.job(id)).await;
        Ok(self.view_committed(job.ok().and_then(Result::ok).unwrap_or(paused)).await)
    }

    /// Tries again for a while, for as long as the job is paused.
    async fn take_back_later(self, id: JobId) {
        for _ in 0..TAKE_BACK_AGAIN {
            self.shared.pause(TAKE_BACK_AFTER).await;
            if self.shared.stop.is_cancelled() {
                return;
            }
            match self.shared.front.job(id).await {
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

    /// What is not leased goes back to ready; what runs, finishes and commits. By the store that leads: another one would
    /// know of the process's leadership only what it last heard itself.
    async fn take_back(&self, id: JobId) -> Result<(), Error> {
        let Some(term) = self.shared.store.lead(&self.shared.holder).await? else { return Ok(()) };
        for (pool, keys) in by_pool(self.shared.front.dispatched_of_job(id).await?) {
            let removed = self.shared.queue.remove(&pool, &keys, Leased::Keep).await?;
            let released = self.shared.store.release(term, &pool, &removed, &Release::Returned).await?;
            self.shared.committed(&released);
        }
        Ok(())
    }

    pub(super) async fn resume(&self, id: &str) -> Result<v1::Job, Error> {
        let id = job_id("id", id)?;
        let job = self.shared.front.resume(id).await?;
        self.shared.events.dispatch.notify_one();
        self.shared.events.changed(&[id]);
        Ok(self.view_committed(job).await)
    }

    pub(super) async fn retry(&self, request: v1::RetryJobRequest) -> Result<v1::Job, Error> {
        let id = job_id("id", &request.id)?;
        let deadline = match request.deadline {
            Some(_) if request.no_deadline => {
                let message = "no_deadline is true beside a deadline; accepted: one of the two, or neither";
                return Err(refused(UserError::invalid("no_deadline", message)));
            }
            Some(deadline) => NewDeadline::At(deadline_ms("deadline", &deadline).map_err(refused)?),
            None if request.no_deadline => NewDeadline::None,
            None => NewDeadline::Same,
        };
        let job = self.shared.front.retry(id, deadline).await?;
        self.shared.events.follow.notify_one();
        self.shared.events.dispatch.notify_one();
        self.shared.events.changed(&[id]);
        Ok(self.view_committed(job).await)
    }
}

fn message(time: Duration) -> prost_types::Duration {
    // What is beyond its range is as good as for ever.
    prost_types::Duration::try_from(time)
        .unwrap_or(prost_types::Duration { seconds: i64::from(i32::MAX), nanos: 0 })
}

fn page_size(wanted: u32) -> Result<u32, Error> {
    match wanted {
        0 => Ok(PAGE),
        1..=MAX_PAGE => Ok(wanted),
        _ => Err(refused(UserError::invalid(
            "page_size",
            format!("page_size is {wanted}; accepted: 1 to {MAX_PAGE}, or 0 for {PAGE}"),
        ))),
    }
}

fn bad_token(token: &str) -> Error {
    refused(UserError::invalid(
        "page_token",
        format!("page_token is {token:?}; accepted: a next_page_token of the same listing, or none"),
    ))
}

/// Tokens: `i{index}` in index order, `v{version}.{index}` in version order.
fn order(request: &v1::ListImagesRequest) -> Result<ImageOrder, Error> {
    let token = request.page_token.as_str();
    if request.changed_since > 0 {
        if token.is_empty() {
            return Ok(ImageOrder::Version(request.changed_since, None));
        }
        let parsed = token
            .strip_prefix('v')
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(version, index)| Some((version.parse().ok()?, index.parse().ok()?)));
        let (version, index) = parsed.ok_or_else(|| bad_token(token))?;
        return Ok(ImageOrder::Version(version, Some(index)));
    }
    if token.is_empty() {
        return Ok(ImageOrder::Index(None));
    }
    let index = token.strip_prefix('i').and_then(|rest| rest.parse().ok()).ok_or_else(|| bad_token(token))?;
    Ok(ImageOrder::Index(Some(index)))
}
