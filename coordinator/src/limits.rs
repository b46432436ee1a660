//! Ends jobs that have passed a limit. The leader checks at every sweep, and at once after a
//! failure that it committed itself. So a job ends at most one sweep after its deadline, or after
//! one failure too many.

use std::sync::Arc;

use darkroom_core::id::JobId;
use darkroom_queue::Leased;

use crate::{
    error::Error,
    shared::Shared,
    store::roles::{Dispatching, Limiting},
    tasks::by_pool,
};

/// Jobs of each kind that are ended in one transaction.
const JOBS: u32 = 100;

/// Runs until shutdown.
pub(crate) async fn run<S: Dispatching + Limiting + ?Sized>(shared: Arc<Shared>, store: Arc<S>) {
    while !shared.stop.is_cancelled() {
        let woken = shared.events.limits.notified();
        match pass(&shared, store.as_ref()).await {
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

async fn pass<S: Dispatching + Limiting + ?Sized>(shared: &Shared, store: &S) -> Result<(), Error> {
    loop {
        let Some(term) = shared.lead().await? else { return Ok(()) };
        let ended = store.end_overdue(term, JOBS).await?;
        if ended.is_empty() {
            return Ok(());
        }
        for job in &ended {
            tracing::info!(job.id = %job, "job ended by its limits");
            take_out(shared, store, *job).await?;
        }
        shared.events.changed(&ended);
        shared.events.follow.notify_one();
    }
}

/// Takes the tasks of an ended job out of the queue, so that their workers stop at their next step.
/// If rows were updated before, this misses their tasks, and the sweep finds them.
async fn take_out(
    shared: &Shared,
    store: &(impl Dispatching + ?Sized),
    job: JobId,
) -> Result<(), Error> {
    for (pool, keys) in by_pool(store.dispatched_of_job(job).await?) {
        if let Err(error) = shared.queue.remove(&pool, &keys, Leased::Remove).await {
            tracing::warn!(job.id = %job, %error, "tasks of an ended job stay in the queue until the sweep");
        }
    }
    Ok(())
}
