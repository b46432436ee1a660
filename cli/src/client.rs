//! The farm over gRPC: every call has a deadline, what may pass is tried again with backoff, streams resume where they
//! broke, and failures come out as the farm's own sentences, or as one about the proxy or the stranger that answered.

use std::{
    future::Future,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use darkroom_core::{
    digest::Digest,
    error::{Code, UserError},
};
use darkroom_proto::{
    status::from_status,
    v1::{self, farm_client::FarmClient},
};
use darkroom_runtime::peer::{self, Addresses, Patience, Peers, Trouble};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming, codec::CompressionEncoding};

use crate::{
    failure::{self, Result},
    spool::Prompts,
};

/// Deadline of one attempt at a unary call.
const CALL: Duration = Duration::from_secs(30);
/// Deadline of a streaming submit.
const SUBMIT: Duration = Duration::from_secs(600);
/// How long a call that finds no farm is tried again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a broken stream is resumed, from its first failure on, without hearing anything.
const STREAM_PATIENCE: Duration = Duration::from_secs(300);
/// Time on top of a call's deadline in which the farm may say itself that it passed.
const GRACE: Duration = Duration::from_secs(5);
/// A stream that was open for so long before it broke counts as a success, though nothing came on it.
const LASTED: Duration = Duration::from_secs(1);
/// A watch that repeats its job where nothing changes is broken when it is silent for so long.
const SILENCE: Duration = Duration::from_secs(90);
/// Largest message that a farm takes.
const MAX_SENT: usize = 4 << 20;
/// Bytes of a picture that go into one message.
const UPLOAD_BYTES: usize = 64 << 10;
/// Largest message taken from the farm.
const MAX_MESSAGE: usize = 16 << 20;

/// A farm's client. Clones share the connection.
#[derive(Clone)]
pub(crate) struct Client {
    peers: Peers,
    farm: FarmClient<Peers>,
}

/// A job as it was accepted.
pub(crate) struct Submitted {
    pub(crate) job: v1::Job,
    /// An earlier submit with the same request id had been accepted.
    pub(crate) existed: bool,
}

impl Client {
    /// A client of the farm at `address`, the value of `--farm`. Connects with the first call.
    pub(crate) fn new(address: &str) -> Result<Self> {
        Ok(Self::over(Peers::connect(&Addresses::parse(address)?)?))
    }

    /// A client that calls these peers. Compressed answers are taken; requests are not compressed, since an older farm would
    /// refuse them.
    fn over(peers: Peers) -> Self {
        let farm = FarmClient::new(peers.clone())
            .accept_compressed(CompressionEncoding::Zstd)
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_SENT);
        Self { peers, farm }
    }

    /// Submits a job, in one message or as a stream. The spec's request id makes a repeated attempt harmless.
    /// What does not fit into one message is sent as a stream.
    pub(crate) async fn submit(&self, spec: v1::JobSpec, prompts: Prompts) -> Result<Submitted> {
        let response = if prompts.chunks() == 1 {
            let only = prompts.chunk(0).map_err(lost)?;
            let request = v1::SubmitJobRequest { spec: Some(spec), prompts: only.prompts };
            self.call(request, CALL, async |mut farm, request| farm.submit_job(request).await).await?
        } else {
            let outgoing = Outgoing::new(spec, prompts);
            let sent =
                self.retrying(SUBMIT, async || self.farm.clone().submit_job_stream(outgoing.request()).await);
            outgoing.unless_lost(sent.await)?
        };
        let job =
            response.job.ok_or_else(|| failure::internal("the farm accepted a job but did not name it"))?;
        Ok(Submitted { job, existed: response.existed })
    }

    /// Sends a picture to start from, or a mask. Sent again, it is stored once.
    pub(crate) async fn upload(&self, bytes: Vec<u8>) -> Result<v1::UploadInputResponse> {
        let bytes: Arc<[u8]> = bytes.into();
        self.retrying(SUBMIT, async || {
            let rest = Arc::clone(&bytes);
            let chunks = (0..rest.len()).step_by(UPLOAD_BYTES).map(move |at| v1::UploadInputChunk {
                data: rest[at..rest.len().min(at + UPLOAD_BYTES)].to_vec(),
            });
            let mut request = Request::new(tokio_stream::iter(chunks));
            request.set_timeout(SUBMIT);
            self.farm.clone().upload_input(request).await
        })
        .await
    }

    /// What a job would take; nothing is submitted.
    pub(crate) async fn forecast(
        &self,
        spec: v1::JobSpec,
        prompts: Prompts,
    ) -> Result<v1::ForecastJobResponse> {
        let outgoing = Outgoing::new(spec, prompts);
        let sent = self.retrying(SUBMIT, async || self.farm.clone().forecast_job(outgoing.request()).await);
        outgoing.unless_lost(sent.await)
    }

    /// The job as it stands.
    pub(crate) async fn job(&self, id: &str) -> Result<v1::Job> {
        let request = v1::GetJobRequest { id: id.to_owned() };
        self.call(request, CALL, async |mut farm, request| farm.get_job(request).await).await
    }

    /// One page of jobs, newest first, and the token of the next.
    pub(crate) async fn jobs(&self, states: &[v1::JobState], token: String) -> Result<v1::ListJobsResponse> {
        let request = v1::ListJobsRequest {
            page_size: 1000,
            page_token: token,
            tenant: String::new(),
            states: states.iter().map(|state| i32::from(*state)).collect(),
        };
        self.call(request, CALL, async |mut farm, request| farm.list_jobs(request).await).await
    }

    /// One page of a job's images in order of their index, and the token of the next.
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
            changed_since: 0,
        };
        self.call(request, CALL, async |mut farm, request| farm.list_images(request).await).await
    }

    /// Ends a job.
    pub(crate) async fn cancel(&self, id: &str) -> Result<v1::Job> {
        let request = v1::CancelJobRequest { id: id.to_owned() };
        self.call(request, CALL, async |mut farm, request| farm.cancel_job(request).await).await
    }

    /// Pauses a job.
    pub(crate) async fn pause(&self, id: &str) -> Result<v1::Job> {
        let request = v1::PauseJobRequest { id: id.to_owned() };
        self.call(request, CALL, async |mut farm, request| farm.pause_job(request).await).await
    }

    /// Goes on with a paused job.
    pub(crate) async fn resume(&self, id: &str) -> Result<v1::Job> {
        let request = v1::ResumeJobRequest { id: id.to_owned() };
        self.call(request, CALL, async |mut farm, request| farm.resume_job(request).await).await
    }

    /// Runs dead and cancelled images again.
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
            // An answer was lost on its way, and the job is no longer as it was: that try did it.
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

    /// The farm itself.
    pub(crate) async fn farm(&self) -> Result<v1::GetFarmResponse> {
        let request = v1::GetFarmRequest {};
        self.call(request, CALL, async |mut farm, request| farm.get_farm(request).await).await
    }

    /// The workers.
    pub(crate) async fn workers(&self) -> Result<Vec<v1::Worker>> {
        let request = v1::ListWorkersRequest {};
        Ok(self
            .call(request, CALL, async |mut farm, request| farm.list_workers(request).await)
            .await?
            .workers)
    }

    /// Asks a worker, or all of a host, to drain.
    pub(crate) async fn drain(&self, request: v1::DrainWorkerRequest) -> Result<Vec<v1::Worker>> {
        let answer =
            self.call(request, CALL, async |mut farm, request| farm.drain_worker(request).await).await?;
        Ok(answer.workers)
    }

    /// The cascades.
    pub(crate) async fn cascades(&self) -> Result<Vec<v1::Cascade>> {
        let request = v1::ListCascadesRequest {};
        let answer =
            self.call(request, CALL, async |mut farm, request| farm.list_cascades(request).await).await?;
        Ok(answer.cascades)
    }

    /// A picture's bytes, whole and with the hash the farm says they have. A broken stream goes on where it broke.
    pub(crate) async fn fetch(&self, job: &str, index: u64) -> Result<Vec<u8>> {
        let mut picture = Picture::default();
        let mut patience = Patience::new(STREAM_PATIENCE, self.peers.count());
        loop {
            let before = picture.bytes.len();
            let Err(status) = self.fetch_from(job, index, &mut picture).await else { break };
            if picture.bytes.len() > before {
                patience.reset();
            }
            if !patience.another(&status).await {
                return Err(self.failure(&status));
            }
        }
        if Digest::of(&picture.bytes).to_string() != picture.sha256 {
            return Err(failure::internal(format!(
                "image {index} of job {job} arrived with another hash than the farm has; fetch it again"
            )));
        }
        Ok(picture.bytes)
    }

    /// A link to a picture in the farm's storage.
    pub(crate) async fn sign(
        &self,
        job: &str,
        index: u64,
        link_seconds: u32,
    ) -> Result<v1::SignImageResponse> {
        let request = v1::SignImageRequest { job_id: job.to_owned(), index, link_seconds };
        self.call(request, CALL, async |mut farm, request| farm.sign_image(request).await).await
    }

    async fn fetch_from(
        &self,
        job: &str,
        index: u64,
        picture: &mut Picture,
    ) -> std::result::Result<(), Status> {
        let mut request = Request::new(v1::FetchImageRequest {
            job_id: job.to_owned(),
            index,
            offset: picture.bytes.len() as u64,
        });
        request.set_timeout(CALL);
        let mut farm = self.farm.clone();
        let mut stream = within(CALL + GRACE, farm.fetch_image(request)).await?.into_inner();
        while let Some(chunk) = within(CALL, stream.message()).await? {
            if !chunk.sha256.is_empty() {
                if !picture.sha256.is_empty() && picture.sha256 != chunk.sha256 {
                    // Another generation's picture: begin again.
                    *picture = Picture::default();
                    return Err(Status::unavailable("the picture changed while it was fetched"));
                }
                picture.sha256 = chunk.sha256;
                picture.total = chunk.total_bytes;
            }
            picture.bytes.extend_from_slice(&chunk.data);
        }
        if (picture.bytes.len() as u64) < picture.total {
            return Err(Status::unavailable("the stream ended early"));
        }
        Ok(())
    }

    /// Writes a job's manifest to `file` and returns the SHA-256 that SQL says it has. A broken stream goes on where it
    /// broke.
    pub(crate) async fn fetch_manifest(&self, job: &str, file: &mut std::fs::File) -> Result<String> {
        let mut fetched = Fetched::default();
        let mut patience = Patience::new(STREAM_PATIENCE, self.peers.count());
        loop {
            let before = fetched.bytes;
            let Err(status) = self.fetch_manifest_from(job, file, &mut fetched).await? else {
                return Ok(fetched.sha256);
            };
            if fetched.bytes > before {
                patience.reset();
            }
            if !patience.another(&status).await {
                return Err(self.failure(&status));
            }
        }
    }

    async fn fetch_manifest_from(
        &self,
        job: &str,
        file: &mut std::fs::File,
        fetched: &mut Fetched,
    ) -> Result<std::result::Result<(), Status>> {
        let request = v1::FetchManifestRequest { job_id: job.to_owned(), offset: fetched.bytes };
        let mut farm = self.farm.clone();
        let mut stream = match within(CALL + GRACE, farm.fetch_manifest(request)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Ok(Err(status)),
        };
        loop {
            match within(CALL, stream.message()).await {
                Ok(Some(chunk)) => {
                    if !chunk.sha256.is_empty() {
                        if !fetched.sha256.is_empty() && fetched.sha256 != chunk.sha256 {
                            return Err(failure::internal(
                                "the job was retried while its manifest was fetched",
                            ));
                        }
                        fetched.sha256 = chunk.sha256;
                        fetched.total = chunk.total_bytes;
                    }
                    std::io::Write::write_all(file, &chunk.data).map_err(failure::internal)?;
                    fetched.bytes += chunk.data.len() as u64;
                }
                Ok(None) if fetched.bytes == fetched.total => return Ok(Ok(())),
                Ok(None) => return Ok(Err(Status::unavailable("the stream ended early"))),
                Err(status) => return Ok(Err(status)),
            }
        }
    }

    /// Follows a job from a version on.
    pub(crate) fn watch(&self, job: &str, after: u64, images: bool) -> Watch {
        Watch {
            client: self.clone(),
            request: v1::WatchJobRequest { id: job.to_owned(), after_version: after, images },
            stream: None,
            opened: None,
            patience: Patience::new(STREAM_PATIENCE, self.peers.count()),
            ended: false,
            repeated: false,
            repeats: false,
        }
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

    /// Tries a call until it has an answer or the patience is over. Every call can be repeated: a submit carries an id of its
    /// own, and the others find done what was asked for.
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

    /// The farm's own sentence, or one about what is in its place.
    fn failure(&self, status: &Status) -> UserError {
        if let Some(trouble) = Trouble::of(status) {
            return trouble.to_user();
        }
        let error = from_status(status);
        if error.reason != "UNKNOWN" {
            return error;
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

/// A job's changes, each once and in order, across broken connections.
pub(crate) struct Watch {
    client: Client,
    request: v1::WatchJobRequest,
    stream: Option<Streaming<v1::WatchEvent>>,
    /// When the stream began.
    opened: Option<Instant>,
    patience: Patience,
    ended: bool,
    /// The last event only repeats the job at its version.
    repeated: bool,
    /// The farm sends such events, so that silence means something.
    repeats: bool,
}

impl Watch {
    /// The next change, or the job as it stands while nothing changes; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<v1::WatchEvent>> {
        if self.ended {
            return Ok(None);
        }
        loop {
            let failure = match self.receive().await {
                Ok(Some(event)) => {
                    self.patience.reset();
                    self.repeated = event.version == self.request.after_version
                        && event.images.is_empty()
                        && !event.end
                        && event.version > 0;
                    self.repeats |= self.repeated;
                    self.request.after_version = event.version;
                    self.ended = event.end;
                    return Ok(Some(event));
                }
                // Cut before its end, as by a farm that stops: resume.
                Ok(None) => Status::unavailable("the stream ended early"),
                Err(status) => status,
            };
            self.stream = None;
            // A proxy that cuts what is quiet must not use the patience up, one cut after the other.
            if self.opened.take().is_some_and(|opened| opened.elapsed() >= LASTED) {
                self.patience.reset();
            }
            if !self.patience.another(&failure).await {
                return Err(self.client.failure(&failure));
            }
        }
    }

    /// Whether the last event changed nothing.
    pub(crate) fn repeated(&self) -> bool {
        self.repeated
    }

    async fn receive(&mut self) -> std::result::Result<Option<v1::WatchEvent>, Status> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                // No deadline on the stream: the connection's keep-alive tells whether the farm lives.
                let call = self.client.farm.clone();
                let opened = within(CALL, open(call, self.request.clone())).await?;
                self.opened = Some(Instant::now());
                none.insert(opened)
            }
        };
        if self.repeats { within(SILENCE, stream.message()).await } else { stream.message().await }
    }
}

/// An answer within this time, or a status that says there was none.
async fn within<A>(
    time: Duration,
    answer: impl Future<Output = std::result::Result<A, Status>>,
) -> std::result::Result<A, Status> {
    let late = |_| Status::deadline_exceeded(format!("no answer within {} s", time.as_secs()));
    tokio::time::timeout(time, answer).await.map_err(late)?
}

async fn open(
    mut farm: FarmClient<Peers>,
    request: v1::WatchJobRequest,
) -> std::result::Result<Streaming<v1::WatchEvent>, Status> {
    Ok(farm.watch_job(request).await?.into_inner())
}

#[derive(Default)]
struct Picture {
    bytes: Vec<u8>,
    total: u64,
    sha256: String,
}

/// How much of a manifest has arrived.
#[derive(Default)]
struct Fetched {
    bytes: u64,
    total: u64,
    sha256: String,
}

/// A job as a stream, which may have to be sent more than once: its spec, then its prompts.
struct Outgoing {
    spec: v1::JobSpec,
    prompts: Arc<Prompts>,
    /// Why prompts that were put aside could not be read again.
    lost: Arc<Mutex<Option<io::Error>>>,
}

impl Outgoing {
    fn new(spec: v1::JobSpec, prompts: Prompts) -> Self {
        Self { spec, prompts: Arc::new(prompts), lost: Arc::default() }
    }

    fn request(&self) -> Request<impl tokio_stream::Stream<Item = v1::SubmitJobChunk> + Send + 'static> {
        let spec = v1::SubmitJobChunk { part: Some(v1::submit_job_chunk::Part::Spec(self.spec.clone())) };
        let (prompts, lost) = (Arc::clone(&self.prompts), Arc::clone(&self.lost));
        let chunk = move |position| match prompts.chunk(position) {
            Ok(chunk) => v1::SubmitJobChunk { part: Some(v1::submit_job_chunk::Part::Prompts(chunk)) },
            Err(error) => {
                *lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                // The farm refuses it. An end would have it accept what came so far.
                v1::SubmitJobChunk { part: None }
            }
        };
        let chunks = (0..self.prompts.chunks()).map(chunk);
        let mut request = Request::new(tokio_stream::iter(std::iter::once(spec).chain(chunks)));
        request.set_timeout(SUBMIT);
        request
    }

    /// What came of it, or why it was not sent whole.
    fn unless_lost<A>(&self, sent: Result<A>) -> Result<A> {
        match self.lost.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(lost(error)),
            None => sent,
        }
    }
}

fn lost(error: io::Error) -> UserError {
    failure::file("batch", "read prompts again from", &std::env::temp_dir(), &error)
}

#[cfg(test)]
mod tests;
