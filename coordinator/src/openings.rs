//! Leave that the dispatcher gives the committers: to hand images straight on to a pool's queue.
//!
//! A pool is open while its line has room and nothing that is ready waits for it, so that nobody is overtaken: neither
//! priority nor fair share has anything to say then. It stays open while the dispatcher counts what is dispatched; what is
//! under way or came meanwhile, and so may not be in the count, the dispatcher counts as used.

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
    /// Used by all commits so far.
    used: u64,
    /// Results of the pool's own that were read and are not committed yet.
    unsettled: u64,
}

/// How much of a pool's leave was taken and used, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    taken: u64,
    used: u64,
}

impl Seen {
    /// What a count of SQL, begun at `before` and over now, may lack.
    pub(crate) fn uncounted(self, before: Self) -> u64 {
        self.taken + (self.used - before.used)
    }
}

impl Openings {
    /// What is taken and used by now.
    pub(crate) fn seen(&self, pool: &PoolId) -> Seen {
        self.pools().get(pool).map_or_else(Seen::default, |of| Seen { taken: of.taken, used: of.used })
    }

    /// So many of the pool's tasks are done and await their commit, until the returned value is dropped. SQL counts them as
    /// dispatched, but they are no part of the line.
    pub(crate) fn unsettled<'a>(&'a self, pool: &'a PoolId, results: u64) -> Unsettled<'a> {
        self.pools().entry(pool.clone()).or_default().unsettled += results;
        Unsettled { openings: self, pool, results }
    }

    /// How many of the pool's tasks are done and await their commit here.
    pub(crate) fn done(&self, pool: &PoolId) -> u64 {
        self.pools().get(pool).map_or(0, |of| of.unsettled)
    }

    /// Closes a pool.
    pub(crate) fn close(&self, pool: &PoolId) {
        if let Some(opening) = self.pools().get_mut(pool) {
            (opening.term, opening.room) = (None, 0);
        }
    }

    /// Closes every pool: this coordinator leads no more.
    pub(crate) fn close_all(&self) {
        for opening in self.pools().values_mut() {
            (opening.term, opening.room) = (None, 0);
        }
    }

    /// Gives leave for so many images in this term, less what was taken or used since the room was reckoned.
    pub(crate) fn open(&self, pool: &PoolId, term: Term, room: u64, since: Seen) {
        let mut pools = self.pools();
        let opening = pools.entry(pool.clone()).or_default();
        let now = Seen { taken: opening.taken, used: opening.used };
        let gone = now.uncounted(since).saturating_sub(since.taken);
        (opening.term, opening.room) = (Some(term), room.saturating_sub(gone));
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
        opening.used += used;
        if opening.term == Some(onward.term) {
            opening.room += onward.room.saturating_sub(used);
        }
    }

    fn pools(&self) -> MutexGuard<'_, HashMap<PoolId, Opening>> {
        // Every change under the lock is complete in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Results on their way into SQL.
#[derive(Debug)]
pub(crate) struct Unsettled<'a> {
    openings: &'a Openings,
    pool: &'a PoolId,
    results: u64,
}

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        if let Some(opening) = self.openings.pools().get_mut(self.pool) {
            opening.unsettled = opening.unsettled.saturating_sub(self.results);
        }
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
        openings.open(&pool, Term(1), 10, Seen::default());
        let first = openings.take(&pool, 8).expect("room");
        let second = openings.take(&pool, 8).expect("room");
        assert_eq!((first.room, second.room), (8, 2));
        assert!(openings.take(&pool, 8).is_none(), "full");
        openings.end(&second, 1);
        assert_eq!(openings.take(&pool, 8).expect("what was not used").room, 1);
        let before = openings.seen(&pool);
        assert_eq!(before, Seen { taken: 9, used: 1 });
        openings.close(&pool);
        openings.end(&first, 6);
        assert_eq!(
            openings.seen(&pool).uncounted(before),
            7,
            "what has ended meanwhile and what is under way"
        );
        assert!(openings.take(&pool, 8).is_none(), "closed");
        openings.open(&pool, Term(2), 5, openings.seen(&pool));
        openings.end(&Onward { room: 0, ..first }, 0);
        assert_eq!(openings.take(&pool, 8).expect("room").room, 5, "leave of another term is void");
    }

    #[test]
    fn results_are_done_until_they_are_settled() {
        let stage = StageName::try_from("base".to_owned()).expect("a name");
        let pool = PoolId { stage, digest: Digest::of(b"cascade") };
        let openings = Openings::default();
        assert_eq!(openings.done(&pool), 0);
        let first = openings.unsettled(&pool, 512);
        let second = openings.unsettled(&pool, 3);
        assert_eq!(openings.done(&pool), 515);
        openings.close_all();
        drop(first);
        assert_eq!(openings.done(&pool), 3, "they are done whoever leads");
        drop(second);
        assert_eq!(openings.done(&pool), 0);
    }

    #[test]
    fn a_pool_that_stays_open_gives_no_more_than_its_room() {
        let stage = StageName::try_from("base".to_owned()).expect("a name");
        let pool = PoolId { stage, digest: Digest::of(b"cascade") };
        let openings = Openings::default();
        openings.open(&pool, Term(1), 10, Seen::default());
        let first = openings.take(&pool, 4).expect("room");
        // The room of ten is reckoned while four are under way, which are counted as used.
        let reckoned = openings.seen(&pool);
        let second = openings.take(&pool, 5).expect("room");
        openings.end(&first, 4);
        openings.end(&second, 3);
        let third = openings.take(&pool, 1).expect("room");
        openings.open(&pool, Term(1), 10, reckoned);
        assert_eq!(
            openings.take(&pool, 99).expect("room").room,
            6,
            "ten without three and the one under way"
        );
        openings.end(&third, 0);
    }
}
