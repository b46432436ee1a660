//! How fast classes of device are at stages, as measured by live workers and as last recorded; and the part that
//! records it, so that a forecast can be made though no worker has run the stage since it started.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use darkroom_queue::task::PoolId;

use crate::{
    api,
    crew::Crew,
    service::{Error, Shared},
    store::forecast::StageRate,
};

/// A measurement is recorded again when it has changed by more than this share.
const CHANGED: f64 = 0.02;
/// Jobs looked at in one pass whose first forecast could not be made when they were submitted.
const JOBS: u32 = 32;

/// Model seconds per network pass, by pool and class of device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rates(BTreeMap<(PoolId, String), f64>);

impl Rates {
    pub(crate) fn new(rates: Vec<StageRate>) -> Self {
        Self(rates.into_iter().map(|rate| ((rate.pool, rate.device_class), rate.seconds_per_pass)).collect())
    }

    /// Of one class of device.
    pub(crate) fn of(&self, pool: &PoolId, device_class: &str) -> Option<f64> {
        self.0.get(&(pool.clone(), device_class.to_owned())).copied()
    }

    /// Of every class that ever ran the pool.
    pub(crate) fn all(&self, pool: &PoolId) -> Vec<f64> {
        self.0.iter().filter(|((known, _), _)| known == pool).map(|(_, seconds)| *seconds).collect()
    }

    /// What live workers measured otherwise than recorded: the mean of each class.
    fn news(&self, crew: &Crew) -> Vec<StageRate> {
        let mut sums: BTreeMap<(PoolId, String), (f64, f64)> = BTreeMap::new();
        for card in crew.cards() {
            for served in card.pools.values().filter(|served| served.seconds_per_pass > 0.0) {
                let sum = sums.entry((served.pool.clone(), card.device_class.clone())).or_default();
                *sum = (sum.0 + served.seconds_per_pass, sum.1 + 1.0);
            }
        }
        let means = sums.into_iter().map(|(key, (sum, count))| (key, sum / count));
        let changed = means.filter(|(key, mean)| {
            self.0.get(key).is_none_or(|known| (mean - known).abs() > CHANGED * known.abs())
        });
        changed
            .map(|((pool, device_class), seconds_per_pass)| StageRate {
                pool,
                device_class,
                seconds_per_pass,
            })
            .collect()
    }
}

/// What is recorded, as last read.
#[derive(Debug, Default)]
pub(crate) struct LatestRates(Mutex<Arc<Rates>>);

impl LatestRates {
    pub(crate) fn get(&self) -> Arc<Rates> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, rates: Rates) -> Arc<Rates> {
        let rates = Arc::new(rates);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&rates);
        rates
    }
}

/// Runs until shutdown.
pub(crate) async fn run(shared: Arc<Shared>) {
    while !shared.stop.is_cancelled() {
        match pass(&shared).await {
            Ok(()) => shared.healed("forecast"),
            Err(error) => shared.failed("forecast", &error),
        }
        shared.pause(shared.options.sweep).await;
    }
}

/// Every coordinator reads the rates; the one who leads records what changed, and keeps the first forecasts that could
/// not be made before.
async fn pass(shared: &Shared) -> Result<(), Error> {
    let rates = shared.rates.set(Rates::new(shared.store.rates().await?));
    if shared.lead().await?.is_none() {
        return Ok(());
    }
    let news = rates.news(&shared.crew.get());
    if !news.is_empty() {
        shared.store.note_rates(&news).await?;
        shared.rates.set(Rates::new(shared.store.rates().await?));
    }
    for id in shared.store.without_forecast(JOBS).await? {
        let job = shared.store.job(id).await?;
        api::keep_forecast(shared, &job).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use darkroom_core::{digest::Digest, id::WorkerId};
    use darkroom_queue::task::{ServedPool, WorkerCard};

    use super::*;

    fn pool(stage: &str) -> PoolId {
        PoolId { stage: stage.to_owned().try_into().unwrap(), digest: Digest::of(b"cascade") }
    }

    fn card(id: &str, class: &str, seconds_per_pass: f64) -> WorkerCard {
        let served =
            ServedPool { pool: pool("base"), batch_cap: 4, seconds_per_image: 9.0, seconds_per_pass };
        WorkerCard {
            id: WorkerId(id.to_owned()),
            host: id.to_owned(),
            device: "cpu".to_owned(),
            device_class: class.to_owned(),
            pools: [("base".to_owned(), served)].into(),
            leased: 0,
            done: 0,
            busy: 0.0,
            state: "working".to_owned(),
            trouble: String::new(),
            seen_seconds_ago: 0.0,
        }
    }

    #[test]
    fn what_changed_is_recorded_as_the_mean_of_a_class() {
        let crew = Crew::new(vec![card("a", "gpu", 1.0), card("b", "gpu", 3.0), card("c", "cpu", 0.0)]);
        let news = Rates::default().news(&crew);
        let rate = StageRate { pool: pool("base"), device_class: "gpu".to_owned(), seconds_per_pass: 2.0 };
        assert_eq!(news, std::slice::from_ref(&rate), "who measured nothing says nothing");
        let recorded = Rates::new(vec![StageRate { seconds_per_pass: 1.99, ..rate.clone() }]);
        assert_eq!(recorded.news(&crew), [], "it is about as recorded");
        let older = Rates::new(vec![StageRate { seconds_per_pass: 1.5, ..rate.clone() }]);
        assert_eq!(older.news(&crew), [rate]);
    }

    #[test]
    fn a_worker_that_measured_nothing_is_as_fast_as_its_class_was() {
        let rate = |class: &str, seconds_per_pass| StageRate {
            pool: pool("base"),
            device_class: class.to_owned(),
            seconds_per_pass,
        };
        let rates = Rates::new(vec![rate("gpu", 2.0), rate("cpu", 8.0)]);
        let seconds = |cards| Crew::new(cards).seconds_per_pass(&pool("base"), &rates);
        assert_eq!(seconds(vec![card("a", "gpu", 0.0)]), Some(2.0));
        assert_eq!(seconds(vec![card("a", "gpu", 1.0)]), Some(1.0), "what it measured itself goes first");
        assert_eq!(
            seconds(vec![card("a", "gpu", 1.0), card("b", "cpu", 3.0)]),
            Some(1.5),
            "the faster does more"
        );
        assert_eq!(seconds(vec![card("a", "tpu", 0.0)]), Some(3.2), "any class is better than none");
        assert_eq!(seconds(Vec::new()), Some(3.2));
        assert_eq!(Crew::default().seconds_per_pass(&pool("sr256"), &rates), None);
    }
}
