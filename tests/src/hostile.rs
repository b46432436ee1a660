//! A farm whose answers contain control sequences for terminals, in every field that can have text;
//! and farms that lie to their clients, each about one thing.

use std::pin::Pin;

use darkroom_artifacts::manifest::{Header, Writer};
use darkroom_core::digest::Digest;
use darkroom_proto::v1::{
    self,
    farm_server::{Farm, FarmServer},
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// Colours, a cleared screen, a bell, a title, a line end, C1, right-to-left text, invisible
/// characters.
pub const HOSTILE: &str = "\u{1b}[31m\u{1b}[2J\u{7}\u{1b}]0;x\u{7}\nerror: forged\r\u{9b}1m\u{7f}\u{202e}gnp\u{2066}\u{200b}\u{feff}\u{e0041}";

/// Serves such a farm on a free port of loopback for as long as the runtime lives, and returns its
/// address.
///
/// # Panics
/// When it cannot listen.
pub async fn serve() -> String {
    serve_one(Hostile { lie: None }).await
}

/// Serves a farm that lies, in the same way. Its job is [`JOB`], with one image that is done.
///
/// # Panics
/// When it cannot listen.
pub async fn serve_lie(lie: Lie) -> String {
    serve_one(Hostile { lie: Some(lie) }).await
}

async fn serve_one(farm: Hostile) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(FarmServer::new(farm));
    tokio::spawn(server.serve_with_incoming(incoming));
    address
}

/// Id of the job of a farm that lies.
pub const JOB: &str = "0190a000-0000-7000-8000-000000000000";

/// What a farm lies about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Nothing: its picture and its manifest are those that it announces.
    None,
    /// A picture, a sheet or a manifest goes on after the size that was announced.
    Endless,
    /// It comes in empty pieces, without end.
    Nothing,
    /// Its announced size is that of no file.
    Vast,
    /// It is of another file each time that it is fetched, and each time breaks off.
    Changing,
    /// The picture has the hash that comes with it, and not the one that was listed. A sheet does
    /// not have the hash that comes with it.
    OtherPicture,
    /// The picture is listed and sent as it is, and is a text.
    NoPicture,
    /// Each page of a listing or of a map leads to another one.
    Pages,
    /// Each page of a listing or of a map leads to itself.
    SamePage,
    /// A watch says the same again and again.
    Repeats,
    /// The manifest has images of sizes that no sum can hold.
    Sizes,
    /// The job has more images than were asked for.
    MoreImages,
}

struct Hostile {
    lie: Option<Lie>,
}

/// Bytes that begin as a PNG does.
fn png(end: &[u8]) -> Vec<u8> {
    [&b"\x89PNG\r\n\x1a\n"[..], end].concat()
}

impl Lie {
    /// What the farm stores as its image.
    fn picture(self) -> Vec<u8> {
        match self {
            Self::NoPicture => b"#!/bin/sh\necho pwned\n".to_vec(),
            _ => png(b"a picture"),
        }
    }

    fn image(self) -> v1::Image {
        let listed = match self {
            Self::OtherPicture => png(b"another"),
            _ => self.picture(),
        };
        v1::Image {
            job_id: JOB.to_owned(),
            state: v1::ImageState::Done.into(),
            sha256: Digest::of(&listed).to_string(),
            ..Default::default()
        }
    }

    fn job(self) -> v1::Job {
        let images = if self == Self::MoreImages { u64::MAX } else { 1 };
        let state = if self == Self::Repeats { v1::JobState::Active } else { v1::JobState::Done };
        v1::Job {
            id: JOB.to_owned(),
            state: state.into(),
            images,
            images_done: 1,
            version: 1,
            ..Default::default()
        }
    }

    fn manifest(self) -> Vec<u8> {
        let picture = self.picture();
        let size = if self == Self::Sizes { u64::MAX } else { picture.len() as u64 };
        let hash = Digest::of(&picture);
        let header = Header {
            format: 1,
            job: JOB.to_owned(),
            generation: 1,
            cascade: "demo".to_owned(),
            cascade_digest: hash,
            labels: Default::default(),
            settings: serde_json::json!({}),
        };
        let mut writer = Writer::new(Vec::new(), &header).expect("memory");
        for index in 0..if self == Self::Sizes { 2 } else { 1 } {
            let line = serde_json::json!({
                "index": index, "prompt": "a", "seed": 1, "state": "done", "key": "k", "size": size,
                "sha256": hash, "dispatches": 1,
            });
            writer.image(serde_json::from_value(line).expect("a line")).expect("memory");
        }
        writer.finish().expect("memory").0
    }

    /// Chunks of a file: its hash and size, its bytes from an offset on, and what the lie adds.
    fn chunks(self, file: &[u8], offset: u64) -> Chunks<(String, u64, Vec<u8>)> {
        let digest = match self {
            Self::Changing => Digest::of(format!("{:?}", std::time::Instant::now()).as_bytes()),
            _ => Digest::of(file),
        };
        let total = match self {
            Self::Vast => u64::MAX,
            _ => file.len() as u64,
        };
        let rest = file.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let rest = if self == Self::Changing { &rest[..rest.len().min(1)] } else { rest };
        let first = (digest.to_string(), total, rest.to_vec());
        let more = match self {
            Self::Endless | Self::Vast => Some(vec![0; 1 << 16]),
            Self::Nothing => Some(Vec::new()),
            _ => None,
        };
        let first = if self == Self::Nothing { (first.0, total, Vec::new()) } else { first };
        let without_end = std::iter::repeat(more).map_while(|more| more);
        let chunks =
            std::iter::once(first).chain(without_end.map(|data| (String::new(), 0, data))).map(Ok);
        Box::pin(tokio_stream::iter(chunks))
    }

    /// The token after a page.
    fn token(self, before: &str) -> String {
        match self {
            Self::Pages => (before.parse().unwrap_or(0_u64) + 1).to_string(),
            Self::SamePage => "again".to_owned(),
            _ => String::new(),
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;
type Chunks<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn text() -> String {
    HOSTILE.to_owned()
}

fn webhook() -> v1::Webhook {
    let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    v1::Webhook {
        id: text(),
        tenant: text(),
        url: text(),
        name: text(),
        event_types: vec![text(), text()],
        last_failure: time(1_764_378_000),
        last_error: text(),
        events_waiting: 3,
        oldest_waiting: time(1_764_378_000),
        events_given_up: 2,
        suspended_until: time(1_764_378_600),
        ..Default::default()
    }
}

fn job() -> v1::Job {
    v1::Job {
        id: text(),
        spec: Some(v1::JobSpec {
            name: text(),
            tenant: text(),
            cascade: text(),
            ..Default::default()
        }),
        state: v1::JobState::Active.into(),
        images: 1,
        stages: vec![v1::StageProgress { stage: text(), total: 2, ..Default::default() }],
        waiting_for: text(),
        notes: vec![text()],
        end_reason: text(),
        ..Default::default()
    }
}

fn refusal<T>() -> Answer<T> {
    Err(Status::failed_precondition(text()))
}

#[tonic::async_trait]
impl Farm for Hostile {
    type WatchJobStream = Chunks<v1::WatchEvent>;
    type WatchFarmStream = Chunks<v1::FarmEvent>;
    type FetchImageStream = Chunks<v1::FetchImageChunk>;
    type FetchManifestStream = Chunks<v1::FetchManifestChunk>;
    type FetchSheetStream = Chunks<v1::FetchSheetChunk>;

    async fn submit_job(&self, _: Request<v1::SubmitJobRequest>) -> Answer<v1::SubmitJobResponse> {
        if let Some(lie) = self.lie {
            let job = Some(lie.job());
            return Ok(Response::new(v1::SubmitJobResponse { job, ..Default::default() }));
        }
        Ok(Response::new(v1::SubmitJobResponse { job: Some(job()), ..Default::default() }))
    }

    async fn submit_job_stream(
        &self,
        _: Request<Streaming<v1::SubmitJobChunk>>,
    ) -> Answer<v1::SubmitJobResponse> {
        refusal()
    }

    async fn upload_input(
        &self,
        _: Request<Streaming<v1::UploadInputChunk>>,
    ) -> Answer<v1::UploadInputResponse> {
        refusal()
    }

    async fn forecast_job(
        &self,
        _: Request<Streaming<v1::SubmitJobChunk>>,
    ) -> Answer<v1::ForecastJobResponse> {
        let classes =
            vec![v1::ClassForecast { device_class: text(), workers: 1, ..Default::default() }];
        let stages =
            vec![v1::StageForecast { stage: text(), images: 1, classes, ..Default::default() }];
        let forecast = Some(v1::Forecast { stages, ..Default::default() });
        let notes = vec![text()];
        let answer = v1::ForecastJobResponse { images: 1, forecast, notes, ..Default::default() };
        Ok(Response::new(answer))
    }

    async fn get_job(&self, _: Request<v1::GetJobRequest>) -> Answer<v1::Job> {
        Ok(Response::new(self.lie.map_or_else(job, Lie::job)))
    }

    async fn list_jobs(&self, asked: Request<v1::ListJobsRequest>) -> Answer<v1::ListJobsResponse> {
        if let Some(lie) = self.lie {
            let next_page_token = lie.token(&asked.get_ref().page_token);
            return Ok(Response::new(v1::ListJobsResponse {
                jobs: vec![lie.job()],
                next_page_token,
            }));
        }
        Ok(Response::new(v1::ListJobsResponse { jobs: vec![job()], ..Default::default() }))
    }

    async fn watch_job(&self, _: Request<v1::WatchJobRequest>) -> Answer<Self::WatchJobStream> {
        if let Some(lie) = self.lie {
            let event = v1::WatchEvent {
                version: 1,
                job: Some(lie.job()),
                end: lie != Lie::Repeats,
                ..Default::default()
            };
            let events = std::iter::repeat(event);
            let events = events.take(if lie == Lie::Repeats { usize::MAX } else { 1 });
            return Ok(Response::new(Box::pin(tokio_stream::iter(events.map(Ok)))));
        }
        let job = v1::Job { state: v1::JobState::Done.into(), end_reason: String::new(), ..job() };
        let last = v1::WatchEvent { version: 1, job: Some(job), end: true, ..Default::default() };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(last)))))
    }

    async fn cancel_job(&self, _: Request<v1::CancelJobRequest>) -> Answer<v1::Job> {
        refusal()
    }

    async fn delete_job(&self, _: Request<v1::DeleteJobRequest>) -> Answer<v1::DeleteJobResponse> {
        refusal()
    }

    async fn pause_job(&self, _: Request<v1::PauseJobRequest>) -> Answer<v1::Job> {
        refusal()
    }

    async fn resume_job(&self, _: Request<v1::ResumeJobRequest>) -> Answer<v1::Job> {
        refusal()
    }

    async fn retry_job(&self, _: Request<v1::RetryJobRequest>) -> Answer<v1::Job> {
        refusal()
    }

    async fn cancel_images(
        &self,
        _: Request<v1::CancelImagesRequest>,
    ) -> Answer<v1::CancelImagesResponse> {
        refusal()
    }

    async fn retry_images(
        &self,
        _: Request<v1::RetryImagesRequest>,
    ) -> Answer<v1::RetryImagesResponse> {
        refusal()
    }

    async fn list_images(
        &self,
        asked: Request<v1::ListImagesRequest>,
    ) -> Answer<v1::ListImagesResponse> {
        if let Some(lie) = self.lie {
            let next_page_token = lie.token(&asked.get_ref().page_token);
            let first = asked.get_ref().page_token.is_empty();
            return Ok(Response::new(v1::ListImagesResponse {
                images: first.then(|| lie.image()).into_iter().collect(),
                next_page_token,
            }));
        }
        let image = v1::Image {
            job_id: text(),
            stage: text(),
            prompt: text(),
            state: v1::ImageState::Done.into(),
            error_code: text(),
            error: text(),
            ..Default::default()
        };
        Ok(Response::new(v1::ListImagesResponse { images: vec![image], ..Default::default() }))
    }

    async fn get_image(&self, _: Request<v1::GetImageRequest>) -> Answer<v1::GetImageResponse> {
        let attempt = v1::Attempt {
            stage: text(),
            worker: text(),
            place: text(),
            device_class: text(),
            reason: text(),
            message: text(),
            ..Default::default()
        };
        let image =
            v1::Image { stage: text(), prompt: text(), error: text(), ..Default::default() };
        Ok(Response::new(v1::GetImageResponse { image: Some(image), attempts: vec![attempt] }))
    }

    async fn get_image_map(
        &self,
        asked: Request<v1::GetImageMapRequest>,
    ) -> Answer<v1::GetImageMapResponse> {
        if let Some(lie) = self.lie {
            let before = asked.get_ref().first_index;
            let next_index = match lie {
                Lie::Pages => before + 1,
                Lie::SamePage => 1,
                _ => 0,
            };
            let codes = vec![v1::ImageState::Ready as u32];
            let lengths = vec![if lie == Lie::Vast { u64::MAX } else { 1 }];
            let map = v1::GetImageMapResponse { codes, lengths, next_index, ..Default::default() };
            return Ok(Response::new(map));
        }
        let map = v1::GetImageMapResponse {
            images: 1,
            whole: true,
            stages: vec![text()],
            codes: vec![v1::ImageState::Ready as u32],
            lengths: vec![1],
            ..Default::default()
        };
        Ok(Response::new(map))
    }

    async fn fetch_sheet(
        &self,
        _: Request<v1::FetchSheetRequest>,
    ) -> Answer<Self::FetchSheetStream> {
        let Some(lie) = self.lie else { return refusal() };
        let chunks = lie.chunks(&lie.picture(), 0).map(move |chunk| {
            chunk.map(|(sha256, total_bytes, data)| {
                let sha256 = match lie {
                    Lie::OtherPicture if !sha256.is_empty() => Digest::of(b"another").to_string(),
                    _ => sha256,
                };
                let sheet = Some(v1::Sheet::default());
                v1::FetchSheetChunk { sha256, total_bytes, data, sheet }
            })
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn summarize_failures(
        &self,
        _: Request<v1::SummarizeFailuresRequest>,
    ) -> Answer<v1::SummarizeFailuresResponse> {
        let failure = v1::FailureSummary { code: text(), example: text(), ..Default::default() };
        let failures = vec![failure];
        Ok(Response::new(v1::SummarizeFailuresResponse { failures, ..Default::default() }))
    }

    async fn fetch_image(
        &self,
        asked: Request<v1::FetchImageRequest>,
    ) -> Answer<Self::FetchImageStream> {
        let Some(lie) = self.lie else { return refusal() };
        let chunks = lie.chunks(&lie.picture(), asked.get_ref().offset).map(|chunk| {
            chunk.map(|(sha256, total_bytes, data)| v1::FetchImageChunk {
                sha256,
                total_bytes,
                data,
                ..Default::default()
            })
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn sign_image(&self, _: Request<v1::SignImageRequest>) -> Answer<v1::SignImageResponse> {
        Ok(Response::new(v1::SignImageResponse { url: text(), ..Default::default() }))
    }

    async fn fetch_manifest(
        &self,
        asked: Request<v1::FetchManifestRequest>,
    ) -> Answer<Self::FetchManifestStream> {
        let Some(lie) = self.lie else { return refusal() };
        let chunks = lie.chunks(&lie.manifest(), asked.get_ref().offset).map(|chunk| {
            chunk.map(|(sha256, total_bytes, data)| v1::FetchManifestChunk {
                sha256,
                total_bytes,
                data,
            })
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn list_workers(
        &self,
        _: Request<v1::ListWorkersRequest>,
    ) -> Answer<v1::ListWorkersResponse> {
        let worker = v1::Worker {
            id: text(),
            host: text(),
            device: text(),
            device_class: text(),
            state: text(),
            aside_reason: text(),
            trouble: text(),
            stages: vec![v1::WorkerStage { stage: text(), ..Default::default() }],
            ..Default::default()
        };
        Ok(Response::new(v1::ListWorkersResponse { workers: vec![worker] }))
    }

    async fn drain_worker(
        &self,
        _: Request<v1::DrainWorkerRequest>,
    ) -> Answer<v1::DrainWorkerResponse> {
        refusal()
    }

    async fn list_cascades(
        &self,
        _: Request<v1::ListCascadesRequest>,
    ) -> Answer<v1::ListCascadesResponse> {
        let stages = vec![v1::CascadeStage { name: text(), size: 64, ..Default::default() }];
        let cascade = v1::Cascade { name: text(), digest: text(), description: text(), stages };
        Ok(Response::new(v1::ListCascadesResponse { cascades: vec![cascade] }))
    }

    async fn watch_farm(&self, _: Request<v1::WatchFarmRequest>) -> Answer<Self::WatchFarmStream> {
        if let Some(lie) = self.lie {
            // Each with another cursor, as a farm seals them.
            let events = (0_u64..).map(move |number| {
                let cursor = number.to_string();
                Ok(v1::FarmEvent { jobs: vec![lie.job()], cursor, ..Default::default() })
            });
            return Ok(Response::new(Box::pin(tokio_stream::iter(events))));
        }
        let worker = v1::Worker { state: text(), ..Default::default() };
        let workers = Some(v1::WorkerSnapshot { workers: vec![worker] });
        let event = v1::FarmEvent { jobs: vec![job()], workers, ..Default::default() };
        let refused = Err(Status::failed_precondition(text()));
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(event), refused]))))
    }

    async fn describe_queue(
        &self,
        _: Request<v1::DescribeQueueRequest>,
    ) -> Answer<v1::DescribeQueueResponse> {
        let pool = v1::QueuePool {
            stage: text(),
            cascade_digest: text(),
            cascade: text(),
            ..Default::default()
        };
        Ok(Response::new(v1::DescribeQueueResponse { pools: vec![pool] }))
    }

    async fn farm_history(
        &self,
        _: Request<v1::FarmHistoryRequest>,
    ) -> Answer<v1::FarmHistoryResponse> {
        let points = vec![v1::HistoryPoint::default()];
        let pool = v1::PoolHistory { stage: text(), cascade_digest: text(), points };
        Ok(Response::new(v1::FarmHistoryResponse { pools: vec![pool] }))
    }

    async fn list_usage(&self, _: Request<v1::ListUsageRequest>) -> Answer<v1::ListUsageResponse> {
        let day = v1::TenantDay { tenant: text(), day: text(), ..Default::default() };
        Ok(Response::new(v1::ListUsageResponse { days: vec![day], ..Default::default() }))
    }

    async fn create_webhook(
        &self,
        _: Request<v1::CreateWebhookRequest>,
    ) -> Answer<v1::CreateWebhookResponse> {
        let webhook = Some(webhook());
        Ok(Response::new(v1::CreateWebhookResponse { webhook, secret: text() }))
    }

    async fn list_webhooks(
        &self,
        _: Request<v1::ListWebhooksRequest>,
    ) -> Answer<v1::ListWebhooksResponse> {
        let webhooks = vec![webhook()];
        Ok(Response::new(v1::ListWebhooksResponse { webhooks, ..Default::default() }))
    }

    async fn delete_webhook(
        &self,
        _: Request<v1::DeleteWebhookRequest>,
    ) -> Answer<v1::DeleteWebhookResponse> {
        let ended = v1::DeleteWebhookResponse { id: text(), tenant: text(), events_dropped: 2 };
        Ok(Response::new(ended))
    }

    async fn get_farm(&self, _: Request<v1::GetFarmRequest>) -> Answer<v1::GetFarmResponse> {
        let cascades = vec![v1::Cascade { name: text(), ..Default::default() }];
        Ok(Response::new(v1::GetFarmResponse {
            farm_id: text(),
            version: text(),
            cascades,
            troubles: vec![text()],
            ..Default::default()
        }))
    }
}
