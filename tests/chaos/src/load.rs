//! What users do during the faults: submit jobs over a bad connection, change their minds, and
//! wait.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use darkroom_proto::v1::{
    self, CancelJobRequest, DeleteJobRequest, GetJobRequest, JobSpec, JobState, ListImagesRequest,
    PauseJobRequest, Prompt, ResumeJobRequest, RetryJobRequest, SubmitJobRequest,
    farm_client::FarmClient,
};
use darkroom_test_servers::proxy::Proxy;
use fastrand::Rng;
use prost::Message as _;
use tokio::time::{Instant, sleep};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

/// Longest time of one call before it is repeated.
const CALL: Duration = Duration::from_secs(5);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(200);
/// Most images of one page.
const PAGE: u32 = 1000;

/// The seed at which the fakes abort their process.
pub const POISON: u64 = 666_000_666;

/// What users do with a job after it was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Nothing. It must end with every image done.
    Steady,
    /// It is paused and resumed now and then, and must end with every image done.
    Wavering,
    /// It is cancelled, then retried, and must end with every image done.
    Repenting,
    /// It is cancelled, and must stay cancelled.
    Cancelled,
    /// One of its images kills the worker that renders it. That image must be dead and the others
    /// done.
    Poisoned,
    /// It has the pictures of a steady job, is deleted once it is done, and must be gone with
    /// everything that the steady job does not need.
    Deleted,
}

/// A job to submit.
#[derive(Clone, Debug)]
pub struct Order {
    /// Chosen by the client, so that a submit may be repeated.
    pub request_id: String,
    /// Beginning of its prompts. Jobs of the same subject and seed have the same pictures.
    pub subject: String,
    /// The tenant of the job.
    pub tenant: String,
    /// Distinct prompts.
    pub prompts: u32,
    /// Number of images per prompt.
    pub images_per_prompt: u32,
    /// First seed.
    pub seed: u64,
    /// What users do with it.
    pub mood: Mood,
    /// The cascade's name; empty for the fakes' cascade.
    pub cascade: String,
}

impl Order {
    /// Number of its images.
    #[must_use]
    pub fn images(&self) -> u64 {
        u64::from(self.prompts) * u64::from(self.images_per_prompt)
    }

    /// The request that submits it. It is the same for every submit.
    #[must_use]
    pub fn request(&self) -> SubmitJobRequest {
        let prompt = |position: u32| {
            // The last prompt of a poisoned job has the deadly seed.
            let poison = self.mood == Mood::Poisoned && position + 1 == self.prompts;
            let seed = self.seed + u64::from(position) * u64::from(self.images_per_prompt);
            Prompt {
                text: format!("{} picture {position}", self.subject),
                images: if poison { 1 } else { self.images_per_prompt },
                seed: Some(if poison { POISON } else { seed }),
                ..Prompt::default()
            }
        };
        SubmitJobRequest {
            spec: Some(JobSpec {
                client_request_id: self.request_id.clone(),
                tenant: self.tenant.clone(),
                cascade: self.cascade.clone(),
                images_per_prompt: self.images_per_prompt,
                seed: Some(self.seed),
                ..JobSpec::default()
            }),
            prompts: (0..self.prompts).map(prompt).collect(),
        }
    }
}

/// A client that retries with any coordinator until it gets an answer or `deadline` is over.
#[derive(Clone, Debug)]
pub struct Client {
    channels: Vec<Channel>,
    ports: Vec<u16>,
    deadline: Instant,
    lost: Arc<Lost>,
    deleted: Arc<Mutex<BTreeMap<String, Vec<String>>>>,
}

/// Submits whose reply was lost.
#[derive(Debug, Default)]
pub struct Lost {
    /// Submits in one message.
    pub unary: AtomicU64,
    /// Submits in a stream of messages.
    pub streamed: AtomicU64,
    /// Submits of both kinds that the farm had accepted: the repeated submit found the job.
    pub accepted: AtomicU64,
}

impl Client {
    /// A client of the coordinators at these ports of loopback.
    ///
    /// # Errors
    /// If one is not a valid address.
    pub fn new(ports: &[u16], deadline: Instant) -> Result<Self> {
        let channels = ports.iter().map(|port| channel(*port)).collect::<Result<_>>()?;
        Ok(Self {
            channels,
            ports: ports.to_vec(),
            deadline,
            lost: Arc::default(),
            deleted: Arc::default(),
        })
    }

    /// The replies that were lost so far.
    #[must_use]
    pub fn lost(&self) -> &Lost {
        &self.lost
    }

    /// The jobs that were deleted, with the keys of their pictures.
    #[must_use]
    pub fn deleted(&self) -> BTreeMap<String, Vec<String>> {
        self.deleted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Submits a job over a connection that loses the reply, so the result is unknown.
    async fn submit_in_vain(&self, order: &Order, streamed: bool, rng: &mut Rng) -> Result<()> {
        let proxy = Proxy::start(self.ports[rng.usize(0..self.ports.len())]);
        let request = order.request();
        proxy.lose_replies_after_bytes(Some(request.encoded_len() as u64));
        let mut farm = FarmClient::new(channel(proxy.port())?);
        let answer = if streamed {
            let spec = v1::submit_job_chunk::Part::Spec(request.spec.unwrap_or_default());
            let chunks = request.prompts.chunks(100).map(|prompts| {
                v1::submit_job_chunk::Part::Prompts(v1::PromptChunk { prompts: prompts.to_vec() })
            });
            let parts = std::iter::once(spec).chain(chunks);
            let messages: Vec<_> =
                parts.map(|part| v1::SubmitJobChunk { part: Some(part) }).collect();
            farm.submit_job_stream(tokio_stream::iter(messages)).await
        } else {
            farm.submit_job(request).await
        };
        anyhow::ensure!(answer.is_err(), "a reply came over a connection that loses replies");
        let lost = if streamed { &self.lost.streamed } else { &self.lost.unary };
        lost.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Repeats a call until it is answered. An error that a retry cannot help is returned.
    ///
    /// # Errors
    /// The coordinator's refusal, or an error when the deadline is over.
    pub async fn call<T, F>(
        &self,
        what: &str,
        mut call: impl FnMut(FarmClient<Channel>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let mut last = None;
        for turn in 0.. {
            if Instant::now() > self.deadline {
                break;
            }
            let channel = self.channels[turn % self.channels.len()].clone();
            let client = FarmClient::new(channel).max_decoding_message_size(64 << 20);
            match tokio::time::timeout(CALL, call(client)).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) if !transient(&status) => {
                    return Err(status).with_context(|| what.to_owned());
                }
                Ok(Err(status)) => last = Some(status.to_string()),
                Err(_) => last = Some("no answer".to_owned()),
            }
            sleep(PAUSE).await;
        }
        bail!("{what}: no answer in time; the last one: {}", last.unwrap_or_default())
    }

    /// Repeats a submit until one answer comes; the farm must create only one job. Also returns
    /// whether the job existed already.
    ///
    /// # Errors
    /// See [`call`](Self::call).
    pub async fn submit(&self, order: &Order) -> Result<(v1::Job, bool)> {
        let answer = self
            .call("submit", |mut farm| {
                let request = order.request();
                async move { farm.submit_job(request).await }
            })
            .await?;
        Ok((answer.job.context("an answer without a job")?, answer.existed))
    }

    /// The present state of a job.
    ///
    /// # Errors
    /// See [`call`](Self::call).
    pub async fn job(&self, id: &str) -> Result<v1::Job> {
        let id = id.to_owned();
        self.call("get job", |mut farm| {
            let request = GetJobRequest { id: id.clone() };
            async move { farm.get_job(request).await }
        })
        .await
    }

    /// Every image of a job, by index.
    ///
    /// # Errors
    /// See [`call`](Self::call). Also if an image is listed twice.
    pub async fn images(&self, job: &str) -> Result<BTreeMap<u64, v1::Image>> {
        let mut images = BTreeMap::new();
        let mut token = String::new();
        loop {
            let page = self
                .call("list images", |mut farm| {
                    let request = ListImagesRequest {
                        job_id: job.to_owned(),
                        page_size: PAGE,
                        page_token: token.clone(),
                        ..ListImagesRequest::default()
                    };
                    async move { farm.list_images(request).await }
                })
                .await?;
            for image in page.images {
                let index = image.index;
                if images.insert(index, image).is_some() {
                    bail!("image {index} of job {job} is listed twice");
                }
            }
            if page.next_page_token.is_empty() {
                return Ok(images);
            }
            token = page.next_page_token;
        }
    }

    /// Waits until a job has ended and its manifest is written.
    ///
    /// # Errors
    /// See [`call`](Self::call). Also if it has not ended in time; the error says what it waits
    /// for.
    pub async fn ended(&self, id: &str) -> Result<v1::Job> {
        let mut last = self.job(id).await?;
        loop {
            if ended(last.state()) && last.manifest() == v1::ManifestState::Written {
                return Ok(last);
            }
            sleep(PAUSE).await;
            last = self.job(id).await.with_context(|| {
                format!(
                    "job {id} had not ended: {} of {} images done, {} dead, {:?}, waiting for {:?}, stages {:?}",
                    last.images_done,
                    last.images,
                    last.images_dead,
                    last.state(),
                    last.waiting_for,
                    last.stages
                )
            })?;
        }
    }

    /// Runs a job from submit to end, as its mood says.
    ///
    /// # Errors
    /// See [`call`](Self::call).
    pub async fn live(&self, order: &Order, mut rng: Rng) -> Result<v1::Job> {
        let lost = rng.u8(0..3);
        if lost > 0 {
            self.submit_in_vain(order, lost == 2, &mut rng).await?;
        }
        let (job, existed) = self.submit(order).await?;
        if lost > 0 && existed {
            self.lost.accepted.fetch_add(1, Ordering::Relaxed);
        }
        // Repeats the submit, like a client that lost the answer.
        if rng.bool() {
            let (again, _) = self.submit(order).await?;
            anyhow::ensure!(again.id == job.id, "a repeated submit made another job");
        }
        let id = job.id;
        match order.mood {
            Mood::Steady | Mood::Poisoned | Mood::Deleted => {}
            Mood::Wavering => {
                for _ in 0..3 {
                    self.pass_some(&id, order.images() / 8, &mut rng).await?;
                    self.command("pause", &id, Command::Pause).await?;
                    sleep(Duration::from_millis(rng.u64(200..1500))).await;
                    self.command("resume", &id, Command::Resume).await?;
                }
            }
            Mood::Cancelled => {
                self.pass_some(&id, order.images() / 3, &mut rng).await?;
                self.command("cancel", &id, Command::Cancel).await?;
            }
            Mood::Repenting => {
                self.pass_some(&id, order.images() / 3, &mut rng).await?;
                self.command("cancel", &id, Command::Cancel).await?;
                sleep(Duration::from_millis(rng.u64(0..1000))).await;
                self.command("retry", &id, Command::Retry).await?;
            }
        }
        let job = self.ended(&id).await?;
        if order.mood == Mood::Deleted {
            self.delete(&id, &mut rng).await?;
        }
        Ok(job)
    }

    /// Deletes a job, sometimes twice, like a client that lost the answer.
    async fn delete(&self, id: &str, rng: &mut Rng) -> Result<()> {
        let keys: Vec<String> =
            self.images(id).await?.into_values().map(|image| image.key).collect();
        self.deleted.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), keys);
        for _ in 0..rng.u8(1..3) {
            self.call("delete", |mut farm| {
                let request = DeleteJobRequest { id: id.to_owned(), cancel: false };
                async move { farm.delete_job(request).await }
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until about this many more images are done, or for a limited time.
    async fn pass_some(&self, id: &str, images: u64, rng: &mut Rng) -> Result<()> {
        let before = self.job(id).await?.images_done;
        let give_up = Instant::now() + Duration::from_millis(rng.u64(1000..6000));
        while Instant::now() < give_up {
            let job = self.job(id).await?;
            if ended(job.state()) || job.images_done >= before + images {
                break;
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// A command may succeed, or come too late because the job has ended.
    async fn command(&self, what: &str, id: &str, command: Command) -> Result<()> {
        let id = id.to_owned();
        let answer = self
            .call(what, |mut farm| {
                let id = id.clone();
                async move {
                    match command {
                        Command::Pause => farm.pause_job(PauseJobRequest { id }).await,
                        Command::Resume => farm.resume_job(ResumeJobRequest { id }).await,
                        Command::Cancel => farm.cancel_job(CancelJobRequest { id }).await,
                        Command::Retry => {
                            farm.retry_job(RetryJobRequest { id, ..RetryJobRequest::default() })
                                .await
                        }
                    }
                }
            })
            .await;
        match answer {
            Ok(_) => Ok(()),
            Err(error) => match error.downcast_ref::<Status>() {
                Some(status) if status.code() == Code::FailedPrecondition => Ok(()),
                _ => Err(error),
            },
        }
    }
}

fn channel(port: u16) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
    Ok(endpoint.connect_timeout(CALL).timeout(CALL).connect_lazy())
}

#[derive(Clone, Copy)]
enum Command {
    Pause,
    Resume,
    Cancel,
    Retry,
}

/// Whether only a retry can change a job from this state.
#[must_use]
pub fn ended(state: JobState) -> bool {
    matches!(state, JobState::Done | JobState::Failed | JobState::Cancelled)
}

/// Whether a retry may help.
fn transient(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Aborted
    ) || (status.code() == Code::Internal && status.message().contains("h2 protocol error"))
}
