//! The calls, and a row of the audit for each change that one has made.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::{
    AdminCalls, Answer, Batches, Caller, Calls, Incoming, Outgoing,
    batches::{Batch, FileRecord, NewBatch, NewFile, Page, Purpose, Step, shown_batch, shown_file},
};
use darkroom_proto::v1;
use tokio::task::JoinError;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::Farm;
use crate::{
    audit::note_in,
    store::{keys::NewAudit, roles::Audit},
};

/// Calls whose changes are noted.
pub(super) struct Audited {
    farm: Farm,
    audit: Arc<dyn Audit>,
    tasks: TaskTracker,
}

/// A change that a call has made.
struct Change {
    action: &'static str,
    target: String,
    /// The tenant that it concerned; empty: none.
    tenant: String,
}

impl Audited {
    pub(super) fn new(farm: Farm, audit: Arc<dyn Audit>, tasks: TaskTracker) -> Self {
        Self { farm, audit, tasks }
    }

    /// Runs a call to its note, whoever leaves.
    async fn noted<T, F>(
        &self,
        caller: &Caller,
        call: impl FnOnce(Farm, Caller) -> F,
        change: fn(&T) -> Change,
    ) -> Answer<T>
    where
        T: Send + 'static,
        F: Future<Output = Answer<T>> + Send + 'static,
    {
        let (farm, one) = self.farm.for_one_call();
        let _client = one.client();
        let (audit, caller) = (Arc::clone(&self.audit), caller.clone());
        let made = call(farm, caller.clone());
        let done = self.tasks.spawn(async move {
            let made = made.await?;
            if one.has_changed() {
                note(audit.as_ref(), &caller, vec![change(&made)]).await;
            }
            Ok(made)
        });
        done.await.unwrap_or_else(|error| Err(broke(&error)))
    }
}

async fn note(audit: &dyn Audit, caller: &Caller, changes: Vec<Change>) {
    for Change { action, target, tenant } in changes {
        let key = caller.key().map(str::to_owned);
        let tenant = Some(tenant).filter(|tenant| !tenant.is_empty());
        let new = NewAudit { key, tenant, action, target, peer: caller.peer() };
        note_in(audit, &new).await;
    }
}

/// Implements a trait of calls: those that only read are passed on, and of the others the changes
/// are noted, unless the call only tries what it would do, or finds that there is nothing to
/// change. A call that changes something goes on to its note if the client leaves meanwhile: the
/// change may be made by then. A submit whose client leaves ends before its job is recorded, or
/// goes on to its note as well.
macro_rules! audited {
    (
        $Trait:ident
        reading { $($reading:ident: $Asked:ty => $Told:ty,)* }
        submitting { $($submitting:ident: $Sent:ty => $Taken:ty, $noted:expr;)* }
        changing {
            $($changing:ident: $Request:ty => $Made:ty, $changes:expr $(, unless $tried:expr)?;)*
        }
    ) => {
        #[async_trait]
        impl $Trait for Audited {
            $(async fn $reading(&self, caller: &Caller, asked: $Asked) -> Answer<$Told> {
                $Trait::$reading(&self.farm, caller, asked).await
            })*

            $(async fn $submitting(&self, caller: &Caller, sent: $Sent) -> Answer<$Taken> {
                let (farm, call) = self.farm.for_one_call();
                let _client = call.client();
                let (audit, caller) = (Arc::clone(&self.audit), caller.clone());
                let done = self.tasks.spawn(async move {
                    let taken = $Trait::$submitting(&farm, &caller, sent).await?;
                    let changes: fn(&$Taken) -> Vec<Change> = $noted;
                    note(audit.as_ref(), &caller, changes(&taken)).await;
                    Ok(taken)
                });
                done.await.unwrap_or_else(|error| Err(broke(&error)))
            })*

            $(async fn $changing(&self, caller: &Caller, request: $Request) -> Answer<$Made> {
                let tries: &[fn(&$Request) -> bool] = &[$($tried)?];
                let tries = tries.iter().any(|tries| tries(&request));
                let (farm, call) = self.farm.for_one_call();
                let (audit, caller) = (Arc::clone(&self.audit), caller.clone());
                let done = self.tasks.spawn(async move {
                    let made = $Trait::$changing(&farm, &caller, request).await?;
                    if !tries && call.has_changed() {
                        let changes: fn(&$Made) -> Vec<Change> = $changes;
                        note(audit.as_ref(), &caller, changes(&made)).await;
                    }
                    Ok(made)
                });
                done.await.unwrap_or_else(|error| Err(broke(&error)))
            })*
        }
    };
}

audited! {
    Calls
    reading {
        upload_input: Incoming<v1::UploadInputChunk> => v1::UploadInputResponse,
        forecast_job: Incoming<v1::SubmitJobChunk> => v1::ForecastJobResponse,
        get_job: v1::GetJobRequest => v1::Job,
        list_jobs: v1::ListJobsRequest => v1::ListJobsResponse,
        watch_job: v1::WatchJobRequest => Outgoing<v1::WatchEvent>,
        list_images: v1::ListImagesRequest => v1::ListImagesResponse,
        summarize_failures: v1::SummarizeFailuresRequest => v1::SummarizeFailuresResponse,
        get_image: v1::GetImageRequest => v1::GetImageResponse,
        get_image_map: v1::GetImageMapRequest => v1::GetImageMapResponse,
        fetch_image: v1::FetchImageRequest => Outgoing<v1::FetchImageChunk>,
        fetch_sheet: v1::FetchSheetRequest => Outgoing<v1::FetchSheetChunk>,
        sign_image: v1::SignImageRequest => v1::SignImageResponse,
        fetch_manifest: v1::FetchManifestRequest => Outgoing<v1::FetchManifestChunk>,
        list_workers: v1::ListWorkersRequest => v1::ListWorkersResponse,
        list_cascades: v1::ListCascadesRequest => v1::ListCascadesResponse,
        watch_farm: v1::WatchFarmRequest => Outgoing<v1::FarmEvent>,
        describe_queue: v1::DescribeQueueRequest => v1::DescribeQueueResponse,
        farm_history: v1::FarmHistoryRequest => v1::FarmHistoryResponse,
        list_usage: v1::ListUsageRequest => v1::ListUsageResponse,
        get_farm: v1::GetFarmRequest => v1::GetFarmResponse,
        list_webhooks: v1::ListWebhooksRequest => v1::ListWebhooksResponse,
    }
    submitting {
        submit_job: v1::SubmitJobRequest => v1::SubmitJobResponse, submitted;
        submit_job_stream: Incoming<v1::SubmitJobChunk> => v1::SubmitJobResponse, submitted;
    }
    changing {
        cancel_job: v1::CancelJobRequest => v1::Job, |job| of_job("job.cancel", Some(job));
        delete_job: v1::DeleteJobRequest => v1::DeleteJobResponse, deleted;
        pause_job: v1::PauseJobRequest => v1::Job, |job| of_job("job.pause", Some(job));
        resume_job: v1::ResumeJobRequest => v1::Job, |job| of_job("job.resume", Some(job));
        retry_job: v1::RetryJobRequest => v1::Job, |job| of_job("job.retry", Some(job));
        cancel_images: v1::CancelImagesRequest => v1::CancelImagesResponse,
            |made| of_job("images.cancel", made.job.as_ref()), unless |request| request.dry_run;
        retry_images: v1::RetryImagesRequest => v1::RetryImagesResponse,
            |made| of_job("images.retry", made.job.as_ref()), unless |request| request.dry_run;
        drain_worker: v1::DrainWorkerRequest => v1::DrainWorkerResponse, drained;
        create_webhook: v1::CreateWebhookRequest => v1::CreateWebhookResponse, |made| {
            let made = made.webhook.as_ref();
            let made = made.map(|made| of_webhook("webhook.create", &made.id, &made.tenant));
            made.into_iter().collect()
        };
        delete_webhook: v1::DeleteWebhookRequest => v1::DeleteWebhookResponse,
            |gone| vec![of_webhook("webhook.delete", &gone.id, &gone.tenant)];
    }
}

audited! {
    AdminCalls
    reading {
        list_keys: v1::ListKeysRequest => v1::ListKeysResponse,
        get_tenant: v1::GetTenantRequest => v1::Tenant,
        get_retention: v1::GetRetentionRequest => v1::GetRetentionResponse,
        list_tenants: v1::ListTenantsRequest => v1::ListTenantsResponse,
        list_audit: v1::ListAuditRequest => v1::ListAuditResponse,
    }
    submitting {}
    changing {
        create_key: v1::CreateKeyRequest => v1::CreateKeyResponse,
            |made| of_key("key.create", made.key.as_ref());
        revoke_key: v1::RevokeKeyRequest => v1::Key, |key| of_key("key.revoke", Some(key));
        rotate_key: v1::RotateKeyRequest => v1::RotateKeyResponse, |made| {
            let old = of_key("key.rotate", made.old.as_ref());
            old.into_iter().chain(of_key("key.create", made.key.as_ref())).collect()
        };
        set_tenant: v1::SetTenantRequest => v1::Tenant, |tenant| {
            let name = || tenant.name.clone();
            vec![Change { action: "tenant.set", target: name(), tenant: name() }]
        };
        set_retention: v1::SetRetentionRequest => v1::RetentionPolicy, |policy| {
            let target = super::cleaning::scope_of(policy);
            vec![Change { action: "retention.set", target, tenant: policy.tenant.clone() }]
        };
        clean_farm: v1::CleanFarmRequest => v1::CleanFarmResponse, |_| {
            let (target, tenant) = (String::new(), String::new());
            vec![Change { action: "farm.clean", target, tenant }]
        }, unless |request| request.dry_run;
    }
}

#[async_trait]
impl Batches for Audited {
    async fn add_file(
        &self,
        caller: &Caller,
        new: NewFile,
        parts: Incoming<Bytes>,
    ) -> Answer<FileRecord> {
        let add = move |farm: Farm, caller: Caller| async move {
            farm.add_file(&caller, new, parts).await
        };
        self.noted(caller, add, |file| of_file("file.create", file)).await
    }

    async fn file(&self, caller: &Caller, id: Uuid) -> Answer<FileRecord> {
        self.farm.file(caller, id).await
    }

    async fn files(
        &self,
        caller: &Caller,
        page: &Page,
        purpose: Option<Purpose>,
    ) -> Answer<Vec<FileRecord>> {
        self.farm.files(caller, page, purpose).await
    }

    async fn read_file(
        &self,
        caller: &Caller,
        id: Uuid,
        offset: u64,
    ) -> Answer<(FileRecord, Outgoing<Bytes>)> {
        self.farm.read_file(caller, id, offset).await
    }

    async fn delete_file(&self, caller: &Caller, id: Uuid) -> Answer<()> {
        let delete =
            move |farm: Farm, caller: Caller| async move { farm.deleted_file(&caller, id).await };
        self.noted(caller, delete, |file| of_file("file.delete", file)).await.map(drop)
    }

    async fn add_batch(&self, caller: &Caller, new: NewBatch) -> Answer<Batch> {
        let add =
            move |farm: Farm, caller: Caller| async move { farm.add_batch(&caller, new).await };
        self.noted(caller, add, |batch| of_batch("batch.create", batch)).await
    }

    async fn batch(&self, caller: &Caller, id: Uuid) -> Answer<Batch> {
        self.farm.batch(caller, id).await
    }

    async fn batches(&self, caller: &Caller, page: &Page) -> Answer<Vec<Batch>> {
        self.farm.batches(caller, page).await
    }

    async fn cancel_batch(&self, caller: &Caller, id: Uuid) -> Answer<Batch> {
        let cancel =
            move |farm: Farm, caller: Caller| async move { farm.cancel_batch(&caller, id).await };
        self.noted(caller, cancel, |batch| of_batch("batch.cancel", batch)).await
    }

    async fn clock_ms(&self) -> Answer<i64> {
        self.farm.clock_ms().await
    }

    async fn claim_batch(&self, runner: Uuid, lease: Duration) -> Answer<Option<Batch>> {
        self.farm.claim_batch(runner, lease).await
    }

    async fn renew_batch(&self, runner: Uuid, id: Uuid, lease: Duration) -> Answer<bool> {
        self.farm.renew_batch(runner, id, lease).await
    }

    async fn advance_batch(&self, runner: Uuid, step: &Step) -> Answer<bool> {
        self.farm.advance_batch(runner, step).await
    }
}

fn of_file(action: &'static str, file: &FileRecord) -> Change {
    Change { action, target: shown_file(file.id), tenant: file.tenant.clone() }
}

fn of_batch(action: &'static str, batch: &Batch) -> Change {
    Change { action, target: shown_batch(batch.id), tenant: batch.tenant.clone() }
}

fn broke(error: &JoinError) -> UserError {
    let message = format!("the call broke, and its change may have been made: {error}");
    UserError::new(Code::Internal, "INTERNAL", message)
}

/// A repeated submit changes nothing.
fn submitted(made: &v1::SubmitJobResponse) -> Vec<Change> {
    of_job("job.submit", made.job.as_ref().filter(|_| !made.existed))
}

fn of_job(action: &'static str, job: Option<&v1::Job>) -> Vec<Change> {
    let change = |job: &v1::Job| Change {
        action,
        target: job.id.clone(),
        tenant: job.spec.as_ref().map(|spec| spec.tenant.clone()).unwrap_or_default(),
    };
    job.map(change).into_iter().collect()
}

/// A job that had been deleted before is not deleted again.
fn deleted(made: &v1::DeleteJobResponse) -> Vec<Change> {
    let (target, tenant) = (made.id.clone(), made.tenant.clone());
    made.deleted.then_some(Change { action: "job.delete", target, tenant }).into_iter().collect()
}

fn of_key(action: &'static str, key: Option<&v1::Key>) -> Vec<Change> {
    let change =
        |key: &v1::Key| Change { action, target: key.id.clone(), tenant: key.tenant.clone() };
    key.map(change).into_iter().collect()
}

fn of_webhook(action: &'static str, id: &str, tenant: &str) -> Change {
    Change { action, target: id.to_owned(), tenant: tenant.to_owned() }
}

fn drained(made: &v1::DrainWorkerResponse) -> Vec<Change> {
    let change = |worker: &v1::Worker| Change {
        action: "worker.drain",
        target: worker.id.clone(),
        tenant: String::new(),
    };
    made.workers.iter().map(change).collect()
}
