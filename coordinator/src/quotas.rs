//! Tenants' quotas as last read from the record, and how many calls of a tenant have come lately.
//!
//! Every coordinator reads the quotas each second (`quota_reader.rs`), and the one that changes
//! them at once: the dispatcher, the door and the answers about jobs use what was read. What
//! transactions check, they read themselves.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use darkroom_core::{error::UserError, quota::Bucket};
use tokio::time::Instant;

use crate::store::metering::{LimitedTenant, out_of_time, too_many_requests};

/// Buckets of tenants beyond which the full ones are dropped.
const MANY_BUCKETS: usize = 1000;

/// The quotas at one moment.
#[derive(Debug)]
pub(crate) struct KnownQuotas {
    /// The tenants that have quotas, by name.
    pub(crate) tenants: BTreeMap<String, LimitedTenant>,
    /// The record's clock when they were read, in milliseconds since 1970.
    pub(crate) now_ms: i64,
    /// Coordinators that share the calls of the tenants.
    pub(crate) coordinators: u64,
    /// The number of the reading.
    pub(crate) reading: u64,
}

impl Default for KnownQuotas {
    fn default() -> Self {
        Self { tenants: BTreeMap::new(), now_ms: 0, coordinators: 1, reading: 0 }
    }
}

impl KnownQuotas {
    /// Whether no image of this tenant may be dispatched now, and why.
    pub(crate) fn held(&self, tenant: &str) -> Option<String> {
        out_of_time(self.tenants.get(tenant)?, self.now_ms)
    }

    /// The tenants whose device time of today is used up.
    pub(crate) fn out_of_time(&self) -> BTreeSet<String> {
        let out = self.tenants.values().filter(|tenant| tenant.is_out_of_time());
        out.map(|tenant| tenant.name.clone()).collect()
    }

    /// Most workers that may be busy with the tenant's images in one stage.
    pub(crate) fn workers(&self, tenant: &str) -> Option<u32> {
        self.tenants.get(tenant)?.quotas.workers
    }

    /// Whether some tenant has a quota of workers.
    pub(crate) fn any_workers(&self) -> bool {
        self.tenants.values().any(|tenant| tenant.quotas.workers.is_some())
    }

    /// The weights of tenants: those in the record, and `defaults` for tenants that have none
    /// there.
    pub(crate) fn weights(&self, defaults: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
        let mut weights = defaults.clone();
        for (name, tenant) in &self.tenants {
            if let Some(weight) = tenant.quotas.weight {
                weights.insert(name.clone(), weight);
            }
        }
        weights
    }
}

/// The latest reading, shared, and the calls since.
#[derive(Debug)]
pub(crate) struct LatestQuotas {
    known: Mutex<Arc<KnownQuotas>>,
    /// Readings so far.
    readings: AtomicU64,
    /// Of each tenant that has a quota of calls.
    buckets: Mutex<HashMap<String, Bucket>>,
    begun: Instant,
}

impl Default for LatestQuotas {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            readings: AtomicU64::new(0),
            buckets: Mutex::default(),
            begun: Instant::now(),
        }
    }
}

impl LatestQuotas {
    pub(crate) fn get(&self) -> Arc<KnownQuotas> {
        Arc::clone(&locked(&self.known))
    }

    /// The number of a reading that begins now.
    pub(crate) fn begin(&self) -> u64 {
        self.readings.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Replaces what is known, unless a reading that began later is there already.
    pub(crate) fn set(&self, known: KnownQuotas) {
        let mut present = locked(&self.known);
        if known.reading > present.reading {
            *present = Arc::new(known);
        }
    }

    /// Counts a call of a tenant, or refuses it. Each coordinator lets an equal part of the calls
    /// pass.
    pub(crate) fn admit(&self, tenant: &str) -> Result<(), UserError> {
        let known = self.get();
        let Some(limited) = known.tenants.get(tenant) else { return Ok(()) };
        let Some(rate) = limited.quotas.requests_per_second else { return Ok(()) };
        #[expect(clippy::cast_precision_loss, reason = "a handful of coordinators")]
        let share = 1.0 / known.coordinators as f64;
        let burst = limited.quotas.burst.map_or(rate, f64::from) * share;
        let (rate, now) = (rate * share, self.begun.elapsed().as_secs_f64());
        let mut buckets = locked(&self.buckets);
        if buckets.len() > MANY_BUCKETS && !buckets.contains_key(tenant) {
            buckets.retain(|_, bucket| !bucket.is_full(rate, burst, now));
        }
        let bucket = buckets.entry(tenant.to_owned()).or_insert_with(|| Bucket::full(burst, now));
        bucket.take(rate, burst, now).map_err(|wait| {
            too_many_requests(tenant, &limited.quotas, Duration::from_secs_f64(wait))
        })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under the lock leaves no partial change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use darkroom_core::quota::Quotas;

    use super::*;

    fn known(coordinators: u64, quotas: &[(&str, Quotas)]) -> KnownQuotas {
        let tenant = |(name, quotas): &(&str, Quotas)| {
            let (name, quotas) = ((*name).to_owned(), quotas.clone());
            (name.clone(), LimitedTenant { name, quotas, device_seconds_today: 0.0 })
        };
        let tenants = quotas.iter().map(tenant).collect();
        KnownQuotas { tenants, now_ms: 0, coordinators, reading: 0 }
    }

    fn set(latest: &LatestQuotas, known: KnownQuotas) {
        latest.set(KnownQuotas { reading: latest.begin(), ..known });
    }

    fn calls(rate: f64, burst: Option<u32>) -> Quotas {
        Quotas { requests_per_second: Some(rate), burst, ..Quotas::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn coordinators_share_the_calls_of_a_tenant() {
        let latest = LatestQuotas::default();
        for _ in 0..1000 {
            latest.admit("busy").expect("no quota");
        }
        set(&latest, known(2, &[("busy", calls(20.0, Some(40)))]));
        for _ in 0..20 {
            latest.admit("busy").expect("half of the burst");
        }
        let refused = latest.admit("busy").expect_err("too many");
        assert_eq!(refused.reason, "QUOTA_REQUESTS_PER_SECOND");
        assert_eq!(refused.retry_after, Some(Duration::from_millis(100)), "ten a second here");
        latest.admit("quiet").expect("another tenant");
        tokio::time::advance(Duration::from_millis(101)).await;
        latest.admit("busy").expect("one came back");
        set(&latest, known(1, &[]));
        latest.admit("busy").expect("the quota is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn tenants_that_are_quiet_again_take_no_memory() {
        let latest = LatestQuotas::default();
        let names: Vec<String> = (0..MANY_BUCKETS + 10).map(|number| number.to_string()).collect();
        let quotas: Vec<_> = names.iter().map(|name| (name.as_str(), calls(1.0, None))).collect();
        set(&latest, known(1, &quotas));
        for name in &names {
            latest.admit(name).expect("its first");
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        let kept = locked(&latest.buckets).len();
        assert!(kept < MANY_BUCKETS, "{kept}");
    }

    #[test]
    fn a_reading_that_began_earlier_replaces_no_later_one() {
        let latest = LatestQuotas::default();
        let (early, late) = (latest.begin(), latest.begin());
        let quotas = Quotas { workers: Some(1), ..Quotas::default() };
        latest.set(KnownQuotas { reading: late, ..known(1, &[("t", quotas)]) });
        latest.set(KnownQuotas { reading: early, ..known(1, &[]) });
        assert_eq!(latest.get().workers("t"), Some(1));
    }

    #[test]
    fn a_weight_in_the_record_goes_before_a_flag() {
        let heavy = Quotas { weight: Some(5.0), ..Quotas::default() };
        let flags = BTreeMap::from([("a".to_owned(), 2.0), ("b".to_owned(), 3.0)]);
        let weights = known(1, &[("a", heavy), ("c", calls(1.0, None))]).weights(&flags);
        assert_eq!(weights, BTreeMap::from([("a".to_owned(), 5.0), ("b".to_owned(), 3.0)]));
    }
}
