//! What prevents a loop from working: a queue that does not answer, or storage whose faults are
//! retried.
//!
//! It is checked at each announcement, so a fault that ends before the next one is not reported. A
//! trouble keeps its first text until it ends.

use std::{sync::Mutex, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::lock::locked;
use crate::Error;

/// This many failed announcements in a row are a trouble. A single one may fall into a reconnection
/// or a failover.
const UNHEARD: u32 = 2;
/// When nobody here needs storage any more, it counts as usable again this long after its last
/// fault, because nothing else would show it.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// What storage is used for. Each use can fail while the other works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Load,
    Store,
}

#[derive(Debug)]
pub(super) struct Trouble {
    state: Mutex<State>,
    told: watch::Sender<Option<String>>,
}

#[derive(Debug, Default)]
struct State {
    unheard: u32,
    queue: Option<String>,
    loads: Storage,
    stores: Storage,
}

/// One use of storage.
#[derive(Debug, Default)]
struct Storage {
    trouble: Option<String>,
    /// Since the last check: whether it worked, and the error if it failed.
    worked: bool,
    fault: Option<String>,
    last_fault: Option<Instant>,
}

impl Trouble {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), told: watch::Sender::new(None) }
    }

    /// The present trouble, and a channel for later changes.
    pub(super) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.told.subscribe()
    }

    /// The trouble with storage, for the worker's card. Nobody can read a card while the queue
    /// fails.
    pub(super) fn with_storage(&self) -> Option<String> {
        locked(&self.state).with_storage().cloned()
    }

    pub(super) fn storage_worked(&self, used: Use) {
        locked(&self.state).storage(used).worked = true;
    }

    /// Storage failed and is asked again.
    pub(super) fn storage_failed(&self, used: Use, reason: &str) {
        let mut state = locked(&self.state);
        let storage = state.storage(used);
        storage.last_fault = Some(Instant::now());
        storage.fault.get_or_insert_with(|| reason.to_owned());
    }

    /// Checks what happened to storage since the last check. `idle`: nothing that is held needs it.
    pub(super) fn look_at_storage(&self, idle: bool) {
        let mut state = locked(&self.state);
        state.loads.look(idle, "an input cannot be loaded");
        state.stores.look(idle, "an output cannot be stored");
        self.tell(&state);
    }

    /// Records whether an announcement succeeded.
    pub(super) fn announced(&self, error: Option<&Error>) {
        let mut state = locked(&self.state);
        match error {
            None => (state.unheard, state.queue) = (0, None),
            Some(error) => {
                state.unheard = state.unheard.saturating_add(1);
                if state.unheard >= UNHEARD {
                    state.queue.get_or_insert_with(|| error.to_string());
                }
            }
        }
        self.tell(&state);
    }

    fn tell(&self, state: &State) {
        let worst = state.queue.as_ref().or_else(|| state.with_storage()).cloned();
        self.told.send_if_modified(|told| {
            let changed = *told != worst;
            *told = worst;
            changed
        });
    }
}

impl State {
    fn with_storage(&self) -> Option<&String> {
        self.stores.trouble.as_ref().or(self.loads.trouble.as_ref())
    }

    fn storage(&mut self, used: Use) -> &mut Storage {
        match used {
            Use::Load => &mut self.loads,
            Use::Store => &mut self.stores,
        }
    }
}

impl Storage {
    fn look(&mut self, idle: bool, what: &str) {
        match (std::mem::take(&mut self.worked), self.fault.take()) {
            (false, Some(reason)) => {
                self.trouble.get_or_insert_with(|| format!("{what}: {reason}"));
            }
            (true, None) => self.trouble = None,
            // It both worked and failed, so nothing changes.
            (true, Some(_)) => {}
            (false, None) => {
                if idle && self.last_fault.is_some_and(|fault| fault.elapsed() >= FORGOTTEN) {
                    self.trouble = None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    impl Trouble {
        fn now(&self) -> Option<String> {
            self.told.borrow().clone()
        }
    }

    fn refused() -> Error {
        Error::Unavailable("refused".to_owned())
    }

    #[test]
    fn the_second_sign_of_life_in_a_row_that_fails_is_a_trouble_and_the_next_success_ends_it() {
        let trouble = Trouble::new();
        for _ in 0..3 {
            trouble.announced(Some(&refused()));
            assert_eq!(trouble.now(), None, "one alone");
            trouble.announced(None);
        }
        let mut watched = trouble.watch();
        trouble.announced(Some(&refused()));
        trouble.announced(Some(&refused()));
        assert_eq!(trouble.now().as_deref(), Some("the queue cannot be reached: refused"));
        assert!(watched.has_changed().expect("it lives"));
        watched.mark_unchanged();
        trouble.announced(Some(&Error::Unavailable("loading".to_owned())));
        assert!(!watched.has_changed().expect("it lives"), "it keeps its first text");
        trouble.announced(None);
        assert_eq!(*watched.borrow(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn storage_that_fails_is_a_trouble_until_it_works_for_the_same_use() {
        let trouble = Trouble::new();
        trouble.storage_failed(Use::Store, "down");
        trouble.storage_worked(Use::Store);
        trouble.look_at_storage(false);
        assert_eq!(trouble.now(), None, "over before the check");

        trouble.storage_failed(Use::Store, "down");
        trouble.look_at_storage(false);
        assert_eq!(trouble.now().as_deref(), Some("an output cannot be stored: down"));
        trouble.storage_worked(Use::Load);
        trouble.look_at_storage(false);
        assert!(trouble.now().is_some(), "inputs can be loaded, outputs still cannot be stored");
        trouble.storage_worked(Use::Store);
        trouble.look_at_storage(false);
        assert_eq!(trouble.now(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trouble_with_storage_lasts_while_work_waits_for_it_and_is_forgotten_by_who_has_none()
    {
        let trouble = Trouble::new();
        trouble.storage_failed(Use::Load, "down");
        trouble.look_at_storage(true);
        advance(FORGOTTEN / 2).await;
        trouble.look_at_storage(true);
        assert!(trouble.now().is_some(), "it failed just now");
        advance(FORGOTTEN).await;
        trouble.look_at_storage(false);
        assert!(trouble.now().is_some(), "a task waits for it");
        trouble.look_at_storage(true);
        assert_eq!(trouble.now(), None);
    }
}
