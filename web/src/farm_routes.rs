//! The routes of `darkroom.v1.Farm`: one for each of its calls, and for streams the handlers of
//! their own.

use axum::routing::{MethodFilter, on};
use darkroom_proto::calls::farm;

use crate::{
    events, links, pictures,
    route::{Route, json_routes},
    submits, uploads,
};

/// A route with a handler of its own.
macro_rules! route {
    ($method:ident $path:literal $call:path, $handler:path, takes: $takes:expr, gives: $gives:expr) => {
        Route {
            #[cfg(any(test, feature = "schema"))]
            method: http::Method::$method,
            path: $path,
            call: &$call,
            serve: || on(MethodFilter::$method, $handler),
            #[cfg(feature = "schema")]
            takes: {
                #[allow(unused_imports, reason = "not every route takes or gives a form")]
                use {crate::described::Takes, darkroom_proto::json};
                $takes
            },
            #[cfg(feature = "schema")]
            gives: {
                #[allow(unused_imports, reason = "not every route takes or gives a form")]
                use {crate::described::Gives, darkroom_proto::json};
                $gives
            },
        }
    };
}

/// All of them.
pub(crate) fn routes() -> Vec<Route> {
    let mut routes = json_routes! { farm:
        GET "/jobs" LIST_JOBS list_jobs(ListJobsRequest) -> ListJobsResponse 200 query;
        GET "/jobs/{job}" GET_JOB get_job(GetJobRequest) -> Job 200 query, "job" = id;
        DELETE "/jobs/{job}" DELETE_JOB
            delete_job(DeleteJobRequest) -> DeleteJobResponse 200 query, "job" = id;
        PUT "/jobs/{job}/pause" PAUSE_JOB
            pause_job(PauseJobRequest) -> Job 200 maybe_body, "job" = id;
        DELETE "/jobs/{job}/pause" RESUME_JOB
            resume_job(ResumeJobRequest) -> Job 200 query, "job" = id;
        PUT "/jobs/{job}/cancellation" CANCEL_JOB
            cancel_job(CancelJobRequest) -> Job 200 maybe_body, "job" = id;
        POST "/jobs/{job}/retries" RETRY_JOB
            retry_job(RetryJobRequest) -> Job 200 maybe_body, "job" = id;
        GET "/jobs/{job}/images" LIST_IMAGES
            list_images(ListImagesRequest) -> ListImagesResponse 200 query, "job" = job_id;
        GET "/jobs/{job}/images/{index}" GET_IMAGE
            get_image(GetImageRequest) -> GetImageResponse 200 query,
            "job" = job_id, "index" = index;
        POST "/jobs/{job}/image-cancellations" CANCEL_IMAGES
            cancel_images(CancelImagesRequest) -> CancelImagesResponse 200 body, "job" = job_id;
        POST "/jobs/{job}/image-retries" RETRY_IMAGES
            retry_images(RetryImagesRequest) -> RetryImagesResponse 200 body, "job" = job_id;
        GET "/jobs/{job}/image-map" GET_IMAGE_MAP
            get_image_map(GetImageMapRequest) -> GetImageMapResponse 200 query, "job" = job_id;
        GET "/jobs/{job}/failures" SUMMARIZE_FAILURES
            summarize_failures(SummarizeFailuresRequest) -> SummarizeFailuresResponse 200 query,
            "job" = job_id;
        GET "/workers" LIST_WORKERS
            list_workers(ListWorkersRequest) -> ListWorkersResponse 200 query;
        POST "/drains" DRAIN_WORKER
            drain_worker(DrainWorkerRequest) -> DrainWorkerResponse 200 body;
        GET "/cascades" LIST_CASCADES
            list_cascades(ListCascadesRequest) -> ListCascadesResponse 200 query;
        GET "/queue" DESCRIBE_QUEUE
            describe_queue(DescribeQueueRequest) -> DescribeQueueResponse 200 query;
        GET "/history" FARM_HISTORY
            farm_history(FarmHistoryRequest) -> FarmHistoryResponse 200 query;
        GET "/usage" LIST_USAGE list_usage(ListUsageRequest) -> ListUsageResponse 200 query;
        GET "/farm" GET_FARM get_farm(GetFarmRequest) -> GetFarmResponse 200 query;
        POST "/webhooks" CREATE_WEBHOOK
            create_webhook(CreateWebhookRequest) -> CreateWebhookResponse 201 body;
        GET "/webhooks" LIST_WEBHOOKS
            list_webhooks(ListWebhooksRequest) -> ListWebhooksResponse 200 query;
        DELETE "/webhooks/{webhook}" DELETE_WEBHOOK
            delete_webhook(DeleteWebhookRequest) -> DeleteWebhookResponse 200 query, "webhook" = id;
    };
    routes.extend([
        route! { POST "/jobs" farm::SUBMIT_JOB, submits::submit,
            takes: Takes::Job, gives: Gives::json::<json::SubmitJobResponse>(201) },
        route! { POST "/forecasts" farm::FORECAST_JOB, submits::forecast,
            takes: Takes::Job, gives: Gives::json::<json::ForecastJobResponse>(200) },
        route! { POST "/inputs" farm::UPLOAD_INPUT, uploads::upload,
            takes: Takes::Picture, gives: Gives::json::<json::UploadInputResponse>(201) },
        route! { GET "/jobs/{job}/images/{index}/picture" farm::FETCH_IMAGE, pictures::picture,
            takes: Takes::query::<pictures::PictureQuery>(), gives: Gives::Picture },
        route! { POST "/jobs/{job}/images/{index}/links" farm::SIGN_IMAGE, links::make,
            takes: Takes::body::<json::SignImageRequest>(false), gives: Gives::json::<json::SignImageResponse>(201) },
        route! { GET "/jobs/{job}/sheet" farm::FETCH_SHEET, pictures::sheet,
            takes: Takes::query::<json::FetchSheetRequest>(), gives: Gives::Picture },
        route! { GET "/jobs/{job}/manifest" farm::FETCH_MANIFEST, pictures::manifest,
            takes: Takes::Nothing, gives: Gives::Lines },
        route! { GET "/jobs/{job}/events" farm::WATCH_JOB, events::of_job,
            takes: Takes::query::<json::WatchJobRequest>(), gives: Gives::events::<json::WatchEvent>() },
        route! { GET "/events" farm::WATCH_FARM, events::of_farm,
            takes: Takes::query::<json::WatchFarmRequest>(), gives: Gives::events::<json::FarmEvent>() },
    ]);
    routes
}
