//! Sums over the results that a commit applied: tasks done and failed, batches, model time.
//!
//! Only results that changed their image or text count. The state machines apply a result only
//! once, so nothing is counted twice.

use std::collections::BTreeMap;

use darkroom_core::id::ImageId;
use darkroom_queue::task::{Outcome, Subject, TaskResult};

use super::{cause::Cause, records::Fate};

/// Longest accepted model time of one result, in seconds: a year.
const MOST_SECONDS: f64 = 365.0 * 86_400.0;

/// Sums over results.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Spent {
    pub(super) done: i64,
    pub(super) failed: i64,
    /// Each result counts as a fraction of its batch.
    pub(super) batches: f64,
    /// Microseconds of model time, as whole numbers, so that the order of a sum does not matter.
    pub(super) device_us: i64,
}

impl Spent {
    fn add(&mut self, result: &TaskResult) {
        match result.outcome {
            Outcome::Done { .. } => self.done += 1,
            Outcome::Failed { .. } => self.failed += 1,
            Outcome::InputMissing { .. } | Outcome::Interrupted { .. } => {}
        }
        if result.batch > 0 {
            self.batches += f64::from(result.batch).recip();
        }
        if result.seconds.is_finite() {
            let seconds = result.seconds.clamp(0.0, MOST_SECONDS);
            #[expect(clippy::cast_possible_truncation, reason = "at most 2^45")]
            let device_us = (seconds * 1e6).round() as i64;
            self.device_us += device_us;
        }
    }

    /// The sums of all applied results; `None` if there are none.
    pub(super) fn of_all(causes: &[Cause<'_>], fates: &[Fate]) -> Option<Self> {
        let mut spent = None;
        for (_, result) in applied(causes, fates) {
            spent.get_or_insert_with(Self::default).add(result);
        }
        spent
    }

    /// The same per job, by the job's `seq`.
    pub(super) fn by_job(
        causes: &[Cause<'_>],
        fates: &[Fate],
        seq: impl Fn(&ImageId) -> Option<i64>,
    ) -> BTreeMap<i64, Self> {
        let mut jobs: BTreeMap<i64, Self> = BTreeMap::new();
        for (cause, result) in applied(causes, fates) {
            let Subject::Image(image) = cause.key.subject else { continue };
            if let Some(job) = seq(&image) {
                jobs.entry(job).or_default().add(result);
            }
        }
        jobs
    }
}

fn applied<'a>(
    causes: &'a [Cause<'a>],
    fates: &'a [Fate],
) -> impl Iterator<Item = (&'a Cause<'a>, &'a TaskResult)> {
    causes
        .iter()
        .zip(fates)
        .filter(|(_, fate)| **fate == Fate::Applied)
        .filter_map(|(cause, _)| Some((cause, cause.result()?)))
}

/// A column's microseconds in seconds.
pub(super) fn seconds(device_us: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "below 2^53 for 285 years")]
    let seconds = device_us as f64 / 1e6;
    seconds
}

#[cfg(test)]
mod tests {
    use darkroom_core::{
        digest::Digest,
        id::{JobId, WorkerId},
    };
    use darkroom_queue::task::TaskKey;
    use uuid::Uuid;

    use super::*;
    use crate::store::records::{Discard, Report};

    fn report(index: u64, seconds: f64, batch: u32, outcome: Outcome) -> Report {
        let image = ImageId { job: JobId(Uuid::nil()), index };
        let result = TaskResult {
            key: TaskKey { subject: Subject::Image(image), generation: 1, dispatch: 1 },
            worker: WorkerId("w".to_owned()),
            place: "h".to_owned(),
            device_class: "c".to_owned(),
            alone: false,
            seconds,
            batch,
            outcome,
            warrant: None,
            signature: None,
        };
        Report { result, live_places: 1 }
    }

    fn done() -> Outcome {
        let artifact = darkroom_core::artifact::ArtifactRef {
            key: "k".to_owned(),
            sha256: Digest::of(b"k"),
            size: 1,
        };
        Outcome::Done { artifact, notes: Vec::new() }
    }

    #[test]
    fn only_what_was_applied_counts_and_no_nonsense_of_a_worker() {
        let interrupted = || Outcome::Interrupted { reason: "r".to_owned() };
        let failed = Outcome::Failed { code: "c".into(), message: "m".to_owned() };
        let reports = [
            report(0, 0.5, 4, done()),
            report(1, 0.25, 4, failed),
            report(2, 9.0, 4, done()),
            report(3, f64::NAN, 0, interrupted()),
            report(4, -1.0, 2, interrupted()),
            report(5, f64::INFINITY, 0, done()),
        ];
        let leaving = std::collections::HashSet::new();
        let causes: Vec<_> =
            reports.iter().map(|report| Cause::believed(report, &leaving)).collect();
        let mut fates = vec![Fate::Applied; reports.len()];
        fates[2] = Fate::Discarded(Discard::OtherStage);
        let spent = Spent::of_all(&causes, &fates).expect("some were applied");
        assert_eq!(spent, Spent { done: 2, failed: 1, batches: 1.0, device_us: 750_000 });
        let of_even = |image: &ImageId| image.index.is_multiple_of(2).then_some(7);
        let by_job = Spent::by_job(&causes, &fates, of_even);
        assert_eq!(by_job.len(), 1);
        assert_eq!((by_job[&7].done, by_job[&7].device_us), (1, 500_000));
        let discarded = vec![Fate::Discarded(Discard::OtherStage); reports.len()];
        assert_eq!(Spent::of_all(&causes, &discarded), None);
    }
}
