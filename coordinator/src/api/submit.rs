//! Submits, whole or in chunks.

use std::sync::Arc;

use darkroom_core::{
    digest::Digest,
    error::{Code, UserError},
    id::JobId,
};
use darkroom_farm_api::{Caller, Incoming};
use darkroom_proto::v1;
use tokio::{
    sync::{OwnedSemaphorePermit, SemaphorePermit},
    task::{JoinError, JoinHandle, JoinSet},
    time::timeout,
};

use super::{
    Farm,
    access::{Reach, claim},
    chunks::Chunks,
    convert,
    jobs::AFTERWARDS,
    progress, refused,
    validate::Draft,
};
use crate::{
    error::Error,
    forecasts,
    store::{
        self,
        error::{OUTCOME_UNKNOWN, request_id_taken},
        metering,
        records::{JobRecord, NewJob, Submitted},
    },
};

/// A submit in chunks before it is accepted.
enum Received<'a> {
    /// It repeats one that made this job.
    Before(Box<JobRecord>),
    /// All of it is stored.
    Now { draft: Box<Draft>, content: Digest, abandon: Abandon<'a>, turn: SemaphorePermit<'a> },
}

/// Chunks of one submit that are stored at one time.
const SIDE_BY_SIDE: usize = 3;
/// What a forecast may remember, texts and custom ids, without a turn.
const FREE: usize = 10_000;

impl Farm {
    pub(super) async fn submit(
        &self,
        caller: &Caller,
        mut request: v1::SubmitJobRequest,
    ) -> Result<v1::SubmitJobResponse, Error> {
        let prepared = async {
            claim(caller, request.spec.as_mut()).map_err(refused)?;
            let reach = Reach::of(caller).map_err(refused)?;
            let draft = Draft::new(request.spec, &self.shared.cascades).map_err(refused)?;
            if self.shared.disks.full().is_some() && self.submitted_before(&draft).await?.is_none()
            {
                self.shared.disks.refuse()?;
            }
            let reading = async {
                let sharing = self.front.sharing_of_new(&draft.job.tenant).await?;
                let inputs = self.inputs_of(reach, &draft.job.tenant, &request.prompts).await?;
                Ok::<_, Error>((sharing, inputs))
            };
            let read = timeout(self.shared.options.call, reading).await;
            let (sharing, inputs) = read.map_err(|_| {
                refused(UserError::new(
                    Code::Unavailable,
                    "STORE_UNAVAILABLE",
                    "the job store takes too long to find the pictures that prompts name; nothing was submitted, try again",
                ))
            })??;
            let draft = draft.sharing(sharing);
            let (draft, prompts) = self.add_prompts(draft, request.prompts, inputs).await?;
            let content = draft.finish().map_err(refused)?;
            let turn = self.shared.submits.acquire().await.map_err(Error::other)?;
            Ok((draft, prompts, content, turn))
        };
        let (draft, prompts, content, _turn) = self.call.while_wanted(prepared).await?;
        // From here on it goes on without its client, so that the audit has the job if there is
        // one.
        let storing = self.front.submit(&draft.job, &prompts, content);
        let submitted = match timeout(self.shared.options.submit, storing).await {
            Ok(stored) => stored.map_err(|error| unsure_submit(&draft.job, error))?,
            Err(_) => return Err(unsure(&draft.job, "the record took too long")),
        };
        Ok(self.submitted(submitted).await)
    }

    pub(super) async fn submit_stream(
        &self,
        caller: &Caller,
        chunks: Incoming<v1::SubmitJobChunk>,
    ) -> Result<v1::SubmitJobResponse, Error> {
        let received = async {
            let mut chunks = Chunks::new(chunks, self.shared.options.submit_idle);
            let mut spec = chunks.spec().await?;
            claim(caller, Some(&mut spec)).map_err(refused)?;
            let reach = Reach::of(caller).map_err(refused)?;
            let draft = Draft::new(Some(spec), &self.shared.cascades).map_err(refused)?;
            if let Some(existing) = self.submitted_before(&draft).await? {
                // Only a repeated submit can follow, so its prompts are not kept.
                let draft = self.receive(reach, &mut chunks, draft, false).await?;
                let content = draft.finish().map_err(refused)?;
                if content != existing.1 {
                    let request = draft.job.client_request_id.unwrap_or_default();
                    return Err(refused(request_id_taken(&request, &existing.0.to_string())));
                }
                let job = self.front.job(existing.0).await?;
                return Ok(Received::Before(Box::new(job)));
            }
            self.shared.disks.refuse()?;
            let sharing = self.front.sharing_of_new(&draft.job.tenant).await?;
            let draft = draft.sharing(sharing);
            let id = draft.job.id;
            // If the stream ends in any other way (an error, a client that goes away, even while
            // the row is made), the job is given up.
            let (front, job) = (Arc::clone(&self.front), draft.job.clone());
            let begun = self.shared.tasks.spawn(async move { front.begin(&job).await });
            let mut abandon = Abandon { farm: self, job: Some(id), begun: Some(begun) };
            abandon.begun().await?;
            let draft = self.receive(reach, &mut chunks, draft, true).await?;
            let content = draft.finish().map_err(refused)?;
            let turn = self.shared.submits.acquire().await.map_err(Error::other)?;
            Ok(Received::Now { draft: Box::new(draft), content, abandon, turn })
        };
        let (draft, content, abandon, _turn) = match self.call.while_wanted(received).await? {
            Received::Before(job) => {
                return Ok(self.submitted(Submitted { job: *job, existed: true }).await);
            }
            Received::Now { draft, content, abandon, turn } => (draft, content, abandon, turn),
        };
        // As in `submit`: from here on it goes on without its client.
        let accepting =
            timeout(self.shared.options.submit, self.front.accept(draft.job.id, content));
        let submitted = match accepting.await {
            Ok(accepted) => accepted.map_err(|error| unsure_submit(&draft.job, error))?,
            Err(_) => return Err(unsure(&draft.job, "the record took too long")),
        };
        abandon.accepted();
        Ok(self.submitted(submitted).await)
    }

    async fn submitted_before(&self, draft: &Draft) -> Result<Option<(JobId, Digest)>, Error> {
        match &draft.job.client_request_id {
            Some(request) => Ok(self.front.find_submitted(&draft.job.tenant, request).await?),
            None => Ok(None),
        }
    }

    async fn receive(
        &self,
        reach: Reach<'_>,
        chunks: &mut Chunks,
        mut draft: Draft,
        keep: bool,
    ) -> Result<Draft, Error> {
        // Chunks are stored concurrently, and the next one is read meanwhile.
        let mut storing = JoinSet::new();
        let mut turn = None;
        while let Some(prompts) = chunks.prompts().await? {
            let inputs = self.inputs_of(reach, &draft.job.tenant, &prompts).await?;
            let added;
            (draft, added) = self.add_prompts(draft, prompts, inputs).await?;
            if draft.remembered() > FREE && turn.is_none() {
                turn = Some(self.turn(reach).await?);
            }
            if keep && !added.is_empty() {
                if storing.len() >= SIDE_BY_SIDE {
                    stored(storing.join_next().await)?;
                }
                let (store, job) = (Arc::clone(&self.front), draft.job.id);
                storing.spawn(async move { store.receive(job, &added).await });
            }
        }
        while !storing.is_empty() {
            stored(storing.join_next().await)?;
        }
        // Refused here, before anything else is checked.
        draft.finish().map_err(refused)?;
        Ok(draft)
    }

    /// Waits until this forecast may remember many texts and ids. Of each tenant, only a few may.
    async fn turn(&self, reach: Reach<'_>) -> Result<OwnedSemaphorePermit, Error> {
        let turns = &self.shared.forecasting;
        let taking = turns.of(reach.tenant()).acquire_owned();
        match timeout(self.shared.options.call, taking).await {
            Ok(turn) => turn.map_err(Error::other),
            Err(_) => Err(refused(UserError::new(
                Code::ResourceExhausted,
                "FORECASTS",
                format!(
                    "{} large forecasts of the same tenant are being made; try again when one has \
                     ended",
                    turns.each()
                ),
            ))),
        }
    }

    pub(super) async fn forecast(
        &self,
        caller: &Caller,
        chunks: Incoming<v1::SubmitJobChunk>,
    ) -> Result<v1::ForecastJobResponse, Error> {
        let mut chunks = Chunks::new(chunks, self.shared.options.submit_idle);
        let mut spec = chunks.spec().await?;
        claim(caller, Some(&mut spec)).map_err(refused)?;
        let reach = Reach::of(caller).map_err(refused)?;
        let draft = Draft::new(Some(spec), &self.shared.cascades).map_err(refused)?.counting();
        let draft = self.receive(reach, &mut chunks, draft, false).await?;
        let (images, texts, loads) = (draft.images(), draft.texts(), draft.loads());
        // What it remembers goes with the turn.
        let job = &draft.into_job();
        let rivals = self.front.active_jobs(job.priority).await? + 1;
        let (quotas, usage) = self.front.standing(&job.tenant).await?;
        let (forecast, pools) = forecasts::of_new(&self.shared, job, (texts, &loads), rivals);
        let classes = progress::classes(&self.shared, &pools, &loads);
        let device_seconds = forecast.device_seconds;
        let notes = metering::warnings(&job.tenant, &quotas, &usage, (images, device_seconds));
        Ok(v1::ForecastJobResponse {
            forecast: Some(convert::forecast(&forecast, usage.now_ms, classes)),
            images,
            effective_settings: Some(v1::Settings::from(&job.settings)),
            cascade_digest: job.cascade.to_string(),
            notes,
        })
    }

    /// The answer to a committed submit. From here on, nothing may turn it into an error.
    async fn submitted(&self, mut submitted: Submitted) -> v1::SubmitJobResponse {
        if !submitted.existed {
            tracing::info!(job.id = %submitted.job.id, job.images = submitted.job.images, "job accepted");
            self.shared.events.dispatch.notify_one();
            // Texts may have been encoded between the chunks.
            self.shared.events.follow.notify_one();
            match timeout(
                AFTERWARDS,
                forecasts::keep(&self.shared, self.front.as_ref(), &submitted.job),
            )
            .await
            {
                Ok(Ok(None)) => {}
                Ok(Ok(kept)) => submitted.job.forecast = kept,
                Ok(Err(error)) => {
                    tracing::warn!(job.id = %submitted.job.id, %error, "the job's first forecast could \
                        not be stored; it is made later");
                }
                Err(_) => {
                    tracing::warn!(job.id = %submitted.job.id, "the job's first forecast could not be \
                        stored in time; it is made later");
                }
            }
        }
        let job = self.view_committed(submitted.job).await;
        v1::SubmitJobResponse { job: Some(job), existed: submitted.existed }
    }
}

/// Finds out what became of a submit whose commit is uncertain.
fn unsure_submit(job: &NewJob, error: store::Error) -> Error {
    match error {
        store::Error::Unknown(_) => unsure(job, &error.to_string()),
        error => error.into(),
    }
}

/// The error for a submit that may have been accepted: how to repeat it safely, or how to find out.
fn unsure(job: &NewJob, why: &str) -> Error {
    let id = job.id;
    let (code, advice) = match &job.client_request_id {
        Some(request) => (
            Code::Unavailable,
            format!(
                "submit it again with the same client_request_id ({request:?}), so that it is \
                 accepted only once"
            ),
        ),
        None => (
            Code::Unknown,
            format!(
                "if it was accepted, it is job {id}: check with `darkroom status {id}` in ten \
                 seconds, and submit it again if there is no such job (with a client_request_id, \
                 you could simply repeat the submit)"
            ),
        ),
    };
    Error::Unsure(UserError::new(
        code,
        OUTCOME_UNKNOWN,
        format!("it is not known whether the job was accepted ({why}); {advice}"),
    ))
}

fn stored(joined: Option<Result<Result<(), store::Error>, JoinError>>) -> Result<(), Error> {
    match joined {
        None => Ok(()),
        Some(Ok(stored)) => Ok(stored?),
        Some(Err(error)) => Err(Error::other(error)),
    }
}

/// Gives the job up if it is dropped before the job is accepted.
struct Abandon<'a> {
    farm: &'a Farm,
    job: Option<JobId>,
    /// Makes the job's row, until it has. A call that is cancelled meanwhile does not cancel it, as
    /// nobody would know then whether there is a row.
    begun: Option<JoinHandle<Result<(), store::Error>>>,
}

impl Abandon<'_> {
    /// Waits until the job's row is made.
    async fn begun(&mut self) -> Result<(), Error> {
        let Some(begun) = &mut self.begun else { return Ok(()) };
        let joined = begun.await;
        self.begun = None;
        match joined.map_err(Error::other)? {
            Ok(()) => Ok(()),
            Err(error) => {
                // Only where nobody knows is there something to give up.
                self.job = self.job.filter(|_| matches!(error, store::Error::Unknown(_)));
                Err(error.into())
            }
        }
    }

    fn accepted(mut self) {
        self.job = None;
    }
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        let Some(job) = self.job else { return };
        let (shared, front) = (Arc::clone(&self.farm.shared), Arc::clone(&self.farm.front));
        let begun = self.begun.take();
        self.farm.shared.tasks.spawn(async move {
            if let Some(begun) = begun {
                let _ = begun.await;
            }
            shared.counters.submits_abandoned.add(1);
            if let Err(error) = front.abandon(job).await {
                tracing::warn!(job.id = %job, %error, "an abandoned submit stays until the sweep");
            }
        });
    }
}
