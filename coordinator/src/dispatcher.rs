//! Keeps enough tasks in each pool's queue: about two batches per live worker, or up to eight if
//! batches take very little time.
//!
//! It commits in SQL first, then adds to the queue. Tasks that the queue refuses become ready
//! again, and the sweep finds those that it loses. It chooses by priority, then by weighted fair
//! share of tenants and jobs. It dispatches nothing while a disk is full, and no more than can be
//! stored.

use std::{collections::HashMap, sync::Arc, time::Duration};

use darkroom_core::{
    fair_share::{FairShare, Problem},
    guard::{Guard, stands},
};
use darkroom_queue::task::{PoolId, Task};

use crate::{
    crew::Crew,
    disks::Expected,
    error::Error,
    shared::Shared,
    store::{
        records::{Dispatched, Release, Term},
        roles::{Dispatching, Outcomes},
    },
};

/// Name of the part that listens to the other coordinators.
pub(crate) const LISTEN: &str = "listen";
/// Pause after listening to the other coordinators failed. Meanwhile, work is found by polling.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Runs until shutdown. If this coordinator does not lead, it forwards wake-ups to the leader.
pub(crate) async fn run<S: Dispatching + Outcomes + ?Sized>(shared: Arc<Shared>, store: Arc<S>) {
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

async fn pass<S: Dispatching + Outcomes + ?Sized>(
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
    shared.disks.look().await;
    if shared.disks.full().is_some() && stands(Guard::DiskFloor) {
        // Commits go on, but dispatch nothing.
        shared.credits.close_all();
        return Ok(());
    }
    let served = crew.pools();
    for pool in shared.cascades.pools().iter().filter(|pool| served.contains(pool)) {
        fill(shared, store, term, (pool, &crew), lines).await?;
    }
    Ok(())
}

/// What is remembered from one pass to the next.
#[derive(Debug, Default)]
struct Lines {
    shares: HashMap<PoolId, FairShare>,
    expected: Expected,
}

/// Rounds per pool in one pass, because a job may have fewer ready tasks than counted while others
/// wait.
const ROUNDS: usize = 4;

async fn fill<S: Dispatching + Outcomes + ?Sized>(
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
    let line = lines.expected.fitting(shared.disks.room(), pool, (held, crew.room(pool), each));
    let share = lines.shares.entry(pool.clone()).or_default();
    let mut room = line.saturating_sub(held);
    for _ in 0..ROUNDS {
        if room == 0 {
            shared.credits.close(pool);
            break;
        }
        let candidates = store.candidates(pool).await?;
        let weights = &shared.options.tenant_weights;
        let problem = Problem { room, run: crew.batch_cap(pool), candidates: &candidates, weights };
        let picks = share.plan(&problem);
        let picked: u64 = picks.iter().map(|pick| pick.count).sum();
        let left = room.saturating_sub(picked);
        let waiting: u64 = candidates.iter().map(|candidate| candidate.ready).sum();
        if waiting <= picked && left > 0 {
            // Images that become ready from now on need not wait for the next pass.
            shared.credits.open(pool, term, left, reckoned);
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
        if given >= picked || left > 0 {
            break;
        }
        room -= given.min(room);
    }
    Ok(())
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
    let tasks: Vec<Task> = tasks.map(|task| shared.trust.seal(pool, task)).collect();
    let count = tasks.len() as u64;
    if let Err(error) = shared.queue.add(pool, tasks).await {
        // Some may have been added after all. Their results then have an older dispatch, which does
        // no harm.
        let keys: Vec<_> = dispatched.iter().map(|one| one.key).collect();
        store.release(term, pool, &keys, &Release::Returned).await?;
        return Err(error.into());
    }
    shared.counters.dispatched.add(count);
    Ok(())
}
