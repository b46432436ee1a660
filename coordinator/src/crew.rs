//! The workers as they last announced themselves: which of them serve a pool, their largest
//! batches, and their devices.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use darkroom_core::{forecast, id::WorkerId};
use darkroom_queue::task::{PoolId, ServedPool, WorkerCard};
use tokio::time::Instant;

use crate::rates::Rates;

/// Batches per worker in a pool's queue: one runs, one is prefetched.
const BATCHES: u64 = 2;
/// A worker's queue should take at least this long. If it is shorter, workers run idle between two
/// passes of the dispatcher.
const LINE_SECONDS: f64 = 0.25;
/// Most batches per worker in a queue.
const MOST_BATCHES: u64 = 8;

/// One reading of the workers' cards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crew(Vec<WorkerCard>);

impl Crew {
    pub(crate) fn new(cards: Vec<WorkerCard>) -> Self {
        Self(cards)
    }

    pub(crate) fn cards(&self) -> &[WorkerCard] {
        &self.0
    }

    /// Every pool that a worker serves.
    pub(crate) fn pools(&self) -> BTreeSet<PoolId> {
        self.working()
            .flat_map(|card| card.pools.values())
            .map(|served| served.pool.clone())
            .collect()
    }

    /// Number of tasks that the pool's queue should have.
    pub(crate) fn room(&self, pool: &PoolId) -> u64 {
        self.serving(pool)
            .map(|(_, served)| batches(served) * u64::from(served.batch_cap.max(1)))
            .sum()
    }

    /// Largest batch that a worker of the pool takes.
    pub(crate) fn batch_cap(&self, pool: &PoolId) -> u64 {
        self.serving(pool).map(|(_, served)| u64::from(served.batch_cap)).max().unwrap_or(1).max(1)
    }

    /// Number of distinct devices, on all hosts, that serve the pool.
    pub(crate) fn places(&self, pool: &PoolId) -> usize {
        self.serving(pool).map(|(card, _)| card.place()).collect::<BTreeSet<_>>().len()
    }

    /// Workers that serve the pool.
    pub(crate) fn workers(&self, pool: &PoolId) -> u64 {
        self.serving(pool).count() as u64
    }

    /// Model seconds per network pass in the pool, where faster workers do more of the work. A
    /// worker's speed is its recent measurement, or else the last recorded speed of its class of
    /// device. If no speed of a present worker is known, the recorded speed of any class counts.
    /// Every coordinator computes the same.
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

    /// A worker's host and device: as announced, or else the host from the beginning of its id.
    pub(crate) fn place_of(&self, worker: &WorkerId) -> String {
        let announced = self.0.iter().find(|card| &card.id == worker).map(WorkerCard::place);
        announced.unwrap_or_else(|| worker.host().to_owned())
    }

    fn working(&self) -> impl Iterator<Item = &WorkerCard> {
        self.0.iter().filter(|card| card.takes_tasks())
    }

    fn serving<'a>(
        &'a self,
        pool: &'a PoolId,
    ) -> impl Iterator<Item = (&'a WorkerCard, &'a ServedPool)> + 'a {
        self.working().flat_map(move |card| {
            card.pools
                .values()
                .filter(move |served| &served.pool == pool)
                .map(move |served| (card, served))
        })
    }
}

/// Batches in a worker's part of the queue: two, or more if they take very little time.
fn batches(served: &ServedPool) -> u64 {
    let seconds = served.seconds_per_image * f64::from(served.batch_cap.max(1));
    if !seconds.is_finite() || seconds <= 0.0 {
        return BATCHES;
    }
    let most = MOST_BATCHES as f64;
    ((LINE_SECONDS / seconds).ceil().min(most) as u64).clamp(BATCHES, MOST_BATCHES)
}

/// A reading that is younger than this is used again. With a thousand workers, each reading fetches
/// a thousand cards.
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
            batches(&ServedPool {
                pool: pool.clone(),
                batch_cap,
                seconds_per_image,
                seconds_per_pass: 0.0,
                running: 0,
                mean_batch: 0.0,
            })
        };
        assert_eq!(line(8, 0.0), 2, "not measured yet");
        assert_eq!(line(8, 0.3), 2, "a batch of 2.4 s");
        assert_eq!(line(1, 0.1), 3, "a quarter of a second");
        assert_eq!(line(256, 0.000_01), 8, "no more than this");
        assert_eq!(line(256, f64::NAN), 2);
    }
}
