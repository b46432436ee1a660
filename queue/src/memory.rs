//! The queue in this process's memory: the backend of the embedded farm and of tests.
//!
//! It forgets everything when the process ends, on purpose. SQL is the truth, and the coordinator's
//! sweep dispatches whatever is missing here, in the same way as after a flush of Redis. Time is
//! tokio's, so a test can pause and advance it. The lock is held for a few map operations and never
//! across an await.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use darkroom_core::id::WorkerId;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::{
    Error, Leased, TaskQueue,
    task::{
        Completion, EntryId, EntryState, EntrySummary, Lease, Orders, PoolId, ResultEntry, Task,
        TaskKey, TaskResult, WorkerCard,
    },
};

/// Limits and times of a [`MemoryQueue`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Most entries of one pool, tasks and unacknowledged results together.
    pub pool_limit: usize,
    /// Time after which results that a committer read and did not acknowledge go to another one.
    pub takeover: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { pool_limit: 100_000, takeover: Duration::from_secs(5) }
    }
}

/// Cards older than this are dropped, whatever a reader asks for, so that the list stays bounded.
const CARD_LIFETIME: Duration = Duration::from_secs(3600);

/// A queue in memory. Its content is lost when the process ends.
#[derive(Debug, Default)]
pub struct MemoryQueue {
    options: Options,
    state: Mutex<State>,
    /// Notified after tasks were added.
    tasks: Notify,
    /// Notified after a result was queued.
    results: Notify,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    pools: HashMap<PoolId, Pool>,
    cards: BTreeMap<WorkerId, (WorkerCard, Instant)>,
    /// Workers that must drain, and since when.
    draining: HashMap<WorkerId, Instant>,
    /// Workers that get nothing, and until when.
    aside: HashMap<WorkerId, Instant>,
}

impl State {
    fn orders(&self, worker: &WorkerId, now: Instant) -> Orders {
        Orders {
            drain: self.draining.contains_key(worker),
            aside: self.aside.get(worker).is_some_and(|until| now < *until),
        }
    }
}

#[derive(Debug, Default)]
struct Pool {
    /// The waiting tasks by position: tasks are added at the back and handed back at the front.
    waiting: BTreeMap<i64, Task>,
    leased: BTreeMap<u64, Held>,
    results: BTreeMap<u64, Reported>,
}

#[derive(Debug)]
struct Held {
    worker: WorkerId,
    task: Task,
    renewed: Instant,
}

#[derive(Debug)]
struct Reported {
    result: TaskResult,
    /// The committer that read it, and when.
    read: Option<(String, Instant)>,
}

impl MemoryQueue {
    /// An empty queue.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options, ..Self::default() }
    }

    /// Forgets every task, lease, result and worker, like a flushed Redis. For tests of recovery.
    pub fn flush(&self) {
        let mut state = self.state();
        let next_id = state.next_id;
        *state = State { next_id, ..State::default() };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is complete in itself, so a panic elsewhere leaves no
        // half-done change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_waiting(&self, pool: &PoolId, worker: &WorkerId, max: usize) -> Vec<Lease> {
        let mut state = self.state();
        let renewed = Instant::now();
        if state.orders(worker, renewed).aside {
            return Vec::new();
        }
        let State { next_id, pools, .. } = &mut *state;
        let Some(pool) = pools.get_mut(pool) else { return Vec::new() };
        let mut leases: Vec<Lease> = Vec::new();
        while leases.len() < max {
            let Some(first) = pool.waiting.first_entry() else { break };
            let alone = first.get().suspect;
            if alone && !leases.is_empty() {
                break;
            }
            let task = first.remove();
            *next_id += 1;
            pool.leased
                .insert(*next_id, Held { worker: worker.clone(), task: task.clone(), renewed });
            leases.push(Lease { id: entry_id(*next_id), worker: worker.clone(), task });
            if alone {
                break;
            }
        }
        leases
    }

    fn take_results(&self, pool: &PoolId, committer: &str, max: usize) -> Vec<ResultEntry> {
        let mut state = self.state();
        let Some(pool) = state.pools.get_mut(pool) else { return Vec::new() };
        let now = Instant::now();
        let due = |reported: &Reported| match &reported.read {
            None => true,
            Some((reader, at)) => {
                reader != committer && now.duration_since(*at) >= self.options.takeover
            }
        };
        pool.results
            .iter_mut()
            .filter(|(_, reported)| due(reported))
            .take(max)
            .map(|(id, reported)| {
                reported.read = Some((committer.to_owned(), now));
                ResultEntry { id: entry_id(*id), result: reported.result.clone() }
            })
            .collect()
    }

    fn any_waiting(&self, pools: &[PoolId]) -> bool {
        let state = self.state();
        pools.iter().any(|pool| state.pools.get(pool).is_some_and(|pool| !pool.waiting.is_empty()))
    }
}

impl Pool {
    fn len(&self) -> usize {
        self.waiting.len() + self.leased.len() + self.results.len()
    }

    fn append(&mut self, task: Task) {
        let position = self.waiting.last_key_value().map_or(0, |(last, _)| last + 1);
        self.waiting.insert(position, task);
    }

    fn prepend(&mut self, task: Task) {
        let position = self.waiting.first_key_value().map_or(0, |(first, _)| first - 1);
        self.waiting.insert(position, task);
    }

    fn held_by(&self, worker: &WorkerId, lease: &EntryId) -> Option<u64> {
        let id = number(lease)?;
        self.leased.get(&id).is_some_and(|held| &held.worker == worker).then_some(id)
    }
}

fn entry_id(number: u64) -> EntryId {
    EntryId(number.to_string())
}

fn number(id: &EntryId) -> Option<u64> {
    id.0.parse().ok()
}

/// Calls `take` until it finds something or `wait` is over. It registers interest before it looks,
/// so it misses nothing that arrives in between.
async fn look_until<T>(bell: &Notify, wait: Duration, take: impl Fn() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + wait;
    loop {
        let mut rung = std::pin::pin!(bell.notified());
        rung.as_mut().enable();
        if let Some(found) = take() {
            return Some(found);
        }
        if timeout_at(deadline, rung).await.is_err() {
            return None;
        }
    }
}

fn some_if_any<T>(found: Vec<T>) -> Option<Vec<T>> {
    (!found.is_empty()).then_some(found)
}

#[async_trait]
impl TaskQueue for MemoryQueue {
    async fn add(&self, pool: &PoolId, tasks: Vec<Task>) -> Result<(), Error> {
        {
            let mut state = self.state();
            let line = state.pools.entry(pool.clone()).or_default();
            if line.len() + tasks.len() > self.options.pool_limit {
                return Err(Error::Full { pool: pool.to_string(), limit: self.options.pool_limit });
            }
            tasks.into_iter().for_each(|task| line.append(task));
        }
        self.tasks.notify_waiters();
        Ok(())
    }

    async fn wait_for_tasks(&self, pools: &[PoolId], wait: Duration) -> Result<bool, Error> {
        Ok(look_until(&self.tasks, wait, || self.any_waiting(pools).then_some(())).await.is_some())
    }

    async fn lease(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<Lease>, Error> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let take = || some_if_any(self.take_waiting(pool, worker, max));
        Ok(look_until(&self.tasks, wait, take).await.unwrap_or_default())
    }

    async fn heartbeat(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        leases: &[EntryId],
    ) -> Result<Vec<EntryId>, Error> {
        let mut state = self.state();
        let Some(pool) = state.pools.get_mut(pool) else { return Ok(leases.to_vec()) };
        let now = Instant::now();
        let mut lost = Vec::new();
        for lease in leases {
            match pool.held_by(worker, lease).and_then(|id| pool.leased.get_mut(&id)) {
                Some(held) => held.renewed = now,
                None => lost.push(lease.clone()),
            }
        }
        Ok(lost)
    }

    async fn complete(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        results: Vec<(EntryId, TaskResult)>,
    ) -> Result<Vec<Completion>, Error> {
        let completions = {
            let mut state = self.state();
            let State { next_id, pools, .. } = &mut *state;
            let Some(pool) = pools.get_mut(pool) else {
                return Ok(vec![Completion::LeaseLost; results.len()]);
            };
            let mut record = |(lease, result): (EntryId, TaskResult)| {
                let Some(id) = pool.held_by(worker, &lease) else { return Completion::LeaseLost };
                pool.leased.remove(&id);
                *next_id += 1;
                pool.results.insert(*next_id, Reported { result, read: None });
                Completion::Recorded
            };
            results.into_iter().map(&mut record).collect()
        };
        self.results.notify_waiters();
        Ok(completions)
    }

    async fn hand_back(
        &self,
        pool: &PoolId,
        worker: &WorkerId,
        leases: &[EntryId],
    ) -> Result<(), Error> {
        {
            let mut state = self.state();
            let Some(pool) = state.pools.get_mut(pool) else { return Ok(()) };
            for lease in leases.iter().rev() {
                let held = pool.held_by(worker, lease).and_then(|id| pool.leased.remove(&id));
                held.into_iter().for_each(|held| pool.prepend(held.task));
            }
        }
        self.tasks.notify_waiters();
        Ok(())
    }

    async fn results(
        &self,
        pool: &PoolId,
        committer: &str,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<ResultEntry>, Error> {
        let take = || some_if_any(self.take_results(pool, committer, max));
        Ok(look_until(&self.results, wait, take).await.unwrap_or_default())
    }

    async fn acknowledge(&self, pool: &PoolId, results: &[EntryId]) -> Result<(), Error> {
        if let Some(pool) = self.state().pools.get_mut(pool) {
            results.iter().filter_map(number).for_each(|id| drop(pool.results.remove(&id)));
        }
        Ok(())
    }

    async fn remove(
        &self,
        pool: &PoolId,
        tasks: &[TaskKey],
        leased: Leased,
    ) -> Result<Vec<TaskKey>, Error> {
        let mut state = self.state();
        let Some(pool) = state.pools.get_mut(pool) else { return Ok(Vec::new()) };
        let wanted: HashSet<&TaskKey> = tasks.iter().collect();
        let mut removed = Vec::new();
        let mut take = |task: &Task| {
            let found = wanted.contains(&task.key);
            if found {
                removed.push(task.key);
            }
            found
        };
        pool.waiting.retain(|_, task| !take(task));
        if leased == Leased::Remove {
            pool.leased.retain(|_, held| !take(&held.task));
        }
        Ok(removed)
    }

    async fn reap(&self, pool: &PoolId, lease: Duration) -> Result<Vec<Lease>, Error> {
        let mut state = self.state();
        let Some(pool) = state.pools.get_mut(pool) else { return Ok(Vec::new()) };
        let now = Instant::now();
        let expired =
            pool.leased.extract_if(.., |_, held| now.duration_since(held.renewed) >= lease);
        Ok(expired
            .map(|(id, held)| Lease { id: entry_id(id), worker: held.worker, task: held.task })
            .collect())
    }

    async fn entries(&self, pool: &PoolId) -> Result<Vec<EntrySummary>, Error> {
        let state = self.state();
        let Some(pool) = state.pools.get(pool) else { return Ok(Vec::new()) };
        let waiting = pool
            .waiting
            .values()
            .map(|task| EntrySummary { key: task.key, state: EntryState::Waiting });
        let leased = pool.leased.values().map(|held| EntrySummary {
            key: held.task.key,
            state: EntryState::Leased(held.worker.clone()),
        });
        let results = pool
            .results
            .values()
            .map(|reported| EntrySummary { key: reported.result.key, state: EntryState::Result });
        Ok(waiting.chain(leased).chain(results).collect())
    }

    async fn announce(&self, card: WorkerCard) -> Result<Orders, Error> {
        let mut state = self.state();
        let now = Instant::now();
        state.cards.retain(|_, (_, seen)| now.duration_since(*seen) < CARD_LIFETIME);
        state.draining.retain(|_, since| now.duration_since(*since) < CARD_LIFETIME);
        let orders = state.orders(&card.id, now);
        state.cards.insert(card.id.clone(), (card, now));
        Ok(orders)
    }

    async fn ask_to_drain(&self, worker: &WorkerId) -> Result<(), Error> {
        self.state().draining.insert(worker.clone(), Instant::now());
        Ok(())
    }

    async fn set_aside(&self, _: &[PoolId], workers: &[(WorkerId, Duration)]) -> Result<(), Error> {
        let now = Instant::now();
        self.state().aside =
            workers.iter().map(|(worker, time)| (worker.clone(), now + *time)).collect();
        self.tasks.notify_waiters();
        Ok(())
    }

    async fn withdraw(&self, worker: &WorkerId) -> Result<(), Error> {
        let mut state = self.state();
        state.cards.remove(worker);
        state.draining.remove(worker);
        Ok(())
    }

    async fn workers(&self, since: Duration) -> Result<Vec<WorkerCard>, Error> {
        let state = self.state();
        let now = Instant::now();
        let fresh = state.cards.values().filter(|(_, seen)| now.duration_since(*seen) <= since);
        Ok(fresh
            .map(|(card, seen)| {
                let seen_seconds_ago = now.duration_since(*seen).as_secs_f64();
                WorkerCard { seen_seconds_ago, ..card.clone() }.under(state.orders(&card.id, now))
            })
            .collect())
    }
}
