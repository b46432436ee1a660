//! Requests that were refused before they had a job.
//!
//! Such a request leaves nothing in the ledger, so its retry must not take the job of another
//! request that is like it. A request is refused before its body is known, so what is remembered is
//! how many requests of a client were refused, and not which ones.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use darkroom_core::digest::{Digest, FieldHasher};
use http::{HeaderMap, HeaderName, StatusCode, header};
use tokio::time::Instant;

/// How often the client has sent this request before.
const RETRY_COUNT: HeaderName = HeaderName::from_static("x-stainless-retry-count");
/// How long refusals are remembered after a client's last one. Clients wait at most as long before
/// they repeat a request.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Most clients that are remembered.
const MOST: usize = 1_000;

/// Refused requests that may be repeated, of each client.
#[derive(Default)]
pub(super) struct Refusals(Mutex<HashMap<Digest, Count>>);

struct Count {
    requests: u32,
    last: Instant,
}

impl Refusals {
    fn counts(&self) -> MutexGuard<'_, HashMap<Digest, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client was refused, and this many more of its requests have no job.
    fn add(&self, client: Digest, requests: u32) {
        let mut counts = self.counts();
        counts.retain(|_, count| count.last.elapsed() < REMEMBERED);
        if counts.len() >= MOST && !counts.contains_key(&client) {
            let oldest = counts.iter().min_by_key(|(_, count)| count.last);
            if let Some(oldest) = oldest.map(|(client, _)| *client) {
                counts.remove(&oldest);
            }
        }
        let now = Instant::now();
        let count = counts.entry(client).or_insert(Count { requests: 0, last: now });
        count.requests = count.requests.saturating_add(requests);
        count.last = now;
    }

    /// Takes one of a client's refused requests off; false if there is none.
    fn take(&self, client: Digest) -> bool {
        let mut counts = self.counts();
        let Some(count) = counts.get_mut(&client) else { return false };
        if count.last.elapsed() >= REMEMBERED || count.requests == 0 {
            return false;
        }
        count.requests -= 1;
        true
    }
}

/// One request for pictures, on its way to a job.
#[derive(Clone)]
pub(super) struct Visit {
    refusals: Arc<Refusals>,
    client: Digest,
    is_retry: bool,
    mark: Arc<Mark>,
}

/// How far a request has come.
#[derive(Default)]
struct Mark {
    seated: AtomicBool,
    placed: AtomicBool,
}

impl Visit {
    pub(super) fn of(refusals: Arc<Refusals>, headers: &HeaderMap) -> Self {
        let (client, is_retry) = (client(headers), is_retry(headers));
        Self { refusals, client, is_retry, mark: Arc::default() }
    }

    /// Whether the client repeats the request on its own.
    pub(super) fn is_retry(&self) -> bool {
        self.is_retry
    }

    /// Takes off one refusal of the client's, which this retry may be of; false if there is none.
    pub(super) fn take_refusal(&self) -> bool {
        self.refusals.take(self.client)
    }

    /// Notes that it has a seat, at a job that may still be refused.
    pub(super) fn mark_seated(&self) {
        self.mark.seated.store(true, Ordering::Relaxed);
    }

    /// Notes that a job makes its pictures, which a retry can find.
    pub(super) fn mark_placed(&self) {
        self.mark.placed.store(true, Ordering::Relaxed);
    }

    /// It is refused, and the client will send it again.
    fn refused(&self) {
        if self.mark.placed.load(Ordering::Relaxed) {
            return;
        }
        // A retry without a seat counts already, if the request before it had no job.
        let is_new = !self.is_retry || self.mark.seated.load(Ordering::Relaxed);
        self.refusals.add(self.client, u32::from(is_new));
    }
}

/// Lets a request for pictures pass, and remembers if it is refused before it has a job.
pub(super) async fn watch(
    State(refusals): State<Arc<Refusals>>,
    mut request: Request,
    next: Next,
) -> Response {
    let visit = Visit::of(refusals, request.headers());
    request.extensions_mut().insert(visit.clone());
    let answer = next.run(request).await;
    if is_repeated(&answer) {
        visit.refused();
    }
    answer
}

/// Whether a client repeats a request after this answer, though nothing was changed.
fn is_repeated(answer: &Response) -> bool {
    [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&answer.status())
        && answer.headers().contains_key(header::RETRY_AFTER)
}

/// Who sends a request, before it is known whether the key is one.
fn client(headers: &HeaderMap) -> Digest {
    let shown = [header::AUTHORIZATION, header::COOKIE];
    let shown = shown.iter().flat_map(|name| headers.get_all(name));
    shown
        .fold(FieldHasher::new("client/1"), |hasher, value| hasher.field(value.as_bytes()))
        .finish()
}

/// Whether the client repeats a request on its own.
pub(super) fn is_retry(headers: &HeaderMap) -> bool {
    let count = headers.get(RETRY_COUNT).and_then(|count| count.to_str().ok());
    count.and_then(|count| count.parse::<u32>().ok()).is_some_and(|count| count > 0)
}

#[cfg(test)]
pub(super) mod tests;
