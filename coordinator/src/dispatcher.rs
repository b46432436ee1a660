//! Keeps enough tasks in each pool's queue: about two batches per live worker, or up to eight if
//! batches take very little time.
//!
//! It commits in SQL first, then adds to the queue. Tasks that the queue refuses become ready
//! again, and the sweep finds those that it loses. It chooses by priority, then by weighted fair
//! share of tenants and jobs. Tenants whose device time of today is used up get nothing, and a
//! tenant with a quota of workers gets no more than they take. It dispatches nothing while a disk
//! is full, and no more than can be stored.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use darkroom_core::{
    fair_share::{Candidate, FairShare, Problem},
    guard::{Guard, stands},
};
use darkroom_queue::task::{PoolId, Task};

use crate::{
    crew::Crew,
    disks::Expected,
    error::Error,
    held::{Held, take_back},
    shared::Shared,
    store::{
        records::{Dispatched, Release, Term},
        roles::{Dispatching, Metering, Outcomes},
    },
    tasks,
};

/// Name of the part that listens to the other coordinators.
pub(crate) const LISTEN: &str = "listen";
/// Pause after listening to the other coordinators failed. Meanwhile, work is found by polling.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Runs until shutdown. If this coordinator does not lead, it forwards wake-ups to the leader.
pub(crate) async fn run<S: Dispatching + Metering + Outcomes + ?Sized>(
    shared: Arc<Shared>,
    store: Arc<S>,
) {
    let mut lines = Lines::default();
    let mut woken_here = false;
    while !shared.stop.is_cancelled() {
        // Interest is registered before reading, so that no event is missed.
        let woken = shared.events.dispatch.notified();
        let told = shared.events.told.notified();
        match pass(&shared, store.as_ref(), &mut lines, woken_here).await {
            Ok(()) => shared.healed("dispatch"),
            Err(error) => shared.failed("dispatch", &error),
        }
        woken_here = false;
        tokio::select! {
            () = woken => woken_here = true,
            () = told => {}
            () = tokio::time::sleep(shared.options.poll) => {}
            () = shared.stop.cancelled() => {}
        }
    }
}

/// Listens until shutdown for messages from other coordinators to the leader.
pub(crate) async fn listen(shared: Arc<Shared>) {
    while !shared.stop.is_cancelled() {
        let told = tokio::select! {
            told = shared.leadership.told() => told,
            () = shared.stop.cancelled() => return,
        };
        match told {
            Ok(()) => {
                shared.healed(LISTEN);
                shared.events.told.notify_one();
            }
            Err(error) => {
                shared.failed(LISTEN, &error.into());
                shared.pause(LISTEN_AGAIN).await;
            }
        }
    }
}

async fn pass<S: Dispatching + Metering + Outcomes + ?Sized>(
    shared: &Shared,
    store: &S,
    lines: &mut Lines,
    woken_here: bool,
) -> Result<(), Error> {
    let crew = shared.read_crew().await?;
    let Some(term) = shared.lead().await? else {
        *lines = Lines::default();
        shared.credits.close_all();
        return if woken_here { Ok(shared.leadership.tell_leader().await?) } else { Ok(()) };
    };
    take_back(shared, store, term, &mut lines.held).await?;
    shared.disks.look().await;
    if shared.disks.full().is_some() && stands(Guard::DiskFloor) {
        // Commits go on, but dispatch nothing.
        shared.credits.close_all();
        return Ok(());
    }
    let served = crew.pools();
    lines.expected.keep(|pool| served.contains(pool));
    for pool in shared.cascades.pools().iter().filter(|pool| served.contains(pool)) {
        fill(shared, store, term, (pool, &crew), lines).await?;
    }
    Ok(())
}

/// What is remembered from one pass to the next.
#[derive(Debug, Default)]
struct Lines {
    shares: HashMap<PoolId, FairShare>,
    held: Held,
    expected: Expected,
}

/// Rounds per pool in one pass, because a job may have fewer ready tasks than counted while others
/// wait.
const ROUNDS: usize = 4;

async fn fill<S: Dispatching + Metering + Outcomes + ?Sized>(
    shared: &Shared,
    store: &S,
    term: Term,
    (pool, crew): (&PoolId, &Crew),
    lines: &mut Lines,
) -> Result<(), Error> {
    let (before, done) = (shared.credits.seen(pool), shared.credits.done(pool));
    let counted = store.dispatched_count(pool).await?;
    // Images that commits dispatch meanwhile may be missing from the count.
    let reckoned = shared.credits.seen(pool);
    // Tasks that are done and only await their commit are no longer in the queue.
    let done = done.min(shared.credits.done(pool));
    let held = (counted + reckoned.uncounted(before)).saturating_sub(done);
    let each = shared.cascades.output_bytes(pool);
    let line = lines.expected.fitting(shared.disks.room(), pool, (crew.room(pool), each));
    let mut room = line.saturating_sub(held);
    // Until the next pass, commits can dispatch to this pool only if a pool before it is at work.
    let is_fed =
        shared.cascades.pools_before(pool).iter().any(|pool| lines.expected.is_at_work(pool));
    let mut reserved = held;
    let share = lines.shares.entry(pool.clone()).or_default();
    for _ in 0..ROUNDS {
        if room == 0 {
            shared.credits.close(pool);
            break;
        }
        let candidates = store.candidates(pool).await?;
        let run = crew.batch_cap(pool);
        let (candidates, rooms) = within_quotas(shared, store, (pool, run), candidates).await?;
        let weights = shared.quotas.get().weights(&shared.options.tenant_weights);
        let problem =
            Problem { room, run, candidates: &candidates, weights: &weights, rooms: &rooms };
        let picks = share.plan(&problem);
        let picked: u64 = picks.iter().map(|pick| pick.count).sum();
        let left = room.saturating_sub(picked);
        if waiting(&problem) <= picked && left > 0 {
            // Images that become ready from now on need not wait for the next pass.
            shared.credits.open(pool, term, left, reckoned);
            reserved += if is_fed { left } else { 0 };
        } else {
            shared.credits.close(pool);
        }
        let dispatched =
            if picks.is_empty() { Vec::new() } else { store.dispatch(term, pool, &picks).await? };
        hand_out(shared, store, term, (pool, &dispatched)).await?;
        if !dispatched.is_empty() {
            let jobs: Vec<_> = picks.iter().map(|pick| pick.job).collect();
            shared.events.changed(&jobs);
        }
        let given = dispatched.len() as u64;
        reserved += given;
        if given >= picked || left > 0 {
            break;
        }
        room -= given.min(room);
    }
    lines.expected.reserve(pool, reserved, each);
    Ok(())
}

/// Images that wait for room in the queue. A tenant at its quota of workers, or a job at its limit,
/// waits for something else, so what it has ready overtakes nobody and is overtaken by nobody.
fn waiting(problem: &Problem<'_>) -> u64 {
    let mut rooms = problem.rooms.clone();
    let waiting = problem.candidates.iter().map(|candidate| {
        let allowed = candidate.allowed(problem.run);
        let Some(room) = rooms.get_mut(&candidate.tenant) else { return allowed };
        let waiting = allowed.min(*room);
        *room -= waiting;
        waiting
    });
    waiting.sum()
}

/// The candidates whose tenants may have images dispatched now, and how many images those tenants
/// may still be given that have a quota of workers. Tenants share texts, so no quota holds them
/// back.
async fn within_quotas<S: Metering + ?Sized>(
    shared: &Shared,
    store: &S,
    (pool, run): (&PoolId, u64),
    mut candidates: Vec<Candidate>,
) -> Result<(Vec<Candidate>, BTreeMap<String, u64>), Error> {
    if pool.stage.is_encode() {
        return Ok((candidates, BTreeMap::new()));
    }
    let quotas = shared.quotas.get();
    candidates.retain(|candidate| quotas.held(&candidate.tenant).is_none());
    let mut rooms = BTreeMap::new();
    if quotas.any_workers() && !candidates.is_empty() {
        let in_flight = store.in_flight(pool).await?;
        for candidate in &candidates {
            let Some(workers) = quotas.workers(&candidate.tenant) else { continue };
            let used = in_flight.get(&candidate.tenant).copied().unwrap_or(0);
            let room = (u64::from(workers) * run).saturating_sub(used);
            rooms.insert(candidate.tenant.clone(), room);
        }
    }
    Ok((candidates, rooms))
}

/// Adds tasks that are dispatched in SQL to the queue. If that fails, makes them ready again in
/// SQL.
pub(crate) async fn hand_out(
    shared: &Shared,
    store: &(impl Outcomes + ?Sized),
    term: Term,
    (pool, dispatched): (&PoolId, &[Dispatched]),
) -> Result<(), Error> {
    if dispatched.is_empty() {
        return Ok(());
    }
    let tasks = dispatched.iter().filter_map(|one| shared.cascades.task(pool, one));
    match add(shared, store, pool, tasks.collect()).await {
        Ok(count) => {
            shared.counters.dispatched.add(count);
            Ok(())
        }
        Err(error) => {
            // Some may have been added after all. Their results then have an older dispatch, which
            // does no harm.
            let keys: Vec<_> = dispatched.iter().map(|one| one.key).collect();
            store.release(term, pool, &keys, &Release::Returned).await?;
            Err(error)
        }
    }
}

async fn add(
    shared: &Shared,
    store: &(impl Outcomes + ?Sized),
    pool: &PoolId,
    mut tasks: Vec<Task>,
) -> Result<u64, Error> {
    avoid_leaving(store, &mut tasks).await?;
    let tasks: Vec<Task> = tasks.into_iter().map(|task| shared.trust.seal(pool, task)).collect();
    let count = tasks.len() as u64;
    shared.queue.add(pool, tasks).await?;
    Ok(count)
}

/// Gives tasks another prefix if something under theirs is on its way out of storage. So a key that
/// was removed is never stored again, and whoever still deletes it deletes nothing that is needed.
/// A task that slips through is returned when its result is committed.
async fn avoid_leaving(store: &(impl Outcomes + ?Sized), tasks: &mut [Task]) -> Result<(), Error> {
    if !stands(Guard::LeavingAvoided) {
        return Ok(());
    }
    let mut asked: Vec<&mut Task> = tasks.iter_mut().collect();
    // Another prefix may have been left as well, so it is asked about too. Usually none was.
    while !asked.is_empty() {
        let prefixes: Vec<String> =
            asked.iter().map(|task| task.body.prefix().to_owned()).collect();
        let leaving = store.leaving_under(&prefixes).await?;
        asked.retain_mut(|task| match leaving.get(task.body.prefix()) {
            Some(mark) => {
                tasks::elsewhere(task, *mark);
                true
            }
            None => false,
        });
    }
    Ok(())
}
