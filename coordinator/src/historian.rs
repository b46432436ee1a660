//! Writes the farm's history: once a minute, the leader adds up each pool's commits and records the
//! pool's sizes.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    error::Error,
    pools,
    shared::Shared,
    store::{
        history::{HISTORY_KEPT, Sizes, USAGE_KEPT},
        roles::History,
    },
};

/// Name of this part.
const PART: &str = "history";

/// Runs until shutdown.
pub(crate) async fn run<S: History + ?Sized>(shared: Arc<Shared>, store: Arc<S>) {
    let mut due = Instant::now();
    while !shared.stop.is_cancelled() {
        match pass(&shared, store.as_ref(), due).await {
            Ok(next) => {
                due = next;
                shared.healed(PART);
            }
            Err(error) => shared.failed(PART, &error),
        }
        shared.pause(shared.options.sweep).await;
    }
}

/// Records this minute, if it is due and this coordinator leads. Returns when to record the next
/// one. A new leader records the minute in which it begins to lead.
async fn pass<S: History + ?Sized>(
    shared: &Shared,
    store: &S,
    due: Instant,
) -> Result<Instant, Error> {
    let Some(term) = shared.lead().await? else { return Ok(Instant::now()) };
    if Instant::now() < due {
        return Ok(due);
    }
    let pools = pools::describe(shared, store).await?;
    let sizes: Vec<Sizes> = pools.into_iter().map(|pool| pool.sizes).collect();
    let left = store.note_history(term, &sizes).await?;
    store.prune_history(term, HISTORY_KEPT, USAGE_KEPT).await?;
    Ok(Instant::now() + left)
}
