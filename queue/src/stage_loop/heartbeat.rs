//! The heartbeat that renews what is held.

use std::sync::Arc;

use darkroom_core::guard::{Guard, stands};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::shared::{CALL, Shared};

/// Renews everything held regularly, unless the model stalls.
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
                tracing::error!(
                    "no step finished within the stall limit, leases are no longer renewed"
                );
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
