//! Random walks. After each step, counters must equal rows; in the end, every job must be able to
//! end.

use std::time::{Duration, Instant};

use darkroom_coordinator::store::{
    Error,
    image_commands::LostPicture,
    limits::{Limits, NewDeadline},
    records::{Death, ImageOrder, ImageQuery, NewJob, Release},
};
use darkroom_core::{
    digest::Digest, id::JobId, image_command::ImageCommand, image_state::ImageState,
};
use darkroom_queue::task::{Outcome, TaskKey};

use super::{
    bench::{Bench, STAGES},
    image_commands::filter,
    overrides::{small_job, variant},
    quotas::of_bytes,
    samples::{done, failed},
};

/// Pseudo-random numbers, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A random event in one of the jobs; returns its name.
async fn step(
    bench: &Bench,
    jobs: &[JobId],
    dice: &mut Dice,
    held: &mut Vec<(&'static str, TaskKey)>,
) -> JobId {
    let job = jobs[dice.roll(3) as usize];
    let stage = ["encode", "base", "sr256"][dice.roll(3) as usize];
    match dice.roll(15) {
        12 => command_images(bench, job, dice).await,
        13 => lose_pictures(bench, job, dice).await,
        0..=3 => {
            let count = 1 + dice.roll(3);
            held.extend(
                bench.dispatch(stage, job, count).await.iter().map(|task| (stage, task.key)),
            );
        }
        4..=7 if !held.is_empty() => {
            let position = dice.roll(held.len() as u64) as usize;
            // Some results are reported twice.
            let (stage, key) =
                if dice.roll(4) == 0 { held[position] } else { held.swap_remove(position) };
            let outcome = match dice.roll(10) {
                // Replaced outputs have other sizes.
                0..=4 => of_bytes(stage, 1 + dice.roll(50)),
                5 | 6 => failed(),
                7 => Outcome::Interrupted { reason: "r".to_owned() },
                8 => Outcome::InputMissing { key: "tasks/text".to_owned() },
                _ => Outcome::InputMissing { key: "tasks/base".to_owned() },
            };
            let report = Bench::report(key, outcome, dice.roll(2) == 0);
            let onward = bench.credit(dice.roll(3));
            let done = bench
                .store
                .commit_onward(&bench.pool(stage), &[report], &onward)
                .await
                .expect("commits");
            let stage =
                |stage: &str| STAGES.into_iter().find(|name| *name == stage).expect("a stage");
            held.extend(done.1.iter().map(|(pool, task)| (stage(pool.stage.as_str()), task.key)));
        }
        8 if !held.is_empty() => {
            let (stage, key) = held.swap_remove(dice.roll(held.len() as u64) as usize);
            let why = if dice.roll(2) == 0 {
                Release::Returned
            } else {
                Release::WorkerDied(Death { place: "h".to_owned(), live_places: 1, limit: None })
            };
            bench
                .store
                .release(bench.term, &bench.pool(stage), &[key], &why)
                .await
                .expect("releases");
        }
        9 => {
            let command = match dice.roll(8) {
                0 => bench.store.cancel(job).await,
                1 | 2 => bench.store.pause(job).await,
                3..=5 => bench.store.resume(job).await,
                _ => bench.store.retry(job, NewDeadline::Same).await,
            };
            assert!(command.is_ok() || matches!(command, Err(Error::Refused(_))));
        }
        10 if dice.roll(2) == 0 => {
            drop(
                bench.store.end_overdue(bench.term, 9).await.expect("ends the jobs that must end"),
            );
        }
        10 => drop(bench.store.spread(1 + dice.roll(5)).await.expect("spreads")),
        _ => drop(bench.store.follow(1 + dice.roll(5)).await.expect("follows")),
    }
    job
}

/// A cancel or retry of some of a job's images.
async fn command_images(bench: &Bench, job: JobId, dice: &mut Dice) {
    let images = bench.store.job(job).await.expect("there").images;
    let command = if dice.roll(3) == 0 { ImageCommand::Cancel } else { ImageCommand::Retry };
    let first = dice.roll(images);
    let last = (first + dice.roll(4)).min(images - 1);
    let some = filter(&[(first, last)], &[], images);
    let same = NewDeadline::Same;
    let commanded = bench.store.command_images(job, command, &some, same).await;
    assert!(commanded.is_ok() || matches!(commanded, Err(Error::Refused(_))), "{commanded:?}");
}

/// Some of a job's pictures are lost.
async fn lose_pictures(bench: &Bench, job: JobId, dice: &mut Dice) {
    let order = ImageOrder::Index(None);
    let query = ImageQuery { states: vec![ImageState::Done], ..ImageQuery::all(job, order, 100) };
    let found = bench.store.images(&query).await.expect("lists").images;
    let lost: Vec<_> = found
        .iter()
        .filter(|_| dice.roll(2) == 0)
        .map(|image| LostPicture { index: image.id.index, generation: image.progress.generation })
        .collect();
    let rerendered = bench.store.rerender_lost(job, &lost, NewDeadline::Same).await;
    assert!(rerendered.is_ok() || matches!(rerendered, Err(Error::Refused(_))), "{rerendered:?}");
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
        let query = ImageQuery {
            states: vec![ImageState::Done],
            ..ImageQuery::all(*job, ImageOrder::Index(None), 99)
        };
        for image in bench.store.images(&query).await.expect("lists").images {
            let stages = image.settings.as_deref().unwrap_or(&record.settings).stages.len();
            assert_eq!(image.outputs.len(), stages, "{image:#?}");
        }
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
    for (texts, max_failed) in
        [(&["a", "b", "c"][..], Some(2)), (&["b", "d"], None), (&["e", "e"], Some(0))]
    {
        let limits = Limits { max_failed, ..Limits::default() };
        let mut prompts =
            if jobs.is_empty() { bench.prompts(texts, 4) } else { bench.styled(texts, 4, "b") };
        // Its images pass fewer stages than the first job's, and more than the last one's.
        if jobs.is_empty() {
            prompts[1].variant = variant(bench, 1, 64, 4);
            prompts[2].variant = variant(bench, 2, 256, 9);
        } else if jobs.len() == 2 {
            prompts[0].variant = variant(bench, 1, 256, 4);
        }
        let job = if jobs.len() == 2 { small_job(bench) } else { bench.job(None) };
        let job = NewJob { limits, ..job };
        bench.store.submit(&job, &prompts, Digest::of(b"content")).await.expect("accepted");
        jobs.push(job.id);
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
