//! Random walks, after each step of which counters equal rows, and from which every job can still end.

use std::time::{Duration, Instant};

use darkroom_core::id::JobId;
use darkroom_queue::task::{Outcome, TaskKey};

use super::bench::{Bench, STAGES, done, failed};
use crate::store::{
    Error,
    limits::{Limits, NewDeadline},
    records::{Death, Release},
};

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// One thing that may happen to one of the jobs; returns which.
async fn step(
    bench: &Bench,
    jobs: &[JobId],
    dice: &mut Dice,
    held: &mut Vec<(&'static str, TaskKey)>,
) -> JobId {
    let job = jobs[dice.roll(3) as usize];
    let stage = ["encode", "base", "sr256"][dice.roll(3) as usize];
    match dice.roll(12) {
        0..=3 => {
            let count = 1 + dice.roll(3);
            held.extend(bench.dispatch(stage, job, count).await.iter().map(|task| (stage, task.key)));
        }
        4..=7 if !held.is_empty() => {
            let position = dice.roll(held.len() as u64) as usize;
            // Some results come twice.
            let (stage, key) = if dice.roll(4) == 0 { held[position] } else { held.swap_remove(position) };
            let outcome = match dice.roll(10) {
                0..=4 => done(stage),
                5 | 6 => failed(),
                7 => Outcome::Interrupted { reason: "r".to_owned() },
                8 => Outcome::InputMissing { key: "tasks/text".to_owned() },
                _ => Outcome::InputMissing { key: "tasks/base".to_owned() },
            };
            let report = Bench::report(key, outcome, dice.roll(2) == 0);
            let onward = bench.leave(dice.roll(3));
            let done =
                bench.store.commit_onward(&bench.pool(stage), &[report], &onward).await.expect("commits");
            let stage = |stage: &str| STAGES.into_iter().find(|name| *name == stage).expect("a stage");
            held.extend(done.1.iter().map(|(pool, task)| (stage(pool.stage.as_str()), task.key)));
        }
        8 if !held.is_empty() => {
            let (stage, key) = held.swap_remove(dice.roll(held.len() as u64) as usize);
            let why = if dice.roll(2) == 0 {
                Release::Returned
            } else {
                Release::WorkerDied(Death { host: "h".to_owned(), live_hosts: 1, limit: None })
            };
            bench.store.release(bench.term, &bench.pool(stage), &[key], &why).await.expect("releases");
        }
        9 => {
            let wish = match dice.roll(8) {
                0 => bench.store.cancel(job).await,
                1 | 2 => bench.store.pause(job).await,
                3..=5 => bench.store.resume(job).await,
                _ => bench.store.retry(job, NewDeadline::Same).await,
            };
            assert!(wish.is_ok() || matches!(wish, Err(Error::Refused(_))));
        }
        10 if dice.roll(2) == 0 => {
            drop(bench.store.end_overdue(bench.term, 9).await.expect("ends what must end"));
        }
        10 => drop(bench.store.spread(1 + dice.roll(5)).await.expect("spreads")),
        _ => drop(bench.store.follow(1 + dice.roll(5)).await.expect("follows")),
    }
    job
}

async fn all_goes_well(bench: &Bench, jobs: &[JobId]) {
    for job in jobs {
        drop(bench.store.resume(*job).await);
    }
    let give_up = Instant::now() + Duration::from_secs(20);
    while !all_have_ended(bench, jobs).await && Instant::now() < give_up {
        bench.settle().await;
        for stage in ["encode", "base", "sr256"] {
            for key in bench.store.dispatched(&bench.pool(stage)).await.expect("lists") {
                bench.commit(stage, key, done(stage)).await;
            }
            for job in jobs {
                for task in bench.dispatch(stage, *job, 9).await {
                    bench.commit(stage, task.key, done(stage)).await;
                }
            }
        }
    }
    assert_eq!(bench.store.finish_overlooked().await.expect("sweeps"), [], "no job is overlooked");
    for job in jobs {
        let record = bench.store.job(*job).await.expect("there");
        assert!(record.state.terminal(), "{record:#?}");
        assert!(bench.states(*job).await.iter().all(|state| state.terminal()));
        bench.audit(*job).await;
    }
}

async fn all_have_ended(bench: &Bench, jobs: &[JobId]) -> bool {
    for job in jobs {
        let record = bench.store.job(*job).await.expect("there");
        if !record.state.terminal() || record.following {
            return false;
        }
    }
    true
}

async fn three_jobs(bench: &Bench) -> Vec<JobId> {
    let mut jobs = Vec::new();
    for (texts, max_failed) in [(&["a", "b", "c"][..], Some(2)), (&["b", "d"], None), (&["e", "e"], Some(0))]
    {
        let limits = Limits { max_failed, ..Limits::default() };
        let prompts = if jobs.is_empty() { bench.prompts(texts, 4) } else { bench.styled(texts, 4, "b") };
        jobs.push(bench.submit_prompts(&prompts, limits).await);
    }
    jobs
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn whatever_happens_counters_equal_rows_and_every_job_ends(bench: &Bench) {
    let jobs = three_jobs(bench).await;
    let (mut dice, mut held) = (Dice(7), Vec::new());
    for _ in 0..400 {
        let job = step(bench, &jobs, &mut dice, &mut held).await;
        bench.audit(job).await;
    }
    all_goes_well(bench, &jobs).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn whatever_two_do_at_once_counters_equal_rows_and_every_job_ends(bench: &Bench) {
    let jobs = three_jobs(bench).await;
    let second = bench.second();
    let walk = async |bench: &Bench, seed: u64| {
        let (mut dice, mut held) = (Dice(seed), Vec::new());
        for _ in 0..200 {
            let job = step(bench, &jobs, &mut dice, &mut held).await;
            bench.audit(job).await;
        }
    };
    tokio::join!(walk(bench, 11), walk(&second, 12));
    all_goes_well(bench, &jobs).await;
}
