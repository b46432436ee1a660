//! The farm over gRPC: every call has a deadline, what may pass is tried again with backoff, streams resume where they
//! broke, and failures come out as the farm's own sentences.

use std::{future::Future, sync::Arc, time::Duration};

use darkroom_core::{
    digest::Digest,
    error::{Code, UserError},
};
use darkroom_proto::{
    status::from_status,
    v1::{self, farm_client::FarmClient},
};
use prost::Message as _;
use tokio::time::Instant;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::failure::{self, Result};

/// Deadline of one attempt at a unary call.
const CALL: Duration = Duration::from_secs(30);
/// Deadline of a streaming submit.
const SUBMIT: Duration = Duration::from_secs(600);
/// How long a call that finds no farm is tried again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a broken stream is resumed without hearing anything.
const STREAM_PATIENCE: Duration = Duration::from_secs(300);
/// Prompts and bytes that go into one message.
const CHUNK_PROMPTS: usize = 1_000;
const CHUNK_BYTES: usize = 1 << 20;
/// Bytes of a picture that go into one message.
const UPLOAD_BYTES: usize = 64 << 10;
/// Largest message taken from the farm.
const MAX_MESSAGE: usize = 16 << 20;

/// A farm's client. Clones share the connection.
#[derive(Clone)]
pub(crate) struct Client {
    address: Arc<str>,
    farm: FarmClient<Channel>,
}

/// A job as it was accepted.
pub(crate) struct Submitted {
    pub(crate) job: v1::Job,
    /// An earlier submit with the same request id had been accepted.
    pub(crate) existed: bool,
}

impl Client {
    /// A client of the farm at `address` (`host:port` or a URL). Connects with the first call.
    pub(crate) fn new(address: &str) -> Result<Self> {
        let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let endpoint = Endpoint::from_shared(url).ok().filter(|endpoint| endpoint.uri().port().is_some());
        let endpoint = endpoint.ok_or_else(|| {
            UserError::invalid("farm", format!("farm is {address:?}; accepted: host:port of a running farm"))
        })?;
        let channel = endpoint
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20))
            .keep_alive_while_idle(true)
            .connect_lazy();
        let farm = FarmClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        Ok(Self { address: address.into(), farm })
    }

    /// Submits a job, in one message or as a stream. The spec's request id makes a repeated attempt harmless.
    pub(crate) async fn submit(&self, spec: v1::JobSpec, prompts: Vec<v1::Prompt>) -> Result<Submitted> {
        let chunks = Arc::new(chunks(prompts));
        let response = if let [only] = chunks.as_slice() {
            let request = v1::SubmitJobRequest { spec: Some(spec), prompts: only.prompts.clone() };
            self.call(request, CALL, async |mut farm, request| farm.submit_job(request).await).await?
        } else {
            self.retrying(async || {
                let request = Self::streamed(&spec, &chunks);
                self.farm.clone().submit_job_stream(request).await
            })
            .await?
        };
        let job =
            response.job.ok_or_else(|| failure::internal("the farm accepted a job but did not name it"))?;
        Ok(Submitted { job, existed: response.existed })
    }

    /// Sends a picture to start from, or a mask. Sent again, it is stored once.
    pub(crate) async fn upload(&self, bytes: Vec<u8>) -> Result<v1::UploadInputResponse> {
        let bytes: Arc<[u8]> = bytes.into();
        self.retrying(async || {
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
        prompts: Vec<v1::Prompt>,
    ) -> Result<v1::ForecastJobResponse> {
        let chunks = Arc::new(chunks(prompts));
        self.retrying(async || {
            let request = Self::streamed(&spec, &chunks);
            self.farm.clone().forecast_job(request).await
        })
        .await
    }

    /// A job as a stream: its spec, then its prompts.
    fn streamed(
        spec: &v1::JobSpec,
        chunks: &Arc<Vec<v1::PromptChunk>>,
    ) -> Request<impl tokio_stream::Stream<Item = v1::SubmitJobChunk> + Send + 'static> {
        let spec = v1::SubmitJobChunk { part: Some(v1::submit_job_chunk::Part::Spec(spec.clone())) };
        let rest = Arc::clone(chunks);
        let prompts = (0..rest.len()).map(move |position| v1::SubmitJobChunk {
            part: Some(v1::submit_job_chunk::Part::Prompts(rest[position].clone())),
        });
        let mut request = Request::new(tokio_stream::iter(std::iter::once(spec).chain(prompts)));
        request.set_timeout(SUBMIT);
        request
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
        self.call(request, CALL, async |mut farm, request| farm.retry_job(request).await).await
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
        let give_up = Instant::now() + STREAM_PATIENCE;
        let mut backoff = Backoff::default();
        loop {
            match self.fetch_from(job, index, &mut picture).await {
                Ok(()) => break,
                Err(status) if passes(&status) && Instant::now() < give_up => backoff.wait().await,
                Err(status) => return Err(self.failure(&status)),
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
        let mut stream = self.farm.clone().fetch_image(request).await?.into_inner();
        while let Some(chunk) = stream.message().await? {
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
        let give_up = Instant::now() + STREAM_PATIENCE;
        let mut backoff = Backoff::default();
        loop {
            match self.fetch_manifest_from(job, file, &mut fetched).await? {
                Ok(()) => return Ok(fetched.sha256),
                Err(status) if passes(&status) && Instant::now() < give_up => backoff.wait().await,
                Err(status) => return Err(self.failure(&status)),
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
        let mut stream = match self.farm.clone().fetch_manifest(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Ok(Err(status)),
        };
        loop {
            match stream.message().await {
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
            ended: false,
        }
    }

    async fn call<Q: Clone, A>(
        &self,
        request: Q,
        deadline: Duration,
        send: impl AsyncFn(FarmClient<Channel>, Request<Q>) -> std::result::Result<Response<A>, Status>,
    ) -> Result<A> {
        self.retrying(async || {
            let mut request = Request::new(request.clone());
            request.set_timeout(deadline);
            send(self.farm.clone(), request).await
        })
        .await
    }

    async fn retrying<A, F>(&self, attempt: impl Fn() -> F) -> Result<A>
    where
        F: Future<Output = std::result::Result<Response<A>, Status>>,
    {
        let give_up = Instant::now() + PATIENCE;
        let mut backoff = Backoff::default();
        loop {
            match attempt().await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) if passes(&status) && Instant::now() < give_up => backoff.wait().await,
                Err(status) => return Err(self.failure(&status)),
            }
        }
    }

    /// The farm's own sentence, or one about not reaching it.
    fn failure(&self, status: &Status) -> UserError {
        let error = from_status(status);
        if error.reason != "UNKNOWN" || error.code != Code::Unavailable {
            return error;
        }
        let what = match status.code() {
            tonic::Code::DeadlineExceeded => "does not answer in time",
            _ => "cannot be reached",
        };
        UserError::new(
            Code::Unavailable,
            "FARM_UNREACHABLE",
            format!(
                "the farm at {} {what}; start one with `darkroom up`, or name another with --farm",
                self.address
            ),
        )
    }
}

/// A job's changes, each once and in order, across broken connections.
pub(crate) struct Watch {
    client: Client,
    request: v1::WatchJobRequest,
    stream: Option<Streaming<v1::WatchEvent>>,
    ended: bool,
}

impl Watch {
    /// The next change; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<v1::WatchEvent>> {
        if self.ended {
            return Ok(None);
        }
        let give_up = Instant::now() + STREAM_PATIENCE;
        let mut backoff = Backoff::default();
        loop {
            match self.receive().await {
                Ok(Some(event)) => {
                    self.request.after_version = event.version;
                    self.ended = event.end;
                    return Ok(Some(event));
                }
                // Cut before its end, as by a farm that stops: resume.
                Ok(None) if Instant::now() < give_up => backoff.wait().await,
                Err(status) if passes(&status) && Instant::now() < give_up => backoff.wait().await,
                Ok(None) => {
                    return Err(self.client.failure(&Status::unavailable("the stream ended early")));
                }
                Err(status) => return Err(self.client.failure(&status)),
            }
            self.stream = None;
        }
    }

    async fn receive(&mut self) -> std::result::Result<Option<v1::WatchEvent>, Status> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                // No deadline on the stream: the connection's keep-alive tells whether the farm lives.
                let call = self.client.farm.clone();
                let opened = tokio::time::timeout(CALL, open(call, self.request.clone())).await;
                none.insert(opened.map_err(|_| Status::deadline_exceeded("the watch did not begin"))??)
            }
        };
        stream.message().await
    }
}

async fn open(
    mut farm: FarmClient<Channel>,
    request: v1::WatchJobRequest,
) -> std::result::Result<Streaming<v1::WatchEvent>, Status> {
    Ok(farm.watch_job(request).await?.into_inner())
}

/// Whether the same call may succeed later. A full farm says RESOURCE_EXHAUSTED, which does not pass by itself.
fn passes(status: &Status) -> bool {
    matches!(status.code(), tonic::Code::Unavailable | tonic::Code::DeadlineExceeded)
        // A connection that breaks in mid-call comes as UNKNOWN or INTERNAL from the transport, without details.
        || (matches!(status.code(), tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::Cancelled)
            && std::error::Error::source(status).is_some())
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

/// Waits longer each time: 50 ms, doubling to 2 s.
#[derive(Default)]
struct Backoff {
    tries: u32,
}

impl Backoff {
    async fn wait(&mut self) {
        tokio::time::sleep(Duration::from_millis((50 << self.tries.min(6)).min(2_000))).await;
        self.tries += 1;
    }
}

/// Prompts in messages of bounded size; at least one.
fn chunks(prompts: Vec<v1::Prompt>) -> Vec<v1::PromptChunk> {
    let mut chunks = vec![v1::PromptChunk::default()];
    let mut bytes = 0;
    for prompt in prompts {
        let size = prompt.encoded_len();
        let full = chunks
            .last()
            .is_some_and(|chunk| chunk.prompts.len() >= CHUNK_PROMPTS || bytes + size > CHUNK_BYTES);
        if full {
            chunks.push(v1::PromptChunk::default());
            bytes = 0;
        }
        bytes += size;
        if let Some(chunk) = chunks.last_mut() {
            chunk.prompts.push(prompt);
        }
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_hold_every_prompt_once_in_order_within_their_bounds() {
        let prompts: Vec<_> = (0..5_000)
            .map(|number| v1::Prompt {
                text: format!("{number} {}", "x".repeat(number % 4_000)),
                ..v1::Prompt::default()
            })
            .collect();
        let chunks = chunks(prompts.clone());
        assert!(chunks.len() > 5);
        for chunk in &chunks {
            assert!(chunk.prompts.len() <= CHUNK_PROMPTS && chunk.encoded_len() < CHUNK_BYTES + 32_768);
        }
        let again: Vec<_> = chunks.into_iter().flat_map(|chunk| chunk.prompts).collect();
        assert!(again == prompts);
    }

    #[test]
    fn an_address_without_a_port_is_refused() {
        for address in ["", "localhost", "::::", "http://localhost"] {
            let error = Client::new(address).map(|_| ()).expect_err(address);
            assert_eq!(error.field.as_deref(), Some("farm"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_farm_that_is_not_there_is_named_with_a_way_out() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
        let address = free.local_addr().expect("bound").to_string();
        drop(free);
        let error = Client::new(&address).expect("address").cascades().await.expect_err("no farm");
        assert_eq!(error.code, Code::Unavailable);
        assert!(error.message.contains(&address) && error.message.contains("darkroom up"), "{error}");
    }
}
