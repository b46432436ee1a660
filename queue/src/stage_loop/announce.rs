//! The worker's sign of life, and what it is told in answer: to drain, or that it gets nothing for a time.

use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::shared::Shared;

/// Announces the worker's card now and from time to time; cancels `drain` when the answer says so.
pub(super) async fn keep_announcing(shared: Arc<Shared>, drain: CancellationToken) {
    let every = shared.options.announce_every;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(Ok(orders)) = timeout(every, shared.queue.announce(shared.card())).await else {
            tracing::debug!("worker could not be announced");
            continue;
        };
        if orders.aside != shared.set_aside(orders.aside) {
            if orders.aside {
                tracing::warn!("set aside: others could do what failed here; nothing is taken for a time");
            } else {
                tracing::info!("set aside no more");
            }
        }
        if orders.drain && !drain.is_cancelled() {
            tracing::info!("asked to drain");
            drain.cancel();
        }
    }
}
