//! When a task that keeps failing is given up (DESIGN invariant 9).
//!
//! A place is a device of a host, `gpu-7/cuda:1`: two devices of one host are two places. Only
//! failures while the task ran alone count. A failure in a shared batch, or a worker's death, makes
//! the task suspect, and suspects run alone.

use crate::guard::{Guard, stands};

/// Distinct places at which a failure ends an image, if that many serve the stage.
pub const DISTINCT_PLACES: usize = 3;
/// Failures that end an image if fewer places serve the stage.
pub const FAILURES_IN_FEW_PLACES: u32 = 5;
/// Failures that end an image wherever they happened, so that retries are bounded.
pub const MOST_FAILURES: u32 = 10;

/// How many deaths of its host do not count against a task. After that such a death counts like a
/// worker's.
pub const MOST_SPARED: u32 = 10;
/// Largest limit of deaths that a farm may set.
pub const LARGEST_DEATH_LIMIT: u32 = 100;

/// What a failed dispatch means for its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does not count; run it again, alone.
    Suspect,
    /// It counts; run it again, alone.
    Again,
    /// It counts and was the last one.
    Dead,
}

/// The failures of a task so far, without the present one.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// Failures that counted.
    pub failures: u32,
    /// Places at which they happened, each once.
    pub places: &'a [String],
}

/// A failure or a worker's death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure<'a> {
    /// Where it happened.
    pub place: &'a str,
    /// Whether the task ran alone in its batch.
    pub alone: bool,
    /// Distinct places that serve the stage now.
    pub live_places: usize,
    /// For a worker's death in a farm that limits deaths: this many failures, with a death among
    /// them, end the task. `None`: a failure, or a death that is judged like one.
    pub death_limit: Option<u32>,
}

/// Judges one failure.
#[must_use]
pub fn judge(history: History<'_>, failure: Failure<'_>) -> Verdict {
    if !failure.alone && stands(Guard::AloneCounts) {
        return Verdict::Suspect;
    }
    let failures = history.failures.saturating_add(1);
    if let Some(limit) = failure.death_limit {
        return if failures >= limit.min(LARGEST_DEATH_LIMIT) {
            Verdict::Dead
        } else {
            Verdict::Again
        };
    }
    let known = history.places.iter().any(|place| place == failure.place);
    let places = history.places.len() + usize::from(!known);
    let few = failure.live_places < DISTINCT_PLACES;
    let dead = places >= DISTINCT_PLACES || (few && failures >= FAILURES_IN_FEW_PLACES);
    if dead || failures >= MOST_FAILURES { Verdict::Dead } else { Verdict::Again }
}

/// Judges one failure and, if it counts, adds it to the failures so far.
pub fn charge(failures: &mut u32, places: &mut Vec<String>, failure: Failure<'_>) -> Verdict {
    let verdict = judge(History { failures: *failures, places }, failure);
    if verdict != Verdict::Suspect {
        *failures += 1;
        if !places.iter().any(|known| known == failure.place) {
            places.push(failure.place.to_owned());
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(failures: &[(&str, bool)], live_places: usize) -> (u32, Verdict) {
        let (mut count, mut places, mut verdict) = (0, Vec::new(), Verdict::Suspect);
        for (place, alone) in failures {
            let failure = Failure { place, alone: *alone, live_places, death_limit: None };
            verdict = charge(&mut count, &mut places, failure);
        }
        (count, verdict)
    }

    #[test]
    fn one_worker_gets_five_tries_and_no_more() {
        assert_eq!(run(&[("a", true); 4], 1), (4, Verdict::Again));
        assert_eq!(run(&[("a", true); 5], 1), (5, Verdict::Dead));
    }

    #[test]
    fn three_hosts_end_it_at_the_third() {
        assert_eq!(run(&[("a", true), ("a", true), ("b", true)], 4), (3, Verdict::Again));
        assert_eq!(
            run(&[("a", true), ("a", true), ("b", true), ("c", true)], 4),
            (4, Verdict::Dead)
        );
    }

    #[test]
    fn a_failure_in_company_counts_against_nobody() {
        assert_eq!(run(&[("a", false); 9], 1), (0, Verdict::Suspect));
    }

    #[test]
    fn a_farms_own_limit_of_deaths_holds_whatever_the_places() {
        let judged = |failures, alone, limit| {
            let places = ["a".to_owned(), "b".to_owned()];
            let failure = Failure { place: "c", alone, live_places: 9, death_limit: Some(limit) };
            judge(History { failures, places: &places }, failure)
        };
        assert_eq!(judged(0, true, 1), Verdict::Dead);
        assert_eq!(judged(0, false, 1), Verdict::Suspect, "only what ran alone counts");
        assert_eq!((judged(18, true, 20), judged(19, true, 20)), (Verdict::Again, Verdict::Dead));
        assert_eq!(judged(99, true, u32::MAX), Verdict::Dead, "retries are bounded");
    }

    proptest! {
        #[test]
        fn every_image_ends(places in prop::collection::vec(0_u8..3, 10), live in 0_usize..6) {
            let names: Vec<_> = places.iter().map(|place| format!("h{place}")).collect();
            let failures: Vec<_> = names.iter().map(|name| (name.as_str(), true)).collect();
            prop_assert_eq!(run(&failures, live).1, Verdict::Dead);
        }
    }
}
