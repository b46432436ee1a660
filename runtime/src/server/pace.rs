//! Whether a request comes fast enough while others wait for the memory that it holds.
//!
//! A request that holds memory and comes slowly, or stalls, does no harm while there is memory for
//! all. It does harm when another call waits: a client could send a lot, then a byte now and then,
//! and keep everybody else out. So every request has a time credit. It shrinks while the server
//! waits for the request's next bytes, and grows with the bytes that come. A request without credit
//! is late, and a late request can be asked to give way.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::Instant;

/// Bytes per second that keep a request from being late.
const BYTES_A_SECOND: u32 = 512 << 10;

/// The pace of one request.
pub(super) struct Pace {
    /// The initial credit, which is also the highest.
    lag: Duration,
    state: Mutex<State>,
}

struct State {
    credit: Duration,
    /// Since when the server waits for its next bytes.
    waits: Option<Instant>,
    asked: bool,
    waker: Option<Waker>,
}

impl Pace {
    /// A request with this much credit.
    pub(super) fn new(lag: Duration) -> Arc<Self> {
        Arc::new(Self {
            lag,
            state: Mutex::new(State { credit: lag, waits: None, asked: false, waker: None }),
        })
    }

    /// The server waits for the next bytes, and they have not come.
    pub(super) fn waits(&self) {
        self.state().waits.get_or_insert_with(Instant::now);
    }

    /// This many bytes came.
    pub(super) fn came(&self, bytes: usize) {
        let mut state = self.state();
        let waited = state.waits.take().map_or(Duration::ZERO, |since| since.elapsed());
        let gained = Duration::from_secs_f64(bytes as f64 / f64::from(BYTES_A_SECOND));
        state.credit = state.credit.saturating_sub(waited).saturating_add(gained).min(self.lag);
    }

    /// Restarts its time: it gave what it was asked to give, or begins something new.
    pub(super) fn begins(&self) {
        let mut state = self.state();
        (state.credit, state.waits, state.asked) = (self.lag, None, false);
    }

    /// The request is complete, so from now on it is never late.
    pub(super) fn is_whole(&self) {
        let mut state = self.state();
        (state.credit, state.waits, state.asked) = (Duration::MAX, None, false);
    }

    /// Whether it could be asked to give way.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        let state = self.state();
        !state.asked && state.waits.is_some_and(|since| now.duration_since(since) > state.credit)
    }

    /// Asks it to give way.
    pub(super) fn ask(&self) {
        let mut state = self.state();
        state.asked = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Ready once it is asked to give way.
    pub(super) fn poll_asked(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.asked {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn after(time: Duration) -> Instant {
        tokio::time::advance(time).await;
        Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_late_once_its_credit_is_used_up() {
        let pace = Pace::new(5 * SECOND);
        assert!(!pace.is_late(after(60 * SECOND).await), "nobody waits for its bytes");
        pace.waits();
        assert!(!pace.is_late(after(5 * SECOND).await));
        assert!(pace.is_late(after(SECOND).await));
        // Half a second's worth of bytes, and then a byte now and then.
        pace.came(BYTES_A_SECOND as usize / 2);
        pace.waits();
        assert!(!pace.is_late(Instant::now()));
        for _ in 0..4 {
            after(SECOND / 5).await;
            pace.came(1);
            pace.waits();
        }
        assert!(pace.is_late(after(SECOND / 1000).await), "a byte now and then is too slow");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_keeps_pace_is_never_late_and_saves_up_no_more_than_its_lag() {
        let pace = Pace::new(2 * SECOND);
        for _ in 0..100 {
            pace.waits();
            assert!(!pace.is_late(after(SECOND).await));
            pace.came(BYTES_A_SECOND as usize);
        }
        pace.came(1 << 30);
        pace.waits();
        assert!(!pace.is_late(after(2 * SECOND).await));
        assert!(
            pace.is_late(after(SECOND / 2).await),
            "a burst earns no more than the highest credit"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn time_does_not_run_while_others_are_waited_for_nor_after_the_end() {
        let pace = Pace::new(SECOND);
        for _ in 0..100 {
            pace.waits();
            after(SECOND / 1000).await;
            pace.came(BYTES_A_SECOND as usize / 1000);
            // The handler works.
            assert!(!pace.is_late(after(SECOND).await));
        }
        pace.waits();
        pace.is_whole();
        assert!(!pace.is_late(after(1000 * SECOND).await));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_asked_is_woken_and_is_asked_once() {
        let pace = Pace::new(SECOND);
        pace.waits();
        let late = after(2 * SECOND).await;
        let waiting = std::future::poll_fn(|cx| pace.poll_asked(cx));
        let asking = async {
            tokio::task::yield_now().await;
            assert!(pace.is_late(late));
            pace.ask();
        };
        tokio::join!(waiting, asking);
        assert!(!pace.is_late(late), "it was asked");
        pace.begins();
        pace.waits();
        assert!(pace.is_late(after(2 * SECOND).await), "and can be asked again");
    }
}
