//! Waiting work of the pools, their history, and the tenants' usage.

use std::time::Duration;

use darkroom_coordinator::store::{
    error::Error,
    history::{HistoryQuery, HistoryRow, RecentWork, Sizes, UsageQuery, UsageRow},
    limits::NewDeadline,
    records::{Fate, NewJob, Report, Term},
};
use darkroom_core::{digest::Digest, id::JobId};
use darkroom_queue::task::Outcome;

use super::{
    bench::Bench,
    samples::{done, failed},
};

/// Model seconds of every report of the bench.
const EACH: f64 = 0.5;

/// All usage so far, of all processes.
async fn used(bench: &Bench, tenant: Option<&str>) -> Vec<UsageRow> {
    let query = UsageQuery {
        tenant: tenant.map(str::to_owned),
        from: "1970-01-01".to_owned(),
        to: "9999-12-31".to_owned(),
        after: None,
        limit: 1000,
    };
    let rows = bench.store.usage(&query).await.expect("lists");
    assert_eq!(bench.other.usage(&query).await.expect("lists"), rows, "whoever asks");
    rows
}

/// Total of tasks done, tasks failed and model seconds of a tenant.
async fn sums(bench: &Bench, tenant: &str) -> (u64, u64, f64) {
    used(bench, Some(tenant)).await.iter().fold((0, 0, 0.0), |sums, row| {
        (sums.0 + row.done, sums.1 + row.failed, sums.2 + row.device_seconds)
    })
}

async fn submit_as(bench: &Bench, tenant: &str, images: u32) -> JobId {
    let job = NewJob { tenant: tenant.to_owned(), ..bench.job(None) };
    let prompts = bench.prompts(&["one"], images);
    bench.store.submit(&job, &prompts, Digest::of(b"content")).await.expect("accepted");
    job.id
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn model_seconds_count_once_for_the_job_and_its_tenant(bench: &Bench) {
    let job = submit_as(bench, "a", 3).await;
    let other = submit_as(bench, "b", 1).await;
    bench.encode(job).await;
    assert_eq!(sums(bench, "a").await, (0, 0, 0.0), "texts are nobody's");
    let tasks = bench.dispatch("base", job, 3).await;
    let theirs = bench.dispatch("base", other, 1).await;
    let interrupted = Outcome::Interrupted { reason: "r".to_owned() };
    let outcomes = [done("base"), failed(), interrupted];
    let mut reports: Vec<Report> = tasks
        .iter()
        .zip(outcomes)
        .map(|(task, outcome)| Bench::report(task.key, outcome, true))
        .collect();
    reports.push(Bench::report(theirs[0].key, done("base"), true));
    // Each twice in one bulk, and the bulk twice.
    let bulk: Vec<Report> = reports.iter().chain(&reports).cloned().collect();
    for bench in [bench, &bench.second()] {
        let committed = bench.store.commit(&bench.pool("base"), &bulk).await.expect("commits");
        assert!(committed.fates[4..].iter().all(|fate| matches!(fate, Fate::Discarded(_))));
    }
    let spent = bench.other.job(job).await.expect("there").device_seconds;
    assert_eq!(spent, 3.0 * EACH, "failed and interrupted tasks took time too");
    assert_eq!(sums(bench, "a").await, (1, 1, 3.0 * EACH));
    assert_eq!(sums(bench, "b").await, (1, 0, EACH));
    // The sums are the same after they are added up.
    bench.store.note_history(bench.term, &[]).await.expect("notes");
    assert_eq!(sums(bench, "a").await, (1, 1, 3.0 * EACH));
    bench.store.note_history(bench.term, &[]).await.expect("notes");
    assert_eq!(sums(bench, "b").await, (1, 0, EACH));
    // A new generation adds to the sums.
    bench.store.cancel(job).await.expect("cancels");
    bench.settle().await;
    bench.store.retry(job, NewDeadline::Same).await.expect("retries");
    bench.settle().await;
    let again = bench.dispatch("base", job, 1).await;
    assert_eq!(bench.commit("base", again[0].key, done("base")).await, Fate::Applied);
    assert_eq!(bench.store.job(job).await.expect("there").device_seconds, 4.0 * EACH);
    assert_eq!(sums(bench, "a").await, (2, 1, 4.0 * EACH));
    // A worker's invalid times count as nothing.
    let more = bench.dispatch("base", job, 2).await;
    for (task, seconds) in more.iter().zip([f64::NAN, -1.0]) {
        let mut report = Bench::report(task.key, done("base"), true);
        report.result.seconds = seconds;
        bench.store.commit(&bench.pool("base"), &[report]).await.expect("commits");
    }
    assert_eq!(bench.store.job(job).await.expect("there").device_seconds, 4.0 * EACH);
    bench.audit(job).await;
    bench.audit(other).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn tenants_days_are_listed_in_pages(bench: &Bench) {
    const DAY: Duration = Duration::from_secs(86_400);
    for (tenant, later) in [("b", 2), ("a", 0), ("b", 1), ("a.c", 0)] {
        let job = submit_as(bench, tenant, 1).await;
        bench.encode(job).await;
        let tasks = bench.dispatch("base", job, 1).await;
        assert_eq!(bench.commit("base", tasks[0].key, done("base")).await, Fate::Applied);
        if tenant != "a" {
            bench.store.note_history(bench.term, &[]).await.expect("notes");
        }
        bench.age(DAY * later).await;
    }
    let all = used(bench, None).await;
    let tenants: Vec<_> = all.iter().map(|row| row.tenant.as_str()).collect();
    assert_eq!(tenants, ["a.c", "a", "b", "b"], "{all:?}");
    assert!(all[0].day > all[1].day && all[1].day == all[2].day && all[2].day > all[3].day);
    let mut after = None;
    for expected in &all {
        let query = UsageQuery {
            tenant: None,
            from: all[3].day.clone(),
            to: all[0].day.clone(),
            after: after.clone(),
            limit: 1,
        };
        let page = bench.store.usage(&query).await.expect("lists");
        assert_eq!(page, std::slice::from_ref(expected), "after {after:?}");
        after = Some((expected.day.clone(), expected.tenant.clone()));
    }
    let query = UsageQuery {
        tenant: Some("b".to_owned()),
        from: all[2].day.clone(),
        to: all[0].day.clone(),
        after: None,
        limit: 9,
    };
    assert_eq!(bench.store.usage(&query).await.expect("lists"), all[2..3]);
    // Results that were not added up yet are not deleted with the old days.
    bench.store.note_history(bench.term, &[]).await.expect("notes");
    bench.store.prune_history(bench.term, DAY, DAY * 2).await.expect("prunes");
    assert_eq!(used(bench, None).await, all[..3]);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn device_time_adds_up_when_old_days_and_deleted_jobs_are_gone(bench: &Bench) {
    const DAY: Duration = Duration::from_secs(86_400);
    let work = async || {
        let job = submit_as(bench, "a", 1).await;
        bench.encode(job).await;
        let tasks = bench.dispatch("base", job, 1).await;
        assert_eq!(bench.commit("base", tasks[0].key, done("base")).await, Fate::Applied);
        bench.store.note_history(bench.term, &[]).await.expect("notes");
        job
    };
    // What is submitted is counted by days that do not age here.
    let wrong = async || {
        let wrong = bench.store.audit_usage().await.expect("audits");
        wrong.into_iter().filter(|line| line.contains("device time")).collect::<Vec<_>>()
    };
    let (deleted, stays) = (work().await, work().await);
    bench.age(DAY * 3).await;
    work().await;
    bench.store.delete_job(deleted, "key k", true).await.expect("deletes");
    bench.settle().await;
    let later = bench.store.clock_ms().await.expect("a clock") + 120_000;
    while bench.store.clear_deleted(bench.term, later, 9).await.expect("clears").more {}
    assert_eq!(used(bench, None).await.len(), 2);
    assert_eq!(wrong().await, [""; 0], "while all days are there");
    for days in [5, 2, 2] {
        bench.store.prune_history(bench.term, DAY, DAY * days).await.expect("prunes");
        assert_eq!(wrong().await, [""; 0], "after {days} days are kept");
    }
    assert_eq!(used(bench, None).await.len(), 1);
    // A job that stayed is deleted after its day is gone.
    bench.store.delete_job(stays, "key k", true).await.expect("deletes");
    bench.settle().await;
    while bench.store.clear_deleted(bench.term, later + 120_000, 9).await.expect("clears").more {}
    for _ in 0..2 {
        assert_eq!(wrong().await, [""; 0]);
        bench.store.prune_history(bench.term, DAY, DAY * 2).await.expect("prunes");
    }
}

fn sizes(bench: &Bench, ready: u64) -> Sizes {
    Sizes {
        pool: bench.pool("base"),
        ready,
        dispatched: 3,
        leased: 2,
        workers: 1,
        oldest_ms: (ready > 0).then_some(1000 * ready),
    }
}

async fn now(bench: &Bench) -> i64 {
    bench.store.clock_ms().await.expect("asks") / 60_000 * 60
}

async fn past(bench: &Bench, query: &HistoryQuery) -> Vec<HistoryRow> {
    let rows = bench.store.history(query).await.expect("reads");
    assert_eq!(bench.other.history(query).await.expect("reads"), rows, "whoever asks");
    rows
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_pools_past_is_told_by_steps_and_gaps_stay_gaps(bench: &Bench) {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let job = bench.submit(&["one"], 9).await;
    bench.encode(job).await;
    let tasks = bench.dispatch("base", job, 9).await;
    let commit = async |from: usize, to: usize, outcome: Outcome| {
        let reports: Vec<Report> = tasks[from..to]
            .iter()
            .map(|task| Bench::report(task.key, outcome.clone(), false))
            .collect();
        bench.store.commit(&bench.pool("base"), &reports).await.expect("commits");
    };
    let late = bench.store.note_history(Term(bench.term.0 + 1), &[sizes(bench, 7)]).await;
    assert!(matches!(late, Err(Error::NotLeading(_))), "{late:?}");
    commit(0, 4, done("base")).await;
    let left = bench.store.note_history(bench.term, &[sizes(bench, 4)]).await.expect("notes");
    assert!(left > Duration::ZERO && left <= Duration::from_secs(60), "{left:?}");
    // Later in the same minute: new results are added, but the sizes stay.
    commit(4, 6, failed()).await;
    bench.store.note_history(bench.term, &[sizes(bench, 8)]).await.expect("notes");
    bench.age(minutes(30)).await;
    // Nobody leads, and another process commits.
    commit(6, 7, done("base")).await;
    bench.age(minutes(10)).await;
    bench.store.note_history(bench.term, &[sizes(bench, 0)]).await.expect("notes");
    let query = HistoryQuery {
        from: now(bench).await - 45 * 60,
        to: now(bench).await + 5 * 60,
        step: 600,
        stage: Some(bench.pool("base").stage),
        digest: Some(bench.pool("base").digest),
        limit: 100,
    };
    let rows = past(bench, &query).await;
    let at: Vec<i64> = rows.iter().map(|row| (row.at - query.from) / 60).collect();
    assert_eq!(at, [0, 30, 40], "forty minutes ago, ten minutes ago, now: {rows:?}");
    let (first, gap, last) = (&rows[0], &rows[1], &rows[2]);
    let counts = |row: &HistoryRow| (row.work.done, row.work.failed, row.work.batches);
    assert_eq!(counts(first), (4, 2, 3.0), "six tasks in batches of two");
    assert_eq!(first.work.device_seconds, 6.0 * EACH);
    // A minute may have ended between the two records.
    assert!(first.minutes == 2 || (first.minutes, first.ready) == (1, Some(4.0)), "{first:?}");
    assert_eq!((first.dispatched, first.leased, first.workers), (Some(3.0), Some(2.0), Some(1.0)));
    assert!(first.oldest_ms >= Some(4000));
    assert_eq!((counts(gap), gap.minutes), ((1, 0, 0.5), 0), "{gap:?}");
    assert_eq!((gap.ready, gap.workers, gap.oldest_ms), (None, None, None), "nobody noted them");
    assert_eq!((counts(last), last.ready, last.oldest_ms), ((0, 0, 0.0), Some(0.0), None));
    // Larger steps add counts and take means.
    let whole = past(bench, &HistoryQuery { step: 3000, ..query.clone() }).await;
    assert_eq!((whole.len(), counts(&whole[0])), (1, (5, 2, 3.5)));
    assert_eq!(whole[0].minutes, first.minutes + 1);
    assert!(whole[0].ready.is_some_and(|ready| ready > 0.0 && ready < 8.0), "{whole:?}");
    // Filters.
    let all = HistoryQuery { stage: None, digest: None, ..query.clone() };
    let stages: Vec<_> =
        past(bench, &all).await.iter().map(|row| row.work.pool.stage.to_string()).collect();
    assert_eq!(stages, ["base", "base", "base", "encode"], "the texts, when they were encoded");
    assert_eq!(past(bench, &HistoryQuery { limit: 2, ..query.clone() }).await, rows[..2]);
    let early = HistoryQuery { to: query.from + 1800, ..query.clone() };
    assert_eq!(past(bench, &early).await, rows[..1]);
    // Only old rows are deleted.
    let late = bench.store.prune_history(Term(bench.term.0 + 1), minutes(1), minutes(1)).await;
    assert!(matches!(late, Err(Error::NotLeading(_))), "{late:?}");
    bench.store.prune_history(bench.term, minutes(20), minutes(20)).await.expect("prunes");
    assert_eq!(past(bench, &query).await, rows[1..]);
    // Only recent work is reported as recent.
    let recent = bench.store.recent_work().await.expect("asks");
    assert_eq!(recent.pools, [], "ten minutes ago");
    assert!(recent.seconds >= 60.0 && recent.seconds < 121.0, "{recent:?}");
    for noted in [false, true] {
        if noted {
            bench.store.note_history(bench.term, &[]).await.expect("notes");
        } else {
            commit(7, 9, done("base")).await;
        }
        let RecentWork { pools, .. } = bench.other.recent_work().await.expect("asks");
        assert_eq!((pools.len(), pools[0].done, pools[0].batches), (1, 2, 1.0), "{noted}");
    }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn texts_that_were_encoded_before_count_as_reused(bench: &Bench) {
    let reused = async || {
        let query = HistoryQuery {
            from: now(bench).await - 600,
            to: now(bench).await + 600,
            step: 1200,
            stage: Some(bench.pool("encode").stage),
            digest: Some(bench.pool("encode").digest),
            limit: 10,
        };
        past(bench, &query).await.iter().map(|row| row.reused).sum::<u64>()
    };
    let job = bench.submit(&["one", "two"], 1).await;
    bench.submit(&["one"], 1).await;
    assert_eq!(reused().await, 0, "nothing is encoded yet");
    bench.encode(job).await;
    assert_eq!(reused().await, 0);
    // The negative text is shared by all prompts.
    bench.submit(&["two", "three", "two"], 1).await;
    assert_eq!(reused().await, 2, "the prompt and the empty text, once each");
    // In chunks, a text counts in the first that needs it.
    let chunked = bench.job(None);
    bench.store.begin(&chunked).await.expect("begins");
    let prompts = bench.prompts(&["one", "two", "four"], 1);
    for chunk in prompts.chunks(1) {
        bench.store.receive(chunked.id, chunk).await.expect("receives");
    }
    assert_eq!(reused().await, 2 + 3);
    bench.store.note_history(bench.term, &[]).await.expect("notes");
    assert_eq!(reused().await, 5, "the same when they are added up");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn what_waits_in_a_pool_is_told_with_its_age(bench: &Bench) {
    let minute = Duration::from_secs(60);
    let waits = async |stage: &str| {
        let pool = bench.pool(stage);
        let depths = bench.store.depths().await.expect("asks");
        let of: Vec<_> = depths.into_iter().filter(|depth| depth.pool == pool).collect();
        let age = of.iter().filter_map(|depth| depth.oldest_ms).max().map(|age| age / 60_000);
        let sum = |count: fn(&darkroom_coordinator::store::history::Depth) -> u64| {
            of.iter().map(count).sum()
        };
        let waits: (u64, u64) = (sum(|depth| depth.ready), sum(|depth| depth.dispatched));
        (waits, age)
    };
    assert!(bench.store.depths().await.expect("asks").is_empty());
    let job = bench.submit(&["one", "two"], 2).await;
    assert_eq!(waits("encode").await, ((3, 0), Some(0)), "both texts and the empty one");
    bench.age(minute * 2).await;
    assert_eq!(waits("encode").await, ((3, 0), Some(2)));
    let texts = bench.dispatch("encode", job, 2).await;
    assert_eq!(waits("encode").await, ((1, 2), Some(2)));
    for task in texts {
        bench.commit("encode", task.key, done("text")).await;
    }
    bench.encode(job).await;
    assert_eq!((waits("encode").await, waits("base").await), (((0, 0), None), ((4, 0), Some(0))));
    bench.age(minute * 3).await;
    let tasks = bench.dispatch("base", job, 3).await;
    assert_eq!(waits("base").await, ((1, 3), Some(3)));
    // A paused job has nothing ready, but its running work continues.
    bench.store.pause(job).await.expect("pauses");
    assert_eq!(waits("base").await, ((0, 3), None));
    bench.store.resume(job).await.expect("resumes");
    let depths = bench.store.depths().await.expect("asks");
    let settings = depths[0].settings.as_ref().expect("of its stage");
    assert_eq!(settings.stages[0].stage, bench.pool("base").stage);
    // If nothing is ready for a moment, the age starts again at zero.
    let rest = bench.dispatch("base", job, 1).await;
    assert_eq!(waits("base").await, ((0, 4), None));
    let interrupted = Outcome::Interrupted { reason: "r".to_owned() };
    bench.commit("base", rest[0].key, interrupted).await;
    assert_eq!(waits("base").await, ((1, 3), Some(0)));
    bench.age(minute).await;
    bench.commit("base", tasks[0].key, done("base")).await;
    assert_eq!((waits("base").await, waits("sr256").await), (((1, 2), Some(1)), ((1, 0), Some(0))));
    bench.store.cancel(job).await.expect("cancels");
    bench.settle().await;
    assert!(bench.store.depths().await.expect("asks").is_empty());
    bench.audit(job).await;
}
