//! Lets image rows follow, in chunks: the embeddings they waited for, a cancel or retry of their job.

use std::sync::Arc;

use crate::service::{Error, Shared};

/// Images of one transaction: short enough that nobody waits long for the writer.
const CHUNK: u64 = 2000;

/// Runs until shutdown.
pub(crate) async fn run(shared: Arc<Shared>) {
    while !shared.stop.is_cancelled() {
        let woken = shared.events.follow.notified();
        match pass(&shared).await {
            Ok(()) => shared.healed("follow"),
            Err(error) => shared.failed("follow", &error),
        }
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep(shared.options.poll) => {}
            () = shared.stop.cancelled() => {}
        }
    }
}

async fn pass(shared: &Shared) -> Result<(), Error> {
    while !shared.stop.is_cancelled() {
        let spread = shared.store.spread(CHUNK).await?;
        let followed = shared.store.follow(CHUNK).await?;
        for committed in [&spread, &followed] {
            shared.committed(committed);
            if committed.changed > 0 {
                shared.events.dispatch.notify_one();
            }
        }
        if !spread.more && !followed.more {
            break;
        }
    }
    Ok(())
}
