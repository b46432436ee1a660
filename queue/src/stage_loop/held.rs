//! Leases held, and the heartbeat that keeps them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use darkroom_core::guard::{Guard, stands};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::shared::{CALL, Shared, locked};
use crate::task::{EntryId, Lease, PoolId, Task};

type Key = (PoolId, EntryId);

/// Every lease this worker holds and works at.
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

    fn lose(&self, pool: &PoolId, ids: Vec<EntryId>) {
        let held = locked(&self.0);
        for lost in ids.into_iter().filter_map(|id| held.get(&(pool.clone(), id))) {
            lost.store(true, Ordering::Relaxed);
        }
    }
}

/// A task on lease. Dropped, it is renewed no more: whatever goes wrong with it here, the farm gets it back.
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

/// Renews everything held from time to time, unless the model stalls.
pub(super) async fn keep_alive(shared: Arc<Shared>) {
    let period = shared.options.heartbeat;
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stalled = false;
    loop {
        ticks.tick().await;
        if shared
            .meter
            .since_pulse()
            .is_some_and(|since| since > shared.options.stall && stands(Guard::StallStops))
        {
            if !stalled {
                tracing::error!("no step within the stall limit, leases are renewed no more");
            }
            stalled = true;
            continue;
        }
        stalled = false;
        for (pool, ids) in shared.registry.by_pool() {
            let renewed = shared.queue.heartbeat(&pool, &shared.options.worker, &ids);
            match timeout(period.max(CALL), renewed).await {
                Ok(Ok(lost)) => shared.registry.lose(&pool, lost),
                Ok(Err(error)) => tracing::warn!(%pool, %error, "leases could not be renewed"),
                Err(_) => tracing::warn!(%pool, "leases could not be renewed in time"),
            }
        }
    }
}
