//! The farm's calls in this process, by their names in the descriptor and for any caller.

use std::{fmt::Debug, sync::Arc, time::Duration};

use darkroom_core::error::UserError;
use darkroom_farm_api::{Answer, Caller, Calls, Incoming, Outgoing, Scope};
use darkroom_proto::v1;
use futures::StreamExt as _;

use crate::support::{Act, Farm, Workers, prompt};

/// Words that only tenant b's jobs have, in every place where a user can write some.
pub(super) const NAME: &str = "bees-name";
pub(super) const TEXT: &str = "bees-text";
pub(super) const LABEL: &str = "bees-label";
pub(super) const CUSTOM: &str = "bees-custom";
pub(super) const REQUEST: &str = "bees-request";

/// A caller of a tenant who may submit.
pub(super) fn of(tenant: &str) -> Caller {
    Caller::of(Some(tenant.to_owned()), [Scope::Submit], Some(format!("key-of-{tenant}")))
}

/// A caller who may see and control every tenant's jobs, and has no tenant.
pub(super) fn operator() -> Caller {
    Caller::of(None, [Scope::Operate], Some("key-of-ops".to_owned()))
}

/// A farm with an ended job and an active job of tenant b.
pub(super) struct Town {
    pub(super) farm: Farm,
    pub(super) calls: Arc<dyn Calls>,
    pub(super) ended: String,
    pub(super) active: String,
    /// For whom the active job's work is dispatched.
    _idle: Workers,
}

impl Town {
    pub(super) async fn build() -> Self {
        let mut farm = Farm::start().await;
        let calls = farm.handle.calls();
        let workers = farm.work(|_| Act::Done);
        let ended = submit(&calls, &of("b"), bees(REQUEST)).await.expect("accepted");
        farm.until_ended(&ended.id).await;
        workers.stop().await;
        let idle = farm.wait_beside();
        let active = submit(&calls, &of("b"), bees("another")).await.expect("accepted");
        // It is dispatched, and nobody takes it, so nothing changes any more.
        let waits = |job: &v1::Job| job.stages.iter().any(|stage| stage.dispatched == job.images);
        farm.until(&active.id, "dispatched", waits).await;
        Self { farm, calls, ended: ended.id, active: active.id, _idle: idle }
    }

    /// The ids of b's jobs.
    pub(super) fn jobs(&self) -> [&str; 2] {
        [&self.ended, &self.active]
    }

    /// Fails if a text has anything of b in it.
    pub(super) fn assert_says_nothing_of_b(&self, what: &str, text: &str) {
        let words = [NAME, TEXT, LABEL, CUSTOM, REQUEST, "tenant: \"b\""];
        for word in words.into_iter().chain(self.jobs()) {
            assert!(!text.contains(word), "{what} says {word}: {text}");
        }
    }
}

/// A request for a job of tenant b's words.
fn bees(request_id: &str) -> v1::SubmitJobRequest {
    let labels = [(LABEL.to_owned(), "yes".to_owned())].into();
    let spec = v1::JobSpec {
        seed: Some(7),
        name: NAME.to_owned(),
        labels,
        client_request_id: request_id.to_owned(),
        ..Default::default()
    };
    let named = v1::Prompt { custom_id: CUSTOM.to_owned(), ..prompt(TEXT) };
    v1::SubmitJobRequest { spec: Some(spec), prompts: vec![named, prompt(TEXT)] }
}

pub(super) async fn submit(
    calls: &Arc<dyn Calls>,
    caller: &Caller,
    request: v1::SubmitJobRequest,
) -> Answer<v1::Job> {
    let answer = calls.submit_job(caller, request).await?;
    Ok(answer.job.expect("a job"))
}

/// A submit of one prompt with this text, and nothing else.
pub(super) fn plain(text: &str) -> v1::SubmitJobRequest {
    let spec = v1::JobSpec { seed: Some(7), ..Default::default() };
    v1::SubmitJobRequest { spec: Some(spec), prompts: vec![prompt(text)] }
}

/// Chunks as a client streams them.
pub(super) fn incoming<T: Send + 'static>(chunks: Vec<T>) -> Incoming<T> {
    futures::stream::iter(chunks.into_iter().map(Ok)).boxed()
}

/// A submit as a client streams it.
pub(super) fn streamed(request: v1::SubmitJobRequest) -> Incoming<v1::SubmitJobChunk> {
    use v1::submit_job_chunk::Part;
    let spec = request.spec.map(Part::Spec);
    let prompts = Part::Prompts(v1::PromptChunk { prompts: request.prompts });
    let parts = spec.into_iter().chain([prompts]);
    incoming(parts.map(|part| v1::SubmitJobChunk { part: Some(part) }).collect())
}

pub(super) fn uploaded(bytes: &[u8]) -> Incoming<v1::UploadInputChunk> {
    incoming(bytes.chunks(1000).map(|data| v1::UploadInputChunk { data: data.to_vec() }).collect())
}

/// An answer as text.
pub(super) fn text<T: Debug>(answer: Answer<T>) -> Answer<String> {
    answer.map(|told| format!("{told:?}"))
}

/// The beginning of a stream as text: until it ends, fails, or has nothing for a while.
pub(super) async fn beginning<T: Debug>(answer: Answer<Outgoing<T>>) -> Answer<String> {
    let mut stream = answer?;
    let mut told = String::new();
    while let Ok(Some(next)) = tokio::time::timeout(Duration::from_millis(300), stream.next()).await
    {
        told += &format!("{:?}\n", next?);
    }
    Ok(told)
}

/// A refusal with an id in it taken out.
pub(super) fn without(id: &str, error: &UserError) -> UserError {
    UserError { message: error.message.replace(id, "ID"), ..error.clone() }
}
