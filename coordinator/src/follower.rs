//! Updates image rows in chunks: when their embeddings are ready, and after a cancel or retry of
//! their job or of some of its images. It also removes the tasks of cancelled images from the
//! queue.

use std::sync::Arc;

use darkroom_queue::{
    Leased,
    task::{PoolId, TaskKey},
};

use crate::{error::Error, shared::Shared, store::roles::Following, tasks::by_pool};

/// Images per transaction: few enough that others do not wait long for the writer.
const CHUNK: u64 = 2000;

/// Runs until shutdown.
pub(crate) async fn run(shared: Arc<Shared>, store: Arc<dyn Following>) {
    while !shared.stop.is_cancelled() {
        let woken = shared.events.follow.notified();
        match pass(&shared, store.as_ref()).await {
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

async fn pass(shared: &Shared, store: &dyn Following) -> Result<(), Error> {
    while !shared.stop.is_cancelled() {
        let spread = store.spread(CHUNK).await?;
        let followed = store.follow(CHUNK).await?;
        for committed in [&spread, &followed] {
            shared.committed(committed);
            if committed.changed > 0 {
                shared.events.dispatch.notify_one();
            }
        }
        let more = spread.more || followed.more;
        take_out(shared, followed.withdrawn).await;
        if !more {
            break;
        }
    }
    Ok(())
}

/// Takes tasks out of the queue, so that their workers stop at their next step. The rows are
/// updated already. If a task stays, because the queue cannot be reached or the task is still on
/// its way, the sweep finds it.
async fn take_out(shared: &Shared, tasks: Vec<(PoolId, TaskKey)>) {
    for (pool, keys) in by_pool(tasks) {
        if let Err(error) = shared.queue.remove(&pool, &keys, Leased::Remove).await {
            tracing::warn!(pool = %pool, tasks = keys.len(), %error, "tasks of cancelled images stay in the queue until the sweep");
        }
    }
}
