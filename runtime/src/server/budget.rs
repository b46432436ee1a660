//! One memory budget for the messages of all calls: for bytes of incomplete messages, and for
//! decoded messages until their handler is done.
//!
//! Memory is taken as bytes arrive, so a peer must really send what it wants to occupy. The memory
//! for the decoded message is taken all at once with the last byte. Small messages are free, so a
//! health check or a cancel passes even if the budget is full. One connection gets at most a
//! quarter. A message that finds no memory is not read further, and is refused after some time.
//!
//! A request that stalls, or comes very slowly, keeps its memory only while nobody waits for it.
//! `pace` decides which requests are late, and `ledger` which of those gives way.
//!
//! Messages of a stream that a handler has received stay counted while the next few arrive, because
//! the handler may still work on them.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::request::Parts;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use super::{
    Options, OverWeb, WebBody,
    framing::{Framing, Kind, STEP},
    ledger::{Caller, Grant, Ledger},
    pace::Pace,
    refusal::{busy_status, stalled_status},
    seats::Unfinished,
};

/// Decoded messages of one call that are held at a time: one is read, one is checked, three are
/// stored.
const IN_HAND: u64 = 5;
/// Time for the whole of a message.
const WHOLE: Duration = Duration::from_secs(120);
/// Most time between two messages of a stream.
const QUIET: Duration = Duration::from_secs(600);

/// Memory for all calls.
pub(super) struct Budget {
    messages: Arc<Ledger>,
    gathered: Arc<Ledger>,
    calls: AtomicU64,
    /// How much of `messages` one connection may use.
    share: usize,
    largest: usize,
    wait: Duration,
    stall: Duration,
    lag: Duration,
    gathers: Vec<String>,
    streams: Vec<String>,
}

impl Budget {
    pub(super) fn new(options: &Options) -> Self {
        let half = options.memory / 2;
        Self {
            messages: Ledger::new(half),
            gathered: Ledger::new(half),
            calls: AtomicU64::new(0),
            share: half / 4,
            largest: options.message,
            wait: options.memory_wait,
            stall: options.stall,
            lag: options.lag,
            gathers: options.gathers.clone(),
            streams: options.limits.long.clone(),
        }
    }

    /// One connection's share.
    pub(super) fn purse(&self) -> Purse {
        Purse(Ledger::new(self.share))
    }
}

/// What one connection may take.
#[derive(Clone)]
pub(super) struct Purse(Arc<Ledger>);

/// Memory that was taken, by the number of the message that took it.
type Taken = VecDeque<(u64, Vec<Grant>)>;

/// What a call holds of the budget.
#[derive(Clone, Default)]
pub(super) struct Holding(Arc<Mutex<Taken>>);

impl Holding {
    /// Gives everything back.
    pub(super) fn release(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn add(&self, message: u64, grants: Vec<Grant>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back((message, grants));
    }

    /// Gives back what messages before this one took.
    fn release_before(&self, message: u64) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(taken, _)| *taken >= message);
    }
}

/// A pending wait for memory.
type Waiting = Pin<Box<dyn Future<Output = Result<Vec<Grant>, Status>> + Send>>;

/// A request's body, whose bytes are counted.
pub(super) struct Metered {
    body: Incoming,
    budget: Arc<Budget>,
    purse: Purse,
    call: Caller,
    holding: Holding,
    framing: Framing,
    /// Whether its handler gathers all of it in memory.
    gathers: bool,
    /// Whether it is a stream of messages; a stream may rest between messages.
    streams: bool,
    /// Bytes gathered that are not yet counted.
    uncounted: usize,
    waiting: Option<(Waiting, Frame<Bytes>)>,
    patience: Pin<Box<Sleep>>,
    /// When the present message began.
    begun: (u64, Instant),
    /// Whether nothing came for so long that the handler must be done with the last message.
    quiet: bool,
    /// Until the body has ended.
    unfinished: Option<Unfinished>,
}

impl Metered {
    /// The body, and what it holds.
    pub(super) fn new(
        (body, unfinished): (Incoming, Option<Unfinished>),
        parts: &Parts,
        budget: &Arc<Budget>,
        purse: Purse,
    ) -> (Self, Holding) {
        let holding = Holding::default();
        let zstd = parts.headers.get("grpc-encoding").is_some_and(|name| name == "zstd");
        let web = parts.extensions.get::<OverWeb>().map(|OverWeb(request)| request.body);
        let kind = match web {
            None => Kind::Messages,
            Some(WebBody::Decoded | WebBody::Gathered) => Kind::Text,
            Some(WebBody::Streamed) => Kind::Texts,
        };
        let framing = Framing::new(kind, budget.largest, zstd);
        let metered = Self {
            body,
            budget: Arc::clone(budget),
            purse,
            call: Caller {
                number: budget.calls.fetch_add(1, Ordering::Relaxed),
                pace: Pace::new(budget.lag),
            },
            holding: holding.clone(),
            framing,
            gathers: web == Some(WebBody::Gathered)
                || budget.gathers.iter().any(|path| path == parts.uri.path()),
            streams: web.is_some_and(|body| body != WebBody::Decoded)
                || budget.streams.iter().any(|path| path == parts.uri.path()),
            uncounted: 0,
            waiting: None,
            patience: Box::pin(sleep(budget.stall)),
            begun: (0, Instant::now()),
            quiet: false,
            unfinished,
        };
        (metered, holding)
    }

    /// Whether it is between two messages; the next one may come at any time.
    fn rests(&self) -> bool {
        self.streams && !self.gathers && !self.framing.unfinished()
    }

    /// Nothing has come. The request is refused if others wait for the memory that it holds; a
    /// stream that rests gives the memory back.
    fn poll_late(&self, cx: &Context<'_>) -> Poll<Status> {
        self.call.pace.waits();
        ready!(self.call.pace.poll_asked(cx));
        if self.rests() {
            self.holding.release();
            self.call.pace.begins();
            self.call.pace.waits();
            // Ensures a wake-up when it is asked to give way again.
            let _ = self.call.pace.poll_asked(cx);
            return Poll::Pending;
        }
        let message = "the request came too slowly while others waited for memory; send it again";
        Poll::Ready(busy_status(message))
    }

    /// The body has ended.
    fn ended(&mut self) {
        self.unfinished = None;
        self.call.pace.is_whole();
    }

    /// Takes memory for a piece of the body.
    fn takes(&mut self, data: &Bytes) -> usize {
        let takes = self.framing.follow(data);
        if !self.gathers {
            return takes;
        }
        self.uncounted += data.len();
        let whole = self.uncounted / STEP * STEP;
        self.uncounted -= whole;
        whole
    }

    fn take(&self, bytes: usize) -> Waiting {
        let (wait, call) = (self.budget.wait, self.call.clone());
        // The connection's own share comes first, so that a connection that used up its share does
        // not block others.
        let wanted = if self.gathers {
            vec![Arc::clone(&self.budget.gathered)]
        } else {
            vec![Arc::clone(&self.purse.0), Arc::clone(&self.budget.messages)]
        };
        Box::pin(async move {
            let taking = async {
                let mut grants = Vec::with_capacity(wanted.len());
                for ledger in wanted {
                    grants.push(ledger.take(&call, bytes).await);
                }
                grants
            };
            tokio::time::timeout(wait, taking).await.map_err(|_| {
                busy_status("the farm has no memory for more messages at the moment; try again")
            })
        })
    }

    /// Restarts the time for the next bytes, after some bytes came.
    fn be_patient(&mut self, came: usize) {
        let now = Instant::now();
        self.quiet = false;
        self.call.pace.came(came);
        if self.begun.0 != self.framing.begun {
            self.begun = (self.framing.begun, now);
            // A gathered stream has one time limit, however many messages it has.
            if !self.gathers {
                self.call.pace.begins();
            }
        }
        // A peer that sends a byte now and then must not occupy memory for ever.
        // A text that is gathered may be a large picture over a slow line: its handler decides.
        let whole = self.framing.unfinished() && !(self.gathers && self.framing.kind == Kind::Text);
        let last = if whole { self.begun.1 + WHOLE } else { now + QUIET };
        self.patience.as_mut().reset(last.min(now + self.budget.stall));
    }
}

impl Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.waiting.is_none() {
            let frame = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => {
                    let error: Box<dyn std::error::Error + Send + Sync> = Box::new(error);
                    return Poll::Ready(Some(Err(Status::from_error(error))));
                }
                Poll::Ready(None) => {
                    this.ended();
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    if let Poll::Ready(refused) = this.poll_late(cx) {
                        return Poll::Ready(Some(Err(refused)));
                    }
                    ready!(this.patience.as_mut().poll(cx));
                    if !this.quiet && this.rests() {
                        // A stream may rest between two messages.
                        this.quiet = true;
                        this.holding.release();
                        this.patience.as_mut().reset(Instant::now() + QUIET);
                        ready!(this.patience.as_mut().poll(cx));
                    }
                    return Poll::Ready(Some(Err(stalled_status())));
                }
            };
            let Some(data) = frame.data_ref() else {
                if this.body.is_end_stream() {
                    this.ended();
                }
                return Poll::Ready(Some(Ok(frame)));
            };
            let came = data.len();
            let bytes = this.takes(data);
            if let Some(length) = this.framing.too_large {
                let most = this.framing.largest;
                return Poll::Ready(Some(Err(Status::out_of_range(format!(
                    "the message has {length} bytes; accepted: at most {most}. Send many prompts through SubmitJobStream, \
                     in smaller messages"
                )))));
            }
            this.be_patient(came);
            if this.body.is_end_stream() {
                this.ended();
            }
            if !this.gathers {
                this.holding.release_before(this.framing.begun.saturating_sub(IN_HAND));
            }
            if bytes == 0 {
                return Poll::Ready(Some(Ok(frame)));
            }
            this.waiting = Some((this.take(bytes), frame));
        }
        let Some((waiting, _)) = &mut this.waiting else { return Poll::Pending };
        let taken = ready!(waiting.as_mut().poll(cx));
        let Some((_, frame)) = this.waiting.take() else { return Poll::Pending };
        let grants = match taken {
            Ok(grants) => grants,
            Err(refused) => return Poll::Ready(Some(Err(refused))),
        };
        this.holding.add(this.framing.begun, grants);
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.body.is_end_stream()
    }
}
