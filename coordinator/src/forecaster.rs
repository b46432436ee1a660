//! Records how fast live workers run each stage, so that forecasts work even if no present worker
//! has run the stage yet. It also makes and keeps first forecasts that could not be made at the
//! submit.

use std::{collections::BTreeMap, sync::Arc};

use darkroom_queue::task::PoolId;

use crate::{
    crew::Crew,
    error::Error,
    forecasts,
    rates::Rates,
    shared::Shared,
    store::{
        forecast::StageRate,
        roles::{Forecasts, Queries},
    },
};

/// A measurement is recorded again when it has changed by more than this share.
const CHANGED: f64 = 0.02;
/// Jobs without a first forecast that are looked at in one pass.
const JOBS: u32 = 32;

/// Runs until shutdown.
pub(crate) async fn run<S: Forecasts + Queries + ?Sized>(shared: Arc<Shared>, store: Arc<S>) {
    while !shared.stop.is_cancelled() {
        match pass(&shared, store.as_ref()).await {
            Ok(()) => shared.healed("forecast"),
            Err(error) => shared.failed("forecast", &error),
        }
        shared.pause(shared.options.sweep).await;
    }
}

/// Every coordinator reads the rates. The leader also records changed ones, and keeps the first
/// forecasts that could not be made before.
async fn pass<S: Forecasts + Queries + ?Sized>(shared: &Shared, store: &S) -> Result<(), Error> {
    let rates = shared.rates.set(Rates::new(store.rates().await?));
    if shared.lead().await?.is_none() {
        return Ok(());
    }
    let news = news(&rates, &shared.crew.get());
    if !news.is_empty() {
        store.note_rates(&news).await?;
        shared.rates.set(Rates::new(store.rates().await?));
    }
    for id in store.without_forecast(JOBS).await? {
        let job = store.job(id).await?;
        forecasts::keep(shared, store, &job).await?;
    }
    Ok(())
}

/// The measurements of live workers that differ from the recorded ones: the mean of each class.
fn news(rates: &Rates, crew: &Crew) -> Vec<StageRate> {
    let mut sums: BTreeMap<(PoolId, String), (f64, f64)> = BTreeMap::new();
    for card in crew.cards() {
        for served in card.pools.values().filter(|served| served.seconds_per_pass > 0.0) {
            let sum = sums.entry((served.pool.clone(), card.device_class.clone())).or_default();
            *sum = (sum.0 + served.seconds_per_pass, sum.1 + 1.0);
        }
    }
    let means = sums.into_iter().map(|(key, (sum, count))| (key, sum / count));
    let changed = means.filter(|(key, mean)| {
        rates.of(&key.0, &key.1).is_none_or(|known| (mean - known).abs() > CHANGED * known.abs())
    });
    changed
        .map(|((pool, device_class), seconds_per_pass)| StageRate {
            pool,
            device_class,
            seconds_per_pass,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use darkroom_core::{digest::Digest, id::WorkerId, worker_state::WorkerState};
    use darkroom_queue::task::{ServedPool, WorkerCard};

    use super::*;

    fn pool(stage: &str) -> PoolId {
        PoolId { stage: stage.to_owned().try_into().unwrap(), digest: Digest::of(b"cascade") }
    }

    fn card(id: &str, class: &str, seconds_per_pass: f64) -> WorkerCard {
        let served = ServedPool {
            pool: pool("base"),
            batch_cap: 4,
            seconds_per_image: 9.0,
            seconds_per_pass,
            running: 0,
            mean_batch: 0.0,
        };
        WorkerCard {
            id: WorkerId(id.to_owned()),
            host: id.to_owned(),
            device: "cpu".to_owned(),
            device_class: class.to_owned(),
            pools: [("base".to_owned(), served)].into(),
            leased: 0,
            done: 0,
            busy: 0.0,
            state: WorkerState::Working,
            trouble: String::new(),
            failed: 0,
            memory: None,
            version: String::new(),
            seen_seconds_ago: 0.0,
        }
    }

    #[test]
    fn what_changed_is_recorded_as_the_mean_of_a_class() {
        let crew =
            Crew::new(vec![card("a", "gpu", 1.0), card("b", "gpu", 3.0), card("c", "cpu", 0.0)]);
        let found = news(&Rates::default(), &crew);
        let rate =
            StageRate { pool: pool("base"), device_class: "gpu".to_owned(), seconds_per_pass: 2.0 };
        assert_eq!(found, std::slice::from_ref(&rate), "without a measurement, nothing counts");
        let recorded = Rates::new(vec![StageRate { seconds_per_pass: 1.99, ..rate.clone() }]);
        assert_eq!(news(&recorded, &crew), [], "it is close to the recorded value");
        let older = Rates::new(vec![StageRate { seconds_per_pass: 1.5, ..rate.clone() }]);
        assert_eq!(news(&older, &crew), [rate]);
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
        assert_eq!(
            seconds(vec![card("a", "gpu", 1.0)]),
            Some(1.0),
            "its own measurement takes precedence"
        );
        assert_eq!(
            seconds(vec![card("a", "gpu", 1.0), card("b", "cpu", 3.0)]),
            Some(1.5),
            "the faster does more"
        );
        assert_eq!(
            seconds(vec![card("a", "tpu", 0.0)]),
            Some(3.2),
            "any class is better than none"
        );
        assert_eq!(seconds(Vec::new()), Some(3.2));
        assert_eq!(Crew::default().seconds_per_pass(&pool("sr256"), &rates), None);
    }
}
