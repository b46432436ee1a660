//! How long a failing call is retried. The time runs from the first failure, not from the last
//! success: when a stream breaks that was quiet for an hour, all of the time is left.

use std::time::Duration;

use darkroom_core::backoff::Backoff;
use tokio::time::Instant;
use tonic::Status;

use super::{Kind, Trouble, passes};

/// Pauses between retries when the server does not ask for a time.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
/// Most time that is added for `Retry-After`, over all answers.
const MOST_ASKED: Duration = Duration::from_secs(60);

/// How long failing calls are retried, and since when they fail.
#[derive(Debug)]
pub struct Patience {
    limit: Duration,
    /// Tries before the patience can end, so that each of several addresses gets one.
    least_tries: u32,
    since: Option<Instant>,
    tries: u32,
    /// Time added because proxies asked for it.
    granted: Duration,
}

impl Patience {
    /// Patience for `limit` after the first failure, for a call that `addresses` may answer.
    #[must_use]
    pub fn new(limit: Duration, addresses: usize) -> Self {
        let least_tries = u32::try_from(addresses).unwrap_or(u32::MAX);
        Self { limit, least_tries, since: None, tries: 0, granted: Duration::ZERO }
    }

    /// The same, counted from now: for a short call whose own time counts.
    #[must_use]
    pub fn from_now(limit: Duration, addresses: usize) -> Self {
        Self { since: Some(Instant::now()), ..Self::new(limit, addresses) }
    }

    /// Records a success, which restores the full patience.
    pub fn reset(&mut self) {
        (self.since, self.tries, self.granted) = (None, 0, Duration::ZERO);
    }

    /// Waits before the next try. False if a retry would be useless or the patience is over.
    pub async fn another(&mut self, failure: &Status) -> bool {
        if !passes(failure) {
            return false;
        }
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        self.tries += 1;
        let left = (self.limit + self.granted).saturating_sub(now - since);
        if left.is_zero() && self.tries >= self.least_tries {
            return false;
        }
        let pause = PAUSES.after(self.tries - 1);
        let asked = asked(failure);
        if asked > left.max(MOST_ASKED.saturating_sub(self.granted)) {
            return false;
        }
        if asked > left {
            self.granted += asked;
        }
        tokio::time::sleep(pause.max(asked)).await;
        true
    }
}

/// How long the proxy asks to wait. Not used if another address may be better.
fn asked(failure: &Status) -> Duration {
    match Trouble::of(failure) {
        Some(trouble) if !trouble.others => match trouble.at.first() {
            Some((_, Kind::Http(answer))) => answer.retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        },
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;
    use crate::peer::Answer;

    const MINUTE: Duration = Duration::from_secs(60);

    fn busy(retry_after: Option<u64>) -> Status {
        let mut response = Response::builder().status(503);
        if let Some(seconds) = retry_after {
            response = response.header("retry-after", seconds);
        }
        let answer = Answer::of(&response.body(()).expect("a response")).expect("no gRPC");
        Trouble { at: vec![("farm:1".to_owned(), Kind::Http(answer))], others: false }.into_status()
    }

    async fn spent(patience: &mut Patience, failure: &Status) -> Duration {
        let start = Instant::now();
        while patience.another(failure).await {}
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn it_runs_from_the_first_failure_and_a_success_fills_it_again() {
        let mut patience = Patience::new(5 * MINUTE, 1);
        // Time before the first failure does not count.
        tokio::time::sleep(60 * MINUTE).await;
        let whole = spent(&mut patience, &Status::unavailable("stopped")).await;
        assert!(whole >= 5 * MINUTE && whole < 5 * MINUTE + Duration::from_secs(3), "{whole:?}");
        patience.reset();
        tokio::time::sleep(60 * MINUTE).await;
        assert!(spent(&mut patience, &Status::unavailable("stopped")).await >= 5 * MINUTE);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_pass_is_not_tried_again() {
        let mut patience = Patience::new(5 * MINUTE, 1);
        for failure in
            [Status::not_found("no job"), Status::internal("a fault"), Status::unknown("?")]
        {
            assert_eq!(spent(&mut patience, &failure).await, Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_address_has_its_try() {
        let mut patience = Patience::from_now(Duration::from_secs(10), 4);
        let slow = Status::unavailable("connecting took long");
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert!(patience.another(&slow).await);
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(!patience.another(&slow).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_a_proxy_asks_for_is_kept_within_reason() {
        let start = Instant::now();
        let mut patience = Patience::from_now(Duration::from_secs(10), 1);
        assert!(patience.another(&busy(Some(30))).await);
        assert_eq!(start.elapsed(), Duration::from_secs(30));
        // A proxy that asks for ever is not waited for for ever.
        let whole = spent(&mut patience, &busy(Some(30))).await;
        assert!(whole <= Duration::from_secs(80), "{whole:?}");

        let mut patience = Patience::from_now(Duration::from_secs(10), 1);
        assert_eq!(
            spent(&mut patience, &busy(Some(3600))).await,
            Duration::ZERO,
            "an hour is too long"
        );
        let mut patience = Patience::new(5 * MINUTE, 1);
        let start = Instant::now();
        assert!(patience.another(&busy(Some(120))).await);
        assert_eq!(start.elapsed(), 2 * MINUTE, "a stream has all of the time");
    }
}
