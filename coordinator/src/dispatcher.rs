//! Keeps each pool's line just full enough: about two batches per live worker, or up to eight where these take no time.
//!
//! Commits in SQL first, then adds to the queue; what the queue then does not take goes back to ready, and what it
//! loses the sweep finds. Chooses by priority, then weighted fair share over tenants and jobs.

use std::{collections::HashMap, sync::Arc, time::Duration};

use darkroom_core::fair_share::{FairShare, Problem};
use darkroom_queue::task::{PoolId, Task};

use crate::{
    crew::Crew,
    service::{Error, Shared},
    store::records::{Dispatched, Release, Term},
};

/// Name of the part that hears the other coordinators.
pub(crate) const LISTEN: &str = "listen";
/// Pause after the other coordinators could not be heard; what they tell is then found by polling.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Runs until shutdown. A coordinator that does not lead passes on to the leader what wakes it.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut shares: HashMap<PoolId, FairShare> = HashMap::new();
    let mut woken_here = false;
    while !shared.stop.is_cancelled() {
        // Interest is registered before anything is read, so that nothing that happens meanwhile is missed.
        let woken = shared.events.dispatch.notified();
        let told = shared.events.told.notified();
        match pass(&shared, &mut shares, woken_here).await {
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

/// Hears, until shutdown, what other coordinators tell the leader.
pub(crate) async fn listen(shared: Arc<Shared>) {
    while !shared.stop.is_cancelled() {
        let told = tokio::select! {
            told = shared.store.told() => told,
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

async fn pass(
    shared: &Shared,
    shares: &mut HashMap<PoolId, FairShare>,
    woken_here: bool,
) -> Result<(), Error> {
    let crew = shared.read_crew().await?;
    let Some(term) = shared.lead().await? else {
        shares.clear();
        shared.openings.close_all();
        return if woken_here { Ok(shared.store.tell_leader().await?) } else { Ok(()) };
    };
    let served = crew.pools();
    for pool in shared.cascades.pools().iter().filter(|pool| served.contains(pool)) {
        fill(shared, term, pool, &crew, shares.entry(pool.clone()).or_default()).await?;
    }
    Ok(())
}

/// Rounds of one pool in one pass: a job may have had less than it seemed to, and others wait.
const ROUNDS: usize = 4;

async fn fill(
    shared: &Shared,
    term: Term,
    pool: &PoolId,
    crew: &Crew,
    share: &mut FairShare,
) -> Result<(), Error> {
    let (before, done) = (shared.openings.seen(pool), shared.openings.done(pool));
    let counted = shared.store.dispatched_count(pool).await?;
    // What commits hand on meanwhile may not be in the count.
    let reckoned = shared.openings.seen(pool);
    // What workers are done with, and only awaits its commit, is no part of the line.
    let done = done.min(shared.openings.done(pool));
    let held = (counted + reckoned.uncounted(before)).saturating_sub(done);
    let mut room = crew.room(pool).saturating_sub(held);
    for _ in 0..ROUNDS {
        if room == 0 {
            shared.openings.close(pool);
            break;
        }
        let candidates = shared.store.candidates(pool).await?;
        let weights = &shared.options.tenant_weights;
        let problem = Problem { room, run: crew.batch_cap(pool), candidates: &candidates, weights };
        let picks = share.plan(&problem);
        let picked: u64 = picks.iter().map(|pick| pick.count).sum();
        let left = room.saturating_sub(picked);
        let waiting: u64 = candidates.iter().map(|candidate| candidate.ready).sum();
        if waiting <= picked && left > 0 {
            // Whatever becomes ready from now on need not wait for the next pass.
            shared.openings.open(pool, term, left, reckoned);
        } else {
            shared.openings.close(pool);
        }
        let dispatched =
            if picks.is_empty() { Vec::new() } else { shared.store.dispatch(term, pool, &picks).await? };
        hand_out(shared, term, pool, &dispatched).await?;
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

/// Adds what is dispatched in SQL to the queue, or takes it back there.
pub(crate) async fn hand_out(
    shared: &Shared,
    term: Term,
    pool: &PoolId,
    dispatched: &[Dispatched],
) -> Result<(), Error> {
    if dispatched.is_empty() {
        return Ok(());
    }
    let tasks: Vec<Task> = dispatched.iter().filter_map(|one| shared.cascades.task(pool, one)).collect();
    let count = tasks.len() as u64;
    if let Err(error) = shared.queue.add(pool, tasks).await {
        // Perhaps some were added after all: their results then carry an older dispatch, which does no harm.
        let keys: Vec<_> = dispatched.iter().map(|one| one.key).collect();
        shared.store.release(term, pool, &keys, &Release::Returned).await?;
        return Err(error.into());
    }
    shared.counters.dispatched.add(count);
    Ok(())
}
