//! Reads results in bulk and commits them, one transaction a bulk, acknowledging after the commit.
//!
//! A bulk that fails for what is in it is halved until the result at fault stands alone; that one is counted and
//! acknowledged, so that it holds nobody up. Whatever else is wrong with the record is waited out: work that is done
//! is not thrown away.

use std::{sync::Arc, time::Duration};

use darkroom_queue::task::{Outcome, PoolId, ResultEntry};

use crate::{
    service::{Error, Shared},
    store::{
        self,
        records::{Committed, Fate, Report},
    },
};

/// Results of one transaction.
const BULK: usize = 512;
/// How long one reading waits for the first result.
const WAIT: Duration = Duration::from_secs(1);
/// Pause after an error that may pass.
const PAUSE: Duration = Duration::from_millis(500);

/// Commits one pool's results until shutdown.
pub(crate) async fn run(shared: Arc<Shared>, pool: PoolId) {
    while !shared.stop.is_cancelled() {
        let read = shared.queue.results(&pool, &shared.holder, BULK, WAIT);
        let entries = tokio::select! {
            entries = read => entries,
            () = shared.stop.cancelled() => return,
        };
        let done = match entries {
            Ok(entries) if entries.is_empty() => continue,
            Ok(entries) => settle(&shared, &pool, &entries).await,
            Err(error) => Err(error.into()),
        };
        match done {
            Ok(()) => shared.healed(&part(&pool)),
            Err(error) => {
                shared.failed(&part(&pool), &error);
                shared.pause(PAUSE).await;
            }
        }
    }
}

/// Each pool's commits fail and heal by themselves.
fn part(pool: &PoolId) -> String {
    format!("commit {pool}")
}

/// Commits the entries and acknowledges them; retries until shutdown what is not their own fault.
async fn settle(shared: &Shared, pool: &PoolId, entries: &[ResultEntry]) -> Result<(), Error> {
    // Halves that are still to be committed, the next one last.
    let mut bulks = vec![entries];
    while let Some(bulk) = bulks.pop() {
        match commit(shared, pool, bulk).await {
            Ok(()) => shared.healed(&part(pool)),
            Err(error) if error.retryable() || !error.is_about_the_data() => {
                if shared.stop.is_cancelled() {
                    return Ok(());
                }
                shared.failed(&part(pool), &error.into());
                bulks.push(bulk);
                shared.pause(PAUSE).await;
                continue;
            }
            Err(error) if bulk.len() == 1 => {
                tracing::error!(pool = %pool, %error, "result cannot be committed; it is dropped");
                shared.counters.unusable.add(1);
            }
            Err(_) => {
                let (first, second) = bulk.split_at(bulk.len() / 2);
                bulks.extend([second, first]);
                continue;
            }
        }
        let ids: Vec<_> = bulk.iter().map(|entry| entry.id.clone()).collect();
        // The rest of the bulk is committed all the same; what is not acknowledged is read again, to no effect.
        if let Err(error) = shared.queue.acknowledge(pool, &ids).await {
            tracing::warn!(pool = %pool, %error, "committed results could not be acknowledged");
        }
    }
    Ok(())
}

async fn commit(shared: &Shared, pool: &PoolId, bulk: &[ResultEntry]) -> Result<(), store::Error> {
    let live_hosts = shared.crew.get().hosts(pool);
    let reports: Vec<_> =
        bulk.iter().map(|entry| Report { result: entry.result.clone(), live_hosts }).collect();
    let committed = shared.store.commit(pool, &reports).await?;
    measure(shared, pool, &reports, &committed);
    shared.committed(&committed);
    if pool.stage.is_encode() {
        shared.events.follow.notify_one();
    }
    shared.events.dispatch.notify_one();
    Ok(())
}

fn measure(shared: &Shared, pool: &PoolId, reports: &[Report], committed: &Committed) {
    for (report, fate) in reports.iter().zip(&committed.fates) {
        let result = &report.result;
        match (fate, &result.outcome) {
            (Fate::Applied, Outcome::Failed { code, message }) => {
                tracing::warn!(pool = %pool, subject = ?result.key.subject, task.attempt = result.key.dispatch,
                    worker = %result.worker, error.code = code, error = message, "task failed");
                shared.events.limits.notify_one();
                shared.counters.committed.add(1);
            }
            (Fate::Applied, _) => shared.counters.committed.add(1),
            (Fate::Discarded(reason), _) => {
                tracing::debug!(pool = %pool, subject = ?result.key.subject, reason, "result discarded");
                shared.counters.discard(reason);
            }
        }
    }
}
