//! Leases that workers of this process know.
//!
//! If an answer is lost on its way, tasks are leased to a worker that never saw them. The worker's
//! next lease call then lists the leases that it knows, and the others go back to the head of the
//! line at once. Otherwise they would have to expire as if the worker had died.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use darkroom_core::id::WorkerId;

use crate::task::{EntryId, Lease, PoolId};

type Holder = (PoolId, WorkerId);

/// By pool and worker.
#[derive(Debug, Default)]
pub(super) struct Holdings(Mutex<HashMap<Holder, Holding>>);

#[derive(Debug, Default)]
struct Holding {
    known: HashSet<EntryId>,
    /// Calls that run now: what they lease is not known yet.
    calls: usize,
    /// A call ended without an answer, so there may be unknown leases.
    in_doubt: bool,
}

/// A call that may lease tasks.
pub(super) struct Call<'a> {
    holdings: &'a Holdings,
    holder: Holder,
    known_after_doubt: Option<Vec<EntryId>>,
    answered: bool,
}

impl Holdings {
    pub(super) fn begin(&self, pool: &PoolId, worker: &WorkerId) -> Call<'_> {
        let holder = (pool.clone(), worker.clone());
        let mut holdings = self.locked();
        let holding = holdings.entry(holder.clone()).or_default();
        let settle = holding.in_doubt && holding.calls == 0;
        let known_after_doubt = settle.then(|| holding.known.iter().cloned().collect());
        holding.in_doubt &= !settle;
        holding.calls += 1;
        drop(holdings);
        Call { holdings: self, holder, known_after_doubt, answered: false }
    }

    /// Removes leases that have ended.
    pub(super) fn ended(&self, pool: &PoolId, worker: &WorkerId, leases: &[EntryId]) {
        if leases.is_empty() {
            return;
        }
        if let Some(holding) = self.locked().get_mut(&(pool.clone(), worker.clone())) {
            holding.known.retain(|id| !leases.contains(id));
        }
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<Holder, Holding>> {
        // Every change under the lock is complete in itself, so a panic elsewhere leaves no
        // half-done change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call<'_> {
    /// The leases this worker knows, if there may be others in its name.
    pub(super) fn known_after_doubt(&self) -> Option<&[EntryId]> {
        self.known_after_doubt.as_deref()
    }

    pub(super) fn answered(mut self, leases: &[Lease]) {
        self.answered = true;
        if let Some(holding) = self.holdings.locked().get_mut(&self.holder) {
            holding.known.extend(leases.iter().map(|lease| lease.id.clone()));
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(holding) = self.holdings.locked().get_mut(&self.holder) {
            holding.calls -= 1;
            holding.in_doubt |= !self.answered;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::samples::{pool, task};

    fn lease(id: &str) -> Lease {
        let worker = WorkerId("w".to_owned());
        Lease { id: EntryId(id.to_owned()), worker, task: task(0) }
    }

    #[test]
    fn a_lost_answer_is_settled_once_and_never_while_another_call_is_under_way() {
        let (holdings, pool, worker) =
            (Holdings::default(), pool("base"), WorkerId("w".to_owned()));
        let first = holdings.begin(&pool, &worker);
        assert!(first.known_after_doubt().is_none());
        first.answered(&[lease("1-0"), lease("2-0")]);
        holdings.ended(&pool, &worker, &[EntryId("2-0".to_owned())]);
        drop(holdings.begin(&pool, &worker));
        let settling = holdings.begin(&pool, &worker);
        assert_eq!(settling.known_after_doubt(), Some(&[EntryId("1-0".to_owned())][..]));
        drop(settling);
        let again = holdings.begin(&pool, &worker);
        assert!(again.known_after_doubt().is_some(), "the second call had no answer either");
        let beside = holdings.begin(&pool, &worker);
        assert!(beside.known_after_doubt().is_none());
        beside.answered(&[]);
        again.answered(&[]);
        assert!(holdings.begin(&pool, &worker).known_after_doubt().is_none());
    }
}
