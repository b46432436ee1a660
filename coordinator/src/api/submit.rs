//! Submitting: whole, or in chunks.

use std::sync::Arc;

use darkroom_core::error::{Code, UserError};
use darkroom_proto::v1::{self, submit_job_chunk::Part};
use tokio::{
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_stream::StreamExt;
use tonic::Streaming;

use super::{Farm, convert, jobs::AFTERWARDS, progress, refused, validate::Draft};
use crate::{
    service::{Error, Shared},
    store::{
        self,
        error::{OUTCOME_UNKNOWN, request_id_taken},
        forecast::KeptForecast,
        records::{JobRecord, NewJob, Submitted},
    },
};

/// Chunks of one submit that are stored at a time.
const SIDE_BY_SIDE: usize = 3;

impl Farm {
    pub(super) async fn submit(&self, request: v1::SubmitJobRequest) -> Result<v1::SubmitJobResponse, Error> {
        let draft = Draft::new(request.spec, &self.shared.cascades).map_err(refused)?;
        let inputs = timeout(self.shared.options.call, self.inputs_of(&request.prompts)).await;
        let inputs = inputs.map_err(|_| {
            refused(UserError::new(
                Code::Unavailable,
                "STORE_UNAVAILABLE",
                "the job store takes too long to find the pictures that prompts name; nothing was submitted, try again",
            ))
        })??;
        let (draft, prompts) = self.add_prompts(draft, request.prompts, inputs).await?;
        let content = draft.finish().map_err(refused)?;
        let storing = self.shared.front.submit(&draft.job, &prompts, content);
        let submitted = match timeout(self.shared.options.submit, storing).await {
            Ok(stored) => stored.map_err(|error| unsure_submit(&draft.job, error))?,
            Err(_) => return Err(unsure(&draft.job, "the record took too long")),
        };
        Ok(self.submitted(submitted).await)
    }

    pub(super) async fn submit_stream(
        &self,
        mut chunks: Streaming<v1::SubmitJobChunk>,
    ) -> Result<v1::SubmitJobResponse, Error> {
        let Some(Part::Spec(spec)) = next(&mut chunks).await? else {
            return Err(refused(UserError::invalid(
                "part",
                "the stream begins without a spec; accepted: spec first, then prompts",
            )));
        };
        let draft = Draft::new(Some(spec), &self.shared.cascades).map_err(refused)?;
        if let Some(existing) = self.submitted_before(&draft).await? {
            // Only what repeats it can follow, so nothing of it is kept.
            let draft = self.receive(&mut chunks, draft, false).await?;
            let content = draft.finish().map_err(refused)?;
            if content != existing.1 {
                let request = draft.job.client_request_id.unwrap_or_default();
                return Err(refused(request_id_taken(&request, &existing.0.to_string())));
            }
            let job = self.shared.front.job(existing.0).await?;
            return Ok(self.submitted(Submitted { job, existed: true }).await);
        }
        self.shared.front.begin(&draft.job).await?;
        let id = draft.job.id;
        // However the stream ends (an error, a client that goes away), what was not accepted is given up.
        let abandon = Abandon { farm: self, job: Some(id) };
        let draft = self.receive(&mut chunks, draft, true).await?;
        let content = draft.finish().map_err(refused)?;
        let accepted = self.shared.front.accept(id, content).await;
        let submitted = accepted.map_err(|error| unsure_submit(&draft.job, error))?;
        abandon.accepted();
        Ok(self.submitted(submitted).await)
    }

    async fn submitted_before(
        &self,
        draft: &Draft,
    ) -> Result<Option<(darkroom_core::id::JobId, darkroom_core::digest::Digest)>, Error> {
        match &draft.job.client_request_id {
            Some(request) => Ok(self.shared.front.find_submitted(&draft.job.tenant, request).await?),
            None => Ok(None),
        }
    }

    async fn receive(
        &self,
        chunks: &mut Streaming<v1::SubmitJobChunk>,
        mut draft: Draft,
        keep: bool,
    ) -> Result<Draft, Error> {
        // Chunks are stored side by side, and the next one is read meanwhile.
        let mut storing = JoinSet::new();
        while let Some(part) = next(chunks).await? {
            let Part::Prompts(chunk) = part else {
                return Err(refused(UserError::invalid(
                    "part",
                    "a second spec came; accepted: prompts after the first message",
                )));
            };
            let inputs = self.inputs_of(&chunk.prompts).await?;
            let prompts;
            (draft, prompts) = self.add_prompts(draft, chunk.prompts, inputs).await?;
            if keep && !prompts.is_empty() {
                if storing.len() >= SIDE_BY_SIDE {
                    stored(storing.join_next().await)?;
                }
                let (store, job) = (Arc::clone(&self.shared.front), draft.job.id);
                storing.spawn(async move { store.receive(job, &prompts).await });
            }
        }
        while !storing.is_empty() {
            stored(storing.join_next().await)?;
        }
        // Refused here, before anything else is asked.
        draft.finish().map_err(refused)?;
        Ok(draft)
    }

    pub(super) async fn forecast(
        &self,
        mut chunks: Streaming<v1::SubmitJobChunk>,
    ) -> Result<v1::ForecastJobResponse, Error> {
        let Some(Part::Spec(spec)) = next(&mut chunks).await? else {
            return Err(refused(UserError::invalid(
                "part",
                "the stream begins without a spec; accepted: spec first, then prompts",
            )));
        };
        let draft = Draft::new(Some(spec), &self.shared.cascades).map_err(refused)?.counting();
        let draft = self.receive(&mut chunks, draft, false).await?;
        let (images, texts) = (draft.images(), draft.texts());
        let job = &draft.job;
        let (forecast, pools) = progress::forecast_new(&self.shared, job, texts, images).await?;
        let classes = progress::classes(&self.shared, &pools, &job.settings);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let now_ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        Ok(v1::ForecastJobResponse {
            forecast: Some(convert::forecast(&forecast, now_ms, classes)),
            images,
            effective_settings: Some(v1::Settings::from(&job.settings)),
            cascade_digest: job.cascade.to_string(),
        })
    }

    /// The answer to a submit that is committed: nothing may make a refusal of it any more.
    async fn submitted(&self, mut submitted: Submitted) -> v1::SubmitJobResponse {
        if !submitted.existed {
            tracing::info!(job.id = %submitted.job.id, job.images = submitted.job.images, "job accepted");
            self.shared.events.dispatch.notify_one();
            // Texts may have been encoded between the chunks.
            self.shared.events.follow.notify_one();
            match timeout(AFTERWARDS, keep_forecast(&self.shared, &submitted.job)).await {
                Ok(Ok(None)) => {}
                Ok(Ok(kept)) => submitted.job.forecast = kept,
                Ok(Err(error)) => {
                    tracing::warn!(job.id = %submitted.job.id, %error, "an accepted job's forecast is kept later");
                }
                Err(_) => {
                    tracing::warn!(job.id = %submitted.job.id, "an accepted job's forecast is kept later")
                }
            }
        }
        let job = self.view_committed(submitted.job).await;
        v1::SubmitJobResponse { job: Some(job), existed: submitted.existed }
    }
}

/// What became of a submit that the store does not know of.
fn unsure_submit(job: &NewJob, error: store::Error) -> Error {
    match error {
        store::Error::Unknown(_) => unsure(job, &error.to_string()),
        error => error.into(),
    }
}

/// A submit that may have been accepted: how to repeat it without harm, or how to find out.
fn unsure(job: &NewJob, why: &str) -> Error {
    let id = job.id;
    let (code, advice) = match &job.client_request_id {
        Some(request) => (
            Code::Unavailable,
            format!(
                "submit it again with the same client_request_id ({request:?}): it is then accepted once, whatever \
                 became of this time"
            ),
        ),
        None => (
            Code::Internal,
            format!(
                "if it was accepted, it is job {id}: look with `darkroom status {id}` in ten seconds, and submit it again \
                 if there is no such job (with a client_request_id it could simply be repeated)"
            ),
        ),
    };
    Error::Unsure(UserError::new(
        code,
        OUTCOME_UNKNOWN,
        format!("it is not known whether the job was accepted ({why}); {advice}"),
    ))
}

/// Keeps a job's first forecast, if there is one by now: all its stages served and measured.
pub(crate) async fn keep_forecast(shared: &Shared, job: &JobRecord) -> Result<Option<KeptForecast>, Error> {
    let rivals = shared.front.active_jobs(job.priority).await?;
    let forecast = progress::forecast(shared, job, rivals);
    let Some(forecast) = forecast.filter(|forecast| forecast.seconds.is_some()) else { return Ok(None) };
    let kept = shared.front.keep_forecast(job.id, &forecast).await?;
    Ok(kept.then_some(KeptForecast { at_ms: job.now_ms, forecast, spent: None }))
}

fn stored(joined: Option<Result<Result<(), store::Error>, JoinError>>) -> Result<(), Error> {
    match joined {
        None => Ok(()),
        Some(Ok(stored)) => Ok(stored?),
        Some(Err(error)) => Err(Error::other(error)),
    }
}

async fn next(chunks: &mut Streaming<v1::SubmitJobChunk>) -> Result<Option<Part>, Error> {
    match chunks.next().await {
        None => Ok(None),
        Some(Ok(v1::SubmitJobChunk { part: Some(part) })) => Ok(Some(part)),
        Some(Ok(_)) => Err(refused(UserError::invalid("part", "part is missing; accepted: spec or prompts"))),
        Some(Err(status)) => Err(refused(darkroom_proto::status::from_status(&status))),
    }
}

/// Gives a job up when it is dropped before it was accepted.
struct Abandon<'a> {
    farm: &'a Farm,
    job: Option<darkroom_core::id::JobId>,
}

impl Abandon<'_> {
    fn accepted(mut self) {
        self.job = None;
    }
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        let Some(job) = self.job else { return };
        let shared = std::sync::Arc::clone(&self.farm.shared);
        self.farm.shared.tasks.spawn(async move {
            shared.counters.submits_abandoned.add(1);
            if let Err(error) = shared.front.abandon(job).await {
                tracing::warn!(job.id = %job, %error, "an abandoned submit stays until it is swept");
            }
        });
    }
}
