//! Finds what died or got lost: leases that ran out, tasks that the queue forgot, entries that SQL does not expect.
//!
//! SQL is the truth and the queue is compared with it. A dispatched row that the queue does not know on two passes
//! goes back to ready, conditional on its dispatch; so a flushed or new queue, and the one a restart makes in memory,
//! recover by this one path.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use darkroom_core::guard::{Guard, stands};
use darkroom_queue::{
    Leased,
    task::{EntryState, Lease, PoolId, TaskKey},
};

use crate::{
    crew::Crew,
    service::{Error, Shared},
    store::records::{Release, Term},
};

/// Dispatched tasks that the queue did not know on the pass before, by pool, and the term of that pass: what was missing
/// in an earlier term proves nothing in a later one.
#[derive(Default)]
pub(crate) struct Missing {
    term: Option<Term>,
    pools: HashMap<PoolId, HashSet<TaskKey>>,
}

/// How long a silent worker's card still says what it ran on.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Takes expired leases back until shutdown.
pub(crate) async fn run_reaper(shared: Arc<Shared>) {
    while !shared.stop.is_cancelled() {
        shared.pause(shared.options.reap).await;
        match reap(&shared).await {
            Ok(()) => shared.healed("reap"),
            Err(error) => shared.failed("reap", &error),
        }
    }
}

/// Sweeps until shutdown.
pub(crate) async fn run_sweeper(shared: Arc<Shared>) {
    let mut missing = Missing::default();
    while !shared.stop.is_cancelled() {
        shared.pause(shared.options.sweep).await;
        match sweep_and_tidy(&shared, &mut missing).await {
            Ok(()) => shared.healed("sweep"),
            Err(error) => shared.failed("sweep", &error),
        }
    }
}

async fn sweep_and_tidy(shared: &Shared, missing: &mut Missing) -> Result<(), Error> {
    sweep(shared, missing).await?;
    match shared.lead().await? {
        Some(_) => tidy(shared).await,
        None => Ok(()),
    }
}

async fn reap(shared: &Shared) -> Result<(), Error> {
    let Some(term) = shared.lead().await? else { return Ok(()) };
    let crew = shared.crew.get();
    let lease = shared.lease().await?;
    for pool in shared.cascades.pools() {
        let expired = shared.queue.reap(&pool, lease).await?;
        if expired.is_empty() {
            continue;
        }
        // The dead one's card is older than those that count as live.
        let known = Crew::new(shared.queue.workers(REMEMBERED).await?);
        let mut by_host: HashMap<String, Vec<&Lease>> = HashMap::new();
        for lease in &expired {
            by_host.entry(known.host_of(&lease.worker)).or_default().push(lease);
        }
        for (host, leases) in by_host {
            tracing::warn!(pool = %pool, host, tasks = leases.len(), "leases expired; the tasks run again, alone");
            shared.counters.leases_expired.add(leases.len() as u64);
            let keys: Vec<_> = leases.iter().map(|lease| lease.task.key).collect();
            // The dead worker's host still counts as one that serves the pool until its card is gone.
            let why = Release::WorkerDied { host, live_hosts: crew.hosts(&pool) };
            shared.committed(&shared.store.release(term, &pool, &keys, &why).await?);
            shared.events.dispatch.notify_one();
        }
    }
    Ok(())
}

/// One pass over all pools; `missing` is the pass before's and becomes this one's.
pub(crate) async fn sweep(shared: &Shared, missing: &mut Missing) -> Result<(), Error> {
    let Some(term) = shared.lead().await? else { return Ok(()) };
    if missing.term.replace(term) != Some(term) {
        missing.pools.clear();
    }
    for pool in shared.cascades.pools() {
        let before = missing.pools.remove(&pool).unwrap_or_default();
        missing.pools.insert(pool.clone(), sweep_pool(shared, term, &pool, &before).await?);
    }
    Ok(())
}

async fn sweep_pool(
    shared: &Shared,
    term: Term,
    pool: &PoolId,
    before: &HashSet<TaskKey>,
) -> Result<HashSet<TaskKey>, Error> {
    // The queue first: whatever it has was dispatched in SQL before, so an entry that SQL does not expect is stale.
    let entries = shared.queue.entries(pool).await?;
    let expected: HashSet<TaskKey> = shared.store.dispatched(pool).await?.into_iter().collect();
    let unexpected: Vec<TaskKey> = entries
        .iter()
        .filter(|entry| entry.state != EntryState::Result && !expected.contains(&entry.key))
        .map(|entry| entry.key)
        .collect();
    if !unexpected.is_empty() && stands(Guard::UnexpectedRemoved) {
        let removed = shared.queue.remove(pool, &unexpected, Leased::Remove).await?;
        shared.counters.entries_unexpected.add(removed.len() as u64);
    }
    // Two passes: on one alone, a task may be on its way to the queue.
    let known: HashSet<TaskKey> = entries.iter().map(|entry| entry.key).collect();
    let absent: HashSet<TaskKey> = expected.difference(&known).copied().collect();
    let lost: Vec<TaskKey> =
        absent.iter().filter(|key| before.contains(key) || !stands(Guard::TwoPasses)).copied().collect();
    if !lost.is_empty() {
        tracing::warn!(pool = %pool, tasks = lost.len(), "the queue lost tasks; they are ready again");
        let released = shared.store.release(term, pool, &lost, &Release::Returned).await?;
        shared.counters.tasks_lost.add(released.changed);
        shared.committed(&released);
        shared.events.dispatch.notify_one();
    }
    Ok(absent)
}

/// Active jobs whose progress is noted in one sweep.
const PACES: u32 = 1000;
/// Time of one sweep for forgetting the stale changes of jobs that ended: they are in no hurry.
const PRUNING: Duration = Duration::from_millis(250);

/// Jobs that should be finished and are not, submits that nobody ends, and how far the others have come.
async fn tidy(shared: &Shared) -> Result<(), Error> {
    shared.store.note_paces(PACES).await?;
    let overlooked = shared.store.finish_overlooked().await?;
    if !overlooked.is_empty() {
        tracing::error!(jobs = overlooked.len(), "jobs should have been finished and were not");
        shared.counters.jobs_overlooked.add(overlooked.len() as u64);
        shared.events.changed(&overlooked);
        shared.events.finish.notify_one();
    }
    let began = Instant::now();
    while shared.store.prune_changes().await? && began.elapsed() < PRUNING {}
    let abandoned = shared.store.sweep_receiving(shared.options.receiving_idle).await?;
    shared.counters.submits_abandoned.add(abandoned);
    Ok(())
}
