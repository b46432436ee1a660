//! What tenants may use and what they use of it, and the refusals when it is used up.

use std::time::Duration;

use darkroom_core::{
    error::{Code, UserError},
    quota::{Quota, Quotas},
};

use super::{Error, columns::number, limits::time_text, row::row, spent};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;
/// How long a client should wait when images of its tenant wait, whose end nobody knows.
const WAITING_AGAIN: Duration = Duration::from_secs(30);
/// How long a client should wait when too much is stored. Someone must remove something first.
const STORED_AGAIN: Duration = Duration::from_secs(3600);

/// What a tenant uses at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Images of its jobs that are not done, dead or cancelled yet.
    pub images_waiting: u64,
    /// Images that it has submitted today (UTC).
    pub images_today: u64,
    /// Model seconds of its jobs today (UTC), of results that are committed.
    pub device_seconds_today: f64,
    /// Bytes of its outputs, uploads and files.
    pub stored_bytes: u64,
    /// The record's clock, milliseconds since 1970.
    pub now_ms: i64,
}

impl Usage {
    /// When the day (UTC) ends, milliseconds since 1970.
    #[must_use]
    pub fn day_ends_ms(&self) -> i64 {
        day_ends_ms(self.now_ms)
    }
}

/// When the day (UTC) of a time ends. Both are milliseconds since 1970.
pub(crate) fn day_ends_ms(now_ms: i64) -> i64 {
    (now_ms.div_euclid(DAY_MS) + 1) * DAY_MS
}

/// A tenant that has a quota or a weight.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitedTenant {
    /// Its name.
    pub name: String,
    /// Its quotas.
    pub quotas: Quotas,
    /// What it has used today, if it has a quota of it; else 0.
    pub device_seconds_today: f64,
}

impl LimitedTenant {
    /// Whether its device time of today is used up.
    #[must_use]
    pub fn is_out_of_time(&self) -> bool {
        self.quotas.device_seconds_per_day.is_some_and(|most| self.device_seconds_today >= most)
    }
}

/// What a transaction adds to a tenant's usage.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Adds {
    /// Images that wait.
    pub(super) waiting: u64,
    /// Images of a new job.
    pub(super) submitted: u64,
}

/// Refuses what brings a tenant above a quota. `usage` is without what is added.
pub(crate) fn check_images(
    tenant: &str,
    quotas: &Quotas,
    usage: &Usage,
    (waiting, submitted): (u64, u64),
) -> Result<(), UserError> {
    if let Some(most) = quotas.images_waiting.filter(|most| usage.images_waiting + waiting > *most)
        && waiting > 0
    {
        let again = (waiting <= most).then_some(WAITING_AGAIN);
        let frees = match again {
            Some(again) => format!(
                "it frees up as images are done or cancelled, so try again in {} s",
                again.as_secs()
            ),
            None => "that alone is more than the quota, so do it in parts".to_owned(),
        };
        let message = format!(
            "quota images_waiting of tenant {tenant:?} is {most}, {} images wait, and this adds \
             {waiting}; {frees}",
            usage.images_waiting
        );
        return Err(refusal(Quota::ImagesWaiting, message, again));
    }
    if let Some(most) = quotas.images_per_day.filter(|most| usage.images_today + submitted > *most)
        && submitted > 0
    {
        let again = (submitted <= most).then(|| until(usage.now_ms, usage.day_ends_ms()));
        let frees = match again {
            Some(_) => format!("it frees up at {}", time_text(usage.day_ends_ms())),
            None => "that alone is more than the quota, so submit it in parts".to_owned(),
        };
        let message = format!(
            "quota images_per_day of tenant {tenant:?} is {most}, {} images were submitted today \
             (UTC), and this adds {submitted}; {frees}",
            usage.images_today
        );
        return Err(refusal(Quota::ImagesPerDay, message, again));
    }
    Ok(())
}

/// Refuses a submit, or an upload of this many bytes, of a tenant that has no room for it. A submit
/// adds nothing at once, so it is refused when nothing is free.
pub(crate) fn check_stored(
    tenant: &str,
    quotas: &Quotas,
    stored: u64,
    upload: Option<u64>,
) -> Result<(), UserError> {
    let Some(most) = quotas.stored_bytes else { return Ok(()) };
    let fits = match upload {
        Some(bytes) => bytes == 0 || stored.saturating_add(bytes) <= most,
        None => stored < most,
    };
    if fits {
        return Ok(());
    }
    let adds = upload.map_or_else(String::new, |bytes| format!(", and this adds {bytes}"));
    let message = format!(
        "quota stored_bytes of tenant {tenant:?} is {most} bytes, {stored} bytes are stored{adds}; \
         it frees up when pictures are removed, so remove some, or try again in an hour"
    );
    Err(refusal(Quota::StoredBytes, message, Some(STORED_AGAIN)))
}

/// Why no image of a tenant is dispatched, if its device time of today is used up.
pub(crate) fn out_of_time(tenant: &LimitedTenant, now_ms: i64) -> Option<String> {
    let most = tenant.quotas.device_seconds_per_day.filter(|_| tenant.is_out_of_time())?;
    Some(format!(
        "quota device_seconds_per_day of tenant {:?}: {:.1} of {most} device-seconds of today \
         (UTC) are used; it goes on at {}",
        tenant.name,
        tenant.device_seconds_today,
        time_text(day_ends_ms(now_ms))
    ))
}

/// The refusal of a call when too many have come.
pub(crate) fn too_many_requests(tenant: &str, quotas: &Quotas, wait: Duration) -> UserError {
    let rate = quotas.requests_per_second.unwrap_or_default();
    let burst = quotas.burst.map_or_else(String::new, |burst| format!(" with a burst of {burst}"));
    let message = format!(
        "quota requests_per_second of tenant {tenant:?} is {rate} a second{burst}, and more calls \
         have come; try again in {:.2} s",
        wait.as_secs_f64()
    );
    refusal(Quota::RequestsPerSecond, message, Some(wait))
}

/// What a tenant's quotas mean for a job that is not submitted yet: of this many images and, if it
/// is known, device seconds.
pub(crate) fn warnings(
    tenant: &str,
    quotas: &Quotas,
    usage: &Usage,
    (images, device_seconds): (u64, Option<f64>),
) -> Vec<String> {
    let mut notes = Vec::new();
    let refused = [
        check_stored(tenant, quotas, usage.stored_bytes, None),
        check_images(
            tenant,
            &Quotas { images_per_day: None, ..quotas.clone() },
            usage,
            (images, 0),
        ),
        check_images(
            tenant,
            &Quotas { images_waiting: None, ..quotas.clone() },
            usage,
            (0, images),
        ),
    ];
    for error in refused.into_iter().filter_map(Result::err) {
        notes.push(format!("the job would be refused now: {error}"));
    }
    if let Some(most) = quotas.device_seconds_per_day {
        let (used, ends) = (usage.device_seconds_today, time_text(usage.day_ends_ms()));
        let left = (most - used).max(0.0);
        let quota = format!(
            "quota device_seconds_per_day of tenant {tenant:?} is {most}, and {used:.1} are used \
             today (UTC)"
        );
        match device_seconds {
            _ if left <= 0.0 => {
                notes.push(format!("the job would wait until {ends}: {quota}"));
            }
            Some(seconds) if seconds > left => notes.push(format!(
                "the job needs {seconds:.1} device-seconds, which is more than is left today, so a \
                 part of it would wait until {ends} or later: {quota}"
            )),
            _ => {}
        }
    }
    notes
}

/// What a tenant's quotas mean that are below what it uses already.
pub(crate) fn notes(quotas: &Quotas, usage: &Usage) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(most) = quotas.images_waiting.filter(|most| usage.images_waiting > *most) {
        notes.push(format!(
            "images_waiting is {most}, and {} images wait: they run on, and new submits and retries \
             are refused until fewer wait",
            usage.images_waiting
        ));
    }
    if let Some(most) = quotas.images_per_day.filter(|most| usage.images_today > *most) {
        notes.push(format!(
            "images_per_day is {most}, and {} images were submitted today: they run on, and new \
             submits are refused until {}",
            usage.images_today,
            time_text(usage.day_ends_ms())
        ));
    }
    if let Some(most) =
        quotas.device_seconds_per_day.filter(|most| usage.device_seconds_today > *most)
    {
        notes.push(format!(
            "device_seconds_per_day is {most}, and {:.1} are used today: what is with workers runs \
             on, and the rest waits until {}",
            usage.device_seconds_today,
            time_text(usage.day_ends_ms())
        ));
    }
    if let Some(most) = quotas.stored_bytes.filter(|most| usage.stored_bytes > *most) {
        notes.push(format!(
            "stored_bytes is {most}, and {} bytes are stored: jobs run on and store more, and new \
             submits and uploads are refused until pictures are removed",
            usage.stored_bytes
        ));
    }
    notes
}

fn until(now_ms: i64, then_ms: i64) -> Duration {
    // A second more, so that a client that waits for exactly this long is not too early.
    Duration::from_millis(u64::try_from(then_ms - now_ms).unwrap_or(0)) + Duration::from_secs(1)
}

fn refusal(quota: Quota, message: String, again: Option<Duration>) -> UserError {
    let refused = UserError::new(Code::ResourceExhausted, &quota.reason(), message);
    UserError { retry_after: again, ..refused }
}

row! {
    /// Columns of [`Quotas`].
    #[derive(Clone)]
    pub(super) struct QuotaColumns {
        pub(super) images_waiting: Option<i64>,
        pub(super) images_per_day: Option<i64>,
        pub(super) device_seconds_per_day: Option<f64>,
        pub(super) stored_bytes: Option<i64>,
        pub(super) requests_per_second: Option<f64>,
        pub(super) burst: Option<i64>,
        pub(super) workers: Option<i64>,
        pub(super) weight: Option<f64>,
    }
}

impl QuotaColumns {
    pub(super) fn quotas(self) -> Result<Quotas, Error> {
        Ok(Quotas {
            images_waiting: self.images_waiting.map(number).transpose()?,
            images_per_day: self.images_per_day.map(number).transpose()?,
            device_seconds_per_day: self.device_seconds_per_day,
            stored_bytes: self.stored_bytes.map(number).transpose()?,
            requests_per_second: self.requests_per_second,
            burst: self.burst.map(number).transpose()?,
            workers: self.workers.map(number).transpose()?,
            weight: self.weight,
        })
    }
}

row! {
    /// Columns of [`Usage`].
    pub(super) struct UsageColumns {
        pub(super) waiting: i64,
        pub(super) submitted: i64,
        pub(super) device_us: i64,
        pub(super) bytes: i64,
        pub(super) now_ms: i64,
    }
}

impl UsageColumns {
    pub(super) fn usage(self) -> Result<Usage, Error> {
        Ok(Usage {
            images_waiting: number(self.waiting)?,
            images_today: number(self.submitted)?,
            device_seconds_today: spent::seconds(self.device_us),
            stored_bytes: number(self.bytes)?,
            now_ms: self.now_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2025-11-29T01:00:30Z.
    const NOW: i64 = 1_764_378_030_000;

    fn usage() -> Usage {
        Usage {
            images_waiting: 8,
            images_today: 90,
            device_seconds_today: 12.5,
            stored_bytes: 1000,
            now_ms: NOW,
        }
    }

    #[test]
    fn a_refusal_names_the_quota_the_usage_and_when_it_frees_up() {
        let none = Quotas::default;
        let of = |quotas: Quotas, adds| check_images("t", &quotas, &usage(), adds);
        of(none(), (1 << 40, 1 << 40)).expect("no quota");
        let waiting = Quotas { images_waiting: Some(10), ..none() };
        of(waiting.clone(), (2, 2)).expect("it fits exactly");
        of(Quotas { images_waiting: Some(5), ..none() }, (0, 0)).expect("it adds nothing");
        let refused = of(waiting.clone(), (3, 3)).expect_err("one too many");
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::ResourceExhausted, "QUOTA_IMAGES_WAITING")
        );
        assert_eq!(
            refused.message,
            "quota images_waiting of tenant \"t\" is 10, 8 images wait, and this adds 3; it frees up as \
             images are done or cancelled, so try again in 30 s"
        );
        assert_eq!(refused.retry_after, Some(WAITING_AGAIN));
        let never = of(waiting, (11, 11)).expect_err("it can never fit");
        assert_eq!(never.retry_after, None, "waiting does not help");
        assert!(never.message.ends_with("that alone is more than the quota, so do it in parts"));
        let today = of(Quotas { images_per_day: Some(100), ..none() }, (11, 11)).expect_err("11");
        assert_eq!(today.reason, "QUOTA_IMAGES_PER_DAY");
        assert_eq!(
            today.message,
            "quota images_per_day of tenant \"t\" is 100, 90 images were submitted today (UTC), and \
             this adds 11; it frees up at 2025-11-30T00:00:00Z"
        );
        assert_eq!(today.retry_after, Some(Duration::from_secs(22 * 3600 + 59 * 60 + 31)));
        let full = Quotas { stored_bytes: Some(1000), ..none() };
        let refused = check_stored("t", &full, 1000, None).expect_err("full");
        assert_eq!(
            (refused.reason.as_str(), refused.retry_after),
            ("QUOTA_STORED_BYTES", Some(STORED_AGAIN))
        );
        check_stored("t", &full, 999, None).expect("a byte is free");
        check_stored("t", &full, 999, Some(1)).expect("it fits");
        check_stored("t", &full, 999, Some(2)).expect_err("it does not");
        check_stored("t", &full, 1001, Some(0)).expect("it is there already");
    }

    #[test]
    fn a_quota_below_the_usage_says_what_it_means() {
        let below = Quotas {
            images_waiting: Some(7),
            images_per_day: Some(89),
            device_seconds_per_day: Some(12.0),
            stored_bytes: Some(999),
            ..Quotas::default()
        };
        let told = notes(&below, &usage());
        assert_eq!(told.len(), 4, "{told:#?}");
        assert!(told.iter().all(|note| note.contains("run on") || note.contains("runs on")));
        let above = Quotas {
            images_waiting: Some(8),
            images_per_day: Some(90),
            device_seconds_per_day: Some(12.5),
            stored_bytes: Some(1000),
            ..Quotas::default()
        };
        assert_eq!(notes(&above, &usage()), Vec::<String>::new());
    }

    #[test]
    fn a_tenant_is_out_of_time_until_midnight() {
        let quotas = Quotas { device_seconds_per_day: Some(12.0), ..Quotas::default() };
        let tenant = |used| LimitedTenant {
            name: "t".to_owned(),
            quotas: quotas.clone(),
            device_seconds_today: used,
        };
        assert_eq!(out_of_time(&tenant(11.9), NOW), None);
        assert_eq!(
            out_of_time(&tenant(12.04), NOW).expect("used up"),
            "quota device_seconds_per_day of tenant \"t\": 12.0 of 12 device-seconds of today (UTC) are \
             used; it goes on at 2025-11-30T00:00:00Z"
        );
    }
}
