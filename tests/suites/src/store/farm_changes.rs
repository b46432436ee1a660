//! Following all jobs of a farm.

use std::collections::{BTreeMap, HashMap};

use darkroom_coordinator::store::{
    farm_changes::{ChangeBounds, ChangePosition},
    records::NewJob,
};
use darkroom_core::{digest::Digest, id::JobId, job_state::JobState};

use super::{bench::Bench, samples::done};

/// Reads the changes since `from`, in pages of `limit`. Returns the versions, and where the next
/// read begins.
async fn changes(
    bench: &Bench,
    from: u64,
    limit: u32,
) -> (BTreeMap<JobId, (u64, JobState)>, ChangeBounds) {
    let bounds = bench.store.change_bounds().await.expect("asks");
    assert!(bounds.settled <= bounds.next);
    let (mut position, mut seen) = (ChangePosition::before(from), BTreeMap::new());
    loop {
        let page = bench.store.changed_jobs(position, bounds.next, limit, &HashMap::new()).await;
        let page = page.expect("reads");
        assert!(page.jobs.len() <= limit as usize);
        for one in page.jobs {
            assert!(one.position > position, "in order");
            position = one.position;
            let again = seen.insert(one.job.id, (one.job.version, one.job.state));
            assert!(again.is_none_or(|(version, _)| version < one.job.version));
        }
        match page.more {
            Some(more) => position = more,
            None => return (seen, bounds),
        }
    }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_reader_of_all_jobs_misses_no_change_of_any_process(bench: &Bench) {
    let (none, start) = changes(bench, 0, 10).await;
    assert!(none.is_empty());
    let receiving = bench.job(None);
    bench.store.begin(&receiving).await.expect("begins");
    bench.store.receive(receiving.id, &bench.prompts(&["one"], 1)).await.expect("receives");
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(bench.submit(&["one"], 2).await);
    }
    for limit in [1, 2, 100] {
        let (seen, _) = changes(bench, start.settled, limit).await;
        assert_eq!(seen.len(), 5, "a job that is still received is not listed; pages of {limit}");
    }
    // A reader that knows some of them gets the others, page by page.
    let mut known = HashMap::new();
    for job in [jobs[0], jobs[3]] {
        let record = bench.store.job(job).await.expect("there");
        known.insert(record.seq, record.version + u64::from(job == jobs[3]));
    }
    let (from, next) = (ChangePosition::before(start.settled), u64::MAX >> 1);
    let page = bench.store.changed_jobs(from, next, 3, &known).await.expect("reads");
    let rest = bench.store.changed_jobs(page.more.expect("three are read"), next, 3, &known).await;
    let told = page.jobs.into_iter().chain(rest.expect("reads").jobs).map(|one| one.job.id);
    assert_eq!(told.collect::<Vec<_>>(), jobs[1..], "one is known at another version");
    let (seen, mut bounds) = changes(&bench.second(), start.settled, 3).await;
    assert!(jobs.iter().all(|job| seen.contains_key(job)), "whoever asks");
    // Every kind of change, by both processes.
    let second = bench.second();
    let (one, two, three) = (jobs[0], jobs[1], jobs[2]);
    for (number, turn) in [bench, &second, bench, &second, bench].into_iter().enumerate() {
        let changed = match number {
            0 => turn.store.accept(receiving.id, Digest::of(b"c")).await.expect("accepts").job.id,
            1 => turn.store.pause(one).await.expect("pauses").id,
            2 => turn.store.cancel(two).await.expect("cancels").id,
            3 => {
                turn.encode(three).await;
                three
            }
            _ => {
                let tasks = turn.dispatch("base", three, 1).await;
                turn.commit("base", tasks[0].key, done("base")).await;
                three
            }
        };
        let (seen, after) = changes(&second, bounds.settled, 100).await;
        let told = seen.get(&changed);
        let record = bench.store.job(changed).await.expect("there");
        assert_eq!(told, Some(&(record.version, record.state)), "{number}");
        assert_eq!((&after.era, after.settled >= bounds.settled), (&bounds.era, true));
        bounds = after;
    }
    // While nothing runs, nothing is reported again.
    let (seen, after) = changes(bench, bounds.next, 100).await;
    assert!(seen.is_empty() && after.settled >= bounds.settled, "{seen:?}");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn jobs_that_have_not_ended_are_listed_newest_first(bench: &Bench) {
    let mut live = Vec::new();
    for number in 0..5 {
        let tenant = if number % 2 == 0 { "even" } else { "odd" };
        let job = NewJob { tenant: tenant.to_owned(), ..bench.job(None) };
        let prompts = bench.prompts(&["one"], 1);
        bench.store.submit(&job, &prompts, Digest::of(b"c")).await.expect("accepted");
        live.insert(0, job.id);
    }
    bench.store.pause(live[1]).await.expect("pauses");
    bench.store.cancel(live.remove(3)).await.expect("cancels");
    bench.store.begin(&bench.job(None)).await.expect("begins");
    let (mut listed, mut before) = (Vec::new(), None);
    loop {
        let page = bench.store.live_jobs(None, before, 2).await.expect("lists");
        listed.extend(page.jobs.iter().map(|job| job.id));
        before = page.jobs.last().map(|job| job.seq);
        if !page.more {
            break;
        }
    }
    assert_eq!(listed, live);
    let of_one = bench.store.live_jobs(Some("even"), None, 9).await.expect("lists");
    let ids: Vec<_> = of_one.jobs.iter().map(|job| job.id).collect();
    assert_eq!((ids, of_one.more), (vec![live[0], live[2], live[3]], false));
}
