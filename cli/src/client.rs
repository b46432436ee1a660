//! The farm over gRPC. Every call has a deadline, temporary failures are retried with backoff, and
//! broken streams are resumed. An error is the farm's own sentence, or a sentence about the proxy
//! or other server that answered.

mod admin;
mod arrived;
mod farm_watch;
mod fetch;
mod image_views;
mod job_watch;
mod pages;
mod send;
mod waiting;
mod webhooks;

use std::{
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use darkroom_core::error::{Code, UserError};
use darkroom_proto::{
    calls::{Call, Class},
    status::from_status,
    v1::{self, farm_client::FarmClient},
};
use darkroom_runtime::{
    credential::Credentials,
    peer::{self, Addresses, Patience, Peers, Trouble},
    tls::ClientSettings,
};
use tonic::{Request, Response, Status, codec::CompressionEncoding};

use crate::failure::Result;

pub(crate) use pages::Pages;

/// Deadline of one attempt at a unary call.
const CALL: Duration = Duration::from_secs(30);
/// Time limit for one attempt at a call that sends a stream.
const LONG_CALL: Duration = Duration::from_secs(600);
/// How long a call that finds no farm is retried.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a broken stream is resumed without any answer, counted from its first failure.
const STREAM_PATIENCE: Duration = Duration::from_secs(300);
/// Time added to a call's deadline, so that the farm itself can report that it passed.
const GRACE: Duration = Duration::from_secs(5);
/// A stream that was open for this long before it broke counts as a success, even if nothing came
/// on it.
const LASTED: Duration = Duration::from_secs(1);
/// A watch repeats its job if nothing changes; if it is silent for this long, it is broken.
const SILENCE: Duration = Duration::from_secs(90);
/// Largest message that a farm accepts.
const MAX_SENT: usize = 4 << 20;
/// Largest message accepted from the farm.
const MAX_MESSAGE: usize = 16 << 20;
/// A watch that repeats itself this often within moments is no farm's; one does each 20 seconds.
const MAX_REPEATS: u32 = 1000;
const MOMENT: Duration = Duration::from_millis(100);

/// A farm's client. Clones share the connection.
#[derive(Clone)]
pub(crate) struct Client {
    peers: Peers,
    farm: FarmClient<Peers>,
}

impl Client {
    /// A client of the farm at these addresses, which shows it these keys. Connects with the first
    /// call.
    pub(crate) fn new(
        addresses: &Addresses,
        tls: &ClientSettings,
        keys: &Credentials,
    ) -> Result<Self> {
        Ok(Self::over(Peers::connect_with(addresses, addresses.secure(tls)?, keys)?))
    }

    /// A client that calls these peers. It accepts compressed answers but does not compress
    /// requests, because an older farm would refuse them.
    fn over(peers: Peers) -> Self {
        let farm = FarmClient::new(peers.clone())
            .accept_compressed(CompressionEncoding::Zstd)
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_SENT);
        Self { peers, farm }
    }

    /// The job in its present state.
    pub(crate) async fn job(&self, id: &str) -> Result<v1::Job> {
        let request = v1::GetJobRequest { id: id.to_owned() };
        self.call(request, CALL, async |mut farm, request| farm.get_job(request).await).await
    }

    /// One page of jobs, and the token of the next.
    pub(crate) async fn jobs(&self, request: v1::ListJobsRequest) -> Result<v1::ListJobsResponse> {
        self.call(request, CALL, async |mut farm, request| farm.list_jobs(request).await).await
    }

    /// One page of a job's images by index, and the token of the next page.
    pub(crate) async fn images(
        &self,
        job: &str,
        states: &[v1::ImageState],
        token: String,
    ) -> Result<v1::ListImagesResponse> {
        let request = v1::ListImagesRequest {
            job_id: job.to_owned(),
            page_size: 1000,
            page_token: token,
            states: states.iter().map(|state| i32::from(*state)).collect(),
            ..v1::ListImagesRequest::default()
        };
        self.images_of(request).await
    }

    /// One page of the images that are asked for, and the token of the next.
    pub(crate) async fn images_of(
        &self,
        request: v1::ListImagesRequest,
    ) -> Result<v1::ListImagesResponse> {
        self.call(request, CALL, async |mut farm, request| farm.list_images(request).await).await
    }

    /// How a job's images failed, by code.
    pub(crate) async fn failures(&self, job: &str) -> Result<v1::SummarizeFailuresResponse> {
        let request = v1::SummarizeFailuresRequest { job_id: job.to_owned() };
        self.call(request, CALL, async |mut farm, request| farm.summarize_failures(request).await)
            .await
    }

    /// Ends a job.
    pub(crate) async fn cancel(&self, id: &str) -> Result<v1::Job> {
        let request = v1::CancelJobRequest { id: id.to_owned() };
        self.call(request, CALL, async |mut farm, request| farm.cancel_job(request).await).await
    }

    /// Deletes a job.
    pub(crate) async fn delete(&self, id: &str, cancel: bool) -> Result<v1::DeleteJobResponse> {
        let request = v1::DeleteJobRequest { id: id.to_owned(), cancel };
        self.call(request, CALL, async |mut farm, request| farm.delete_job(request).await).await
    }

    /// Pauses a job.
    pub(crate) async fn pause(&self, id: &str) -> Result<v1::Job> {
        let request = v1::PauseJobRequest { id: id.to_owned() };
        self.call(request, CALL, async |mut farm, request| farm.pause_job(request).await).await
    }

    /// Resumes a paused job.
    pub(crate) async fn resume(&self, id: &str) -> Result<v1::Job> {
        let request = v1::ResumeJobRequest { id: id.to_owned() };
        self.call(request, CALL, async |mut farm, request| farm.resume_job(request).await).await
    }

    /// Runs a job's dead and cancelled images again.
    pub(crate) async fn retry(&self, request: v1::RetryJobRequest) -> Result<v1::Job> {
        let id = request.id.clone();
        let before = self.job(&id).await?.state();
        let lost = AtomicBool::new(false);
        let answer = self.call(request, CALL, async |mut farm, request| {
            let answer = farm.retry_job(request).await;
            let passes = answer.as_ref().is_err_and(peer::passes);
            lost.fetch_or(passes, Ordering::Relaxed);
            answer
        });
        match answer.await {
            // An earlier attempt's answer was lost. The job has changed since, so that attempt
            // succeeded.
            Err(error)
                if error.reason == "WRONG_JOB_STATE"
                    && lost.load(Ordering::Relaxed)
                    && matches!(before, v1::JobState::Failed | v1::JobState::Cancelled) =>
            {
                self.job(&id).await
            }
            answer => answer,
        }
    }

    /// Cancels some images of a job.
    pub(crate) async fn cancel_images(
        &self,
        request: v1::CancelImagesRequest,
    ) -> Result<v1::CancelImagesResponse> {
        self.call(request, CALL, async |mut farm, request| farm.cancel_images(request).await).await
    }

    /// Runs some images of a job again, or looks for lost pictures in a part of it.
    pub(crate) async fn retry_images(
        &self,
        request: v1::RetryImagesRequest,
    ) -> Result<v1::RetryImagesResponse> {
        self.call(request, CALL, async |mut farm, request| farm.retry_images(request).await).await
    }

    /// The farm itself.
    pub(crate) async fn farm(&self) -> Result<v1::GetFarmResponse> {
        let request = v1::GetFarmRequest {};
        self.call(request, CALL, async |mut farm, request| farm.get_farm(request).await).await
    }

    pub(crate) async fn workers(&self) -> Result<Vec<v1::Worker>> {
        let request = v1::ListWorkersRequest {};
        Ok(self
            .call(request, CALL, async |mut farm, request| farm.list_workers(request).await)
            .await?
            .workers)
    }

    /// The work of every pool.
    pub(crate) async fn queue(&self) -> Result<v1::DescribeQueueResponse> {
        let request = v1::DescribeQueueRequest {};
        self.call(request, CALL, async |mut farm, request| farm.describe_queue(request).await).await
    }

    /// The past of pools.
    pub(crate) async fn history(
        &self,
        request: v1::FarmHistoryRequest,
    ) -> Result<v1::FarmHistoryResponse> {
        self.call(request, CALL, async |mut farm, request| farm.farm_history(request).await).await
    }

    /// A page of tenants' days.
    pub(crate) async fn usage(
        &self,
        request: v1::ListUsageRequest,
    ) -> Result<v1::ListUsageResponse> {
        self.call(request, CALL, async |mut farm, request| farm.list_usage(request).await).await
    }

    /// Asks a worker, or all of a host, to drain.
    pub(crate) async fn drain(&self, request: v1::DrainWorkerRequest) -> Result<Vec<v1::Worker>> {
        let answer = self
            .call(request, CALL, async |mut farm, request| farm.drain_worker(request).await)
            .await?;
        Ok(answer.workers)
    }

    pub(crate) async fn cascades(&self) -> Result<Vec<v1::Cascade>> {
        let request = v1::ListCascadesRequest {};
        let answer = self
            .call(request, CALL, async |mut farm, request| farm.list_cascades(request).await)
            .await?;
        Ok(answer.cascades)
    }

    /// A link to a picture in the farm's storage.
    pub(crate) async fn sign(
        &self,
        job: &str,
        index: u64,
        link_seconds: u32,
    ) -> Result<v1::SignImageResponse> {
        let request = v1::SignImageRequest {
            job_id: job.to_owned(),
            index,
            link_seconds,
            ..Default::default()
        };
        self.call(request, CALL, async |mut farm, request| farm.sign_image(request).await).await
    }

    async fn call<Q: Clone, A>(
        &self,
        request: Q,
        deadline: Duration,
        send: impl AsyncFn(FarmClient<Peers>, Request<Q>) -> std::result::Result<Response<A>, Status>,
    ) -> Result<A> {
        self.retrying(deadline, async || {
            let mut request = Request::new(request.clone());
            request.set_timeout(deadline);
            send(self.farm.clone(), request).await
        })
        .await
    }

    /// Retries a call until it has an answer or the patience is over. Every call can be repeated: a
    /// submit carries a request id, and repeating the others changes nothing.
    async fn retrying<A, F>(&self, deadline: Duration, attempt: impl Fn() -> F) -> Result<A>
    where
        F: Future<Output = std::result::Result<Response<A>, Status>>,
    {
        let mut patience = Patience::from_now(PATIENCE, self.peers.count());
        loop {
            match within(deadline + GRACE, attempt()).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) if patience.another(&status).await => {}
                Err(status) => return Err(self.failure(&status)),
            }
        }
    }

    /// The farm's own sentence, or one about what answers in its place.
    fn failure(&self, status: &Status) -> UserError {
        if let Some(trouble) = Trouble::of(status) {
            return trouble.to_user();
        }
        let error = from_status(status);
        if error.reason != "UNKNOWN" {
            return self.peers.advise(error);
        }
        let address = self.peers.address();
        let said = status.message();
        let (code, reason, message) = match status.code() {
            _ if peer::refused_as_too_large(status) => (
                Code::InvalidArgument,
                "MESSAGE_TOO_LARGE",
                format!(
                    "a message is too large for the farm at {address} or for this program ({said}); send prompts as a stream \
                     (SubmitJobStream), as `darkroom submit` does above 1 MiB"
                ),
            ),
            tonic::Code::Unimplemented => (
                Code::FailedPrecondition,
                "NOT_A_FARM",
                format!(
                    "the server at {address} speaks gRPC but does not know this call: it is no coordinator (perhaps a worker \
                     or an encoder), or a farm of an older version; name a coordinator of this version with --farm"
                ),
            ),
            tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => (
                Code::FailedPrecondition,
                "PROXY_ANSWERED",
                format!(
                    "the proxy at {address} does not let the call pass to the farm ({said}); allow /darkroom.v1.Farm/ there, \
                     or name the farm's own address with --farm"
                ),
            ),
            tonic::Code::DeadlineExceeded => (
                Code::Unavailable,
                "FARM_UNREACHABLE",
                format!(
                    "the farm at {address} does not answer in time; start one with `darkroom up`, or name another with \
                     --farm"
                ),
            ),
            _ if error.code == Code::Unavailable => (
                Code::Unavailable,
                "FARM_UNREACHABLE",
                format!(
                    "the farm at {address} cannot be reached ({said}); start one with `darkroom up`, or name another with \
                     --farm"
                ),
            ),
            _ => return error,
        };
        UserError::new(code, reason, message)
    }
}

/// How long one attempt at a call may take.
fn deadline(call: Call) -> Duration {
    match call.class {
        // A lasting stream opens as fast as other calls are answered.
        Class::Short | Class::Lasting => CALL,
        Class::Long => LONG_CALL,
    }
}

/// An answer within this time, or a status that says that there was none.
async fn within<A>(
    time: Duration,
    answer: impl Future<Output = std::result::Result<A, Status>>,
) -> std::result::Result<A, Status> {
    let late = |_| Status::deadline_exceeded(format!("no answer within {} s", time.as_secs()));
    tokio::time::timeout(time, answer).await.map_err(late)?
}

#[cfg(test)]
mod tests;
