//! The recorded speed of each class of device in each stage.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use darkroom_queue::task::PoolId;

use crate::store::forecast::StageRate;

/// Model seconds per network pass, by pool and class of device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rates(BTreeMap<(PoolId, String), f64>);

impl Rates {
    pub(crate) fn new(rates: Vec<StageRate>) -> Self {
        Self(
            rates
                .into_iter()
                .map(|rate| ((rate.pool, rate.device_class), rate.seconds_per_pass))
                .collect(),
        )
    }

    /// The speed of one class of device.
    pub(crate) fn of(&self, pool: &PoolId, device_class: &str) -> Option<f64> {
        self.0.get(&(pool.clone(), device_class.to_owned())).copied()
    }

    /// The speeds of all classes that ever ran the pool.
    pub(crate) fn all(&self, pool: &PoolId) -> Vec<f64> {
        self.0.iter().filter(|((known, _), _)| known == pool).map(|(_, seconds)| *seconds).collect()
    }
}

/// The recorded speeds, as last read.
#[derive(Debug, Default)]
pub(crate) struct LatestRates(Mutex<Arc<Rates>>);

impl LatestRates {
    pub(crate) fn get(&self) -> Arc<Rates> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set(&self, rates: Rates) -> Arc<Rates> {
        let rates = Arc::new(rates);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&rates);
        rates
    }
}
