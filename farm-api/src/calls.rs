//! One trait of the farm's calls: a method for each call of `darkroom.v1.Farm`, in its order.

use async_trait::async_trait;
use darkroom_core::error::UserError;
use darkroom_proto::v1;
use futures::stream::BoxStream;

use crate::Caller;

/// The answer of a call: a message, or an error.
pub type Answer<T> = Result<T, UserError>;

/// The messages that a client streams. An error ends the stream, and says why it broke off.
pub type Incoming<T> = BoxStream<'static, Answer<T>>;

/// The messages that the farm streams. An error ends the stream. Dropping the stream ends the work
/// behind it.
pub type Outgoing<T> = BoxStream<'static, Answer<T>>;

/// The calls of a farm. The .proto file says what each does. All of them follow these rules:
///
/// - A method checks its message. A refusal is the complete text for the user: no protocol adds to
///   it or hides a part of it.
/// - A method limits its own time, unless the .proto file gives the call the class `LONG`. The
///   server limits those calls, by dropping the future.
/// - A dropped future means that the client went away. Changes that the call had begun may be made
///   or not.
#[async_trait]
pub trait Calls: Send + Sync + 'static {
    /// Accepts a whole job in one transaction, and answers after the commit.
    async fn submit_job(
        &self,
        caller: &Caller,
        request: v1::SubmitJobRequest,
    ) -> Answer<v1::SubmitJobResponse>;

    /// Accepts a job in chunks: the spec first, then prompts. A stream that breaks off leaves
    /// nothing behind.
    async fn submit_job_stream(
        &self,
        caller: &Caller,
        requests: Incoming<v1::SubmitJobChunk>,
    ) -> Answer<v1::SubmitJobResponse>;

    /// Stores a picture or mask, which prompts can then name by its hash.
    async fn upload_input(
        &self,
        caller: &Caller,
        requests: Incoming<v1::UploadInputChunk>,
    ) -> Answer<v1::UploadInputResponse>;

    /// Forecasts the cost of a job, which is not stored.
    async fn forecast_job(
        &self,
        caller: &Caller,
        requests: Incoming<v1::SubmitJobChunk>,
    ) -> Answer<v1::ForecastJobResponse>;

    /// One job.
    async fn get_job(&self, caller: &Caller, request: v1::GetJobRequest) -> Answer<v1::Job>;

    /// A page of jobs.
    async fn list_jobs(
        &self,
        caller: &Caller,
        request: v1::ListJobsRequest,
    ) -> Answer<v1::ListJobsResponse>;

    /// The changes of one job from a position on, until it has ended.
    async fn watch_job(
        &self,
        caller: &Caller,
        request: v1::WatchJobRequest,
    ) -> Answer<Outgoing<v1::WatchEvent>>;

    /// Ends a job.
    async fn cancel_job(&self, caller: &Caller, request: v1::CancelJobRequest) -> Answer<v1::Job>;

    /// Deletes a job that has ended.
    async fn delete_job(
        &self,
        caller: &Caller,
        request: v1::DeleteJobRequest,
    ) -> Answer<v1::DeleteJobResponse>;

    /// Pauses a job.
    async fn pause_job(&self, caller: &Caller, request: v1::PauseJobRequest) -> Answer<v1::Job>;

    /// Resumes a paused job.
    async fn resume_job(&self, caller: &Caller, request: v1::ResumeJobRequest) -> Answer<v1::Job>;

    /// Runs a job's dead and cancelled images again.
    async fn retry_job(&self, caller: &Caller, request: v1::RetryJobRequest) -> Answer<v1::Job>;

    /// Cancels some images of a job.
    async fn cancel_images(
        &self,
        caller: &Caller,
        request: v1::CancelImagesRequest,
    ) -> Answer<v1::CancelImagesResponse>;

    /// Runs some images of a job again.
    async fn retry_images(
        &self,
        caller: &Caller,
        request: v1::RetryImagesRequest,
    ) -> Answer<v1::RetryImagesResponse>;

    /// A page of a job's images.
    async fn list_images(
        &self,
        caller: &Caller,
        request: v1::ListImagesRequest,
    ) -> Answer<v1::ListImagesResponse>;

    /// A job's failures by code.
    async fn summarize_failures(
        &self,
        caller: &Caller,
        request: v1::SummarizeFailuresRequest,
    ) -> Answer<v1::SummarizeFailuresResponse>;

    /// One image and its latest attempts.
    async fn get_image(
        &self,
        caller: &Caller,
        request: v1::GetImageRequest,
    ) -> Answer<v1::GetImageResponse>;

    /// The states of all images of a job, or of those that changed.
    async fn get_image_map(
        &self,
        caller: &Caller,
        request: v1::GetImageMapRequest,
    ) -> Answer<v1::GetImageMapResponse>;

    /// One picture, in chunks.
    async fn fetch_image(
        &self,
        caller: &Caller,
        request: v1::FetchImageRequest,
    ) -> Answer<Outgoing<v1::FetchImageChunk>>;

    /// Thumbnails of a range of images in one PNG, in chunks.
    async fn fetch_sheet(
        &self,
        caller: &Caller,
        request: v1::FetchSheetRequest,
    ) -> Answer<Outgoing<v1::FetchSheetChunk>>;

    /// A link to one picture in object storage.
    async fn sign_image(
        &self,
        caller: &Caller,
        request: v1::SignImageRequest,
    ) -> Answer<v1::SignImageResponse>;

    /// A job's manifest, in chunks.
    async fn fetch_manifest(
        &self,
        caller: &Caller,
        request: v1::FetchManifestRequest,
    ) -> Answer<Outgoing<v1::FetchManifestChunk>>;

    /// The present workers and encoders.
    async fn list_workers(
        &self,
        caller: &Caller,
        request: v1::ListWorkersRequest,
    ) -> Answer<v1::ListWorkersResponse>;

    /// Sends a drain command to workers.
    async fn drain_worker(
        &self,
        caller: &Caller,
        request: v1::DrainWorkerRequest,
    ) -> Answer<v1::DrainWorkerResponse>;

    /// The cascades that the farm serves.
    async fn list_cascades(
        &self,
        caller: &Caller,
        request: v1::ListCascadesRequest,
    ) -> Answer<v1::ListCascadesResponse>;

    /// The changes of all jobs and the workers, from a cursor on.
    async fn watch_farm(
        &self,
        caller: &Caller,
        request: v1::WatchFarmRequest,
    ) -> Answer<Outgoing<v1::FarmEvent>>;

    /// The waiting and running work of each pool.
    async fn describe_queue(
        &self,
        caller: &Caller,
        request: v1::DescribeQueueRequest,
    ) -> Answer<v1::DescribeQueueResponse>;

    /// The history of each pool, minute by minute.
    async fn farm_history(
        &self,
        caller: &Caller,
        request: v1::FarmHistoryRequest,
    ) -> Answer<v1::FarmHistoryResponse>;

    /// The usage of tenants, day by day.
    async fn list_usage(
        &self,
        caller: &Caller,
        request: v1::ListUsageRequest,
    ) -> Answer<v1::ListUsageResponse>;

    /// The farm itself.
    async fn get_farm(
        &self,
        caller: &Caller,
        request: v1::GetFarmRequest,
    ) -> Answer<v1::GetFarmResponse>;

    /// Has a tenant's events sent to an address.
    async fn create_webhook(
        &self,
        caller: &Caller,
        request: v1::CreateWebhookRequest,
    ) -> Answer<v1::CreateWebhookResponse>;

    /// A tenant's webhooks.
    async fn list_webhooks(
        &self,
        caller: &Caller,
        request: v1::ListWebhooksRequest,
    ) -> Answer<v1::ListWebhooksResponse>;

    /// Ends a webhook.
    async fn delete_webhook(
        &self,
        caller: &Caller,
        request: v1::DeleteWebhookRequest,
    ) -> Answer<v1::DeleteWebhookResponse>;
}

#[cfg(test)]
mod tests {
    use darkroom_proto::calls::CALLS;

    /// `SubmitJob` as `submit_job`.
    fn snake(name: &str) -> String {
        let mut snake = String::new();
        for letter in name.chars() {
            if letter.is_uppercase() && !snake.is_empty() {
                snake.push('_');
            }
            snake.extend(letter.to_lowercase());
        }
        snake
    }

    #[test]
    fn the_traits_have_the_calls_of_the_descriptor_in_its_order_and_no_others() {
        for (source, name, service) in [
            (include_str!("calls.rs"), "Calls", "/darkroom.v1.Farm/"),
            (include_str!("admin_calls.rs"), "AdminCalls", "/darkroom.v1.Admin/"),
        ] {
            let (_, body) = source.split_once(&format!("pub trait {name}")).expect("the trait");
            let (body, _) = body.split_once("\n}\n").expect("its end");
            let method = |text: &str| {
                let name = text.split('(').next().unwrap_or_default().to_owned();
                (name, text.contains("Incoming<"), text.contains("Outgoing<"))
            };
            let methods: Vec<_> = body.split("async fn ").skip(1).map(method).collect();
            let described = CALLS.iter().filter_map(|call| {
                let name = call.path.strip_prefix(service)?;
                Some((snake(name), call.receives_stream, call.sends_stream))
            });
            assert_eq!(methods, described.collect::<Vec<_>>());
            assert!(!methods.is_empty());
        }
    }
}
