//! The workers as they last announced themselves: who serves a pool, how much of it, on how many devices.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use darkroom_core::{forecast, id::WorkerId};
use darkroom_queue::task::{PoolId, ServedPool, WorkerCard};
use tokio::time::Instant;

use crate::rates::Rates;

/// Batches per worker that a pool's line holds: one runs, one is prefetched.
const BATCHES: u64 = 2;

/// A reading of the workers' cards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crew(Vec<WorkerCard>);

impl Crew {
    pub(crate) fn new(cards: Vec<WorkerCard>) -> Self {
        Self(cards)
    }

    pub(crate) fn cards(&self) -> &[WorkerCard] {
        &self.0
    }

    /// Every pool that someone serves.
    pub(crate) fn pools(&self) -> BTreeSet<PoolId> {
        self.working().flat_map(|card| card.pools.values()).map(|served| served.pool.clone()).collect()
    }

    /// Tasks that the pool's line should hold.
    pub(crate) fn room(&self, pool: &PoolId) -> u64 {
        self.serving(pool).map(|(_, served)| BATCHES * u64::from(served.batch_cap.max(1))).sum()
    }

    /// Largest batch that a worker of the pool takes.
    pub(crate) fn batch_cap(&self, pool: &PoolId) -> u64 {
        self.serving(pool).map(|(_, served)| u64::from(served.batch_cap)).max().unwrap_or(1).max(1)
    }

    /// Distinct devices, of whatever hosts, that serve the pool.
    pub(crate) fn hosts(&self, pool: &PoolId) -> usize {
        self.serving(pool).map(|(card, _)| card.place()).collect::<BTreeSet<_>>().len()
    }

    /// Workers that serve the pool.
    pub(crate) fn workers(&self, pool: &PoolId) -> u64 {
        self.serving(pool).count() as u64
    }

    /// Model seconds per network pass in the pool, its workers sharing the work as each gets on: of each as it measured
    /// lately, else as its class of device was last recorded. Where nobody serves it, or nothing is known of those who
    /// do: of whatever class ever ran it. Every coordinator reads the same.
    pub(crate) fn seconds_per_pass(&self, pool: &PoolId, rates: &Rates) -> Option<f64> {
        let of = |(card, served): (&WorkerCard, &ServedPool)| {
            let measured = Some(served.seconds_per_pass).filter(|seconds| *seconds > 0.0);
            measured.or_else(|| rates.of(pool, &card.device_class))
        };
        let known: Vec<f64> = self.serving(pool).filter_map(of).collect();
        forecast::shared_seconds(&known).or_else(|| forecast::shared_seconds(&rates.all(pool)))
    }

    /// The classes of device that serve the pool, each with its workers.
    pub(crate) fn classes(&self, pool: &PoolId) -> BTreeMap<String, Crew> {
        let mut classes: BTreeMap<String, Crew> = BTreeMap::new();
        for (card, _) in self.serving(pool) {
            classes.entry(card.device_class.clone()).or_default().0.push(card.clone());
        }
        classes
    }

    /// A worker's host and device: as announced, else the host that its id begins with.
    pub(crate) fn host_of(&self, worker: &WorkerId) -> String {
        let announced = self.0.iter().find(|card| &card.id == worker).map(WorkerCard::place);
        announced.unwrap_or_else(|| {
            worker.0.rsplit_once('-').map_or_else(|| worker.0.clone(), |(host, _)| host.to_owned())
        })
    }

    fn working(&self) -> impl Iterator<Item = &WorkerCard> {
        self.0.iter().filter(|card| card.takes_tasks())
    }

    fn serving<'a>(
        &'a self,
        pool: &'a PoolId,
    ) -> impl Iterator<Item = (&'a WorkerCard, &'a ServedPool)> + 'a {
        self.working().flat_map(move |card| {
            card.pools.values().filter(move |served| &served.pool == pool).map(move |served| (card, served))
        })
    }
}

/// A reading as young as this is not made again: with a thousand workers each one costs as many cards.
const YOUNG: Duration = Duration::from_millis(50);

/// The latest reading, shared, and when it was made.
#[derive(Debug, Default)]
pub(crate) struct LatestCrew(Mutex<(Arc<Crew>, Option<Instant>)>);

impl LatestCrew {
    pub(crate) fn get(&self) -> Arc<Crew> {
        Arc::clone(&self.locked().0)
    }

    /// The latest reading, if it is young.
    pub(crate) fn young(&self) -> Option<Arc<Crew>> {
        let latest = self.locked();
        latest.1.filter(|read| read.elapsed() < YOUNG).map(|_| Arc::clone(&latest.0))
    }

    pub(crate) fn set(&self, crew: Crew) -> Arc<Crew> {
        let crew = Arc::new(crew);
        *self.locked() = (Arc::clone(&crew), Some(Instant::now()));
        crew
    }

    fn locked(&self) -> MutexGuard<'_, (Arc<Crew>, Option<Instant>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
