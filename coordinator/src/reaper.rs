//! Finds what died or got lost: leases that ran out, tasks that the queue forgot, entries that SQL does not expect.
//!
//! SQL is the truth and the queue is compared with it. A dispatched row that the queue does not know on two passes
//! goes back to ready, conditional on its dispatch; so a flushed or new queue, and the one a restart makes in memory,
//! recover by this one path.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use darkroom_core::{
    guard::{Guard, stands},
    id::WorkerId,
};
use darkroom_queue::{
    Leased,
    task::{EntryState, Lease, PoolId, TaskKey},
};

use crate::{
    crew::Crew,
    losses::{Known, Loss, Losses, Lost},
    service::{Error, Shared},
    store::records::{Death, Release, Term},
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
    let mut losses = Losses::default();
    while !shared.stop.is_cancelled() {
        shared.pause(shared.options.reap).await;
        match reap(&shared, &mut losses).await {
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

async fn reap(shared: &Shared, losses: &mut Losses) -> Result<(), Error> {
    let Some(term) = shared.lead().await? else { return Ok(()) };
    let lease = shared.lease().await?;
    let mut expired: BTreeMap<WorkerId, BTreeMap<PoolId, HashSet<TaskKey>>> = BTreeMap::new();
    // Why a pool could not be looked at. What was taken out of others is released all the same.
    let mut failed = None;
    for pool in shared.cascades.pools() {
        match shared.queue.reap(&pool, lease).await {
            Ok(leases) => {
                for Lease { worker, task, .. } in leases {
                    expired.entry(worker).or_default().entry(pool.clone()).or_default().insert(task.key);
                }
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if !expired.is_empty() {
        release_lost(shared, term, losses, expired).await?;
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

async fn release_lost(
    shared: &Shared,
    term: Term,
    losses: &mut Losses,
    expired: BTreeMap<WorkerId, BTreeMap<PoolId, HashSet<TaskKey>>>,
) -> Result<(), Error> {
    let lost: Vec<Lost> = expired
        .iter()
        .map(|(worker, pools)| Lost {
            worker: worker.clone(),
            tasks: pools.values().flatten().copied().collect(),
        })
        .collect();
    // The dead ones' cards are older than those that count as live.
    let crew = Crew::new(shared.queue.workers(REMEMBERED).await?);
    let known = Known {
        cards: crew.cards(),
        leaving: &shared.store.drains().await?,
        held: &held(shared).await?,
        lease: shared.lease().await?,
    };
    let found = losses.judge(&lost, &known);
    let live = shared.crew.get();
    for ((worker, pools), loss) in expired.into_iter().zip(found) {
        let host = crew.host_of(&worker);
        for (pool, keys) in pools {
            tracing::warn!(pool = %pool, host, tasks = keys.len(), "{}", told(loss));
            shared.counters.leases_expired.add(keys.len() as u64);
            let keys: Vec<_> = keys.into_iter().collect();
            // The dead worker's host still counts as one that serves the pool until its card is gone.
            let limit = shared.options.worker_deaths;
            let death = Death { host: host.clone(), live_hosts: live.hosts(&pool), limit };
            let why = match loss {
                Loss::Alone => Release::WorkerDied(death),
                Loss::WithHost => Release::HostDied(death),
                Loss::Announced => Release::Returned,
            };
            shared.committed(&shared.store.release(term, &pool, &keys, &why).await?);
            shared.events.dispatch.notify_one();
        }
    }
    Ok(())
}

fn told(loss: Loss) -> &'static str {
    match loss {
        Loss::Alone => "leases expired; the tasks run again, alone",
        Loss::WithHost => "leases expired of several workers of one host; the tasks run again",
        Loss::Announced => "leases expired of a worker that was leaving; the tasks run again",
    }
}

/// Who holds leases now.
async fn held(shared: &Shared) -> Result<BTreeMap<WorkerId, HashSet<TaskKey>>, Error> {
    let mut held: BTreeMap<WorkerId, HashSet<TaskKey>> = BTreeMap::new();
    for pool in shared.cascades.pools() {
        for entry in shared.queue.entries(&pool).await? {
            if let EntryState::Leased(worker) = entry.state {
                held.entry(worker).or_default().insert(entry.key);
            }
        }
    }
    Ok(held)
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
