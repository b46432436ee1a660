//! What a tenant may use, and what it uses.

use super::{Seconds, U64};

super::requests! {
    /// A tenant's quotas. An absent one is no limit.
    Quotas {
        images_waiting: Option<U64>,
        images_per_day: Option<U64>,
        device_seconds_per_day: Option<f64>,
        stored_bytes: Option<U64>,
        requests_per_second: Option<f64>,
        burst: Option<u32>,
        workers: Option<u32>,
        weight: Option<f64>,
    }
}

super::answers! {
    /// What a tenant uses at one moment.
    QuotaUsage {
        images_waiting: U64,
        images_today: U64,
        device_seconds_today: f64,
        stored_bytes: U64,
        day_ends: Option<Seconds>,
    }
}
