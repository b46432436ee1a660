//! How fast a job runs, what is left of it, and when it will end, computed from measurements. Pure:
//! the caller passes the time and the measurements.
//!
//! The model: a stage's time per image is its network passes per image (steps, doubled where it is
//! guided) times the recent seconds per pass on the workers that serve the stage. A text counts as
//! one pass. Costs that do not grow with the steps (loading, the text's keys and values) are part
//! of the measured seconds. So the forecast is too low for far fewer steps than were measured, and
//! too high for far more. Failures and retries are not included.

use serde::{Deserialize, Serialize};

/// Seconds after which a job's pace is measured again. A rate stays in use for one to two of these
/// periods.
pub const PACE_SECONDS: f64 = 30.0;
/// Shortest time over which a rate is meaningful.
const SHORTEST_SECONDS: f64 = 0.5;

/// Images per second, from how many had passed a stage `seconds` ago and how many have now; 0 if
/// unknown.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub fn rate(before: u64, now: u64, seconds: f64) -> f64 {
    if seconds < SHORTEST_SECONDS { 0.0 } else { now.saturating_sub(before) as f64 / seconds }
}

/// Worker seconds per image when these workers take work at their own speeds: the harmonic mean. A
/// worker without a measurement counts like the average of the others; `None` if there is no
/// measurement.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub fn shared_seconds(each: &[f64]) -> Option<f64> {
    let known: Vec<f64> = each.iter().copied().filter(|seconds| *seconds > 0.0).collect();
    let speed: f64 = known.iter().map(|seconds| seconds.recip()).sum();
    (speed > 0.0).then(|| known.len() as f64 / speed)
}

/// What remains to be done in one stage.
#[derive(Clone, Debug, PartialEq)]
pub struct StageWork {
    /// The stage's name.
    pub stage: String,
    /// Images (for `encode`: texts) that have yet to pass it.
    pub remaining: u64,
    /// Model seconds per image; `None` if unknown.
    pub seconds_per_image: Option<f64>,
    /// Workers that serve it.
    pub workers: u64,
}

/// What is left of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Every stage, in order.
    pub stages: Vec<StageForecast>,
    /// Model seconds on all devices together; `None` if a stage with work left has no measurement.
    pub device_seconds: Option<f64>,
    /// Seconds to the end; also `None` if a stage with work left has no worker.
    pub seconds: Option<f64>,
}

/// What is left of a job in one stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageForecast {
    /// The stage's name.
    pub stage: String,
    /// Images (for `encode`: texts) that have yet to pass it.
    pub images: u64,
    /// Model seconds per image.
    pub seconds_per_image: Option<f64>,
    /// Model seconds of all these images.
    pub device_seconds: Option<f64>,
    /// Seconds for which they keep the stage's workers busy.
    pub seconds: Option<f64>,
}

impl Forecast {
    /// The time that `stages` take. There are `workers` distinct workers in all; this job gets
    /// `share` (0 to 1) of them.
    #[must_use]
    pub fn new(stages: &[StageWork], workers: u64, share: f64) -> Self {
        let each: Vec<StageForecast> =
            stages.iter().map(|work| StageForecast::new(work, share)).collect();
        let device_seconds = each.iter().map(|stage| stage.device_seconds).sum();
        Self { stages: each, device_seconds, seconds: eta_seconds(stages, workers, share) }
    }

    /// Compares the forecast with what was spent since it was made. `seconds` is the real time to
    /// the end, if the job ended with its last image. Only images that passed a stage are compared,
    /// so a job that ended early is compared by what it did. Stages without a forecast or without
    /// spent time are left out.
    #[must_use]
    pub fn check(&self, spent: &[StageSpent], seconds: Option<f64>) -> ForecastCheck {
        let stages: Vec<StageCheck> =
            spent.iter().filter_map(|spent| self.check_stage(spent)).collect();
        ForecastCheck {
            forecast_device_seconds: stages.iter().map(|stage| stage.forecast_device_seconds).sum(),
            device_seconds: stages.iter().map(|stage| stage.device_seconds).sum(),
            seconds: self.seconds.zip(seconds),
            stages,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn check_stage(&self, spent: &StageSpent) -> Option<StageCheck> {
        let stage = self.stages.iter().find(|stage| stage.stage == spent.stage)?;
        // Images that passed before the forecast was made are assumed to cost as much as the rest.
        let images = spent.images.min(stage.images);
        let forecast = stage.seconds_per_image.filter(|_| images > 0)?;
        Some(StageCheck {
            stage: spent.stage.clone(),
            images,
            forecast_device_seconds: forecast * images as f64,
            device_seconds: spent.device_seconds * images as f64 / spent.images as f64,
        })
    }
}

impl StageForecast {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn new(work: &StageWork, share: f64) -> Self {
        let device_seconds = match work.seconds_per_image {
            _ if work.remaining == 0 => Some(0.0),
            seconds => seconds.map(|seconds| seconds * work.remaining as f64),
        };
        let workers = work.workers as f64 * share.clamp(1e-6, 1.0);
        let busy =
            device_seconds.map(|seconds| if seconds > 0.0 { seconds / workers } else { 0.0 });
        Self {
            stage: work.stage.clone(),
            images: work.remaining,
            seconds_per_image: work.seconds_per_image,
            device_seconds,
            seconds: busy.filter(|seconds| seconds.is_finite()),
        }
    }
}

/// What the images of a job took in one stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageSpent {
    /// The stage's name.
    pub stage: String,
    /// Images that passed it.
    pub images: u64,
    /// Model seconds they took.
    pub device_seconds: f64,
}

/// A forecast and the real values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ForecastCheck {
    /// The stages for which both are known.
    pub stages: Vec<StageCheck>,
    /// Their forecast model seconds.
    pub forecast_device_seconds: f64,
    /// Their real model seconds.
    pub device_seconds: f64,
    /// Forecast and real seconds to the end.
    pub seconds: Option<(f64, f64)>,
}

/// A stage's forecast and its real values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StageCheck {
    /// The stage's name.
    pub stage: String,
    /// Images that were both forecast and passed.
    pub images: u64,
    /// Their forecast model seconds.
    pub forecast_device_seconds: f64,
    /// Their real model seconds.
    pub device_seconds: f64,
}

/// Seconds until all stages are finished. There are `workers` distinct workers in all; this job
/// gets `share` (0 to 1) of them. The result is at least what the busiest stage needs on its
/// workers, and at least what all work needs on all workers. `None` if a stage with work left has
/// no worker or no measurement.
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

    fn work(
        stage: &str,
        remaining: u64,
        seconds_per_image: Option<f64>,
        workers: u64,
    ) -> StageWork {
        StageWork { stage: stage.to_owned(), remaining, seconds_per_image, workers }
    }

    fn spent(stage: &str, images: u64, device_seconds: f64) -> StageSpent {
        StageSpent { stage: stage.to_owned(), images, device_seconds }
    }

    #[test]
    fn a_rate_is_of_what_passed_and_never_negative() {
        assert!((rate(10, 40, 60.0) - 0.5).abs() < f64::EPSILON);
        assert!(rate(40, 10, 60.0).abs() < f64::EPSILON, "a retry took some back");
        assert!(rate(0, 10, 0.1).abs() < f64::EPSILON, "too short to say");
    }

    #[test]
    fn a_fast_worker_does_more_of_what_is_shared() {
        // In 3 s the first worker does three images and the second does one: 6 worker seconds for 4
        // images.
        assert_eq!(shared_seconds(&[1.0, 3.0]), Some(1.5));
        assert_eq!(shared_seconds(&[2.0, 0.0]), Some(2.0), "a missing measurement changes nothing");
        assert_eq!(shared_seconds(&[0.0]), None);
        assert_eq!(shared_seconds(&[]), None);
    }

    #[test]
    fn one_worker_does_the_stages_one_after_another() {
        let stages = [work("a", 10, Some(1.0), 1), work("b", 20, Some(2.0), 1)];
        assert_eq!(eta_seconds(&stages, 1, 1.0), Some(50.0));
        assert_eq!(eta_seconds(&stages, 2, 1.0), Some(40.0), "the busiest stage bounds it");
        assert_eq!(eta_seconds(&stages, 1, 0.5), Some(100.0));
    }

    #[test]
    fn without_workers_or_measurements_nothing_is_promised() {
        assert_eq!(eta_seconds(&[work("a", 1, None, 1)], 1, 1.0), None);
        assert_eq!(eta_seconds(&[work("a", 1, Some(1.0), 0)], 1, 1.0), None);
        assert_eq!(eta_seconds(&[], 0, 1.0), Some(0.0));
        let unserved = Forecast::new(&[work("a", 4, Some(1.5), 0)], 0, 1.0);
        assert_eq!(
            (unserved.device_seconds, unserved.seconds),
            (Some(6.0), None),
            "the cost is still known"
        );
        assert_eq!(unserved.stages[0].seconds, None);
        let unmeasured =
            Forecast::new(&[work("a", 4, None, 1), work("b", 4, Some(1.0), 1)], 2, 1.0);
        assert_eq!((unmeasured.device_seconds, unmeasured.seconds), (None, None));
        assert_eq!(unmeasured.stages[1].device_seconds, Some(4.0));
        let passed = Forecast::new(&[work("a", 0, None, 0), work("b", 4, Some(1.0), 1)], 1, 1.0);
        assert_eq!(
            (passed.device_seconds, passed.seconds),
            (Some(4.0), Some(4.0)),
            "nothing is left of the first"
        );
    }

    #[test]
    fn a_forecast_shrinks_with_what_is_left_and_stages_tell_their_part() {
        let of = |first, second| {
            Forecast::new(
                &[work("a", first, Some(1.0), 1), work("b", second, Some(2.0), 2)],
                3,
                0.5,
            )
        };
        let before = of(10, 10);
        assert_eq!((before.device_seconds, before.seconds), (Some(30.0), Some(20.0)));
        assert_eq!((before.stages[0].seconds, before.stages[1].seconds), (Some(20.0), Some(20.0)));
        let later = of(2, 9);
        assert!(later.device_seconds < before.device_seconds && later.seconds < before.seconds);
    }

    #[test]
    fn a_forecast_is_checked_against_what_was_spent() {
        let stages = [
            work("encode", 3, Some(0.1), 1),
            work("a", 10, Some(1.0), 1),
            work("b", 10, Some(2.0), 1),
        ];
        let forecast = Forecast::new(&stages, 1, 1.0);
        let whole = forecast.check(&[spent("a", 10, 12.0), spent("b", 10, 21.0)], Some(36.0));
        assert_eq!((whole.forecast_device_seconds, whole.device_seconds), (30.0, 33.0));
        assert_eq!(whole.seconds, Some((30.3, 36.0)));
        assert_eq!(whole.stages.len(), 2, "nothing is known of the texts");
        // The forecast was late, or the job ended early: only images both forecast and done are
        // compared.
        let late = forecast.check(&[spent("a", 20, 24.0)], None);
        assert_eq!((late.forecast_device_seconds, late.device_seconds), (10.0, 12.0));
        let early = forecast.check(&[spent("a", 5, 5.5), spent("b", 0, 0.0)], None);
        assert_eq!((early.forecast_device_seconds, early.device_seconds), (5.0, 5.5));
        assert_eq!((early.stages.len(), early.seconds), (1, None));
    }

    #[test]
    fn a_forecast_is_read_back_as_it_was_kept() {
        let forecast = Forecast::new(&[work("a", 3, Some(0.7), 2), work("b", 3, None, 0)], 2, 1.0);
        let text = serde_json::to_string(&forecast).unwrap();
        assert_eq!(serde_json::from_str::<Forecast>(&text).unwrap(), forecast);
    }
}
