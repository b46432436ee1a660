//! Reports how tasks ended: all results that are ready at one moment go in one call.

use std::{collections::HashMap, sync::Arc};

use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::shared::{CALL, Report, Shared, retries};
use crate::task::{Completion, PoolId};

/// Most results per call.
pub(super) const BULK: usize = 256;

/// Reports incoming results while it is polled.
pub(super) async fn keep_reporting(shared: Arc<Shared>, mut reports: mpsc::Receiver<Report>) {
    while let Some(first) = reports.recv().await {
        // The rest of the same batch is nearly ready too.
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

/// Repeats the call until the queue answers, for results whose lease is not lost meanwhile.
async fn report(shared: &Shared, pool: &PoolId, mut reports: Vec<Report>) {
    let worker = &shared.options.worker;
    let mut backoff = retries();
    loop {
        reports.extract_if(.., |report| report.held.is_lost()).for_each(dropped);
        if reports.is_empty() {
            return;
        }
        let results = reports
            .iter()
            .map(|report| (report.held.id().clone(), report.result.clone()))
            .collect();
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
        if shared.stop.run_until_cancelled(sleep(backoff.pause())).await.is_none() {
            return;
        }
    }
}

fn dropped(report: Report) {
    tracing::info!(pool = %report.held.pool(), task = ?report.held.task().key, "lease lost, result dropped");
    let _ = report.settled.send(());
}
