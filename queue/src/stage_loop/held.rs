//! The leases that are held.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::lock::locked;
use crate::task::{EntryId, Lease, PoolId, Task};

type Key = (PoolId, EntryId);

/// Every lease that this worker holds.
#[derive(Debug, Default)]
pub(super) struct Registry(Mutex<HashMap<Key, Arc<AtomicBool>>>);

impl Registry {
    pub(super) fn hold(self: &Arc<Self>, pool: &PoolId, lease: Lease) -> Held {
        let lost = Arc::new(AtomicBool::new(false));
        locked(&self.0).insert((pool.clone(), lease.id.clone()), Arc::clone(&lost));
        Held { pool: pool.clone(), lease, lost, registry: Arc::clone(self) }
    }

    pub(super) fn len(&self) -> usize {
        locked(&self.0).len()
    }

    pub(super) fn by_pool(&self) -> HashMap<PoolId, Vec<EntryId>> {
        let mut pools: HashMap<PoolId, Vec<EntryId>> = HashMap::new();
        for (pool, id) in locked(&self.0).keys() {
            pools.entry(pool.clone()).or_default().push(id.clone());
        }
        pools
    }

    pub(super) fn lose(&self, pool: &PoolId, ids: Vec<EntryId>) {
        let held = locked(&self.0);
        for lost in ids.into_iter().filter_map(|id| held.get(&(pool.clone(), id))) {
            lost.store(true, Ordering::Relaxed);
        }
    }
}

/// A leased task. Once dropped it is not renewed any more, so the farm gets the task back whatever
/// goes wrong here.
#[derive(Debug)]
pub(super) struct Held {
    pool: PoolId,
    lease: Lease,
    lost: Arc<AtomicBool>,
    registry: Arc<Registry>,
}

impl Held {
    pub(super) fn pool(&self) -> &PoolId {
        &self.pool
    }

    pub(super) fn id(&self) -> &EntryId {
        &self.lease.id
    }

    pub(super) fn task(&self) -> &Task {
        &self.lease.task
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        locked(&self.registry.0).remove(&(self.pool.clone(), self.lease.id.clone()));
    }
}
