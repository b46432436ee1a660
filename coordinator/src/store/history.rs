//! Waiting work of the pools, their history, and the tenants' usage: questions and answers.

use std::time::Duration;

use darkroom_core::{digest::Digest, id::StageName, mix::Mix, settings::Settings};
use darkroom_queue::task::PoolId;

use super::row::row;

/// How long the rows of pools are kept, in seconds: seven days.
pub const HISTORY_KEPT: Duration = Duration::from_secs(7 * 86_400);
/// How long a tenant's days are kept: 400 days.
pub const USAGE_KEPT: Duration = Duration::from_secs(400 * 86_400);
/// Seconds of a row.
pub const MINUTE: i64 = 60;

/// Tasks in a pool of jobs with the same settings, or of one job whose prompts have their own
/// settings.
#[derive(Clone, Debug)]
pub struct Depth {
    /// The pool.
    pub pool: PoolId,
    /// The jobs' settings; `None` for texts.
    pub settings: Option<Settings>,
    /// The mix of images with their own settings; empty if there are none.
    pub mix: Mix,
    /// Number of the job's images, if there is a mix.
    pub images: u64,
    /// Tasks of active jobs that can be dispatched.
    pub ready: u64,
    /// Dispatched tasks.
    pub dispatched: u64,
    /// The age of the oldest wait, in milliseconds: for how long a job has had ready tasks without
    /// a break. `None` if nothing is ready, or if it is not known.
    pub oldest_ms: Option<u64>,
}

/// The work done in a pool over a period.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// The pool.
    pub pool: PoolId,
    /// Tasks done.
    pub done: u64,
    /// Failures that workers reported.
    pub failed: u64,
    /// Batches. If only part of a batch's results came, that fraction counts.
    pub batches: f64,
    /// Model seconds.
    pub device_seconds: f64,
}

/// Recent work.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecentWork {
    /// The period in seconds: from the beginning of the previous minute until now.
    pub seconds: f64,
    /// Pools with recent work.
    pub pools: Vec<Work>,
}

/// Sizes of a pool at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The pool.
    pub pool: PoolId,
    /// Tasks that can be dispatched.
    pub ready: u64,
    /// Dispatched tasks.
    pub dispatched: u64,
    /// Tasks that a worker holds.
    pub leased: u64,
    /// Workers that take tasks.
    pub workers: u64,
    /// As [`Depth::oldest_ms`].
    pub oldest_ms: Option<u64>,
}

/// Which part of the history to read.
#[derive(Clone, Debug)]
pub struct HistoryQuery {
    /// Beginning, a whole minute in seconds since 1970.
    pub from: i64,
    /// End, which is not included, a whole minute in seconds since 1970.
    pub to: i64,
    /// Seconds per point: whole minutes, counted from `from`.
    pub step: i64,
    /// Only this stage.
    pub stage: Option<StageName>,
    /// Only pools with this digest.
    pub digest: Option<Digest>,
    /// At most this many points.
    pub limit: u32,
}

/// One step of a pool's history. Counts are sums; sizes are means over the recorded minutes.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryRow {
    /// The work done.
    pub work: Work,
    /// Of stage `encode`: how often a submitted job needed a text that had been encoded before.
    pub reused: u64,
    /// First second of the step.
    pub at: i64,
    /// Minutes in which the leader recorded the sizes.
    pub minutes: u32,
    /// Tasks that could be dispatched.
    pub ready: Option<f64>,
    /// Dispatched tasks.
    pub dispatched: Option<f64>,
    /// Tasks that workers held.
    pub leased: Option<f64>,
    /// Workers that took tasks.
    pub workers: Option<f64>,
    /// The largest of [`Sizes::oldest_ms`].
    pub oldest_ms: Option<u64>,
}

/// Which days of tenants to list.
#[derive(Clone, Debug)]
pub struct UsageQuery {
    /// Only this tenant.
    pub tenant: Option<String>,
    /// First day, as 2026-01-31.
    pub from: String,
    /// Last day.
    pub to: String,
    /// Only after this day and tenant in the listing.
    pub after: Option<(String, String)>,
    /// At most this many days.
    pub limit: u32,
}

/// What a tenant's jobs used on a day (UTC), in rendering stages only.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageRow {
    /// The day, as 2026-01-31.
    pub day: String,
    /// The tenant.
    pub tenant: String,
    /// Stages of images that were done.
    pub done: u64,
    /// Failures that workers reported.
    pub failed: u64,
    /// Model seconds.
    pub device_seconds: f64,
}

row! {
    /// Columns of [`Work`] beside its pool.
    pub(super) struct WorkColumns {
        pub(super) done: i64,
        pub(super) failed: i64,
        pub(super) batches: f64,
        pub(super) device_us: i64,
    }
}

impl WorkColumns {
    pub(super) fn of(self, pool: PoolId) -> Result<Work, super::Error> {
        Ok(Work {
            pool,
            done: super::columns::number(self.done)?,
            failed: super::columns::number(self.failed)?,
            batches: self.batches,
            device_seconds: super::spent::seconds(self.device_us),
        })
    }
}

row! {
    /// Columns of a [`HistoryRow`] beside its pool.
    pub(super) struct HistoryColumns {
        at: i64,
        minutes: i64,
        reused: i64,
        ready: Option<f64>,
        dispatched: Option<f64>,
        leased: Option<f64>,
        workers: Option<f64>,
        oldest_ms: Option<i64>,
        ..work: WorkColumns,
    }
}

impl HistoryColumns {
    pub(super) fn of(self, pool: PoolId) -> Result<HistoryRow, super::Error> {
        Ok(HistoryRow {
            work: self.work.of(pool)?,
            reused: super::columns::number(self.reused)?,
            at: self.at,
            minutes: super::columns::number(self.minutes)?,
            ready: self.ready,
            dispatched: self.dispatched,
            leased: self.leased,
            workers: self.workers,
            oldest_ms: self.oldest_ms.map(super::columns::number).transpose()?,
        })
    }
}

row! {
    /// Columns of a [`UsageRow`].
    pub(super) struct UsageColumns {
        day: String,
        tenant: String,
        done: i64,
        failed: i64,
        device_us: i64,
    }
}

impl UsageColumns {
    pub(super) fn row(self) -> Result<UsageRow, super::Error> {
        Ok(UsageRow {
            day: self.day,
            tenant: self.tenant,
            done: super::columns::number(self.done)?,
            failed: super::columns::number(self.failed)?,
            device_seconds: super::spent::seconds(self.device_us),
        })
    }
}
