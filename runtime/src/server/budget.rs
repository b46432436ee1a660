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
    ledger::{Caller, Grant, Ledger},
    pace::Pace,
    refusal::{busy_status, stalled_status},
    seats::Unfinished,
};

/// A message up to this size is free.
const FREE: usize = 4 << 10;
/// Memory of a decoded message, as a multiple of its bytes: small elements grow when they are
/// decoded. Messages that hold only the smallest labels take more, but their number is limited.
const DECODED: usize = 8;
/// Decoded messages of one call that are held at a time: one is read, one is checked, three are
/// stored.
const IN_HAND: u64 = 5;
/// The bytes of gathered streams are counted in steps of this size.
const STEP: usize = 64 << 10;
/// Highest compression: each byte of deflate or zstd becomes at most this many bytes.
const GZIP: usize = 1032;
const ZSTD: usize = 1 << 15;
/// Time for the whole of a message.
const WHOLE: Duration = Duration::from_secs(120);
/// Most time between two messages of a stream.
const QUIET: Duration = Duration::from_secs(600);
/// gRPC's frame before each message: a flag and a length.
const PREFIX: usize = 5;

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

/// What a body consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Messages of gRPC, each behind its length.
    Messages,
    /// One text, which is decoded as a whole.
    Text,
    /// A text of any length, which is decoded bit by bit.
    Texts,
}

/// The position within the messages of a body.
struct Framing {
    kind: Kind,
    /// How many bytes of a message's prefix have arrived.
    prefix: Vec<u8>,
    /// Length of the message, and whether it is compressed.
    message: Option<(usize, bool)>,
    /// Bytes of the message that are missing; of a text, the bytes so far; of a text of any length,
    /// those of the present step.
    left: usize,
    /// Messages begun.
    begun: u64,
    /// Length of a message that is larger than the limit.
    too_large: Option<usize>,
    largest: usize,
    /// Each byte of a compressed message becomes at most this many bytes.
    expands: usize,
}

impl Framing {
    fn unfinished(&self) -> bool {
        match self.kind {
            Kind::Messages => self.left > 0 || !self.prefix.is_empty(),
            Kind::Text => true,
            Kind::Texts => false,
        }
    }

    /// Reads `bytes`, and returns how much memory they take once they are decoded.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        match self.kind {
            Kind::Messages => self.follow_messages(bytes),
            Kind::Text => self.follow_text(bytes.len()),
            Kind::Texts => self.follow_texts(bytes.len()),
        }
    }

    /// Bytes of one text. They count once it is no longer small. A text that is too large is
    /// refused by its handler, and not gathered.
    fn follow_text(&mut self, bytes: usize) -> usize {
        let before = self.left;
        self.begun = 1;
        self.left = before.saturating_add(bytes);
        let counted = |length: usize| if length > FREE { length.min(self.largest) } else { 0 };
        (counted(self.left) - counted(before)) * DECODED
    }

    /// Bytes of a text of any length: every step of it counts as a message.
    fn follow_texts(&mut self, bytes: usize) -> usize {
        let whole = self.left.saturating_add(bytes);
        let steps = whole / STEP;
        self.left = whole % STEP;
        self.begun += steps as u64;
        steps * STEP * DECODED
    }

    fn follow_messages(&mut self, mut bytes: &[u8]) -> usize {
        let mut takes: usize = 0;
        while !bytes.is_empty() {
            if self.left == 0 {
                let (prefix, rest) = bytes.split_at(bytes.len().min(PREFIX - self.prefix.len()));
                self.prefix.extend_from_slice(prefix);
                bytes = rest;
                let [flag, length @ ..] = self.prefix.as_slice() else { continue };
                let Ok(length) = <[u8; 4]>::try_from(length) else { continue };
                let length = u32::from_be_bytes(length) as usize;
                let compressed = *flag != 0;
                self.prefix.clear();
                self.begun += 1;
                self.left = length;
                self.too_large = Some(length).filter(|length| *length > self.largest);
                self.message = Some((length, compressed));
                continue;
            }
            let (part, rest) = bytes.split_at(bytes.len().min(self.left));
            self.left -= part.len();
            bytes = rest;
            let Some((length, compressed)) = self.message else { continue };
            // A message that is too large is refused by its length alone, and not gathered.
            if length > self.largest || (length <= FREE && !compressed) {
                continue;
            }
            takes += part.len();
            if self.left == 0 {
                takes += if compressed {
                    length.saturating_mul(self.expands).min(self.largest) * DECODED
                } else {
                    length * (DECODED - 1)
                };
            }
        }
        takes
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
        let framing = Framing {
            kind: match web {
                None => Kind::Messages,
                Some(WebBody::Decoded | WebBody::Gathered) => Kind::Text,
                Some(WebBody::Streamed) => Kind::Texts,
            },
            prefix: Vec::with_capacity(PREFIX),
            message: None,
            left: 0,
            begun: 0,
            too_large: None,
            largest: budget.largest,
            expands: if zstd { ZSTD } else { GZIP },
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(expands: usize) -> Framing {
        Framing {
            kind: Kind::Messages,
            prefix: Vec::new(),
            message: None,
            left: 0,
            begun: 0,
            too_large: None,
            largest: 4 << 20,
            expands,
        }
    }

    fn message(compressed: bool, length: u32, there: usize) -> Vec<u8> {
        let mut bytes = vec![u8::from(compressed)];
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.resize(bytes.len() + there, 0);
        bytes
    }

    #[test]
    fn bytes_count_once_they_are_there_however_they_are_cut() {
        let whole = [message(false, 100_000, 100_000), message(false, 10, 10)].concat();
        for piece in [1, 4, 5, 7, 16_384, whole.len()] {
            let mut framing = framing(GZIP);
            let takes: usize = whole.chunks(piece).map(|piece| framing.follow(piece)).sum();
            assert_eq!((takes, framing.begun), (100_000 * DECODED, 2), "pieces of {piece}");
            assert!(!framing.unfinished());
        }
        let mut half = framing(GZIP);
        assert_eq!(half.follow(&message(false, 4 << 20, 0)), 0, "a length alone takes no memory");
        assert!(half.unfinished());
        assert_eq!(half.follow(&[0; 1000]), 1000);
    }

    #[test]
    fn a_text_counts_as_what_it_becomes_and_a_long_one_only_by_its_steps() {
        let with = |kind| Framing { kind, ..framing(GZIP) };
        let mut text = with(Kind::Text);
        assert_eq!(text.follow(&[b'x'; FREE]), 0, "small");
        assert_eq!(text.follow(b"x"), (FREE + 1) * DECODED, "and no longer small");
        assert_eq!(text.follow(&[b'x'; 1000]), 1000 * DECODED);
        let takes: usize = (0..8).map(|_| text.follow(&vec![b'x'; 1 << 20])).sum();
        assert_eq!(takes, (text.largest - FREE - 1001) * DECODED, "too large, so not gathered");
        let mut texts = with(Kind::Texts);
        assert_eq!(texts.follow(&[b'x'; STEP - 1]), 0);
        assert_eq!((texts.follow(b"x"), texts.begun), (STEP * DECODED, 1));
        assert_eq!((texts.follow(&[b'x'; 2 * STEP + 5]), texts.begun), (2 * STEP * DECODED, 3));
        assert!(!texts.unfinished(), "it may rest");
    }

    #[test]
    fn small_messages_are_free_and_too_large_ones_are_left_to_be_refused() {
        let mut framing = framing(GZIP);
        assert_eq!(framing.follow(&message(false, 4096, 4096)), 0);
        assert_eq!(framing.follow(&message(false, 0, 0)), 0);
        assert_eq!(framing.follow(&message(false, (4 << 20) + 1, 5000)), 0);
    }

    #[test]
    fn a_compressed_message_counts_as_what_it_may_become() {
        let mut gzip = framing(GZIP);
        assert_eq!(gzip.follow(&message(true, 100, 100)), 100 + 100 * GZIP * DECODED);
        assert_eq!(gzip.follow(&message(true, 1 << 20, 1 << 20)), (1 << 20) + (4 << 20) * DECODED);
        let mut zstd = framing(ZSTD);
        assert_eq!(zstd.follow(&message(true, 1000, 1000)), 1000 + (4 << 20) * DECODED);
    }
}
