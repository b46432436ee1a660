//! Following all jobs of a farm.

use std::collections::{BTreeMap, HashMap};

use darkroom_coordinator::store::{
    farm_changes::{ChangeBounds, ChangePosition, ChangeQuery},
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
        let (next, known) = (bounds.next, &HashMap::new());
        let query = ChangeQuery { tenant: None, from: position, next, limit, known };
        let page = bench.store.changed_jobs(query).await.expect("reads");
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
    let query = ChangeQuery { tenant: None, from, next, limit: 3, known: &known };
    let page = bench.store.changed_jobs(query).await.expect("reads");
    let rest = ChangeQuery { from: page.more.expect("three are read"), ..query };
    let rest = bench.store.changed_jobs(rest).await;
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
            1 => turn.store.pause(one).await.expect("pauses").job.id,
            2 => turn.store.cancel(two).await.expect("cancels").job.id,
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
pub async fn a_tenant_reads_its_own_changes_in_whole_pages(bench: &Bench) {
    let bounds = bench.store.change_bounds().await.expect("asks");
    let mut of_even = Vec::new();
    for number in 0..9 {
        let tenant = if number % 2 == 0 { "even" } else { "odd" };
        let job = NewJob { tenant: tenant.to_owned(), ..bench.job(None) };
        let prompts = bench.prompts(&["one"], 1);
        bench.store.submit(&job, &prompts, Digest::of(b"c")).await.expect("accepted");
        if tenant == "even" {
            of_even.push(job.id);
        }
    }
    // One changes again, and one is received in chunks, by another process.
    let paused = of_even.remove(1);
    bench.other.pause(paused).await.expect("pauses");
    let chunks = NewJob { tenant: "even".to_owned(), ..bench.job(None) };
    bench.other.begin(&chunks).await.expect("begins");
    bench.other.receive(chunks.id, &bench.prompts(&["one"], 1)).await.expect("receives");
    bench.other.accept(chunks.id, Digest::of(b"d")).await.expect("accepts");
    of_even.extend([paused, chunks.id]);

    let next = bench.store.change_bounds().await.expect("asks").next;
    let (mut from, mut told) = (ChangePosition::before(bounds.settled), Vec::new());
    loop {
        let known = &HashMap::new();
        let query = ChangeQuery { tenant: Some("even"), from, next, limit: 2, known };
        let page = bench.store.changed_jobs(query).await.expect("reads");
        told.extend(page.jobs.iter().map(|one| one.job.id));
        assert!(page.jobs.len() == 2 || page.more.is_none(), "others fill no page");
        match page.more {
            Some(more) => from = more,
            None => break,
        }
    }
    assert_eq!(told, of_even);
    let known = &HashMap::new();
    let from = ChangePosition::before(bounds.settled);
    let nobody = ChangeQuery { tenant: Some("nobody"), from, next, limit: 2, known };
    let page = bench.store.changed_jobs(nobody).await.expect("reads");
    assert!(page.jobs.is_empty() && page.more.is_none());
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
