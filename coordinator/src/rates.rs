//! What was measured lately: images per second of each job's stages, and model seconds per image of each pool.
//! Memory only; after a restart it fills again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use darkroom_core::{
    forecast::{Meter, WINDOW_SECONDS},
    id::{JobId, StageName},
};
use darkroom_queue::task::PoolId;

/// Weight of the newest measurement in the mean.
const NEWEST: f64 = 0.1;
/// Jobs remembered; the one silent longest is forgotten first.
const MOST_JOBS: usize = 1000;

/// The measurements.
#[derive(Debug)]
pub(crate) struct Rates {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    jobs: HashMap<JobId, JobMeters>,
    pools: BTreeMap<PoolId, f64>,
}

#[derive(Debug, Default)]
struct JobMeters {
    last: f64,
    stages: BTreeMap<StageName, Meter>,
}

impl Default for Rates {
    fn default() -> Self {
        Self { start: Instant::now(), state: Mutex::default() }
    }
}

impl Rates {
    /// One image of a job passed a stage, in so many model seconds.
    pub(crate) fn record(&self, job: Option<JobId>, pool: &PoolId, seconds: f64) {
        let now = self.now();
        let mut state = self.state();
        if seconds.is_finite() && seconds > 0.0 {
            let mean = state.pools.entry(pool.clone()).or_insert(seconds);
            *mean += NEWEST * (seconds - *mean);
        }
        let Some(job) = job else { return };
        if !state.jobs.contains_key(&job) && state.jobs.len() >= MOST_JOBS {
            let silent = state.jobs.iter().min_by(|a, b| a.1.last.total_cmp(&b.1.last)).map(|(job, _)| *job);
            silent.and_then(|job| state.jobs.remove(&job));
        }
        let meters = state.jobs.entry(job).or_default();
        meters.last = now;
        meters.stages.entry(pool.stage.clone()).or_default().record(now, 1);
    }

    /// Images per second of a job in a stage; 0 when unknown.
    pub(crate) fn per_second(&self, job: JobId, stage: &StageName) -> f64 {
        let now = self.now();
        let state = self.state();
        let meters = state.jobs.get(&job).filter(|meters| now - meters.last <= WINDOW_SECONDS);
        meters.and_then(|meters| meters.stages.get(stage)).map_or(0.0, |meter| meter.rate(now))
    }

    /// Mean model seconds per image in a pool.
    pub(crate) fn seconds_per_image(&self, pool: &PoolId) -> Option<f64> {
        self.state().pools.get(pool).copied()
    }

    fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Measurements: a half-made change does no harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
