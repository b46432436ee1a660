//! A farm that answers with text which a terminal would obey, in every place where a farm can put text.

use std::pin::Pin;

use darkroom_proto::v1::{
    self,
    farm_server::{Farm, FarmServer},
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// Colours, a cleared screen, a bell, a title, a line end, C1, text that runs backwards, characters that nobody sees.
pub const HOSTILE: &str = "\u{1b}[31m\u{1b}[2J\u{7}\u{1b}]0;x\u{7}\nerror: forged\r\u{9b}1m\u{7f}\u{202e}gnp\u{2066}\u{200b}\u{feff}\u{e0041}";

/// Serves one on a free port of loopback for as long as the runtime lives, and returns its address.
///
/// # Panics
/// When it cannot listen.
pub async fn serve() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(FarmServer::new(Hostile));
    tokio::spawn(server.serve_with_incoming(incoming));
    address
}

struct Hostile;

type Answer<T> = Result<Response<T>, Status>;
type Chunks<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn text() -> String {
    HOSTILE.to_owned()
}

fn job() -> v1::Job {
    v1::Job {
        id: text(),
        spec: Some(v1::JobSpec { name: text(), tenant: text(), cascade: text(), ..Default::default() }),
        state: v1::JobState::Active.into(),
        images: 2,
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
    type FetchImageStream = Chunks<v1::FetchImageChunk>;
    type FetchManifestStream = Chunks<v1::FetchManifestChunk>;

    async fn submit_job(&self, _: Request<v1::SubmitJobRequest>) -> Answer<v1::SubmitJobResponse> {
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
        let classes = vec![v1::ClassForecast { device_class: text(), workers: 1, ..Default::default() }];
        let stages = vec![v1::StageForecast { stage: text(), images: 1, classes, ..Default::default() }];
        let forecast = Some(v1::Forecast { stages, ..Default::default() });
        Ok(Response::new(v1::ForecastJobResponse { images: 1, forecast, ..Default::default() }))
    }

    async fn get_job(&self, _: Request<v1::GetJobRequest>) -> Answer<v1::Job> {
        Ok(Response::new(job()))
    }

    async fn list_jobs(&self, _: Request<v1::ListJobsRequest>) -> Answer<v1::ListJobsResponse> {
        Ok(Response::new(v1::ListJobsResponse { jobs: vec![job()], ..Default::default() }))
    }

    async fn watch_job(&self, _: Request<v1::WatchJobRequest>) -> Answer<Self::WatchJobStream> {
        let job = v1::Job { state: v1::JobState::Done.into(), end_reason: String::new(), ..job() };
        let last = v1::WatchEvent { version: 1, job: Some(job), end: true, ..Default::default() };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(last)))))
    }

    async fn cancel_job(&self, _: Request<v1::CancelJobRequest>) -> Answer<v1::Job> {
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

    async fn list_images(&self, _: Request<v1::ListImagesRequest>) -> Answer<v1::ListImagesResponse> {
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

    async fn fetch_image(&self, _: Request<v1::FetchImageRequest>) -> Answer<Self::FetchImageStream> {
        refusal()
    }

    async fn sign_image(&self, _: Request<v1::SignImageRequest>) -> Answer<v1::SignImageResponse> {
        Ok(Response::new(v1::SignImageResponse { url: text(), ..Default::default() }))
    }

    async fn fetch_manifest(
        &self,
        _: Request<v1::FetchManifestRequest>,
    ) -> Answer<Self::FetchManifestStream> {
        refusal()
    }

    async fn list_workers(&self, _: Request<v1::ListWorkersRequest>) -> Answer<v1::ListWorkersResponse> {
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

    async fn drain_worker(&self, _: Request<v1::DrainWorkerRequest>) -> Answer<v1::DrainWorkerResponse> {
        refusal()
    }

    async fn list_cascades(&self, _: Request<v1::ListCascadesRequest>) -> Answer<v1::ListCascadesResponse> {
        let stages = vec![v1::CascadeStage { name: text(), size: 64, ..Default::default() }];
        let cascade = v1::Cascade { name: text(), digest: text(), description: text(), stages };
        Ok(Response::new(v1::ListCascadesResponse { cascades: vec![cascade] }))
    }

    async fn get_farm(&self, _: Request<v1::GetFarmRequest>) -> Answer<v1::GetFarmResponse> {
        let cascades = vec![v1::Cascade { name: text(), ..Default::default() }];
        Ok(Response::new(v1::GetFarmResponse {
            farm_id: text(),
            version: text(),
            cascades,
            ..Default::default()
        }))
    }
}
