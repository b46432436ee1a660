//! Credit that the dispatcher gives the committers, so that they can dispatch images directly to a
//! pool's queue.
//!
//! A pool is open while its queue has room and no ready task waits for it. Then no task is
//! overtaken, so priority and fair share do not matter. The pool stays open while the dispatcher
//! counts the dispatched tasks. Commits that run or end during the count may be missing from it, so
//! the dispatcher counts their credit as used.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use darkroom_queue::task::PoolId;

use crate::store::records::{Onward, Term};

/// The open pools, with their credit.
#[derive(Debug, Default)]
pub(crate) struct Credits(Mutex<HashMap<PoolId, Credit>>);

#[derive(Debug, Default)]
struct Credit {
    term: Option<Term>,
    room: u64,
    /// Taken by running commits.
    taken: u64,
    /// Used by all commits so far.
    used: u64,
    /// Results of this pool that were read but are not committed yet.
    unsettled: u64,
}

/// How much of a pool's credit was taken and used, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    taken: u64,
    used: u64,
}

impl Seen {
    /// The number of images that a count in SQL may lack, if it began at `before` and ended now.
    pub(crate) fn uncounted(self, before: Self) -> u64 {
        self.taken + (self.used - before.used)
    }
}

impl Credits {
    /// The credit that is taken and used now.
    pub(crate) fn seen(&self, pool: &PoolId) -> Seen {
        self.pools()
            .get(pool)
            .map_or_else(Seen::default, |of| Seen { taken: of.taken, used: of.used })
    }

    /// Notes that this many tasks of the pool are done and await their commit, until the returned
    /// value is dropped. SQL counts them as dispatched, but they are no longer in the queue.
    pub(crate) fn unsettled<'a>(&'a self, pool: &'a PoolId, results: u64) -> Unsettled<'a> {
        self.pools().entry(pool.clone()).or_default().unsettled += results;
        Unsettled { credits: self, pool, results }
    }

    /// Number of the pool's tasks that are done and await their commit here.
    pub(crate) fn done(&self, pool: &PoolId) -> u64 {
        self.pools().get(pool).map_or(0, |of| of.unsettled)
    }

    /// Closes a pool.
    pub(crate) fn close(&self, pool: &PoolId) {
        if let Some(credit) = self.pools().get_mut(pool) {
            (credit.term, credit.room) = (None, 0);
        }
    }

    /// Closes every pool, because this coordinator has lost leadership.
    pub(crate) fn close_all(&self) {
        for credit in self.pools().values_mut() {
            (credit.term, credit.room) = (None, 0);
        }
    }

    /// Gives credit for this many images in this term, minus the credit taken or used since the
    /// room was computed.
    pub(crate) fn open(&self, pool: &PoolId, term: Term, room: u64, since: Seen) {
        let mut pools = self.pools();
        let credit = pools.entry(pool.clone()).or_default();
        let now = Seen { taken: credit.taken, used: credit.used };
        let gone = now.uncounted(since).saturating_sub(since.taken);
        (credit.term, credit.room) = (Some(term), room.saturating_sub(gone));
    }

    /// Takes credit for at most this many images. Give it back with [`end`](Self::end).
    pub(crate) fn take(&self, pool: &PoolId, most: u64) -> Option<Onward> {
        let mut pools = self.pools();
        let credit = pools.get_mut(pool)?;
        let (term, room) = (credit.term?, credit.room.min(most));
        if room == 0 {
            return None;
        }
        credit.room -= room;
        credit.taken += room;
        Some(Onward { term, pool: pool.clone(), room })
    }

    /// Ends a commit with this credit. `used` of it is dispatched, and counted in SQL from now on.
    pub(crate) fn end(&self, onward: &Onward, used: u64) {
        let mut pools = self.pools();
        let Some(credit) = pools.get_mut(&onward.pool) else { return };
        credit.taken = credit.taken.saturating_sub(onward.room);
        credit.used += used;
        if credit.term == Some(onward.term) {
            credit.room += onward.room.saturating_sub(used);
        }
    }

    fn pools(&self) -> MutexGuard<'_, HashMap<PoolId, Credit>> {
        // A panic under the lock leaves no partial change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Results that are being committed.
#[derive(Debug)]
pub(crate) struct Unsettled<'a> {
    credits: &'a Credits,
    pool: &'a PoolId,
    results: u64,
}

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        if let Some(credit) = self.credits.pools().get_mut(self.pool) {
            credit.unsettled = credit.unsettled.saturating_sub(self.results);
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
        let credits = Credits::default();
        assert!(credits.take(&pool, 1).is_none(), "closed at first");
        credits.open(&pool, Term(1), 10, Seen::default());
        let first = credits.take(&pool, 8).expect("room");
        let second = credits.take(&pool, 8).expect("room");
        assert_eq!((first.room, second.room), (8, 2));
        assert!(credits.take(&pool, 8).is_none(), "full");
        credits.end(&second, 1);
        assert_eq!(credits.take(&pool, 8).expect("what was not used").room, 1);
        let before = credits.seen(&pool);
        assert_eq!(before, Seen { taken: 9, used: 1 });
        credits.close(&pool);
        credits.end(&first, 6);
        assert_eq!(
            credits.seen(&pool).uncounted(before),
            7,
            "what has ended meanwhile and what is under way"
        );
        assert!(credits.take(&pool, 8).is_none(), "closed");
        credits.open(&pool, Term(2), 5, credits.seen(&pool));
        credits.end(&Onward { room: 0, ..first }, 0);
        assert_eq!(credits.take(&pool, 8).expect("room").room, 5, "credit of another term is void");
    }

    #[test]
    fn results_are_done_until_they_are_settled() {
        let stage = StageName::try_from("base".to_owned()).expect("a name");
        let pool = PoolId { stage, digest: Digest::of(b"cascade") };
        let credits = Credits::default();
        assert_eq!(credits.done(&pool), 0);
        let first = credits.unsettled(&pool, 512);
        let second = credits.unsettled(&pool, 3);
        assert_eq!(credits.done(&pool), 515);
        credits.close_all();
        drop(first);
        assert_eq!(credits.done(&pool), 3, "they are done under any leader");
        drop(second);
        assert_eq!(credits.done(&pool), 0);
    }

    #[test]
    fn a_pool_that_stays_open_gives_no_more_than_its_room() {
        let stage = StageName::try_from("base".to_owned()).expect("a name");
        let pool = PoolId { stage, digest: Digest::of(b"cascade") };
        let credits = Credits::default();
        credits.open(&pool, Term(1), 10, Seen::default());
        let first = credits.take(&pool, 4).expect("room");
        // The room of ten is computed while four are being dispatched; those count as used.
        let reckoned = credits.seen(&pool);
        let second = credits.take(&pool, 5).expect("room");
        credits.end(&first, 4);
        credits.end(&second, 3);
        let third = credits.take(&pool, 1).expect("room");
        credits.open(&pool, Term(1), 10, reckoned);
        assert_eq!(
            credits.take(&pool, 99).expect("room").room,
            6,
            "ten without three and the one under way"
        );
        credits.end(&third, 0);
    }
}
