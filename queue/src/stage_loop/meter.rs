//! How busy the model's thread is, when it last finished a step, what it runs, and how long a row
//! takes.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::lock::locked;
use crate::task::PoolId;

/// Weight of the newest batch in the mean time per row.
const NEWEST: f64 = 0.3;

/// How much work the model has done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Busy {
    /// Seconds in which the model's thread ran batches.
    pub busy_seconds: f64,
    /// Seconds from the first batch's start to the last one's end.
    pub span_seconds: f64,
    /// Tasks completed.
    pub done: u64,
}

pub(super) struct Meter {
    started: Instant,
    done: AtomicU64,
    failed: AtomicU64,
    times: Mutex<Times>,
}

#[derive(Default)]
struct Times {
    busy: Duration,
    first: Option<Instant>,
    last: Option<Instant>,
    running: Option<Running>,
    /// When the running batch started or last finished a step, by tokio's clock.
    pulse: Option<tokio::time::Instant>,
    per_row: HashMap<PoolId, RowTime>,
}

/// The batch that the model runs.
struct Running {
    since: Instant,
    pool: PoolId,
    rows: usize,
}

/// Means of a pool's batches, of which newer ones count more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RowTime {
    pub(super) seconds: f64,
    /// Per network pass of a row.
    pub(super) seconds_per_pass: f64,
    /// Rows of a batch.
    pub(super) rows: f64,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            times: Mutex::default(),
        }
    }

    pub(super) fn batch_starts(&self, pool: &PoolId, rows: usize) {
        let now = Instant::now();
        let mut times = locked(&self.times);
        times.first.get_or_insert(now);
        times.running = Some(Running { since: now, pool: pool.clone(), rows });
        times.pulse = Some(tokio::time::Instant::now());
    }

    pub(super) fn step_done(&self) {
        locked(&self.times).pulse = Some(tokio::time::Instant::now());
    }

    pub(super) fn batch_ends(&self) {
        let now = Instant::now();
        let mut times = locked(&self.times);
        if let Some(running) = times.running.take() {
            times.busy += now - running.since;
        }
        times.last = Some(now);
        times.pulse = None;
    }

    /// Records a batch: the time and the network passes of each row, and how many it had.
    pub(super) fn rows_took(&self, pool: &PoolId, seconds: f64, passes: f64, rows: usize) {
        let newest = RowTime {
            seconds,
            seconds_per_pass: if passes > 0.0 { seconds / passes } else { 0.0 },
            rows: rows as f64,
        };
        let mut times = locked(&self.times);
        let mean = times.per_row.entry(pool.clone()).or_insert(newest);
        mean.seconds += NEWEST * (newest.seconds - mean.seconds);
        mean.seconds_per_pass += NEWEST * (newest.seconds_per_pass - mean.seconds_per_pass);
        mean.rows += NEWEST * (newest.rows - mean.rows);
    }

    /// The pool of the batch that the model runs, and its rows.
    pub(super) fn running(&self) -> Option<(PoolId, usize)> {
        locked(&self.times).running.as_ref().map(|running| (running.pool.clone(), running.rows))
    }

    /// Time since the running batch's last step; none if nothing runs.
    pub(super) fn since_pulse(&self) -> Option<Duration> {
        locked(&self.times).pulse.map(|pulse| pulse.elapsed())
    }

    pub(super) fn count_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Tasks that failed.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn row_times(&self) -> HashMap<PoolId, RowTime> {
        locked(&self.times).per_row.clone()
    }

    pub(super) fn busy(&self) -> Busy {
        let times = locked(&self.times);
        let now = Instant::now();
        let running = times.running.as_ref().map_or(Duration::ZERO, |running| now - running.since);
        let end = if times.running.is_some() { Some(now) } else { times.last };
        let span = times.first.zip(end).map_or(Duration::ZERO, |(first, end)| end - first);
        Busy {
            busy_seconds: (times.busy + running).as_secs_f64(),
            span_seconds: span.as_secs_f64(),
            done: self.done.load(Ordering::Relaxed),
        }
    }

    /// Share of the time since start-up in which batches ran.
    pub(super) fn share(&self) -> f64 {
        let since = self.started.elapsed().as_secs_f64();
        if since > 0.0 { (self.busy().busy_seconds / since).min(1.0) } else { 0.0 }
    }
}
