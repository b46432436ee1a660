//! How fast a job goes and when it will end, from what was measured. Pure: the caller passes the time.

/// Seconds after which a job's pace is noted anew; a rate is taken over once to twice as long.
pub const PACE_SECONDS: f64 = 30.0;
/// Shortest time over which a rate means something.
const SHORTEST_SECONDS: f64 = 0.5;

/// Images per second from how many had passed a stage `seconds` ago to how many have now; 0 when unknown.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub fn rate(before: u64, now: u64, seconds: f64) -> f64 {
    if seconds < SHORTEST_SECONDS { 0.0 } else { now.saturating_sub(before) as f64 / seconds }
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
    fn a_rate_is_of_what_passed_and_never_negative() {
        assert!((rate(10, 40, 60.0) - 0.5).abs() < f64::EPSILON);
        assert!(rate(40, 10, 60.0).abs() < f64::EPSILON, "a retry took some back");
        assert!(rate(0, 10, 0.1).abs() < f64::EPSILON, "too short to say");
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
