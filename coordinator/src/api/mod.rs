//! The gRPC service `darkroom.v1.Farm`: checks what comes in, asks the store, converts what goes out.

mod convert;
mod custom_ids;
mod draft;
mod fetch;
mod inputs;
mod jobs;
mod progress;
mod stage_names;
mod submit;
mod upload;
mod validate;
mod watch;
mod workers;

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use darkroom_core::{
    error::{Code, UserError},
    id::JobId,
};
use darkroom_proto::{
    FILE_DESCRIPTOR_SET,
    bounds::MAX_MESSAGE_BYTES,
    status::to_status,
    v1::{self, farm_server::FarmServer},
};
use darkroom_runtime::server;
use stage_names::StageNames;
use tonic::{Request, Response, Status, Streaming, codec::CompressionEncoding};

use crate::{
    service::{Error, Shared},
    store::{self, error::OUTCOME_UNKNOWN},
};

pub(crate) use submit::keep_forecast;

/// Largest response; pages are cut well below it. Only a list of very many workers comes near it.
const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// The service over a coordinator.
pub(crate) fn farm_server(shared: Arc<Shared>) -> FarmServer<Farm> {
    FarmServer::new(Farm { shared, stage_names: Arc::default() })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_RESPONSE_BYTES)
        .accept_compressed(CompressionEncoding::Zstd)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Gzip)
}

/// How the farm's service is to be served, beside others perhaps; `services` are the names of all.
#[must_use]
pub fn server_options(services: &[&str]) -> server::Options {
    let mut options = server::Options::new(FILE_DESCRIPTOR_SET, services);
    let path = |method: &str| format!("/darkroom.v1.Farm/{method}");
    options.limits.long.extend(["SubmitJobStream", "UploadInput", "ForecastJob"].map(path));
    options.lasting.push(path("WatchJob"));
    options.message = MAX_MESSAGE_BYTES;
    options.gathers.push(path("UploadInput"));
    // Pictures are compressed already.
    options.plain.push(path("FetchImage"));
    options
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Farm {
    shared: Arc<Shared>,
    stage_names: Arc<StageNames>,
}

impl Farm {
    /// Runs a unary call within the server's own time limit, and logs the faults that are ours.
    async fn unary<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<Response<T>, Status> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(answer)) => Ok(Response::new(answer)),
            Ok(Err(error)) => Err(status(&error)),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "the call did not finish within {} s; it only reads, so it can be repeated",
                limit.as_secs()
            ))),
        }
    }

    /// As [`unary`](Self::unary), for a call that changes something: one that did not finish may have done so.
    async fn changing<T>(
        &self,
        limit: Duration,
        again: Again<'_>,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<Response<T>, Status> {
        let why = match tokio::time::timeout(limit, call).await {
            Ok(Ok(answer)) => return Ok(Response::new(answer)),
            Ok(Err(Error::Store(error @ store::Error::Unknown(_)))) => error.to_string(),
            Ok(Err(error)) => return Err(status(&error)),
            Err(_) => format!("the call did not finish within {} s and may have been done", limit.as_secs()),
        };
        let (code, advice) = match again {
            Again::Harmless => {
                (Code::Unavailable, "repeat it: it is done once, however often it is asked for".to_owned())
            }
            Again::Look(job) => (Code::Internal, format!("`darkroom status {job}` tells whether it was")),
        };
        Err(status(&Error::Unsure(UserError::new(code, OUTCOME_UNKNOWN, format!("{why}; {advice}")))))
    }
}

/// What whoever does not know whether a change was made can do.
enum Again<'a> {
    /// Ask for it again.
    Harmless,
    /// Look at this job.
    Look(&'a str),
}

/// The status of an error; faults of ours are logged here, once.
fn status(error: &Error) -> Status {
    let mut user = error.to_user();
    user.message = shortened(user.message);
    if let Error::Unsure(_) = error {
        tracing::warn!(%error, "whether a change was made is not known");
        return unsure(&user);
    }
    if user.code == Code::Internal {
        tracing::error!(error = error as &dyn std::error::Error, "call failed");
    }
    to_status(&user)
}

/// UNAVAILABLE where repeating does no harm; otherwise UNKNOWN, which no client repeats by itself.
fn unsure(user: &UserError) -> Status {
    let status = to_status(user);
    if user.code == Code::Unavailable {
        return status;
    }
    Status::with_details(tonic::Code::Unknown, status.message(), Bytes::copy_from_slice(status.details()))
}

/// Longest message of an error, bytes: it travels in a header, twice, where what is not ASCII takes three times its room.
const MESSAGE: usize = 1200;

/// A value that somebody sent may be long; the beginning says which field it is, the end what is accepted.
fn shortened(message: String) -> String {
    if message.len() <= MESSAGE {
        return message;
    }
    let head = message.floor_char_boundary(MESSAGE / 2);
    let tail = message.ceil_char_boundary(message.len() - MESSAGE / 2);
    let left_out = tail - head;
    match (message.get(..head), message.get(tail..)) {
        (Some(head), Some(tail)) => format!("{head}… ({left_out} more bytes) …{tail}"),
        _ => message,
    }
}

fn refused(error: UserError) -> Error {
    Error::Store(store::Error::Refused(error))
}

fn job_id(field: &str, text: &str) -> Result<JobId, Error> {
    text.parse().map_err(|error: UserError| refused(UserError { field: Some(field.to_owned()), ..error }))
}

#[tonic::async_trait]
impl v1::farm_server::Farm for Farm {
    type WatchJobStream = watch::EventStream;
    type FetchImageStream = fetch::ChunkStream;
    type FetchManifestStream = fetch::ManifestStream;

    async fn submit_job(
        &self,
        request: Request<v1::SubmitJobRequest>,
    ) -> Result<Response<v1::SubmitJobResponse>, Status> {
        // It bounds itself: once the job is being recorded, the answer says what may have become of it.
        self.submit(request.into_inner()).await.map(Response::new).map_err(|error| status(&error))
    }

    async fn submit_job_stream(
        &self,
        request: Request<Streaming<v1::SubmitJobChunk>>,
    ) -> Result<Response<v1::SubmitJobResponse>, Status> {
        self.submit_stream(request.into_inner()).await.map(Response::new).map_err(|error| status(&error))
    }

    async fn upload_input(
        &self,
        request: Request<Streaming<v1::UploadInputChunk>>,
    ) -> Result<Response<v1::UploadInputResponse>, Status> {
        let upload = self.upload(request.into_inner());
        self.changing(self.shared.options.submit, Again::Harmless, upload).await
    }

    async fn forecast_job(
        &self,
        request: Request<Streaming<v1::SubmitJobChunk>>,
    ) -> Result<Response<v1::ForecastJobResponse>, Status> {
        self.forecast(request.into_inner()).await.map(Response::new).map_err(|error| status(&error))
    }

    async fn get_job(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::Job>, Status> {
        self.unary(self.shared.options.call, self.get(request.into_inner())).await
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        self.unary(self.shared.options.call, self.list(request.into_inner())).await
    }

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        self.unary(self.shared.options.call, self.watch(request.into_inner())).await
    }

    async fn cancel_job(&self, request: Request<v1::CancelJobRequest>) -> Result<Response<v1::Job>, Status> {
        let id = request.into_inner().id;
        self.changing(self.shared.options.call, Again::Harmless, self.cancel(&id)).await
    }

    async fn pause_job(&self, request: Request<v1::PauseJobRequest>) -> Result<Response<v1::Job>, Status> {
        let id = request.into_inner().id;
        self.changing(self.shared.options.call, Again::Harmless, self.pause(&id)).await
    }

    async fn resume_job(&self, request: Request<v1::ResumeJobRequest>) -> Result<Response<v1::Job>, Status> {
        let id = request.into_inner().id;
        self.changing(self.shared.options.call, Again::Harmless, self.resume(&id)).await
    }

    async fn retry_job(&self, request: Request<v1::RetryJobRequest>) -> Result<Response<v1::Job>, Status> {
        let request = request.into_inner();
        let id = request.id.clone();
        self.changing(self.shared.options.call, Again::Look(&id), self.retry(request)).await
    }

    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        self.unary(self.shared.options.call, self.images(request.into_inner())).await
    }

    async fn fetch_image(
        &self,
        request: Request<v1::FetchImageRequest>,
    ) -> Result<Response<Self::FetchImageStream>, Status> {
        self.unary(self.shared.options.call, self.fetch(request.into_inner())).await
    }

    async fn sign_image(
        &self,
        request: Request<v1::SignImageRequest>,
    ) -> Result<Response<v1::SignImageResponse>, Status> {
        self.unary(self.shared.options.call, self.sign(request.into_inner())).await
    }

    async fn fetch_manifest(
        &self,
        request: Request<v1::FetchManifestRequest>,
    ) -> Result<Response<Self::FetchManifestStream>, Status> {
        self.unary(self.shared.options.call, self.manifest(request.into_inner())).await
    }

    async fn list_workers(
        &self,
        _: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        self.unary(self.shared.options.call, self.workers()).await
    }

    async fn drain_worker(
        &self,
        request: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        let drain = self.drain(request.into_inner());
        self.changing(self.shared.options.call, Again::Harmless, drain).await
    }

    async fn list_cascades(
        &self,
        _: Request<v1::ListCascadesRequest>,
    ) -> Result<Response<v1::ListCascadesResponse>, Status> {
        Ok(Response::new(self.cascades()))
    }

    async fn get_farm(
        &self,
        _: Request<v1::GetFarmRequest>,
    ) -> Result<Response<v1::GetFarmResponse>, Status> {
        self.unary(self.shared.options.call, self.farm()).await
    }
}
