//! Turns for calls that keep much in memory while they are open. Each tenant has a few, so that no
//! tenant waits for another's calls.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::Semaphore;

/// The turns of every tenant that has some taken.
#[derive(Debug)]
pub(crate) struct Turns {
    each: usize,
    taken: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl Turns {
    /// So many for each tenant.
    pub(crate) fn new(each: usize) -> Self {
        Self { each, taken: Mutex::default() }
    }

    /// How many a tenant has.
    pub(crate) fn each(&self) -> usize {
        self.each
    }

    /// The turns of a tenant; of a caller without one, those of all such callers. They last as long
    /// as somebody holds or waits for one.
    pub(crate) fn of(&self, tenant: Option<&str>) -> Arc<Semaphore> {
        let tenant = tenant.unwrap_or_default();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = taken.get(tenant).and_then(Weak::upgrade) {
            return turns;
        }
        taken.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Semaphore::new(self.each));
        taken.insert(tenant.to_owned(), Arc::downgrade(&turns));
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tenant_has_its_own_turns_and_those_of_nobody_are_forgotten() {
        let turns = Turns::new(2);
        let take = |tenant: Option<&str>| turns.of(tenant).try_acquire_owned();
        let held: Vec<_> = (0..2).map(|_| take(Some("a")).expect("a turn")).collect();
        take(Some("a")).expect_err("both are taken");
        let (other, nobodys) = (take(Some("b")).expect("its own"), take(None).expect("their own"));
        drop((held, nobodys));
        let again = take(Some("a")).expect("free again");
        drop(take(Some("c")).expect("its own"));
        let known = |turns: &Turns| turns.taken.lock().expect("whole").len();
        // Nobody holds a turn of `c` any more. The next tenant that comes clears it away.
        assert_eq!(known(&turns), 3);
        drop((other, again));
        drop(take(Some("d")).expect("its own"));
        assert_eq!(known(&turns), 1);
    }
}
