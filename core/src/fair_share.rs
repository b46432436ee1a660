//! Which tasks are dispatched next: priority first, then weighted fair share over tenants, then
//! over a tenant's jobs, in runs of one compatibility key.
//!
//! This is start-time fair queueing at both levels. Each tenant and job has a virtual time that
//! advances by what it was given, divided by its weight. The one with the lowest virtual time is
//! served next. A newcomer starts at the virtual time of those that wait beside it, so absence
//! earns no credit. [`FairShare::plan`] depends only on its state and the problem. If the state is
//! lost (a restart), everybody starts equal again.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::JobId;

/// A job with tasks ready for a pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The job.
    pub job: JobId,
    /// The tenant whose share it uses.
    pub tenant: String,
    /// Higher goes first, whatever the shares.
    pub priority: u8,
    /// Tasks with equal keys may share a batch.
    pub compatibility: String,
    /// Tasks that may be dispatched.
    pub ready: u64,
    /// Its tasks that are with the queue or a worker.
    pub in_flight: u64,
    /// Most batches of it in flight; `None` is no limit.
    pub max_workers: Option<u32>,
}

impl Candidate {
    /// Tasks that may be dispatched now, when a worker's batch holds `batch` tasks.
    #[must_use]
    pub fn allowed(&self, batch: u64) -> u64 {
        let Some(workers) = self.max_workers else { return self.ready };
        self.ready
            .min(u64::from(workers).saturating_mul(batch.max(1)).saturating_sub(self.in_flight))
    }
}

/// The tasks to choose from, and the room for them.
#[derive(Clone, Debug)]
pub struct Problem<'a> {
    /// How many more tasks the pool's queue has room for.
    pub room: u64,
    /// Length of a run of one compatibility key: the batch cap.
    pub run: u64,
    /// Jobs with something ready, oldest first.
    pub candidates: &'a [Candidate],
    /// Weights by tenant; 1 where absent.
    pub weights: &'a BTreeMap<String, f64>,
    /// How many more tasks a tenant may be given; no limit where absent.
    pub rooms: &'a BTreeMap<String, u64>,
}

/// A number of tasks of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The job.
    pub job: JobId,
    /// How many, at least 1.
    pub count: u64,
}

/// What everyone was given so far, as virtual times. Bounded: tenants and jobs with nothing ready
/// are forgotten.
#[derive(Clone, Debug, Default)]
pub struct FairShare {
    tenants: BTreeMap<String, f64>,
    jobs: BTreeMap<JobId, f64>,
    tenant_clock: f64,
    job_clocks: BTreeMap<String, f64>,
}

impl FairShare {
    /// Divides the room. The picks are in order of dispatch. Their counts sum to at most `room`, no
    /// job gets more than it has ready or may have in flight, and no tenant more than its room.
    pub fn plan(&mut self, problem: &Problem<'_>) -> Vec<Pick> {
        self.admit(problem.candidates);
        let mut rooms = problem.rooms.clone();
        let allowed = |candidate: &Candidate| {
            let room = problem.rooms.get(&candidate.tenant);
            candidate.allowed(problem.run).min(room.copied().unwrap_or(u64::MAX))
        };
        let mut ready: Vec<u64> = problem.candidates.iter().map(allowed).collect();
        let mut room = problem.room;
        let mut picks: Vec<Pick> = Vec::new();
        while room > 0 {
            let Some(first) = self.next(problem.candidates, &ready, None) else { break };
            let key = &problem.candidates[first].compatibility;
            let priority = problem.candidates[first].priority;
            let mut run = problem.run.max(1).min(room);
            let mut chosen = Some(first);
            while let Some(position) = chosen.filter(|_| run > 0) {
                let count = run.min(ready[position]);
                ready[position] -= count;
                run -= count;
                room -= count;
                let tenant = &problem.candidates[position].tenant;
                if let Some(left) = rooms.get_mut(tenant) {
                    *left -= count;
                    // What the tenant may still be given is shared by its jobs.
                    for (ready, other) in ready.iter_mut().zip(problem.candidates) {
                        if &other.tenant == tenant {
                            *ready = (*ready).min(*left);
                        }
                    }
                }
                self.charge(&problem.candidates[position], count, problem.weights);
                match picks.last_mut().filter(|last| last.job == problem.candidates[position].job) {
                    Some(last) => last.count += count,
                    None => picks.push(Pick { job: problem.candidates[position].job, count }),
                }
                chosen = self.next(problem.candidates, &ready, Some((priority, key)));
            }
        }
        picks
    }

    fn admit(&mut self, candidates: &[Candidate]) {
        let tenants: BTreeSet<&str> =
            candidates.iter().map(|candidate| candidate.tenant.as_str()).collect();
        let jobs: BTreeSet<JobId> = candidates.iter().map(|candidate| candidate.job).collect();
        self.tenants.retain(|tenant, _| tenants.contains(tenant.as_str()));
        self.jobs.retain(|job, _| jobs.contains(job));
        self.job_clocks.retain(|tenant, _| tenants.contains(tenant.as_str()));
        for candidate in candidates {
            self.tenants.entry(candidate.tenant.clone()).or_insert(self.tenant_clock);
            let clock = self.job_clocks.get(&candidate.tenant).copied().unwrap_or(0.0);
            self.jobs.entry(candidate.job).or_insert(clock);
        }
    }

    fn next(
        &self,
        candidates: &[Candidate],
        ready: &[u64],
        within: Option<(u8, &String)>,
    ) -> Option<usize> {
        let fits = |candidate: &Candidate| {
            within.is_none_or(|(priority, key)| {
                candidate.priority == priority && &candidate.compatibility == key
            })
        };
        (0..candidates.len())
            .filter(|&position| ready[position] > 0 && fits(&candidates[position]))
            .min_by(|&a, &b| {
                let (a, b) = (&candidates[a], &candidates[b]);
                let tenant = |candidate: &Candidate| self.tenants.get(&candidate.tenant).copied();
                let job = |candidate: &Candidate| self.jobs.get(&candidate.job).copied();
                b.priority
                    .cmp(&a.priority)
                    .then_with(|| tenant(a).unwrap_or(0.0).total_cmp(&tenant(b).unwrap_or(0.0)))
                    .then_with(|| a.tenant.cmp(&b.tenant))
                    .then_with(|| job(a).unwrap_or(0.0).total_cmp(&job(b).unwrap_or(0.0)))
                    .then_with(|| a.job.cmp(&b.job))
            })
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn charge(&mut self, candidate: &Candidate, count: u64, weights: &BTreeMap<String, f64>) {
        let weight =
            weights.get(&candidate.tenant).copied().filter(|weight| *weight > 0.0).unwrap_or(1.0);
        if let Some(time) = self.tenants.get_mut(&candidate.tenant) {
            self.tenant_clock = self.tenant_clock.max(*time);
            *time += count as f64 / weight;
        }
        if let Some(time) = self.jobs.get_mut(&candidate.job) {
            let clock = self.job_clocks.entry(candidate.tenant.clone()).or_insert(0.0);
            *clock = clock.max(*time);
            *time += count as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    /// No tenant has a limit.
    static NO_ROOMS: BTreeMap<String, u64> = BTreeMap::new();

    fn candidate(job: u128, tenant: &str, ready: u64) -> Candidate {
        Candidate {
            job: JobId(Uuid::from_u128(job)),
            tenant: tenant.to_owned(),
            priority: 0,
            compatibility: "k".to_owned(),
            ready,
            in_flight: 0,
            max_workers: None,
        }
    }

    /// Runs `rounds` of `room` tasks and returns how many each tenant got.
    fn serve(candidates: &mut [Candidate], room: u64, rounds: usize) -> BTreeMap<String, u64> {
        let (mut share, weights) = (FairShare::default(), BTreeMap::new());
        let mut got = BTreeMap::new();
        for _ in 0..rounds {
            let waiting: Vec<_> =
                candidates.iter().filter(|candidate| candidate.ready > 0).cloned().collect();
            let problem =
                Problem { room, run: 2, candidates: &waiting, weights: &weights, rooms: &NO_ROOMS };
            for pick in share.plan(&problem) {
                let candidate =
                    candidates.iter_mut().find(|c| c.job == pick.job).expect("a candidate");
                candidate.ready -= pick.count;
                *got.entry(candidate.tenant.clone()).or_insert(0) += pick.count;
            }
        }
        got
    }

    #[test]
    fn a_flood_split_over_many_jobs_takes_no_more_than_one_tenants_share() {
        let mut candidates: Vec<_> = (0..500).map(|job| candidate(job, "flood", 100)).collect();
        candidates.push(candidate(1000, "quiet", 1000));
        let got = serve(&mut candidates, 4, 50);
        assert_eq!((got["flood"], got["quiet"]), (100, 100));
    }

    #[test]
    fn three_tenants_share_a_line_of_two_without_starving_one() {
        let mut candidates: Vec<_> = ["a", "b", "c"]
            .iter()
            .zip(0..)
            .map(|(tenant, job)| candidate(job, tenant, 1000))
            .collect();
        let got = serve(&mut candidates, 1, 30);
        assert_eq!(got.values().copied().collect::<Vec<_>>(), [10, 10, 10]);
    }

    #[test]
    fn a_newcomer_earns_nothing_for_having_been_away() {
        let (mut share, weights) = (FairShare::default(), BTreeMap::new());
        let old = candidate(1, "old", 1000);
        share.plan(&Problem {
            room: 100,
            run: 1,
            candidates: std::slice::from_ref(&old),
            weights: &weights,
            rooms: &NO_ROOMS,
        });
        let both = [old, candidate(2, "new", 1000)];
        let picks = share.plan(&Problem {
            room: 20,
            run: 1,
            candidates: &both,
            weights: &weights,
            rooms: &NO_ROOMS,
        });
        let new: u64 =
            picks.iter().filter(|pick| pick.job == both[1].job).map(|pick| pick.count).sum();
        assert!((9..=11).contains(&new), "{new} of 20");
    }

    #[test]
    fn priority_goes_first_and_weights_count() {
        let mut urgent = candidate(3, "c", 2);
        urgent.priority = 1;
        let candidates = [candidate(1, "a", 100), candidate(2, "b", 100), urgent];
        let weights = BTreeMap::from([("b".to_owned(), 3.0)]);
        let picks = FairShare::default().plan(&Problem {
            room: 42,
            run: 1,
            candidates: &candidates,
            weights: &weights,
            rooms: &NO_ROOMS,
        });
        assert_eq!(picks[0], Pick { job: candidates[2].job, count: 2 });
        let of =
            |job: JobId| -> u64 { picks.iter().filter(|p| p.job == job).map(|p| p.count).sum() };
        assert_eq!((of(candidates[0].job), of(candidates[1].job)), (10, 30));
    }

    #[test]
    fn a_job_with_a_limit_on_workers_leaves_the_rest_to_others() {
        let limited = Candidate { max_workers: Some(2), in_flight: 5, ..candidate(1, "a", 100) };
        let candidates = [limited, candidate(2, "b", 100)];
        let weights = BTreeMap::new();
        let problem = Problem {
            room: 40,
            run: 4,
            candidates: &candidates,
            weights: &weights,
            rooms: &NO_ROOMS,
        };
        let picks = FairShare::default().plan(&problem);
        let of =
            |job: JobId| -> u64 { picks.iter().filter(|p| p.job == job).map(|p| p.count).sum() };
        assert_eq!(
            (of(candidates[0].job), of(candidates[1].job)),
            (3, 37),
            "two batches of four, less five"
        );
        let full = Candidate { in_flight: 8, ..candidates[0].clone() };
        assert_eq!((full.allowed(4), full.allowed(5)), (0, 2));
        assert_eq!(
            Candidate { in_flight: 9, ..full }.allowed(4),
            0,
            "a limit that shrank takes nothing back"
        );
    }

    #[test]
    fn a_tenant_with_little_room_leaves_the_rest_to_others_whatever_its_jobs() {
        let mut urgent = candidate(3, "a", 100);
        urgent.priority = 9;
        let candidates = [candidate(1, "a", 100), candidate(2, "b", 100), urgent];
        let weights = BTreeMap::from([("a".to_owned(), 50.0)]);
        for (left, expected) in [(7, (7, 33)), (0, (0, 40)), (500, (40, 0))] {
            let rooms = BTreeMap::from([("a".to_owned(), left)]);
            let problem = Problem {
                room: 40,
                run: 4,
                candidates: &candidates,
                weights: &weights,
                rooms: &rooms,
            };
            let picks = FairShare::default().plan(&problem);
            let of = |tenant: &str| -> u64 {
                let is_of = |job| candidates.iter().any(|c| c.job == job && c.tenant == tenant);
                picks.iter().filter(|pick| is_of(pick.job)).map(|pick| pick.count).sum()
            };
            assert_eq!((of("a"), of("b")), expected, "{left}");
        }
    }

    #[test]
    fn a_run_is_filled_with_compatible_tasks_of_others() {
        let mut other = candidate(2, "b", 10);
        other.compatibility = "x".to_owned();
        let candidates = [candidate(1, "a", 1), other, candidate(3, "c", 10)];
        let weights = BTreeMap::new();
        let picks = FairShare::default().plan(&Problem {
            room: 4,
            run: 4,
            candidates: &candidates,
            weights: &weights,
            rooms: &NO_ROOMS,
        });
        assert_eq!(
            picks,
            [Pick { job: candidates[0].job, count: 1 }, Pick { job: candidates[2].job, count: 3 }]
        );
    }

    proptest! {
        #[test]
        fn no_more_than_there_is_and_nothing_idle(
            jobs in prop::collection::vec((0_u8..4, 0_u64..20, 0_u8..2, 0_u8..3), 0..12),
            room in 0_u64..60, run in 0_u64..9,
        ) {
            let candidates: Vec<_> = jobs.iter().zip(0..).map(|((tenant, ready, priority, key), job)| Candidate {
                priority: *priority,
                compatibility: format!("k{key}"),
                ..candidate(job, &format!("t{tenant}"), *ready)
            }).collect();
            let weights = BTreeMap::new();
            let picks = FairShare::default().plan(&Problem { room, run, candidates: &candidates, weights: &weights, rooms: &NO_ROOMS });
            let total: u64 = candidates.iter().map(|candidate| candidate.ready).sum();
            prop_assert_eq!(picks.iter().map(|pick| pick.count).sum::<u64>(), room.min(total));
            for candidate in &candidates {
                let given: u64 =
                    picks.iter().filter(|pick| pick.job == candidate.job).map(|pick| pick.count).sum();
                prop_assert!(given <= candidate.ready);
            }
        }
    }
}
