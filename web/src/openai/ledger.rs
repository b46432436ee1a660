//! Which requests may be repeated. OpenAI's clients repeat a request on their own, and send nothing
//! that names it.
//!
//! Every request has a seat at its job while its answer is being sent. A request whose client went
//! away before the end stays for a while, so that a retry finds its job; if none comes, the job is
//! cancelled. A retry takes the newest request like it: first those whose client is gone, then those
//! that still wait (a proxy may hide that a client is gone), then those whose answer ended a moment
//! ago (it may have been lost on the way).
//!
//! The ledger is in memory. What it does not know, for example after a restart, is found by the
//! label of the job.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::{Answer, Caller};
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Most requests that are remembered.
const MOST: usize = 10_000;
/// How long a request is remembered after its answer.
const REMEMBERED: Duration = Duration::from_secs(30 * 60);
/// How often old requests are looked for.
const SWEEP: Duration = Duration::from_secs(60);
/// How long an answer that was sent to its end may have been lost on the way. Clients wait at most
/// 8 seconds before they repeat a request.
const LOST: Duration = Duration::from_secs(10);

/// The id of a job, once it is accepted.
type Placed = Shared<BoxFuture<'static, Answer<String>>>;
/// Cancels a job.
type Cancel = Box<dyn Fn(Caller, String) -> BoxFuture<'static, ()> + Send + Sync>;

/// The requests of the last half hour.
pub(crate) struct Ledger {
    book: Arc<Book>,
    /// Ends the waits for retries.
    _stop: DropGuard,
}

struct Book {
    cancel: Cancel,
    grace: Duration,
    stop: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// The oldest first.
    requests: BTreeMap<u64, Request>,
    /// When old ones were last looked for.
    swept: Option<Instant>,
}

struct Request {
    fingerprint: String,
    caller: Caller,
    placed: Placed,
    /// The job, once somebody has seen that it is accepted.
    job: Option<String>,
    /// Clients that wait for its answer.
    seats: usize,
    rest: Rest,
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// It is being waited for or sent.
    Wanted,
    /// Its last client went away then.
    Abandoned(Instant),
    /// It was sent to its end then.
    Answered(Instant),
}

impl Ledger {
    /// A ledger that cancels the job of a client that is gone, after `grace`.
    pub(super) fn new(
        grace: Duration,
        cancel: impl Fn(Caller, String) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        let stop = CancellationToken::new();
        let book =
            Book { cancel: Box::new(cancel), grace, stop: stop.clone(), state: Mutex::default() };
        Self { book: Arc::new(book), _stop: stop.drop_guard() }
    }

    /// A seat at a new request. `place` submits its job, and goes on even if the client goes away.
    pub(super) fn enter(
        &self,
        (fingerprint, caller): (String, Caller),
        place: impl Future<Output = Answer<String>> + Send + 'static,
    ) -> Seat {
        let placing = tokio::spawn(place);
        let placed = async move {
            placing.await.unwrap_or_else(|_| {
                let message = "the job could not be submitted";
                Err(UserError::new(Code::Internal, "INTERNAL", message))
            })
        };
        let placed = placed.boxed().shared();
        let mut state = self.book.state();
        state.make_room();
        let number = state.next;
        state.next += 1;
        let request = Request {
            fingerprint,
            caller,
            placed: placed.clone(),
            job: None,
            seats: 1,
            rest: Rest::Wanted,
        };
        state.requests.insert(number, request);
        drop(state);
        Seat { book: Arc::clone(&self.book), number, placed }
    }

    /// A seat at the request that a retry repeats.
    pub(super) fn rejoin(&self, fingerprint: &str) -> Option<Seat> {
        let mut state = self.book.state();
        let like = state.requests.iter_mut().filter(|(_, one)| one.fingerprint == fingerprint);
        let candidates = like.filter_map(|(number, one)| {
            let rank = match one.rest {
                Rest::Abandoned(_) => 2,
                Rest::Wanted => 1,
                Rest::Answered(then) if then.elapsed() < LOST => 0,
                Rest::Answered(_) => return None,
            };
            Some((rank, *number, one))
        });
        let (_, number, request) = candidates.max_by_key(|(rank, number, _)| (*rank, *number))?;
        request.seats += 1;
        request.rest = Rest::Wanted;
        let placed = request.placed.clone();
        drop(state);
        Some(Seat { book: Arc::clone(&self.book), number, placed })
    }

    /// Whether it knows of a request for this job.
    pub(super) fn knows(&self, job: &str) -> bool {
        let state = self.book.state();
        state.requests.values().any(|request| request.job.as_deref() == Some(job))
    }
}

impl Book {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a retry, and cancels the job if none comes.
    async fn wait_for_retry(self: Arc<Self>, number: u64, since: Instant) {
        tokio::time::sleep_until(since + self.grace).await;
        let request = {
            let mut state = self.state();
            let abandoned = Rest::Abandoned(since);
            let Some(request) = state.requests.get(&number) else { return };
            if request.rest != abandoned {
                return;
            }
            state.requests.remove(&number)
        };
        let Some(Request { placed, caller, .. }) = request else { return };
        if let Ok(job) = placed.await {
            (self.cancel)(caller, job).await;
        }
    }
}

impl State {
    /// Forgets what is old, and if there is still too much, the oldest that nobody waits for.
    fn make_room(&mut self) {
        if self.swept.is_none_or(|then| then.elapsed() >= SWEEP) {
            self.swept = Some(Instant::now());
            self.requests.retain(|_, request| match request.rest {
                Rest::Answered(then) => then.elapsed() < REMEMBERED,
                Rest::Wanted | Rest::Abandoned(_) => true,
            });
        }
        if self.requests.len() < MOST {
            return;
        }
        let idle = |(_, request): &(&u64, &Request)| matches!(request.rest, Rest::Answered(_));
        let oldest = self.requests.iter().find(idle).map(|(number, _)| *number);
        if let Some(oldest) = oldest {
            self.requests.remove(&oldest);
        }
    }
}

/// A client's place at a request, until its answer was sent to the end or the client went away.
pub(super) struct Seat {
    book: Arc<Book>,
    number: u64,
    placed: Placed,
}

impl Seat {
    /// The id of the job, as soon as it is accepted. A request whose job is refused is forgotten.
    pub(super) async fn job(&self) -> Answer<String> {
        let placed = self.placed.clone().await;
        let mut state = self.book.state();
        match &placed {
            Ok(job) => {
                if let Some(request) = state.requests.get_mut(&self.number) {
                    request.job = Some(job.clone());
                }
            }
            Err(_) => {
                state.requests.remove(&self.number);
            }
        }
        placed
    }

    /// The answer was sent to its end.
    pub(super) fn answered(self) {
        let mut state = self.book.state();
        if let Some(request) = state.requests.get_mut(&self.number) {
            request.rest = Rest::Answered(Instant::now());
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.book.state();
        let Some(request) = state.requests.get_mut(&self.number) else { return };
        request.seats = request.seats.saturating_sub(1);
        if request.seats > 0 || request.rest != Rest::Wanted {
            return;
        }
        let now = Instant::now();
        request.rest = Rest::Abandoned(now);
        drop(state);
        // Without a runtime the process is ending, and a retry finds the job by its label.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let book = Arc::clone(&self.book);
        let stop = book.stop.clone();
        let waits = book.wait_for_retry(self.number, now);
        runtime.spawn(async move { stop.run_until_cancelled(waits).await });
    }
}

#[cfg(test)]
mod tests;
