//! Whether object storage is full. It has no room that could be asked for, so this follows what
//! writers are told: those of this process, and workers, which say it on their cards.
//!
//! Pure: the time and the result of a probe come from outside.

use std::time::Duration;

use tokio::time::Instant;

/// A write of this process that found no room counts for so long.
const TOLD: Duration = Duration::from_secs(10);
/// Time between two probes while storage is full.
const PROBE: Duration = Duration::from_secs(5);
/// A worker that has nothing to store any more says on its card for a minute that storage is full.
/// Once a probe was refused and another succeeded, cards are not believed for longer than that.
const CARDS_ARE_OLD: Duration = Duration::from_secs(90);

/// What is known about object storage.
#[derive(Debug, Default)]
pub(super) struct Storage {
    state: State,
    /// When a write of this process found no room.
    told: Option<Instant>,
    probed: Option<Instant>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Fits,
    Full {
        /// Whether a probe was refused. Otherwise, small objects fit and larger ones do not.
        refused: bool,
    },
    /// A probe was refused, and a later one succeeded.
    Freed(Instant),
}

/// What a probe showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    Fits,
    Full,
    /// Another fault, which says nothing about room.
    Failed,
}

impl Storage {
    /// A write of this process found no room.
    pub(super) fn told(&mut self, now: Instant) {
        self.told = Some(now);
    }

    /// Whether storage is to be probed now. `cards`: a worker says that it finds no room.
    pub(super) fn wants_probe(&self, cards: bool, now: Instant) -> bool {
        let soon = self.probed.is_some_and(|at| now.duration_since(at) < PROBE);
        let refused = self.state == State::Full { refused: true };
        (refused || self.suspected(cards, now)) && !soon
    }

    /// Takes the result of a probe in, if there was one.
    pub(super) fn look(&mut self, cards: bool, probe: Option<Probe>, now: Instant) {
        if probe.is_some() {
            self.probed = Some(now);
        }
        let suspected = self.suspected(cards, now);
        self.state = match (std::mem::take(&mut self.state), probe) {
            (_, Some(Probe::Full)) => State::Full { refused: true },
            (State::Full { refused: true }, Some(Probe::Fits)) => {
                self.told = None;
                State::Freed(now)
            }
            (State::Full { refused: true }, _) => State::Full { refused: true },
            (_, Some(Probe::Fits)) if suspected => State::Full { refused: false },
            (State::Full { refused: false }, _) if suspected => State::Full { refused: false },
            (State::Freed(at), _) if now.duration_since(at) < CARDS_ARE_OLD => State::Freed(at),
            _ => State::Fits,
        };
    }

    pub(super) fn is_full(&self) -> bool {
        matches!(self.state, State::Full { .. })
    }

    fn suspected(&self, cards: bool, now: Instant) -> bool {
        let old = matches!(self.state, State::Freed(at) if now.duration_since(at) < CARDS_ARE_OLD);
        let told = self.told.is_some_and(|at| now.duration_since(at) < TOLD);
        told || (cards && !old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// As the coordinator does it: a probe when one is wanted.
    fn look(storage: &mut Storage, cards: bool, probe: Probe, now: Instant) -> bool {
        let probe = storage.wants_probe(cards, now).then_some(probe);
        storage.look(cards, probe, now);
        storage.is_full()
    }

    #[test]
    fn nothing_is_probed_while_nobody_finds_storage_full() {
        let storage = Storage::default();
        assert!(!storage.wants_probe(false, Instant::now()));
    }

    #[test]
    fn full_storage_is_full_until_a_probe_fits_and_old_cards_are_not_believed_then() {
        let (mut storage, start) = (Storage::default(), Instant::now());
        let mut at =
            |seconds: u32, cards, probe| look(&mut storage, cards, probe, start + SECOND * seconds);
        assert!(at(0, true, Probe::Full));
        assert!(at(1, true, Probe::Fits), "it is not probed again at once");
        assert!(at(6, false, Probe::Full), "no worker says so any more, and it is full");
        assert!(at(12, true, Probe::Failed), "a fault says nothing");
        assert!(!at(18, true, Probe::Fits), "there is room");
        assert!(!at(30, true, Probe::Full), "the card is older than that");
        assert!(at(18 + 91, true, Probe::Full), "this one is not");
    }

    #[test]
    fn storage_that_takes_small_objects_only_is_full_while_somebody_says_so() {
        let (mut storage, start) = (Storage::default(), Instant::now());
        let mut at =
            |seconds: u32, cards| look(&mut storage, cards, Probe::Fits, start + SECOND * seconds);
        assert!(at(0, true) && at(1, true) && at(30, true));
        assert!(!at(31, false), "work is tried again");
        assert!(at(40, true));
    }

    #[test]
    fn a_write_of_this_process_counts_for_a_moment_whatever_the_cards_are_worth() {
        let (mut storage, start) = (Storage::default(), Instant::now());
        storage.told(start);
        assert!(look(&mut storage, false, Probe::Full, start));
        assert!(!look(&mut storage, false, Probe::Fits, start + SECOND * 6));
        storage.told(start + SECOND * 20);
        assert!(look(&mut storage, false, Probe::Full, start + SECOND * 21));
    }
}
