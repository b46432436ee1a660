//! Ends the jobs that may not go on: the leader looks at every sweep, and at once after a failure that it committed
//! itself. A job is never ended later than one sweep after its deadline, or after the failure that was one too many.

use std::sync::Arc;

use darkroom_core::id::JobId;
use darkroom_queue::Leased;

use crate::{
    service::{Error, Shared},
    tasks::by_pool,
};

/// Jobs of each kind that are ended in one transaction.
const JOBS: u32 = 100;

/// Runs until shutdown.
pub(crate) async fn run(shared: Arc<Shared>) {
    while !shared.stop.is_cancelled() {
        let woken = shared.events.limits.notified();
        match pass(&shared).await {
            Ok(()) => shared.healed("limits"),
            Err(error) => shared.failed("limits", &error),
        }
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep(shared.options.sweep) => {}
            () = shared.stop.cancelled() => {}
        }
    }
}

async fn pass(shared: &Shared) -> Result<(), Error> {
    loop {
        let Some(term) = shared.lead().await? else { return Ok(()) };
        let ended = shared.store.end_overdue(term, JOBS).await?;
        if ended.is_empty() {
            return Ok(());
        }
        for job in &ended {
            tracing::info!(job.id = %job, "job ended by its limits");
            take_out(shared, *job).await?;
        }
        shared.events.changed(&ended);
        shared.events.follow.notify_one();
    }
}

/// Takes what is in flight of an ended job out of the queue, so that its workers stop at their next step. What this
/// misses, because rows followed already, the sweep finds.
async fn take_out(shared: &Shared, job: JobId) -> Result<(), Error> {
    for (pool, keys) in by_pool(shared.store.dispatched_of_job(job).await?) {
        if let Err(error) = shared.queue.remove(&pool, &keys, Leased::Remove).await {
            tracing::warn!(job.id = %job, %error, "tasks of an ended job stay in the queue until the sweep");
        }
    }
    Ok(())
}
