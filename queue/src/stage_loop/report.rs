//! Reports how tasks ended: all that is ready at the moment in one call.

use std::{collections::HashMap, sync::Arc};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    Backoff,
    held::Held,
    shared::{CALL, Shared},
};
use crate::task::{Completion, PoolId, TaskResult};

/// Most results of one call.
pub(super) const BULK: usize = 256;

/// A result to report.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) held: Held,
    pub(super) result: TaskResult,
    /// Resolves when there is no more to be done about it.
    pub(super) settled: oneshot::Sender<()>,
}

/// Reports what comes, for as long as it is polled.
pub(super) async fn keep_reporting(shared: Arc<Shared>, mut reports: mpsc::Receiver<Report>) {
    while let Some(first) = reports.recv().await {
        // The rest of its batch is about as far.
        tokio::task::yield_now().await;
        let mut ready: HashMap<PoolId, Vec<Report>> = HashMap::new();
        ready.entry(first.held.pool().clone()).or_default().push(first);
        for _ in 1..BULK {
            let Ok(next) = reports.try_recv() else { break };
            ready.entry(next.held.pool().clone()).or_default().push(next);
        }
        for (pool, reports) in ready {
            report(&shared, &pool, reports).await;
        }
    }
}

/// Again and again until the queue answers, for those whose lease is not lost meanwhile.
async fn report(shared: &Shared, pool: &PoolId, mut reports: Vec<Report>) {
    let worker = &shared.options.worker;
    let mut backoff = Backoff::new();
    loop {
        reports.extract_if(.., |report| report.held.is_lost()).for_each(dropped);
        if reports.is_empty() {
            return;
        }
        let results =
            reports.iter().map(|report| (report.held.id().clone(), report.result.clone())).collect();
        match timeout(CALL, shared.queue.complete(pool, worker, results)).await {
            Ok(Ok(completions)) => {
                for (report, completion) in reports.into_iter().zip(completions) {
                    match completion {
                        Completion::Recorded => {
                            shared.meter.count_done();
                            let _ = report.settled.send(());
                        }
                        Completion::LeaseLost => dropped(report),
                    }
                }
                return;
            }
            Ok(Err(error)) if !error.retryable() => {
                tracing::error!(%pool, results = reports.len(), %error, "results could not be reported");
                return;
            }
            Ok(Err(error)) => tracing::debug!(%error, "reporting results again"),
            Err(_) => tracing::debug!("reporting results again"),
        }
        if shared.stop.run_until_cancelled(backoff.pause()).await.is_none() {
            return;
        }
    }
}

fn dropped(report: Report) {
    tracing::info!(pool = %report.held.pool(), task = ?report.held.task().key, "lease lost, result dropped");
    let _ = report.settled.send(());
}
