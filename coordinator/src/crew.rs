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
/// Batches that take less than this together are no line at all: the dispatcher comes by too seldom, and all that becomes
/// ready would have to wait for it.
const LINE_SECONDS: f64 = 0.25;
/// Batches per worker that a line holds at most.
const MOST_BATCHES: u64 = 8;

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
        self.serving(pool).map(|(_, served)| batches(served) * u64::from(served.batch_cap.max(1))).sum()
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

/// Batches that a worker's part of a line holds: two, and more where they are done in no time.
fn batches(served: &ServedPool) -> u64 {
    let seconds = served.seconds_per_image * f64::from(served.batch_cap.max(1));
    if !seconds.is_finite() || seconds <= 0.0 {
        return BATCHES;
    }
    let most = MOST_BATCHES as f64;
    ((LINE_SECONDS / seconds).ceil().min(most) as u64).clamp(BATCHES, MOST_BATCHES)
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

#[cfg(test)]
mod tests {
    use darkroom_core::{digest::Digest, id::StageName};

    use super::*;

    #[test]
    fn a_line_holds_two_batches_and_more_where_they_take_no_time() {
        let stage = StageName::try_from("base".to_owned()).expect("a name");
        let pool = PoolId { stage, digest: Digest::of(b"cascade") };
        let line = |batch_cap: u32, seconds_per_image: f64| {
            batches(&ServedPool { pool: pool.clone(), batch_cap, seconds_per_image, seconds_per_pass: 0.0 })
        };
        assert_eq!(line(8, 0.0), 2, "not measured yet");
        assert_eq!(line(8, 0.3), 2, "a batch of 2.4 s");
        assert_eq!(line(1, 0.1), 3, "a quarter of a second");
        assert_eq!(line(256, 0.000_01), 8, "no more than this");
        assert_eq!(line(256, f64::NAN), 2);
    }
}
