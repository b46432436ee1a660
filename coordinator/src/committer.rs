//! Reads results in bulk and commits them, one transaction a bulk, acknowledging after the commit. Where the dispatcher
//! has given leave, the same transaction hands their images on to the next pool.
//!
//! A bulk that fails for what is in it is halved until the result at fault stands alone; that one is counted and
//! acknowledged, so that it holds nobody up. Whatever else is wrong with the record is waited out: work that is done
//! is not thrown away.

use std::{collections::HashMap, sync::Arc, time::Duration};

use darkroom_core::guard::{Guard, stands};
use darkroom_queue::task::{EntryId, Outcome, PoolId, ResultEntry, TaskResult};

use crate::{
    dispatcher,
    service::{Error, Shared},
    store::{
        self,
        records::{Committed, Dispatched, Fate, Onward, Report},
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
            // There are none, and that is known: the queue can be read.
            Ok(entries) if entries.is_empty() => Ok(()),
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
    let _unsettled = shared.openings.unsettled(pool, entries.len() as u64);
    // Halves that are still to be committed, the next one last.
    let mut bulks = vec![entries];
    while let Some(bulk) = bulks.pop() {
        if !stands(Guard::AckAfterCommit) {
            acknowledge(shared, pool, bulk).await;
        }
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
        acknowledge(shared, pool, bulk).await;
    }
    Ok(())
}

/// The rest of the bulk is committed all the same; what is not acknowledged is read again, to no effect.
async fn acknowledge(shared: &Shared, pool: &PoolId, bulk: &[ResultEntry]) {
    let ids: Vec<EntryId> = bulk.iter().map(|entry| entry.id.clone()).collect();
    if let Err(error) = shared.queue.acknowledge(pool, &ids).await {
        tracing::warn!(pool = %pool, %error, "committed results could not be acknowledged");
    }
}

async fn commit(shared: &Shared, pool: &PoolId, bulk: &[ResultEntry]) -> Result<(), store::Error> {
    let most = bulk.len() as u64;
    let next = shared.cascades.pools_after(pool);
    let onward: Vec<Onward> = next.iter().filter_map(|next| shared.openings.take(next, most)).collect();
    let done = commit_onward(shared, pool, bulk, &onward).await;
    let mut used: HashMap<&PoolId, Vec<Dispatched>> = HashMap::new();
    let (reports, committed, dispatched) = match done {
        Ok(done) => done,
        Err(error) => {
            onward.iter().for_each(|leave| shared.openings.end(leave, 0));
            return Err(error);
        }
    };
    for (pool, task) in dispatched {
        if let Some(leave) = onward.iter().find(|leave| leave.pool == pool) {
            used.entry(&leave.pool).or_default().push(task);
        }
    }
    for leave in &onward {
        let tasks = used.remove(&leave.pool).unwrap_or_default();
        shared.openings.end(leave, tasks.len() as u64);
        // They are committed all the same; what the queue does not take is ready again, at the latest by the sweep.
        if let Err(error) = dispatcher::hand_out(shared, leave.term, &leave.pool, &tasks).await {
            shared.failed(&part(&leave.pool), &error);
        }
    }
    measure(shared, pool, &reports, &committed);
    shared.committed(&committed);
    if pool.stage.is_encode() {
        shared.events.follow.notify_one();
    }
    shared.events.dispatch.notify_one();
    Ok(())
}

type Done = (Vec<Report>, Committed, Vec<(PoolId, Dispatched)>);

async fn commit_onward(
    shared: &Shared,
    pool: &PoolId,
    bulk: &[ResultEntry],
    onward: &[Onward],
) -> Result<Done, store::Error> {
    let live_hosts = shared.crew.get().hosts(pool);
    let reports: Vec<_> =
        bulk.iter().map(|entry| Report { result: keepable(entry.result.clone()), live_hosts }).collect();
    let done = match shared.store.commit_onward(pool, &reports, onward).await {
        Err(store::Error::NotLeading(_)) => {
            // Results are committed whoever leads.
            shared.openings.close_all();
            (shared.store.commit(pool, &reports).await?, Vec::new())
        }
        done => done?,
    };
    Ok((reports, done.0, done.1))
}

/// A result of which every text can be kept: Postgres knows no U+0000, which an error's message may hold.
fn keepable(mut result: TaskResult) -> TaskResult {
    let keepable = |text: &mut String| {
        if text.contains('\0') {
            *text = text.replace('\0', "\u{fffd}");
        }
    };
    keepable(&mut result.host);
    keepable(&mut result.device_class);
    match &mut result.outcome {
        Outcome::Done { notes, .. } => notes.iter_mut().for_each(keepable),
        Outcome::Failed { code, message } => {
            keepable(code);
            keepable(message);
        }
        Outcome::Interrupted { reason } => keepable(reason),
        Outcome::InputMissing { .. } => {}
    }
    result
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
