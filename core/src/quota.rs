//! What a tenant may use: its quotas, and its weight in the fair share.

use std::{collections::BTreeSet, str::FromStr};

use crate::error::UserError;

/// One of a tenant's quotas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quota {
    /// Images of its jobs that are not done, dead or cancelled yet.
    ImagesWaiting,
    /// Images that it submits on a day (UTC).
    ImagesPerDay,
    /// Model seconds that its jobs take on a day (UTC).
    DeviceSecondsPerDay,
    /// Bytes of its outputs, uploads and files.
    StoredBytes,
    /// Calls a second.
    RequestsPerSecond,
    /// Calls at once, before [`RequestsPerSecond`](Self::RequestsPerSecond) slows them down.
    Burst,
    /// Workers that are busy with its images at once, in each stage.
    Workers,
    /// Its weight in the fair share.
    Weight,
}

/// Largest number of images and bytes.
const MOST: u64 = 1 << 50;
/// Largest number of seconds, calls, workers, and largest weight.
const MOST_SECONDS: f64 = 1e12;
const MOST_CALLS: f64 = 1e6;
const MOST_WORKERS: u32 = 1_000_000;
const MOST_WEIGHT: f64 = 1e6;
/// Fewest calls a second (ten an hour), and the smallest weight.
const FEWEST_CALLS: f64 = 1.0 / 360.0;
const LEAST_WEIGHT: f64 = 1e-3;

impl Quota {
    /// Every quota.
    pub const ALL: [Self; 8] = [
        Self::ImagesWaiting,
        Self::ImagesPerDay,
        Self::DeviceSecondsPerDay,
        Self::StoredBytes,
        Self::RequestsPerSecond,
        Self::Burst,
        Self::Workers,
        Self::Weight,
    ];

    /// Its name in messages and in SQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ImagesWaiting => "images_waiting",
            Self::ImagesPerDay => "images_per_day",
            Self::DeviceSecondsPerDay => "device_seconds_per_day",
            Self::StoredBytes => "stored_bytes",
            Self::RequestsPerSecond => "requests_per_second",
            Self::Burst => "burst",
            Self::Workers => "workers",
            Self::Weight => "weight",
        }
    }

    /// The reason of a refusal by this quota, for machines.
    #[must_use]
    pub fn reason(self) -> String {
        format!("QUOTA_{}", self.name().to_ascii_uppercase())
    }
}

impl FromStr for Quota {
    type Err = UserError;

    fn from_str(name: &str) -> Result<Self, UserError> {
        Self::ALL.into_iter().find(|quota| quota.name() == name).ok_or_else(|| {
            let shown: String = name.chars().take(80).collect();
            let names = Self::ALL.map(Self::name).join(", ");
            UserError::invalid("clear", format!("clear has {shown:?}; accepted: {names}"))
        })
    }
}

/// A tenant's quotas; an absent one is no limit, and an absent weight is the farm's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quotas {
    /// See [`Quota::ImagesWaiting`].
    pub images_waiting: Option<u64>,
    /// See [`Quota::ImagesPerDay`].
    pub images_per_day: Option<u64>,
    /// See [`Quota::DeviceSecondsPerDay`].
    pub device_seconds_per_day: Option<f64>,
    /// See [`Quota::StoredBytes`].
    pub stored_bytes: Option<u64>,
    /// See [`Quota::RequestsPerSecond`].
    pub requests_per_second: Option<f64>,
    /// See [`Quota::Burst`].
    pub burst: Option<u32>,
    /// See [`Quota::Workers`].
    pub workers: Option<u32>,
    /// See [`Quota::Weight`].
    pub weight: Option<f64>,
}

/// A change of a tenant's quotas.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuotaChange {
    /// New values; what is absent stays.
    pub set: Quotas,
    /// Quotas that end.
    pub clear: BTreeSet<Quota>,
}

impl QuotaChange {
    /// Checks the new values. `field` is where they are in the request.
    ///
    /// # Errors
    /// One sentence that names the field, its value and what is accepted.
    pub fn check(&self, field: &str) -> Result<(), UserError> {
        let Quotas {
            images_waiting,
            images_per_day,
            device_seconds_per_day,
            stored_bytes,
            requests_per_second,
            burst,
            workers,
            weight,
        } = &self.set;
        let set = [
            (Quota::ImagesWaiting, images_waiting.is_some()),
            (Quota::ImagesPerDay, images_per_day.is_some()),
            (Quota::DeviceSecondsPerDay, device_seconds_per_day.is_some()),
            (Quota::StoredBytes, stored_bytes.is_some()),
            (Quota::RequestsPerSecond, requests_per_second.is_some()),
            (Quota::Burst, burst.is_some()),
            (Quota::Workers, workers.is_some()),
            (Quota::Weight, weight.is_some()),
        ];
        if let Some((both, _)) = set.iter().find(|(quota, set)| *set && self.clear.contains(quota))
        {
            let name = both.name();
            let message = format!(
                "{field}.{name} is set, and clear has {name}; accepted: one of the two, or neither"
            );
            return Err(UserError::invalid(format!("{field}.{name}"), message));
        }
        let refuse = |quota: Quota, value: String, accepted: String| {
            let name = quota.name();
            let message = format!("{field}.{name} is {value}; accepted: {accepted}");
            Err(UserError::invalid(format!("{field}.{name}"), message))
        };
        for (quota, value) in [
            (Quota::ImagesWaiting, images_waiting),
            (Quota::ImagesPerDay, images_per_day),
            (Quota::StoredBytes, stored_bytes),
        ] {
            if let Some(value) = value.filter(|value| *value > MOST) {
                return refuse(quota, value.to_string(), format!("0 to {MOST}"));
            }
        }
        for (quota, value, least, most) in [
            (Quota::DeviceSecondsPerDay, device_seconds_per_day, 0.0, MOST_SECONDS),
            (Quota::RequestsPerSecond, requests_per_second, FEWEST_CALLS, MOST_CALLS),
            (Quota::Weight, weight, LEAST_WEIGHT, MOST_WEIGHT),
        ] {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                return refuse(quota, value.to_string(), format!("{least:.4} to {most}"));
            }
        }
        if let Some(value) = workers.filter(|value| *value > MOST_WORKERS) {
            return refuse(Quota::Workers, value.to_string(), format!("0 to {MOST_WORKERS}"));
        }
        if let Some(value) = burst.filter(|value| !(1..=MOST_WORKERS).contains(value)) {
            return refuse(Quota::Burst, value.to_string(), format!("1 to {MOST_WORKERS}"));
        }
        Ok(())
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// The quotas after this change.
    #[must_use]
    pub fn applied(&self, to: &Quotas) -> Quotas {
        let Self { set, clear } = self;
        fn of<T>(stays: bool, new: Option<T>, old: Option<T>) -> Option<T> {
            new.or(old).filter(|_| stays)
        }
        let stays = |quota| !clear.contains(&quota);
        Quotas {
            images_waiting: of(stays(Quota::ImagesWaiting), set.images_waiting, to.images_waiting),
            images_per_day: of(stays(Quota::ImagesPerDay), set.images_per_day, to.images_per_day),
            device_seconds_per_day: of(
                stays(Quota::DeviceSecondsPerDay),
                set.device_seconds_per_day,
                to.device_seconds_per_day,
            ),
            stored_bytes: of(stays(Quota::StoredBytes), set.stored_bytes, to.stored_bytes),
            requests_per_second: of(
                stays(Quota::RequestsPerSecond),
                set.requests_per_second,
                to.requests_per_second,
            ),
            burst: of(stays(Quota::Burst), set.burst, to.burst),
            workers: of(stays(Quota::Workers), set.workers, to.workers),
            weight: of(stays(Quota::Weight), set.weight, to.weight),
        }
    }
}

/// A bucket of tokens: a call takes one, and they come back at a rate. Times are seconds by any
/// clock that does not go back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    tokens: f64,
    at: f64,
}

impl Bucket {
    /// A full one.
    #[must_use]
    pub fn full(burst: f64, now: f64) -> Self {
        Self { tokens: burst.max(1.0), at: now }
    }

    /// Takes a token. If there is none, says after how many seconds there is one; the bucket then
    /// stays as it is, so calls that are refused delay no others.
    ///
    /// # Errors
    /// The seconds to wait.
    pub fn take(&mut self, rate: f64, burst: f64, now: f64) -> Result<(), f64> {
        // Rate and burst may have changed since.
        self.tokens = (self.tokens + (now - self.at).max(0.0) * rate).min(burst.max(1.0));
        self.at = self.at.max(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            Ok(())
        } else {
            Err((1.0 - self.tokens) / rate)
        }
    }

    /// Whether it is full again, so that it need not be kept.
    #[must_use]
    pub fn is_full(&self, rate: f64, burst: f64, now: f64) -> bool {
        self.tokens + (now - self.at).max(0.0) * rate >= burst.max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_change_sets_what_it_names_clears_what_it_says_and_keeps_the_rest() {
        let old = Quotas {
            images_waiting: Some(5),
            workers: Some(2),
            weight: Some(3.0),
            ..Quotas::default()
        };
        let set = Quotas { images_waiting: Some(0), stored_bytes: Some(9), ..Quotas::default() };
        let change = QuotaChange { set, clear: [Quota::Workers].into() };
        change.check("quotas").expect("accepted");
        let new = change.applied(&old);
        assert_eq!(
            new,
            Quotas {
                images_waiting: Some(0),
                stored_bytes: Some(9),
                weight: Some(3.0),
                ..Quotas::default()
            }
        );
        assert!(QuotaChange::default().is_nothing() && !change.is_nothing());
        assert_eq!(QuotaChange::default().applied(&new), new);
        let all = QuotaChange { clear: Quota::ALL.into(), ..QuotaChange::default() };
        assert_eq!(all.applied(&new), Quotas::default());
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        let set = |set: Quotas| QuotaChange { set, ..QuotaChange::default() };
        let none = Quotas::default;
        for (change, field) in [
            (set(Quotas { images_waiting: Some(u64::MAX), ..none() }), "quotas.images_waiting"),
            (set(Quotas { stored_bytes: Some(MOST + 1), ..none() }), "quotas.stored_bytes"),
            (
                set(Quotas { device_seconds_per_day: Some(-1.0), ..none() }),
                "quotas.device_seconds_per_day",
            ),
            (
                set(Quotas { requests_per_second: Some(0.0), ..none() }),
                "quotas.requests_per_second",
            ),
            (
                set(Quotas { requests_per_second: Some(f64::NAN), ..none() }),
                "quotas.requests_per_second",
            ),
            (set(Quotas { burst: Some(0), ..none() }), "quotas.burst"),
            (set(Quotas { workers: Some(u32::MAX), ..none() }), "quotas.workers"),
            (set(Quotas { weight: Some(f64::INFINITY), ..none() }), "quotas.weight"),
            (
                QuotaChange {
                    set: Quotas { weight: Some(2.0), ..none() },
                    clear: [Quota::Weight].into(),
                },
                "quotas.weight",
            ),
        ] {
            let error = change.check("quotas").expect_err(field);
            assert_eq!(error.field.as_deref(), Some(field), "{error}");
            assert!(error.message.contains("accepted: "), "{error}");
        }
        let nothing_at_all = set(Quotas {
            images_waiting: Some(0),
            images_per_day: Some(0),
            device_seconds_per_day: Some(0.0),
            stored_bytes: Some(0),
            workers: Some(0),
            ..none()
        });
        nothing_at_all.check("quotas").expect("a tenant may be stopped");
        let error = "images".parse::<Quota>().expect_err("none");
        assert!(error.message.contains("images_waiting, images_per_day"), "{error}");
        for quota in Quota::ALL {
            assert_eq!(quota.name().parse(), Ok(quota));
        }
        assert_eq!(Quota::ImagesPerDay.reason(), "QUOTA_IMAGES_PER_DAY");
    }

    #[test]
    fn a_burst_passes_at_once_and_then_only_the_rate() {
        let mut bucket = Bucket::full(3.0, 0.0);
        for _ in 0..3 {
            bucket.take(2.0, 3.0, 0.0).expect("the burst");
        }
        assert_eq!(bucket.take(2.0, 3.0, 0.0), Err(0.5));
        assert_eq!(bucket.take(2.0, 3.0, 0.25), Err(0.25), "a refusal takes nothing");
        bucket.take(2.0, 3.0, 0.5).expect("one came back");
        assert!(!bucket.is_full(2.0, 3.0, 1.9) && bucket.is_full(2.0, 3.0, 2.0));
        bucket.take(2.0, 1.0, 99.0).expect("there is one");
        assert_eq!(bucket.take(2.0, 1.0, 99.0), Err(0.5), "the burst is smaller now");
        assert_eq!(bucket.take(2.0, 1.0, 98.0), Err(0.5), "a clock that goes back adds nothing");
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_the_rate_passes(
            rate in 0.1_f64..50.0, burst in 1_u32..20,
            steps in prop::collection::vec(0.0_f64..0.3, 1..200),
        ) {
            let burst = f64::from(burst);
            let mut bucket = Bucket::full(burst, 0.0);
            let (mut now, mut passed) = (0.0, 0.0);
            for step in steps {
                now += step;
                if bucket.take(rate, burst, now).is_ok() {
                    passed += 1.0;
                }
                prop_assert!(passed <= burst + rate * now + 1e-6, "{passed} after {now} s");
            }
        }
    }
}
