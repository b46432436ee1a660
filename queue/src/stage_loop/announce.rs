//! The worker's sign of life.

use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::shared::Shared;

/// Announces the worker's card now and from time to time.
pub(super) async fn keep_announcing(shared: Arc<Shared>) {
    let every = shared.options.announce_every;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !matches!(timeout(every, shared.queue.announce(shared.card())).await, Ok(Ok(()))) {
            tracing::debug!("worker could not be announced");
        }
    }
}
