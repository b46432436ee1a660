//! Finds losses: expired leases, tasks that the queue forgot, and entries that SQL does not expect.
//!
//! SQL is the truth, and the queue is compared with it. A dispatched row that is absent from the
//! queue in two passes becomes ready again, if its dispatch is unchanged. A flushed queue, a new
//! one, and an empty one in memory after a restart all recover this way.

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
    error::Error,
    losses::{Known, Loss, Losses, Lost},
    shared::Shared,
    store::{
        records::{Death, Release, Term},
        roles::{Dispatching, Forecasts, Maintenance, Outcomes, Submits, WorkerHealth},
    },
};

/// Dispatched tasks that were absent from the queue in the previous pass, by pool, and the term of
/// that pass. An absence in an earlier term proves nothing in a later one.
#[derive(Default)]
pub(crate) struct Missing {
    term: Option<Term>,
    pools: HashMap<PoolId, HashSet<TaskKey>>,
}

/// Tasks with expired leases, by worker and pool.
type Expired = BTreeMap<WorkerId, BTreeMap<PoolId, HashSet<TaskKey>>>;

/// How long a silent worker's card is used to find its device.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Takes expired leases back until shutdown.
pub(crate) async fn run_reaper<S: Outcomes + WorkerHealth + ?Sized>(
    shared: Arc<Shared>,
    store: Arc<S>,
) {
    let mut losses = Losses::default();
    while !shared.stop.is_cancelled() {
        shared.pause(shared.options.reap).await;
        match reap(&shared, store.as_ref(), &mut losses).await {
            Ok(()) => shared.healed("reap"),
            Err(error) => shared.failed("reap", &error),
        }
    }
}

/// Sweeps until shutdown.
pub(crate) async fn run_sweeper<S>(shared: Arc<Shared>, store: Arc<S>)
where
    S: Dispatching + Forecasts + Maintenance + Outcomes + Submits + ?Sized,
{
    let mut missing = Missing::default();
    while !shared.stop.is_cancelled() {
        shared.pause(shared.options.sweep).await;
        match sweep_and_tidy(&shared, store.as_ref(), &mut missing).await {
            Ok(()) => shared.healed("sweep"),
            Err(error) => shared.failed("sweep", &error),
        }
    }
}

async fn sweep_and_tidy<S>(shared: &Shared, store: &S, missing: &mut Missing) -> Result<(), Error>
where
    S: Dispatching + Forecasts + Maintenance + Outcomes + Submits + ?Sized,
{
    sweep(shared, store, missing).await?;
    match shared.lead().await? {
        Some(_) => tidy(shared, store).await,
        None => Ok(()),
    }
}

async fn reap<S: Outcomes + WorkerHealth + ?Sized>(
    shared: &Shared,
    store: &S,
    losses: &mut Losses,
) -> Result<(), Error> {
    let Some(term) = shared.lead().await? else { return Ok(()) };
    let lease = shared.lease().await?;
    let mut expired = Expired::new();
    // Why a pool could not be checked. Tasks taken out of other pools are still released.
    let mut failed = None;
    for pool in shared.cascades.pools() {
        match shared.queue.reap(&pool, lease).await {
            Ok(leases) => {
                for Lease { worker, task, .. } in leases {
                    expired
                        .entry(worker)
                        .or_default()
                        .entry(pool.clone())
                        .or_default()
                        .insert(task.key);
                }
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if !expired.is_empty() {
        release_lost(shared, store, term, (losses, expired)).await?;
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

async fn release_lost<S: Outcomes + WorkerHealth + ?Sized>(
    shared: &Shared,
    store: &S,
    term: Term,
    (losses, expired): (&mut Losses, Expired),
) -> Result<(), Error> {
    let lost: Vec<Lost> = expired
        .iter()
        .map(|(worker, pools)| Lost {
            worker: worker.clone(),
            tasks: pools.values().flatten().copied().collect(),
        })
        .collect();
    // Dead workers' cards are older than the cards that count as live.
    let crew = Crew::new(shared.queue.workers(REMEMBERED).await?);
    let known = Known {
        cards: crew.cards(),
        leaving: &store.drains().await?,
        held: &held(shared).await?,
        lease: shared.lease().await?,
    };
    let found = losses.judge(&lost, &known);
    let live = shared.crew.get();
    for ((worker, pools), loss) in expired.into_iter().zip(found) {
        let place = crew.place_of(&worker);
        for (pool, keys) in pools {
            tracing::warn!(pool = %pool, place, tasks = keys.len(), "{}", told(loss));
            shared.counters.leases_expired.add(keys.len() as u64);
            let keys: Vec<_> = keys.into_iter().collect();
            // The dead worker's place still counts as serving the pool until its card is gone.
            let limit = shared.options.worker_deaths;
            let death = Death { place: place.clone(), live_places: live.places(&pool), limit };
            let why = match loss {
                Loss::Alone => Release::WorkerDied(death),
                Loss::WithHost => Release::HostDied(death),
                Loss::Announced => Release::Returned,
            };
            shared.committed(&store.release(term, &pool, &keys, &why).await?);
            shared.events.dispatch.notify_one();
        }
    }
    Ok(())
}

fn told(loss: Loss) -> &'static str {
    match loss {
        Loss::Alone => "leases expired; the tasks run again, each alone",
        Loss::WithHost => "leases of several workers of one host expired; the tasks run again",
        Loss::Announced => "leases of a leaving worker expired; the tasks run again",
    }
}

/// The workers that hold leases now.
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

/// One pass over all pools. `missing` has the previous pass's findings, and gets this one's.
pub(crate) async fn sweep<S: Dispatching + Outcomes + ?Sized>(
    shared: &Shared,
    store: &S,
    missing: &mut Missing,
) -> Result<(), Error> {
    let Some(term) = shared.lead().await? else { return Ok(()) };
    if missing.term.replace(term) != Some(term) {
        missing.pools.clear();
    }
    for pool in shared.cascades.pools() {
        let before = missing.pools.remove(&pool).unwrap_or_default();
        missing
            .pools
            .insert(pool.clone(), sweep_pool(shared, store, term, (&pool, &before)).await?);
    }
    Ok(())
}

async fn sweep_pool<S: Dispatching + Outcomes + ?Sized>(
    shared: &Shared,
    store: &S,
    term: Term,
    (pool, before): (&PoolId, &HashSet<TaskKey>),
) -> Result<HashSet<TaskKey>, Error> {
    // The queue is read first. Its entries were dispatched in SQL before, so an entry that SQL does
    // not expect is stale.
    let entries = shared.queue.entries(pool).await?;
    let expected: HashSet<TaskKey> = store.dispatched(pool).await?.into_iter().collect();
    let unexpected: Vec<TaskKey> = entries
        .iter()
        .filter(|entry| entry.state != EntryState::Result && !expected.contains(&entry.key))
        .map(|entry| entry.key)
        .collect();
    if !unexpected.is_empty() && stands(Guard::UnexpectedRemoved) {
        let removed = shared.queue.remove(pool, &unexpected, Leased::Remove).await?;
        shared.counters.entries_unexpected.add(removed.len() as u64);
    }
    // Two passes are needed, because in a single one a task may be on its way to the queue.
    let known: HashSet<TaskKey> = entries.iter().map(|entry| entry.key).collect();
    let absent: HashSet<TaskKey> = expected.difference(&known).copied().collect();
    let lost: Vec<TaskKey> = absent
        .iter()
        .filter(|key| before.contains(key) || !stands(Guard::TwoPasses))
        .copied()
        .collect();
    if !lost.is_empty() {
        tracing::warn!(pool = %pool, tasks = lost.len(), "the queue lost tasks; they are ready again");
        let released = store.release(term, pool, &lost, &Release::Returned).await?;
        shared.counters.tasks_lost.add(released.changed);
        shared.committed(&released);
        shared.events.dispatch.notify_one();
    }
    Ok(absent)
}

/// Active jobs whose progress is recorded in one sweep.
const PACES: u32 = 1000;
/// Time limit per sweep for deleting stale changes of ended jobs, which is not urgent.
const PRUNING: Duration = Duration::from_millis(250);

/// Ends jobs that should be finished, gives up abandoned submits, and records the progress of the
/// others.
async fn tidy<S: Forecasts + Maintenance + Submits + ?Sized>(
    shared: &Shared,
    store: &S,
) -> Result<(), Error> {
    store.note_paces(PACES).await?;
    let overlooked = store.finish_overlooked().await?;
    if !overlooked.is_empty() {
        tracing::error!(jobs = overlooked.len(), "jobs should have been finished and were not");
        shared.counters.jobs_overlooked.add(overlooked.len() as u64);
        shared.events.changed(&overlooked);
        shared.events.finish.notify_one();
    }
    let began = Instant::now();
    while store.prune_changes().await? && began.elapsed() < PRUNING {}
    let abandoned = store.sweep_receiving(shared.options.receiving_idle).await?;
    shared.counters.submits_abandoned.add(abandoned);
    Ok(())
}
