//! Announces the worker, and receives its orders in the answer: to drain, or that it gets nothing
//! for some time. A missing answer is a trouble of the worker. When the worker starts to leave it
//! announces that at once, so that a later kill is blamed on nobody.

use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use crate::Error;

/// Announces the worker's card now and regularly. Cancels `drain` if the answer says so.
pub(super) async fn keep_announcing(shared: Arc<Shared>, drain: CancellationToken) {
    let every = shared.options.announce_every;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut leaves = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = drain.cancelled(), if !leaves => {
                leaves = true;
                shared.draining();
            }
        }
        shared.trouble.look_at_storage(shared.registry.len() == 0);
        let announced = timeout(every, shared.queue.announce(shared.card())).await;
        let announced = announced
            .unwrap_or_else(|_| Err(Error::Unavailable(format!("no answer within {every:?}"))));
        shared.trouble.announced(announced.as_ref().err());
        let orders = match announced {
            Ok(orders) => orders,
            Err(error) => {
                tracing::debug!(%error, "the worker could not be announced");
                continue;
            }
        };
        if orders.aside != shared.set_aside(orders.aside) {
            if orders.aside {
                tracing::warn!(
                    "set aside for some time, because images failed here \
                     that other workers completed"
                );
            } else {
                tracing::info!("no longer set aside");
            }
        }
        if orders.drain && !drain.is_cancelled() {
            tracing::info!("asked to drain");
            drain.cancel();
        }
    }
}
