//! Keeps each pool's line just full enough: about two batches per live worker, or up to four times as much where they are done
//! with that before the dispatcher comes by again.
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
    let mut lines: HashMap<PoolId, Line> = HashMap::new();
    let mut woken_here = false;
    while !shared.stop.is_cancelled() {
        // Interest is registered before anything is read, so that nothing that happens meanwhile is missed.
        let woken = shared.events.dispatch.notified();
        let told = shared.events.told.notified();
        match pass(&shared, &mut lines, woken_here).await {
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

async fn pass(shared: &Shared, lines: &mut HashMap<PoolId, Line>, woken_here: bool) -> Result<(), Error> {
    let crew = shared.read_crew().await?;
    let Some(term) = shared.lead().await? else {
        lines.clear();
        shared.openings.close_all();
        return if woken_here { Ok(shared.store.tell_leader().await?) } else { Ok(()) };
    };
    let served = crew.pools();
    for pool in shared.cascades.pools().iter().filter(|pool| served.contains(pool)) {
        fill(shared, term, pool, &crew, lines.entry(pool.clone()).or_default()).await?;
    }
    Ok(())
}

/// Rounds of one pool in one pass: a job may have had less than it seemed to, and others wait.
const ROUNDS: usize = 4;

/// How much longer than two batches a worker a line may be, where workers are done sooner than the next pass comes.
const MOST_STRETCH: u64 = 4;

/// What the dispatcher remembers of a pool.
#[derive(Debug)]
struct Line {
    share: FairShare,
    /// Multiplies its length.
    stretch: u64,
    /// The length that it should have and did have after the last pass; 0 if it had less.
    filled: u64,
}

impl Default for Line {
    fn default() -> Self {
        Self { share: FairShare::default(), stretch: 1, filled: 0 }
    }
}

impl Line {
    /// Room in a line that should hold `length` tasks for workers whose batches take their time, and holds `held`.
    ///
    /// One that was full and is nearly empty by the next pass was too short: its workers wait, and whatever becomes ready
    /// for them has to wait for a pass too. One in which more than two batches a worker still wait is long enough.
    fn room(&mut self, length: u64, held: u64) -> u64 {
        // A longer line than the last pass saw is one for more workers.
        if self.filled == length && held <= length / 4 {
            self.stretch = (2 * self.stretch).min(MOST_STRETCH);
        } else if held > length {
            self.stretch = (self.stretch / 2).max(1);
        }
        (length * self.stretch).saturating_sub(held)
    }
}

async fn fill(shared: &Shared, term: Term, pool: &PoolId, crew: &Crew, line: &mut Line) -> Result<(), Error> {
    let (before, done) = (shared.openings.seen(pool), shared.openings.done(pool));
    let counted = shared.store.dispatched_count(pool).await?;
    // What commits hand on meanwhile may not be in the count.
    let reckoned = shared.openings.seen(pool);
    // What workers are done with, and only awaits its commit, is no part of the line.
    let done = done.min(shared.openings.done(pool));
    let held = (counted + reckoned.uncounted(before)).saturating_sub(done);
    let length = crew.room(pool);
    let mut room = line.room(length, held);
    // Leave that a commit under way has taken is perhaps not used.
    let mut has = counted.saturating_sub(done);
    for _ in 0..ROUNDS {
        if room == 0 {
            shared.openings.close(pool);
            break;
        }
        let candidates = shared.store.candidates(pool).await?;
        let weights = &shared.options.tenant_weights;
        let problem = Problem { room, run: crew.batch_cap(pool), candidates: &candidates, weights };
        let picks = line.share.plan(&problem);
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
        has += given;
        if given >= picked || left > 0 {
            break;
        }
        room -= given.min(room);
    }
    line.filled = if has >= length { length } else { 0 };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_runs_dry_between_passes_grows_and_one_that_does_not_shrinks() {
        let mut line = Line::default();
        assert_eq!(line.room(512, 0), 512, "empty at first");
        line.filled = 512;
        assert_eq!(line.room(512, 129), 383, "much was left at this pass");
        assert_eq!(line.room(2048, 128), 1920, "more workers came");
        assert_eq!(line.room(512, 128), 1024 - 128);
        assert_eq!(line.room(512, 0), 2048);
        assert_eq!(line.room(512, 0), 2048, "no longer than this");
        line.filled = 0;
        assert_eq!(line.room(512, 0), 2048, "there was not enough to fill it");
        assert_eq!(line.room(512, 512), 2048 - 512);
        assert_eq!(line.room(512, 513), 1024 - 513, "it need not be so long");
        assert_eq!(line.room(512, 600), 0);
        assert_eq!(line.room(512, 0), 512);
    }
}
