//! The farm's calls: each checks its message, asks the store, and converts the answer. They arrive
//! by any protocol; nothing here knows which.

mod access;
mod admin;
mod audited;
mod batches;
mod chunks;
mod cleaning;
mod convert;
mod custom_ids;
mod distinct;
mod draft;
mod failures;
mod farm;
mod fetch;
#[doc(hidden)]
pub mod fuzzed;
mod image;
mod image_commands;
mod image_map;
mod inputs;
mod jobs;
mod listing;
mod members;
mod new_key;
mod one_call;
mod overrides;
mod progress;
mod queue;
mod sheets;
mod stage_names;
mod submit;
mod tokens;
mod upload;
mod validate;
mod watch;
mod watch_farm;
mod webhooks;
mod workers;

use std::sync::Arc;

use async_trait::async_trait;
use audited::Audited;
use darkroom_farm_api::{
    AdminCalls, Answer, Batches, Caller, CallerLayer, Calls, Incoming, Members, Outgoing, Purpose,
    Seals,
};
use darkroom_proto::{
    FILE_DESCRIPTOR_SET,
    bounds::MAX_MESSAGE_BYTES,
    calls::{CALLS, Class},
    v1,
};
use darkroom_runtime::server;
use farm::{Again, Farm, failure, job_id, refused};
use one_call::OneCall;

use crate::{
    coordinator::Handle,
    keeper::{PEER, RecordKeeper},
    shared::Shared,
};

impl Handle {
    /// The farm's calls, to be served over any protocol. The audit has what they change.
    #[must_use]
    pub fn calls(&self) -> Arc<dyn Calls> {
        Arc::new(self.audited())
    }

    /// The calls about keys, tenants and the audit. The audit has what they change.
    #[must_use]
    pub fn admin_calls(&self) -> Arc<dyn AdminCalls> {
        Arc::new(self.audited())
    }

    /// Files and batches. The audit has what is changed of them.
    #[must_use]
    pub fn batches(&self) -> Arc<dyn Batches> {
        Arc::new(self.audited())
    }

    /// The calls of encoders and workers.
    #[must_use]
    pub fn members(&self) -> Arc<dyn Members> {
        Arc::new(self.farm())
    }

    fn audited(&self) -> Audited {
        Audited::new(self.farm(), self.front.clone(), self.shared.tasks.clone())
    }

    fn farm(&self) -> Farm {
        Farm {
            shared: Arc::clone(&self.shared),
            front: Arc::clone(&self.front),
            outcomes: self.store.clone(),
            stage_names: Arc::default(),
            tokens: Arc::default(),
            call: OneCall::default(),
        }
    }

    /// Says who calls: whoever has a key of the record, and nobody else.
    #[must_use]
    pub fn kept_door(&self) -> CallerLayer {
        let (quotas, tasks) = (Arc::clone(&self.shared.quotas), self.shared.tasks.clone());
        let keeper = RecordKeeper::new(self.front.clone(), quotas, tasks, self.seals());
        CallerLayer::kept(Arc::new(keeper)).with_peer(PEER)
    }

    /// Makes seals with the farm's secret.
    #[must_use]
    pub fn seals(&self) -> Arc<dyn Seals> {
        Arc::new(FarmSeals(Arc::clone(&self.shared)))
    }

    /// Lets everybody do everything.
    #[must_use]
    pub fn open_door(&self) -> CallerLayer {
        CallerLayer::open().with_peer(PEER)
    }
}

/// The farm's seals.
struct FarmSeals(Arc<Shared>);

impl Seals for FarmSeals {
    fn seal(&self, purpose: Purpose, text: &[u8]) -> [u8; 32] {
        self.0.trust.seal_text(purpose.name(), text)
    }
}

/// How to serve the farm's service, alone or beside others; `services` are the names of all.
#[must_use]
pub fn server_options(services: &[&str]) -> server::Options {
    let mut options = server::Options::new(FILE_DESCRIPTOR_SET, services);
    options.message = MAX_MESSAGE_BYTES;
    for call in CALLS {
        let path = || call.path.to_owned();
        match call.class {
            Class::Short => {}
            Class::Long => options.limits.long.push(path()),
            Class::Lasting => options.lasting.push(path()),
        }
        options.gathers.extend(call.gathers.then(path));
        options.plain.extend(call.compressed.then(path));
    }
    options
}

#[async_trait]
impl Calls for Farm {
    async fn submit_job(
        &self,
        caller: &Caller,
        request: v1::SubmitJobRequest,
    ) -> Answer<v1::SubmitJobResponse> {
        // It has its own time limit, because once the job is being recorded, the answer must say
        // whether it may have been accepted.
        self.submit(caller, request).await.map_err(|error| self.told(&error))
    }

    async fn submit_job_stream(
        &self,
        caller: &Caller,
        requests: Incoming<v1::SubmitJobChunk>,
    ) -> Answer<v1::SubmitJobResponse> {
        self.submit_stream(caller, requests).await.map_err(|error| self.told(&error))
    }

    async fn upload_input(
        &self,
        caller: &Caller,
        requests: Incoming<v1::UploadInputChunk>,
    ) -> Answer<v1::UploadInputResponse> {
        let upload = self.upload(caller, requests);
        self.changing(self.shared.options.submit, Again::Harmless, upload).await
    }

    async fn forecast_job(
        &self,
        caller: &Caller,
        requests: Incoming<v1::SubmitJobChunk>,
    ) -> Answer<v1::ForecastJobResponse> {
        self.forecast(caller, requests).await.map_err(|error| failure(&error))
    }

    async fn get_job(&self, caller: &Caller, request: v1::GetJobRequest) -> Answer<v1::Job> {
        self.unary(self.shared.options.call, self.get(caller, request)).await
    }

    async fn list_jobs(
        &self,
        caller: &Caller,
        request: v1::ListJobsRequest,
    ) -> Answer<v1::ListJobsResponse> {
        self.unary(self.shared.options.call, self.list(caller, request)).await
    }

    async fn watch_job(
        &self,
        caller: &Caller,
        request: v1::WatchJobRequest,
    ) -> Answer<Outgoing<v1::WatchEvent>> {
        self.unary(self.shared.options.call, self.watch(caller, request)).await
    }

    async fn cancel_job(&self, caller: &Caller, request: v1::CancelJobRequest) -> Answer<v1::Job> {
        let cancel = self.cancel(caller, request);
        self.changing(self.shared.options.call, Again::Harmless, cancel).await
    }

    async fn delete_job(
        &self,
        caller: &Caller,
        request: v1::DeleteJobRequest,
    ) -> Answer<v1::DeleteJobResponse> {
        let delete = self.delete(caller, request);
        self.changing(self.shared.options.call, Again::Harmless, delete).await
    }

    async fn pause_job(&self, caller: &Caller, request: v1::PauseJobRequest) -> Answer<v1::Job> {
        let pause = self.pause(caller, request);
        self.changing(self.shared.options.call, Again::Harmless, pause).await
    }

    async fn resume_job(&self, caller: &Caller, request: v1::ResumeJobRequest) -> Answer<v1::Job> {
        let resume = self.resume(caller, request);
        self.changing(self.shared.options.call, Again::Harmless, resume).await
    }

    async fn retry_job(&self, caller: &Caller, request: v1::RetryJobRequest) -> Answer<v1::Job> {
        let id = request.id.clone();
        let retry = self.retry(caller, request);
        self.changing(self.shared.options.call, Again::Look(&id), retry).await
    }

    async fn cancel_images(
        &self,
        caller: &Caller,
        request: v1::CancelImagesRequest,
    ) -> Answer<v1::CancelImagesResponse> {
        let cancel = self.cancel_images(caller, request);
        self.changing(self.shared.options.call, Again::Harmless, cancel).await
    }

    async fn retry_images(
        &self,
        caller: &Caller,
        request: v1::RetryImagesRequest,
    ) -> Answer<v1::RetryImagesResponse> {
        let retry = self.retry_images(caller, request);
        self.changing(self.shared.options.call, Again::Harmless, retry).await
    }

    async fn list_images(
        &self,
        caller: &Caller,
        request: v1::ListImagesRequest,
    ) -> Answer<v1::ListImagesResponse> {
        self.unary(self.shared.options.call, self.images(caller, request)).await
    }

    async fn get_image(
        &self,
        caller: &Caller,
        request: v1::GetImageRequest,
    ) -> Answer<v1::GetImageResponse> {
        self.unary(self.shared.options.call, self.image(caller, request)).await
    }

    async fn get_image_map(
        &self,
        caller: &Caller,
        request: v1::GetImageMapRequest,
    ) -> Answer<v1::GetImageMapResponse> {
        self.unary(self.shared.options.call, self.image_map(caller, request)).await
    }

    async fn summarize_failures(
        &self,
        caller: &Caller,
        request: v1::SummarizeFailuresRequest,
    ) -> Answer<v1::SummarizeFailuresResponse> {
        self.unary(self.shared.options.call, self.failures(caller, request)).await
    }

    async fn fetch_image(
        &self,
        caller: &Caller,
        request: v1::FetchImageRequest,
    ) -> Answer<Outgoing<v1::FetchImageChunk>> {
        self.unary(self.shared.options.call, self.fetch(caller, request)).await
    }

    async fn fetch_sheet(
        &self,
        caller: &Caller,
        request: v1::FetchSheetRequest,
    ) -> Answer<Outgoing<v1::FetchSheetChunk>> {
        self.unary(self.shared.options.call, self.sheet(caller, request)).await
    }

    async fn sign_image(
        &self,
        caller: &Caller,
        request: v1::SignImageRequest,
    ) -> Answer<v1::SignImageResponse> {
        self.unary(self.shared.options.call, self.sign(caller, request)).await
    }

    async fn fetch_manifest(
        &self,
        caller: &Caller,
        request: v1::FetchManifestRequest,
    ) -> Answer<Outgoing<v1::FetchManifestChunk>> {
        self.unary(self.shared.options.call, self.manifest(caller, request)).await
    }

    async fn list_workers(
        &self,
        caller: &Caller,
        request: v1::ListWorkersRequest,
    ) -> Answer<v1::ListWorkersResponse> {
        self.unary(self.shared.options.call, self.workers(caller, request)).await
    }

    async fn drain_worker(
        &self,
        caller: &Caller,
        request: v1::DrainWorkerRequest,
    ) -> Answer<v1::DrainWorkerResponse> {
        let drain = self.drain(caller, request);
        self.changing(self.shared.options.call, Again::Harmless, drain).await
    }

    async fn list_cascades(
        &self,
        _caller: &Caller,
        request: v1::ListCascadesRequest,
    ) -> Answer<v1::ListCascadesResponse> {
        Ok(self.cascades(request))
    }

    async fn watch_farm(
        &self,
        caller: &Caller,
        request: v1::WatchFarmRequest,
    ) -> Answer<Outgoing<v1::FarmEvent>> {
        self.unary(self.shared.options.call, self.watch_farm(caller, request)).await
    }

    async fn describe_queue(
        &self,
        caller: &Caller,
        request: v1::DescribeQueueRequest,
    ) -> Answer<v1::DescribeQueueResponse> {
        self.unary(self.shared.options.call, self.queue(caller, request)).await
    }

    async fn farm_history(
        &self,
        caller: &Caller,
        request: v1::FarmHistoryRequest,
    ) -> Answer<v1::FarmHistoryResponse> {
        self.unary(self.shared.options.call, self.history(caller, request)).await
    }

    async fn list_usage(
        &self,
        caller: &Caller,
        request: v1::ListUsageRequest,
    ) -> Answer<v1::ListUsageResponse> {
        self.unary(self.shared.options.call, self.usage(caller, request)).await
    }

    async fn get_farm(
        &self,
        caller: &Caller,
        request: v1::GetFarmRequest,
    ) -> Answer<v1::GetFarmResponse> {
        self.unary(self.shared.options.call, self.farm(caller, request)).await
    }

    async fn create_webhook(
        &self,
        caller: &Caller,
        request: v1::CreateWebhookRequest,
    ) -> Answer<v1::CreateWebhookResponse> {
        let create = self.make_webhook(caller, request);
        self.changing(self.shared.options.call, Again::Webhooks, create).await
    }

    async fn list_webhooks(
        &self,
        caller: &Caller,
        request: v1::ListWebhooksRequest,
    ) -> Answer<v1::ListWebhooksResponse> {
        self.unary(self.shared.options.call, self.webhooks(caller, request)).await
    }

    async fn delete_webhook(
        &self,
        caller: &Caller,
        request: v1::DeleteWebhookRequest,
    ) -> Answer<v1::DeleteWebhookResponse> {
        let delete = self.end_webhook(caller, request);
        self.changing(self.shared.options.call, Again::Harmless, delete).await
    }
}

#[async_trait]
impl Members for Farm {
    async fn join(&self, caller: &Caller, request: v1::JoinRequest) -> Answer<v1::JoinResponse> {
        self.unary(self.shared.options.call, self.member(caller, request)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_gives_each_call_the_time_of_its_class() {
        let options = server_options(&["darkroom.v1.Farm"]);
        for call in CALLS {
            let is_in = |paths: &[String]| paths.iter().any(|path| path == call.path);
            assert_eq!(is_in(&options.limits.long), call.receives_stream, "{call:?}");
            assert_eq!(is_in(&options.lasting), call.class == Class::Lasting, "{call:?}");
        }
        let named =
            |paths: &[String], method: &str| paths.iter().any(|path| path.ends_with(method));
        assert!(named(&options.limits.long, "/ForecastJob"), "a large dry run takes minutes");
        assert!(
            named(&options.lasting, "/WatchJob")
                && named(&options.lasting, "/WatchFarm")
                && named(&options.gathers, "/UploadInput")
        );
        assert!(named(&options.plain, "/FetchImage"));
    }
}
