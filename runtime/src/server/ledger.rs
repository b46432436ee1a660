//! An amount that many calls share, none of which knows beforehand how much it will need.
//!
//! Calls that each hold a part and wait for more could wait for each other for ever. So the oldest call that holds
//! anything is never refused: the total may be exceeded by what that one call takes, and by no more.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// See the module.
pub(super) struct Ledger {
    total: usize,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Default)]
struct State {
    used: usize,
    /// What each call holds, the oldest first.
    held: BTreeMap<u64, usize>,
}

impl Ledger {
    pub(super) fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { total, state: Mutex::default(), freed: Notify::new() })
    }

    /// Takes `amount` for a call, once there is so much.
    pub(super) async fn take(self: &Arc<Self>, call: u64, amount: usize) -> Grant {
        let mut freed = pin!(self.freed.notified());
        loop {
            // Listening begins before the look, so that nothing is missed in between.
            freed.as_mut().enable();
            if let Some(grant) = self.try_take(call, amount) {
                return grant;
            }
            freed.as_mut().await;
            freed.set(self.freed.notified());
        }
    }

    fn try_take(self: &Arc<Self>, call: u64, amount: usize) -> Option<Grant> {
        let mut state = self.state();
        let goes_first = state.held.first_key_value().is_none_or(|(oldest, _)| call <= *oldest);
        if state.used + amount > self.total && !goes_first {
            return None;
        }
        state.used += amount;
        *state.held.entry(call).or_default() += amount;
        Some(Grant { ledger: Arc::clone(self), call, amount })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of a ledger, until dropped.
pub(super) struct Grant {
    ledger: Arc<Ledger>,
    call: u64,
    amount: usize,
}

impl Drop for Grant {
    fn drop(&mut self) {
        let mut state = self.ledger.state();
        state.used -= self.amount;
        if let Some(held) = state.held.get_mut(&self.call) {
            *held -= self.amount;
            if *held == 0 {
                state.held.remove(&self.call);
            }
        }
        drop(state);
        self.ledger.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn now(ledger: &Arc<Ledger>, call: u64, amount: usize) -> Option<Grant> {
        ledger.take(call, amount).now_or_never()
    }

    #[test]
    fn the_oldest_call_goes_on_when_all_is_taken_and_no_other() {
        let ledger = Ledger::new(10);
        let first = now(&ledger, 1, 6).expect("there is room");
        let second = now(&ledger, 2, 4).expect("there is room");
        assert!(now(&ledger, 2, 1).is_none() && now(&ledger, 3, 1).is_none());
        let more = now(&ledger, 1, 5).expect("the oldest");
        drop((first, more));
        assert!(now(&ledger, 3, 6).is_some());
        assert!(now(&ledger, 2, 7).is_some(), "the oldest by now");
        drop(second);
        assert!(now(&ledger, 9, 1000).is_some(), "one call is never too large alone");
        assert_eq!(ledger.state().used, 0);
        assert!(ledger.state().held.is_empty());
    }

    #[tokio::test]
    async fn who_waits_is_served_when_something_is_given_back() {
        let ledger = Ledger::new(10);
        let first = ledger.take(1, 10).await;
        let other = Arc::clone(&ledger);
        let waiting = tokio::spawn(async move { other.take(2, 10).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        drop(waiting.await.expect("served"));
    }
}
