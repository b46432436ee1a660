//! Leave that the dispatcher gives the committers: to hand images straight on to a pool's queue.
//!
//! A pool is open while its line has room and nothing that is ready waits for it, so that nobody is overtaken: neither
//! priority nor fair share has anything to say then. The dispatcher closes a pool before it counts what is dispatched
//! and opens it again with the room that is left; what was taken meanwhile and is not yet committed it counts as used.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use darkroom_queue::task::PoolId;

use crate::store::records::{Onward, Term};

/// The pools that are open, and how far.
#[derive(Debug, Default)]
pub(crate) struct Openings(Mutex<HashMap<PoolId, Opening>>);

#[derive(Debug, Default)]
struct Opening {
    term: Option<Term>,
    room: u64,
    /// Taken by commits under way.
    taken: u64,
}

impl Openings {
    /// Closes a pool; returns how much of its room is taken.
    pub(crate) fn close(&self, pool: &PoolId) -> u64 {
        let mut pools = self.pools();
        let opening = pools.entry(pool.clone()).or_default();
        (opening.term, opening.room) = (None, 0);
        opening.taken
    }

    /// Closes every pool: this coordinator leads no more.
    pub(crate) fn close_all(&self) {
        for opening in self.pools().values_mut() {
            (opening.term, opening.room) = (None, 0);
        }
    }

    /// Gives leave for so many images in this term.
    pub(crate) fn open(&self, pool: &PoolId, term: Term, room: u64) {
        let mut pools = self.pools();
        let opening = pools.entry(pool.clone()).or_default();
        (opening.term, opening.room) = (Some(term), room);
    }

    /// Takes leave for at most so many images; to be given back by [`end`](Self::end).
    pub(crate) fn take(&self, pool: &PoolId, most: u64) -> Option<Onward> {
        let mut pools = self.pools();
        let opening = pools.get_mut(pool)?;
        let (term, room) = (opening.term?, opening.room.min(most));
        if room == 0 {
            return None;
        }
        opening.room -= room;
        opening.taken += room;
        Some(Onward { term, pool: pool.clone(), room })
    }

    /// A commit with this leave has ended; `used` of it is dispatched, and counted in SQL from now on.
    pub(crate) fn end(&self, onward: &Onward, used: u64) {
        let mut pools = self.pools();
        let Some(opening) = pools.get_mut(&onward.pool) else { return };
        opening.taken = opening.taken.saturating_sub(onward.room);
        if opening.term == Some(onward.term) {
            opening.room += onward.room.saturating_sub(used);
        }
    }

    fn pools(&self) -> MutexGuard<'_, HashMap<PoolId, Opening>> {
        // Every change under the lock is complete in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use darkroom_core::{digest::Digest, id::StageName};

    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_room_and_nothing_of_a_closed_pool() {
        let pool = PoolId {
            stage: StageName::try_from("base".to_owned()).expect("a name"),
            digest: Digest::of(b"cascade"),
        };
        let openings = Openings::default();
        assert!(openings.take(&pool, 1).is_none(), "closed at first");
        openings.open(&pool, Term(1), 10);
        let first = openings.take(&pool, 8).expect("room");
        let second = openings.take(&pool, 8).expect("room");
        assert_eq!((first.room, second.room), (8, 2));
        assert!(openings.take(&pool, 8).is_none(), "full");
        openings.end(&second, 1);
        assert_eq!(openings.take(&pool, 8).expect("what was not used").room, 1);
        assert_eq!(openings.close(&pool), 9, "counted as used until the commits end");
        openings.end(&first, 0);
        assert!(openings.take(&pool, 8).is_none(), "closed");
        openings.open(&pool, Term(2), 5);
        openings.end(&first, 0);
        assert_eq!(openings.take(&pool, 8).expect("room").room, 5, "leave of another term is void");
    }
}
