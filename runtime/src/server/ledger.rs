//! An amount that many calls share. No call knows in advance how much it will need.
//!
//! Calls that each hold a part and wait for more could block each other for ever. So the oldest
//! call that holds anything is never refused. The total may be exceeded only by what this one call
//! takes.
//!
//! Nobody waits for a call that is [late](super::pace): among the late calls, the one that holds
//! most is asked to give way.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::pace::Pace;

/// How often a waiting call looks for a late one, and how often all waiting calls together do.
const LOOK: Duration = Duration::from_millis(50);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A call that takes part of it.
#[derive(Clone)]
pub(super) struct Caller {
    /// Older calls have lower numbers.
    pub(super) number: u64,
    pub(super) pace: Arc<Pace>,
}

/// An amount of bytes that calls share.
pub(super) struct Ledger {
    total: usize,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Default)]
struct State {
    used: usize,
    /// What each call holds, the oldest first.
    held: BTreeMap<u64, Held>,
    /// When somebody last looked for a late call.
    looked: Option<Instant>,
}

struct Held {
    amount: usize,
    pace: Arc<Pace>,
}

impl Ledger {
    pub(super) fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { total, state: Mutex::default(), freed: Notify::new() })
    }

    /// Takes `amount` for a call, and waits until that much is free.
    pub(super) async fn take(self: &Arc<Self>, call: &Caller, amount: usize) -> Grant {
        let mut freed = pin!(self.freed.notified());
        loop {
            // Registers for wake-ups before it looks, so that nothing is missed in between.
            freed.as_mut().enable();
            if let Some(grant) = self.try_take(call, amount) {
                return grant;
            }
            self.ask_for_room();
            tokio::select! {
                () = freed.as_mut() => freed.set(self.freed.notified()),
                () = sleep(LOOK) => {}
            }
        }
    }

    fn try_take(self: &Arc<Self>, call: &Caller, amount: usize) -> Option<Grant> {
        let mut state = self.state();
        let number = call.number;
        let goes_first = state.held.first_key_value().is_none_or(|(oldest, _)| number <= *oldest);
        if state.used + amount > self.total && !goes_first {
            return None;
        }
        state.used += amount;
        let held = state
            .held
            .entry(number)
            .or_insert_with(|| Held { amount: 0, pace: Arc::clone(&call.pace) });
        held.amount += amount;
        Some(Grant { ledger: Arc::clone(self), call: number, amount })
    }

    /// Asks the late call that holds most to give way.
    fn ask_for_room(&self) {
        let now = Instant::now();
        let mut state = self.state();
        if state.looked.is_some_and(|looked| now.duration_since(looked) < LOOK_AGAIN) {
            return;
        }
        state.looked = Some(now);
        let late = state.held.values().filter(|held| held.pace.is_late(now));
        if let Some(most) = late.max_by_key(|held| held.amount) {
            most.pace.ask();
        }
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
            held.amount -= self.amount;
            if held.amount == 0 {
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

    fn caller(number: u64) -> Caller {
        Caller { number, pace: Pace::new(Duration::from_secs(1)) }
    }

    fn now(ledger: &Arc<Ledger>, call: u64, amount: usize) -> Option<Grant> {
        ledger.take(&caller(call), amount).now_or_never()
    }

    #[tokio::test]
    async fn the_oldest_call_goes_on_when_all_is_taken_and_no_other() {
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
        let first = ledger.take(&caller(1), 10).await;
        let other = Arc::clone(&ledger);
        let waiting = tokio::spawn(async move { other.take(&caller(2), 10).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        drop(waiting.await.expect("served"));
    }

    #[tokio::test(start_paused = true)]
    async fn of_those_that_are_late_the_one_that_holds_most_is_asked_to_give_way() {
        let ledger = Ledger::new(10);
        let callers: Vec<Caller> = (1..=4).map(caller).collect();
        let mut grants = Vec::new();
        for (caller, amount) in callers.iter().zip([1, 3, 2, 4]) {
            grants.push(Some(ledger.take(caller, amount).await));
        }
        // The last request is complete; the others send nothing.
        callers[..3].iter().for_each(|caller| caller.pace.waits());
        let asked = |caller: &Caller| {
            let pace = Arc::clone(&caller.pace);
            std::future::poll_fn(move |cx| pace.poll_asked(cx)).now_or_never().is_some()
        };
        let other = Arc::clone(&ledger);
        let waiting = tokio::spawn(async move { other.take(&caller(5), 5).await });
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert!(!callers.iter().any(asked), "none is late");
        tokio::time::sleep(Duration::from_millis(160)).await;
        assert_eq!(callers.iter().map(asked).collect::<Vec<_>>(), [false, true, false, false]);
        grants[1] = None;
        // A waiting call looks again at once, and a second time only after LOOK.
        tokio::time::sleep(LOOK / 2).await;
        assert_eq!(callers.iter().map(asked).collect::<Vec<_>>(), [false, true, true, false]);
        grants[2] = None;
        drop(waiting.await.expect("served"));
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert!(!asked(&callers[0]), "nobody waits any more");
    }
}
