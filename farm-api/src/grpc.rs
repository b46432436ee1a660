//! The calls over gRPC: tonic's service over any implementation of [`Calls`].
//!
//! A [`CallerLayer`] in front of it says who calls. A request without a caller is refused, so a
//! server without the layer refuses every call.

use std::sync::Arc;

use darkroom_core::{
    error::{Code, UserError},
    guard::{Guard, stands},
};
use darkroom_proto::{
    bounds::MAX_MESSAGE_BYTES,
    status::{from_status, to_status},
    v1::{self, admin_server::AdminServer, farm_server::FarmServer},
};
use futures::{StreamExt as _, stream::BoxStream};
use tonic::{Request, Response, Status, Streaming, codec::CompressionEncoding, service::Routes};

use crate::{
    AdminCalls, Caller, CallerLayer, Calls, Incoming, Outgoing,
    standing::{Standing, while_it_stands},
};

/// Largest response, in bytes. Pages are much smaller; only a list of very many workers comes near
/// it.
const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// The farm's service. Serve it behind a [`CallerLayer`], alone or beside other services.
#[must_use]
pub fn service(calls: Arc<dyn Calls>) -> FarmServer<FarmService> {
    FarmServer::new(FarmService { calls })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_RESPONSE_BYTES)
        .accept_compressed(CompressionEncoding::Zstd)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Gzip)
}

/// The service of keys, tenants and the audit. Serve it behind a [`CallerLayer`].
#[must_use]
pub fn admin_service(calls: Arc<dyn AdminCalls>) -> AdminServer<AdminService> {
    AdminServer::new(AdminService { calls })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_RESPONSE_BYTES)
        .accept_compressed(CompressionEncoding::Zstd)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Gzip)
}

/// Puts the layer in front of every service that `routes` has so far.
#[must_use]
pub fn behind(callers: CallerLayer, routes: Routes) -> Routes {
    Routes::from(routes.into_axum_router().layer(callers))
}

/// tonic's service over the calls.
#[derive(Clone)]
pub struct FarmService {
    calls: Arc<dyn Calls>,
}

/// tonic's service over the calls about keys, tenants and the audit.
#[derive(Clone)]
pub struct AdminService {
    calls: Arc<dyn AdminCalls>,
}

/// The stream that tonic sends: its error is a status.
type Sent<T> = BoxStream<'static, Result<T, Status>>;

/// Implements tonic's trait: one line for each call, grouped by what is streamed.
macro_rules! serve {
    (
        $Trait:path, for $Service:ident;
        unary { $($unary:ident: $Request:ident => $Response:ident,)* }
        receiving { $($receiving:ident: $Chunk:ident => $Receipt:ident,)* }
        sending { $($sending:ident: $Wanted:ident => $Part:ident as $Stream:ident,)* }
    ) => {
        #[tonic::async_trait]
        impl $Trait for $Service {
            $(type $Stream = Sent<v1::$Part>;)*

            $(async fn $unary(
                &self,
                request: Request<v1::$Request>,
            ) -> Result<Response<v1::$Response>, Status> {
                let (caller, request) = known(request)?;
                answer(self.calls.$unary(&caller, request).await)
            })*

            $(async fn $receiving(
                &self,
                request: Request<Streaming<v1::$Chunk>>,
            ) -> Result<Response<v1::$Receipt>, Status> {
                let standing = standing_of(&request);
                let (caller, requests) = known(request)?;
                let requests = while_it_stands(standing, incoming(requests));
                answer(self.calls.$receiving(&caller, requests).await)
            })*

            $(async fn $sending(
                &self,
                request: Request<v1::$Wanted>,
            ) -> Result<Response<Self::$Stream>, Status> {
                let standing = standing_of(&request);
                let (caller, request) = known(request)?;
                let answers = self.calls.$sending(&caller, request).await;
                answer(answers.map(|answers| sent(while_it_stands(standing, answers))))
            })*
        }
    };
}

serve! {
    v1::farm_server::Farm, for FarmService;
    unary {
        submit_job: SubmitJobRequest => SubmitJobResponse,
        get_job: GetJobRequest => Job,
        list_jobs: ListJobsRequest => ListJobsResponse,
        cancel_job: CancelJobRequest => Job,
        delete_job: DeleteJobRequest => DeleteJobResponse,
        pause_job: PauseJobRequest => Job,
        resume_job: ResumeJobRequest => Job,
        retry_job: RetryJobRequest => Job,
        list_images: ListImagesRequest => ListImagesResponse,
        sign_image: SignImageRequest => SignImageResponse,
        list_workers: ListWorkersRequest => ListWorkersResponse,
        drain_worker: DrainWorkerRequest => DrainWorkerResponse,
        list_cascades: ListCascadesRequest => ListCascadesResponse,
        cancel_images: CancelImagesRequest => CancelImagesResponse,
        retry_images: RetryImagesRequest => RetryImagesResponse,
        get_image: GetImageRequest => GetImageResponse,
        get_image_map: GetImageMapRequest => GetImageMapResponse,
        describe_queue: DescribeQueueRequest => DescribeQueueResponse,
        farm_history: FarmHistoryRequest => FarmHistoryResponse,
        list_usage: ListUsageRequest => ListUsageResponse,
        summarize_failures: SummarizeFailuresRequest => SummarizeFailuresResponse,
        get_farm: GetFarmRequest => GetFarmResponse,
        create_webhook: CreateWebhookRequest => CreateWebhookResponse,
        list_webhooks: ListWebhooksRequest => ListWebhooksResponse,
        delete_webhook: DeleteWebhookRequest => DeleteWebhookResponse,
    }
    receiving {
        submit_job_stream: SubmitJobChunk => SubmitJobResponse,
        upload_input: UploadInputChunk => UploadInputResponse,
        forecast_job: SubmitJobChunk => ForecastJobResponse,
    }
    sending {
        watch_job: WatchJobRequest => WatchEvent as WatchJobStream,
        fetch_image: FetchImageRequest => FetchImageChunk as FetchImageStream,
        fetch_sheet: FetchSheetRequest => FetchSheetChunk as FetchSheetStream,
        watch_farm: WatchFarmRequest => FarmEvent as WatchFarmStream,
        fetch_manifest: FetchManifestRequest => FetchManifestChunk as FetchManifestStream,
    }
}

serve! {
    v1::admin_server::Admin, for AdminService;
    unary {
        create_key: CreateKeyRequest => CreateKeyResponse,
        list_keys: ListKeysRequest => ListKeysResponse,
        revoke_key: RevokeKeyRequest => Key,
        rotate_key: RotateKeyRequest => RotateKeyResponse,
        set_tenant: SetTenantRequest => Tenant,
        get_tenant: GetTenantRequest => Tenant,
        list_tenants: ListTenantsRequest => ListTenantsResponse,
        set_retention: SetRetentionRequest => RetentionPolicy,
        get_retention: GetRetentionRequest => GetRetentionResponse,
        clean_farm: CleanFarmRequest => CleanFarmResponse,
        list_audit: ListAuditRequest => ListAuditResponse,
    }
    receiving {}
    sending {}
}

/// How the caller of a request was let in; none on an open farm.
fn standing_of<T>(request: &Request<T>) -> Option<Standing> {
    request.extensions().get::<Standing>().cloned()
}

/// The caller of a request, and its message.
pub(crate) fn known<T>(request: Request<T>) -> Result<(Caller, T), Status> {
    let (_, mut extensions, message) = request.into_parts();
    let caller = extensions.remove::<Caller>();
    let caller = caller.or_else(|| (!stands(Guard::CallerKnown)).then(Caller::open));
    let caller = caller.ok_or_else(|| {
        to_status(&UserError::new(
            Code::Unauthenticated,
            "NO_CALLER",
            "the call has no caller: this server was set up without the part that finds out who \
             calls",
        ))
    })?;
    Ok((caller, message))
}

pub(crate) fn answer<T>(answered: Result<T, UserError>) -> Result<Response<T>, Status> {
    answered.map(Response::new).map_err(|error| to_status(&error))
}

fn incoming<T: Send + 'static>(requests: Streaming<T>) -> Incoming<T> {
    requests.map(|request| request.map_err(|status| from_status(&status))).boxed()
}

fn sent<T: 'static>(answers: Outgoing<T>) -> Sent<T> {
    answers.map(|answer| answer.map_err(|error| to_status(&error))).boxed()
}
