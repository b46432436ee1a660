//! The body of an answer. It keeps the call's place until it has ended, and is dropped if its peer
//! does not read it.
//!
//! hyper asks a body for more only while its peer has room for more. So if a body gave something,
//! or was never asked, and is then not asked for a long time, its peer does not read. The body's
//! content is then dropped.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    sync::OwnedSemaphorePermit,
    task::AbortHandle,
    time::{Instant, sleep_until},
};
use tonic::{Status, body::Body};

use super::seats::Busy;

/// Held by a call until its answer has ended.
pub(super) struct Place {
    pub(super) _busy: Busy,
    pub(super) _room: Option<OwnedSemaphorePermit>,
    pub(super) _lasting: Option<OwnedSemaphorePermit>,
}

struct State {
    body: Body,
    _place: Place,
    /// Since when we wait for the peer; `None` while the peer waits for the handler.
    unread_since: Option<Instant>,
}

type Shared = Mutex<Option<State>>;

/// An answer's body. Dropping it frees the call's place.
pub(super) struct Answer {
    shared: Arc<Shared>,
    watch: AbortHandle,
}

impl Answer {
    /// The body; it is dropped after it was not read for `unread`.
    pub(super) fn new(body: Body, place: Place, unread: Duration) -> Self {
        let state = State { body, _place: place, unread_since: Some(Instant::now()) };
        let shared = Arc::new(Mutex::new(Some(state)));
        let watch = tokio::spawn(drop_unread(Arc::downgrade(&shared), unread)).abort_handle();
        Self { shared, watch }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Option<State>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn drop_unread(shared: Weak<Shared>, unread: Duration) {
    loop {
        let next = {
            let Some(shared) = shared.upgrade() else { return };
            let mut state = lock(&shared);
            let now = Instant::now();
            match state.as_ref().map(|state| state.unread_since) {
                None => return,
                Some(None) => now + unread,
                Some(Some(since)) if since + unread <= now => {
                    let unread = state.take();
                    drop(state);
                    drop(unread);
                    tracing::debug!("an answer was not read and is dropped");
                    return;
                }
                Some(Some(since)) => since + unread,
            }
        };
        sleep_until(next).await;
    }
}

impl HttpBody for Answer {
    type Data = <Body as HttpBody>::Data;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let mut state = lock(&self.shared);
        let Some(state) = state.as_mut() else {
            return Poll::Ready(Some(Err(Status::deadline_exceeded(
                "the answer was not read in time",
            ))));
        };
        let polled = Pin::new(&mut state.body).poll_frame(cx);
        state.unread_since = polled.is_ready().then(Instant::now);
        polled
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.shared).as_ref().is_some_and(|state| state.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.shared).as_ref().map_or_else(SizeHint::default, |state| state.body.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures::FutureExt as _;

    use super::*;

    /// A body that gives a number of frames, then waits, and reports when it is dropped.
    struct Frames(usize, Arc<AtomicBool>);

    impl Drop for Frames {
        fn drop(&mut self) {
            self.1.store(true, Ordering::SeqCst);
        }
    }

    impl HttpBody for Frames {
        type Data = bytes::Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
            match self.0.checked_sub(1) {
                Some(left) => {
                    self.0 = left;
                    Poll::Ready(Some(Ok(Frame::data(bytes::Bytes::from_static(b"x")))))
                }
                None => Poll::Pending,
            }
        }
    }

    fn answer(frames: usize) -> (Answer, Arc<AtomicBool>) {
        let dropped = Arc::new(AtomicBool::new(false));
        let place = Place { _busy: Busy::for_test(), _room: None, _lasting: None };
        let body = Body::new(Frames(frames, Arc::clone(&dropped)));
        (Answer::new(body, place, Duration::from_secs(60)), dropped)
    }

    fn poll(answer: &mut Answer) -> Option<bool> {
        let asked = std::future::poll_fn(|cx| Pin::new(&mut *answer).poll_frame(cx)).now_or_never();
        asked.map(|frame| frame.is_some_and(|frame| frame.is_ok()))
    }

    async fn seconds(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_is_dropped_and_one_that_waits_for_its_handler_is_not() {
        let (mut never, never_dropped) = answer(9);
        let (mut waits, waits_dropped) = answer(1);
        let (mut stops, stops_dropped) = answer(9);
        assert_eq!((poll(&mut waits), poll(&mut waits)), (Some(true), None));
        seconds(50).await;
        assert_eq!(poll(&mut stops), Some(true));
        seconds(20).await;
        assert!(never_dropped.load(Ordering::SeqCst) && !stops_dropped.load(Ordering::SeqCst));
        seconds(600).await;
        assert!(stops_dropped.load(Ordering::SeqCst) && !waits_dropped.load(Ordering::SeqCst));
        assert_eq!(
            (poll(&mut never), poll(&mut stops), poll(&mut waits)),
            (Some(false), Some(false), None)
        );
    }
}
