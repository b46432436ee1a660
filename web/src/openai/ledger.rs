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
//!
//! The cancellation of a job is decided under the lock. Until it is done, the request stays in the
//! ledger, where no retry takes it and where it tells that its job is not to be had.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::{Answer, Caller};
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, ready},
};
use tokio::time::Instant;

use super::progress::stopping;
use crate::tasks::Tasks;

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
}

/// Who sends what.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    pub(super) fingerprint: String,
    pub(super) caller: Caller,
}

struct Book {
    cancel: Cancel,
    grace: Duration,
    /// What the ledger does on its own.
    tasks: Tasks,
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
    sender: Sender,
    placed: Placed,
    /// The job, once it is accepted.
    job: Option<String>,
    /// Clients that wait for its answer.
    seats: usize,
    phase: Phase,
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It is being waited for or sent.
    Wanted,
    /// Its last client went away then.
    Abandoned(Instant),
    /// It was sent to its end then.
    Answered(Instant),
    /// Nobody came back for it, and its job is being cancelled.
    Cancelling,
}

impl Ledger {
    /// A ledger that cancels the job of a client that is gone, after `grace`. `tasks`: what it does
    /// on its own.
    pub(super) fn new(
        grace: Duration,
        cancel: impl Fn(Caller, String) -> BoxFuture<'static, ()> + Send + Sync + 'static,
        tasks: Tasks,
    ) -> Self {
        let book = Book { cancel: Box::new(cancel), grace, tasks, state: Mutex::default() };
        Self { book: Arc::new(book) }
    }

    /// A seat at a new request. `place` submits its job, and goes on even if the client goes away.
    pub(super) fn enter(
        &self,
        sender: Sender,
        place: impl Future<Output = Answer<String>> + Send + 'static,
    ) -> Seat {
        let book = &self.book;
        let mut state = book.state();
        let number = state.number();
        let Tasks { stop, tracker } = &book.tasks;
        let placing = tracker.spawn(stop.clone().run_until_cancelled_owned(place));
        let noted = Arc::downgrade(book);
        let placed = async move {
            let placed = match placing.await {
                Ok(Some(placed)) => placed,
                Ok(None) => Err(stopping()),
                Err(_) => {
                    let message = "the job could not be submitted; send the request again";
                    Err(UserError::new(Code::Internal, "INTERNAL", message))
                }
            };
            if let Some(book) = noted.upgrade() {
                book.state().note(number, &placed);
            }
            placed
        };
        let placed = placed.boxed().shared();
        // It is noted even if nobody waits for it.
        tracker.spawn(placed.clone());
        let request =
            Request { sender, placed: placed.clone(), job: None, seats: 1, phase: Phase::Wanted };
        state.requests.insert(number, request);
        drop(state);
        self.seat(number, placed)
    }

    /// A seat at a new request whose job exists; none if there is a request for that job already.
    pub(super) fn adopt(&self, sender: &Sender, job: String) -> Option<Seat> {
        let mut state = self.book.state();
        if state.requests.values().any(|request| request.job.as_deref() == Some(&job)) {
            return None;
        }
        let number = state.number();
        let placed = ready(Ok(job.clone())).boxed().shared();
        let request = Request {
            sender: sender.clone(),
            placed: placed.clone(),
            job: Some(job),
            seats: 1,
            phase: Phase::Wanted,
        };
        state.requests.insert(number, request);
        drop(state);
        Some(self.seat(number, placed))
    }

    /// A seat at the newest request like this whose client is gone.
    pub(super) fn rejoin_abandoned(&self, fingerprint: &str) -> Option<Seat> {
        self.take(fingerprint, |phase| match phase {
            Phase::Abandoned(_) => Some(0),
            Phase::Wanted | Phase::Answered(_) | Phase::Cancelling => None,
        })
    }

    /// A seat at the request that a retry repeats.
    pub(super) fn rejoin(&self, fingerprint: &str) -> Option<Seat> {
        self.take(fingerprint, |phase| match phase {
            Phase::Abandoned(_) => Some(2),
            Phase::Wanted => Some(1),
            Phase::Answered(then) if then.elapsed() < LOST => Some(0),
            Phase::Answered(_) | Phase::Cancelling => None,
        })
    }

    /// A seat at the newest request of the highest rank.
    fn take(&self, fingerprint: &str, rank: impl Fn(Phase) -> Option<u8>) -> Option<Seat> {
        let mut state = self.book.state();
        let like =
            state.requests.iter_mut().filter(|(_, one)| one.sender.fingerprint == fingerprint);
        let ranked = like.filter_map(|(number, one)| Some((rank(one.phase)?, *number, one)));
        let (_, number, request) = ranked.max_by_key(|(rank, number, _)| (*rank, *number))?;
        request.seats += 1;
        request.phase = Phase::Wanted;
        let placed = request.placed.clone();
        drop(state);
        Some(self.seat(number, placed))
    }

    fn seat(&self, number: u64, placed: Placed) -> Seat {
        Seat { book: Arc::clone(&self.book), number, placed }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.book.tasks.stop();
    }
}

impl Book {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a retry, and cancels the job if none comes.
    async fn wait_for_retry(self: Arc<Self>, number: u64, since: Instant) {
        tokio::time::sleep_until(since + self.grace).await;
        let placed = self.state().requests.get(&number).map(|request| request.placed.clone());
        let Some(placed) = placed else { return };
        // A refused job is forgotten by now.
        let Ok(job) = placed.await else { return };
        let caller = {
            let mut state = self.state();
            let Some(request) = state.requests.get_mut(&number) else { return };
            if request.phase != Phase::Abandoned(since) {
                return;
            }
            request.phase = Phase::Cancelling;
            request.sender.caller.clone()
        };
        (self.cancel)(caller, job).await;
        self.state().requests.remove(&number);
    }
}

impl State {
    /// The number of a new request, for which there is room.
    fn number(&mut self) -> u64 {
        self.make_room();
        self.next += 1;
        self.next
    }

    /// Notes the job of a request. A request whose job is refused is forgotten.
    fn note(&mut self, number: u64, placed: &Answer<String>) {
        match placed {
            Ok(job) => {
                if let Some(request) = self.requests.get_mut(&number) {
                    request.job = Some(job.clone());
                }
            }
            Err(_) => {
                self.requests.remove(&number);
            }
        }
    }

    /// Removes old requests. If the ledger is still full, removes the oldest one that was answered.
    fn make_room(&mut self) {
        if self.swept.is_none_or(|then| then.elapsed() >= SWEEP) {
            self.swept = Some(Instant::now());
            self.requests.retain(|_, request| match request.phase {
                Phase::Answered(then) => then.elapsed() < REMEMBERED,
                Phase::Wanted | Phase::Abandoned(_) | Phase::Cancelling => true,
            });
        }
        if self.requests.len() < MOST {
            return;
        }
        let idle = |(_, request): &(&u64, &Request)| matches!(request.phase, Phase::Answered(_));
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
        self.placed.clone().await
    }

    /// The job does not exist any more, and no retry is to find the request.
    pub(super) fn forget(self) {
        self.book.state().requests.remove(&self.number);
    }

    /// Records that the whole answer was sent.
    pub(super) fn answered(self) {
        let mut state = self.book.state();
        if let Some(request) = state.requests.get_mut(&self.number) {
            request.phase = Phase::Answered(Instant::now());
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.book.state();
        let Some(request) = state.requests.get_mut(&self.number) else { return };
        request.seats = request.seats.saturating_sub(1);
        if request.seats > 0 || request.phase != Phase::Wanted {
            return;
        }
        let now = Instant::now();
        request.phase = Phase::Abandoned(now);
        drop(state);
        // Without a runtime the process is ending, and a retry finds the job by its label.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let book = Arc::clone(&self.book);
        let Tasks { stop, tracker } = &self.book.tasks;
        let waits = book.wait_for_retry(self.number, now);
        tracker.spawn_on(stop.clone().run_until_cancelled_owned(waits), &runtime);
    }
}

#[cfg(test)]
mod tests;
