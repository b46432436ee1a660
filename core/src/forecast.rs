//! How fast a job goes and when it will end, from what was measured. Pure: the caller passes the time.

use std::collections::VecDeque;

/// Seconds over which a rate is taken.
pub const WINDOW_SECONDS: f64 = 60.0;
const SLOTS: usize = 64;

/// Counts events in a sliding window of [`WINDOW_SECONDS`]; bounded memory.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    events: VecDeque<(f64, u64)>,
    since: Option<f64>,
}

impl Meter {
    /// Adds `count` events at `now`, seconds on any steady clock.
    pub fn record(&mut self, now: f64, count: u64) {
        self.since.get_or_insert(now);
        match self.events.back_mut() {
            Some((at, sum)) if now - *at < WINDOW_SECONDS / SLOTS as f64 => *sum += count,
            _ => self.events.push_back((now, count)),
        }
        while self.events.len() > SLOTS {
            self.events.pop_front();
        }
    }

    /// Events per second lately; 0 when nothing is known.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn rate(&self, now: f64) -> f64 {
        let Some(since) = self.since else { return 0.0 };
        let span = (now - since).min(WINDOW_SECONDS);
        if span < 0.5 {
            return 0.0;
        }
        let recent: u64 =
            self.events.iter().filter(|(at, _)| now - at <= WINDOW_SECONDS).map(|(_, count)| count).sum();
        recent as f64 / span
    }
}

/// What remains to be done in one stage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StageWork {
    /// Images that have yet to pass it.
    pub remaining: u64,
    /// Model seconds an image takes; `None` when unknown.
    pub seconds_per_image: Option<f64>,
    /// Workers that serve it.
    pub workers: u64,
}

/// Seconds until all stages are through, with `workers` distinct workers in all of which `share` (0 to 1) is this
/// job's: no less than the busiest stage needs on its workers, and no less than all work needs on all of them.
/// `None` while a stage with work left has no worker or no measurement.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub fn eta_seconds(stages: &[StageWork], workers: u64, share: f64) -> Option<f64> {
    let mut total = 0.0;
    let mut busiest: f64 = 0.0;
    for stage in stages.iter().filter(|stage| stage.remaining > 0) {
        if stage.workers == 0 {
            return None;
        }
        let work = stage.remaining as f64 * stage.seconds_per_image?;
        total += work;
        busiest = busiest.max(work / stage.workers as f64);
    }
    let seconds = busiest.max(total / workers.max(1) as f64) / share.clamp(1e-6, 1.0);
    seconds.is_finite().then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_found_and_forgotten() {
        let mut meter = Meter::default();
        for second in 0..200 {
            meter.record(f64::from(second), 3);
        }
        assert!((meter.rate(199.0) - 3.0).abs() < 0.2, "{}", meter.rate(199.0));
        assert!(meter.rate(1000.0).abs() < f64::EPSILON);
        assert!(meter.events.len() <= SLOTS);
    }

    #[test]
    fn one_worker_does_the_stages_one_after_another() {
        let stage =
            |remaining, seconds| StageWork { remaining, seconds_per_image: Some(seconds), workers: 1 };
        let stages = [stage(10, 1.0), stage(20, 2.0)];
        assert_eq!(eta_seconds(&stages, 1, 1.0), Some(50.0));
        assert_eq!(eta_seconds(&stages, 2, 1.0), Some(40.0), "the busiest stage bounds it");
        assert_eq!(eta_seconds(&stages, 1, 0.5), Some(100.0));
    }

    #[test]
    fn without_workers_or_measurements_nothing_is_promised() {
        let stage = StageWork { remaining: 1, seconds_per_image: None, workers: 1 };
        assert_eq!(eta_seconds(&[stage], 1, 1.0), None);
        let stage = StageWork { remaining: 1, seconds_per_image: Some(1.0), workers: 0 };
        assert_eq!(eta_seconds(&[stage], 1, 1.0), None);
        assert_eq!(eta_seconds(&[], 0, 1.0), Some(0.0));
    }
}
