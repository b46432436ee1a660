//! When a task that keeps failing is given up (DESIGN invariant 9).
//!
//! A host here is a host's device, `gpu-7/cuda:1`: two devices of one machine are two. Only what happened while the task ran alone counts: a failure in a shared batch, or a worker's death, makes the
//! task suspect, and suspects run alone.

use crate::guard::{Guard, stands};

/// Distinct hosts on which a failure ends an image, where that many serve the stage.
pub const DISTINCT_HOSTS: usize = 3;
/// Failures that end an image where fewer hosts serve the stage.
pub const FAILURES_ON_FEW_HOSTS: u32 = 5;
/// Failures that end an image whatever the hosts: retries are bounded.
pub const MOST_FAILURES: u32 = 10;

/// How often one task is spared a death that was its host's; from then on such a death counts as a worker's.
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

/// The failures of a task so far, the present one not included.
#[derive(Clone, Copy, Debug)]
pub struct History<'a> {
    /// Failures that counted.
    pub failures: u32,
    /// Hosts they happened on, each once.
    pub hosts: &'a [String],
}

/// A failure or a worker's death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure<'a> {
    /// Where.
    pub host: &'a str,
    /// Whether the task ran alone in its batch.
    pub alone: bool,
    /// Distinct hosts that serve the stage now.
    pub live_hosts: usize,
    /// A worker's death where the farm sets a limit: with so many failures, deaths among them, it ends the task. None: a
    /// failure, or a death that is judged like one.
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
        return if failures >= limit.min(LARGEST_DEATH_LIMIT) { Verdict::Dead } else { Verdict::Again };
    }
    let known = history.hosts.iter().any(|host| host == failure.host);
    let hosts = history.hosts.len() + usize::from(!known);
    let few = failure.live_hosts < DISTINCT_HOSTS;
    let dead = hosts >= DISTINCT_HOSTS || (few && failures >= FAILURES_ON_FEW_HOSTS);
    if dead || failures >= MOST_FAILURES { Verdict::Dead } else { Verdict::Again }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(failures: &[(&str, bool)], live_hosts: usize) -> (u32, Verdict) {
        let (mut count, mut hosts, mut verdict) = (0, Vec::new(), Verdict::Suspect);
        for (host, alone) in failures {
            verdict = judge(
                History { failures: count, hosts: &hosts },
                Failure { host, alone: *alone, live_hosts, death_limit: None },
            );
            if verdict != Verdict::Suspect {
                count += 1;
                if !hosts.iter().any(|known: &String| known == host) {
                    hosts.push((*host).to_owned());
                }
            }
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
        assert_eq!(run(&[("a", true), ("a", true), ("b", true), ("c", true)], 4), (4, Verdict::Dead));
    }

    #[test]
    fn a_failure_in_company_counts_against_nobody() {
        assert_eq!(run(&[("a", false); 9], 1), (0, Verdict::Suspect));
    }

    #[test]
    fn a_farms_own_limit_of_deaths_holds_whatever_the_hosts() {
        let judged = |failures, alone, limit| {
            let hosts = ["a".to_owned(), "b".to_owned()];
            let failure = Failure { host: "c", alone, live_hosts: 9, death_limit: Some(limit) };
            judge(History { failures, hosts: &hosts }, failure)
        };
        assert_eq!(judged(0, true, 1), Verdict::Dead);
        assert_eq!(judged(0, false, 1), Verdict::Suspect, "only what ran alone counts");
        assert_eq!((judged(18, true, 20), judged(19, true, 20)), (Verdict::Again, Verdict::Dead));
        assert_eq!(judged(99, true, u32::MAX), Verdict::Dead, "retries are bounded");
    }

    proptest! {
        #[test]
        fn every_image_ends(hosts in prop::collection::vec(0_u8..3, 10), live in 0_usize..6) {
            let names: Vec<_> = hosts.iter().map(|host| format!("h{host}")).collect();
            let failures: Vec<_> = names.iter().map(|name| (name.as_str(), true)).collect();
            prop_assert_eq!(run(&failures, live).1, Verdict::Dead);
        }
    }
}
