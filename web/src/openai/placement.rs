//! Finds the job for a request: a new job, or, for a retry, the first request's job.

use std::{sync::Arc, time::Duration};

use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::Answer;
use darkroom_proto::v1;
use futures::{FutureExt as _, future::BoxFuture};

use super::{
    answer::Client,
    ledger::{Ledger, Seat, Sender},
    progress::{self, Progress},
    refusals::Visit,
    spec,
};
use crate::clock::now;

/// How old a job may be that a retry finds in the farm's record. Clients wait ten minutes for an
/// answer, and repeat a request twice.
const RECENT: Duration = Duration::from_secs(30 * 60);
/// Most pages of the record that are looked at.
const PAGES: usize = 3;

/// What a placement asks of the farm.
pub(super) trait Jobs: Sync {
    /// A job that is being watched.
    type Watched: Send;

    /// Submits a job, and says its id.
    fn submit(&self, request: v1::SubmitJobRequest) -> BoxFuture<'static, Answer<String>>;

    /// A page of jobs.
    fn list(
        &self,
        request: v1::ListJobsRequest,
    ) -> impl Future<Output = Answer<v1::ListJobsResponse>> + Send;

    /// Watches a job.
    fn watch(&self, id: &str) -> impl Future<Output = Answer<Self::Watched>> + Send;
}

impl Jobs for Client {
    type Watched = Progress;

    fn submit(&self, request: v1::SubmitJobRequest) -> BoxFuture<'static, Answer<String>> {
        let (farm, caller) = (Arc::clone(&self.site.farm), self.caller.clone());
        let submitted = async move {
            let accepted = farm.submit_job(&caller, request).await.map_err(spec::in_parameters)?;
            Ok(accepted.job.unwrap_or_default().id)
        };
        submitted.boxed()
    }

    async fn list(&self, request: v1::ListJobsRequest) -> Answer<v1::ListJobsResponse> {
        self.site.farm.list_jobs(&self.caller, request).await
    }

    async fn watch(&self, id: &str) -> Answer<Progress> {
        self.progress(id).await
    }
}

/// A seat at the job of a request, and the job.
pub(super) async fn place<J: Jobs>(
    (ledger, jobs): (&Ledger, &J),
    visit: &Visit,
    sender: Sender,
    request: v1::SubmitJobRequest,
) -> Answer<(Seat, J::Watched)> {
    if visit.is_retry()
        && let Some(seat) = earlier((ledger, jobs), visit, &sender).await?
    {
        visit.mark_seated();
        match jobs.watch(&seat.job().await?).await {
            Err(error) if error.code == Code::NotFound => seat.forget(),
            watched => {
                visit.mark_placed();
                return Ok((seat, watched?));
            }
        }
    }
    visit.mark_seated();
    let seat = ledger.enter(sender, jobs.submit(request));
    let id = seat.job().await?;
    visit.mark_placed();
    let watched = jobs.watch(&id).await.map_err(|error| progress::translated(&id, error))?;
    Ok((seat, watched))
}

/// A seat at the request that a retry repeats.
async fn earlier<J: Jobs>(
    (ledger, jobs): (&Ledger, &J),
    visit: &Visit,
    sender: &Sender,
) -> Answer<Option<Seat>> {
    if let Some(seat) = ledger.rejoin_abandoned(&sender.fingerprint) {
        return Ok(Some(seat));
    }
    // All others may be those of other requests, and this one has probably no job.
    if visit.take_refusal() {
        return Ok(None);
    }
    if let Some(seat) = ledger.rejoin(&sender.fingerprint) {
        return Ok(Some(seat));
    }
    if let Some(seat) = recorded((ledger, jobs), sender).await? {
        return Ok(Some(seat));
    }
    // Another retry may have found the job in the record meanwhile.
    Ok(ledger.rejoin(&sender.fingerprint))
}

/// A seat at the newest recent job of a request like this that this program has not made itself: it
/// was accepted before a restart, or by another coordinator.
async fn recorded<J: Jobs>(
    (ledger, jobs): (&Ledger, &J),
    sender: &Sender,
) -> Result<Option<Seat>, UserError> {
    let since = now().saturating_sub(RECENT.as_secs());
    let seconds = i64::try_from(since).unwrap_or(i64::MAX);
    let mut asked = v1::ListJobsRequest {
        page_size: 20,
        labels: [(spec::REQUEST.to_owned(), sender.fingerprint.clone())].into(),
        states: vec![
            v1::JobState::Active.into(),
            v1::JobState::Paused.into(),
            v1::JobState::Done.into(),
        ],
        created_from: Some(prost_types::Timestamp { seconds, nanos: 0 }),
        ..Default::default()
    };
    for _ in 0..PAGES {
        let page = jobs.list(asked.clone()).await?;
        let mut ids = page.jobs.into_iter().map(|job| job.id);
        if let Some(seat) = ids.find_map(|id| ledger.adopt(sender, id)) {
            return Ok(Some(seat));
        }
        if page.next_page_token.is_empty() {
            break;
        }
        asked.page_token = page.next_page_token;
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
