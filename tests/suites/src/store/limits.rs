//! A user's limits for a job: deadline, workers, failures.

use std::time::Duration;

use darkroom_coordinator::store::{
    Error,
    limits::{EndCode, Limits, NewDeadline},
    records::{Discard, Fate, JobEnd, Manifest, NewJob, Term},
};
use darkroom_core::{digest::Digest, id::JobId, image_state::ImageState, job_state::JobState};

use super::{
    bench::{Bench, STAGES},
    samples::{done, failed},
};

/// A deadline this long after now, by the store's clock.
async fn soon(bench: &Bench, after: Duration) -> i64 {
    let probe = bench.submit(&["probe"], 1).await;
    let now = bench.store.job(probe).await.expect("there").now_ms;
    bench.store.cancel(probe).await.expect("cancels");
    bench.settle().await;
    now + i64::try_from(after.as_millis()).expect("short")
}

/// Polls until a job is overdue and ended.
async fn until_ended(bench: &Bench) -> Vec<JobId> {
    for _ in 0..500 {
        let ended = bench.store.end_overdue(bench.term, 9).await.expect("sweeps");
        if !ended.is_empty() {
            return ended;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing was overdue");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_deadline_that_passes_ends_its_job_and_keeps_what_is_done(bench: &Bench) {
    let deadline_ms = soon(bench, Duration::from_secs(2)).await;
    let limits = Limits { deadline_ms: Some(deadline_ms), ..Limits::default() };
    let job = bench.submit_within(&["one"], 4, limits).await;
    let other = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    let mut held = Vec::new();
    for stage in STAGES {
        let tasks = bench.dispatch(stage, job, 2).await;
        bench.commit(stage, tasks[0].key, done(stage)).await;
        held.extend(tasks.into_iter().skip(1));
    }
    assert_eq!(bench.store.end_overdue(bench.term, 9).await.expect("sweeps"), [], "not yet");
    assert_eq!(bench.store.job(job).await.expect("there").limits, limits);
    assert_eq!(until_ended(bench).await, [job]);
    let record = bench.store.job(job).await.expect("there");
    assert!(record.now_ms >= deadline_ms, "not before");
    assert_eq!(
        (record.state, record.done, record.finished_ms.is_some()),
        (JobState::Cancelled, 1, true)
    );
    let JobEnd { code, reason } = record.end.clone().expect("it says why");
    assert_eq!(code, EndCode::Deadline);
    assert!(reason.starts_with("deadline 20"), "{reason}");
    let rest = " passed; 1 of 4 images are done; retry with a new deadline runs the rest";
    assert!(reason.ends_with(rest), "{reason}");
    assert_eq!(
        bench.commit("base", held[0].key, done("x")).await,
        Fate::Discarded(Discard::JobNotLive)
    );
    bench.settle().await;
    let record = bench.store.job(job).await.expect("there");
    assert_eq!((record.cancelled, record.manifest.clone()), (3, Manifest::Pending));
    assert_eq!(bench.store.end_overdue(bench.term, 9).await.expect("sweeps"), [], "only once");
    assert_eq!(bench.store.job(other).await.expect("there").state, JobState::Active);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_deadline_that_passed_is_replaced_or_dropped_by_a_retry(bench: &Bench) {
    let now = soon(bench, Duration::ZERO).await;
    let within = |deadline_ms: i64| {
        let limits = Limits { deadline_ms: Some(deadline_ms), ..Limits::default() };
        NewJob { limits, ..bench.job(None) }
    };
    let prompts = bench.prompts(&["one"], 2);
    let late = bench.store.submit(&within(now - 1), &prompts, Digest::of(b"c")).await;
    let Err(Error::Refused(error)) = late else {
        panic!("a deadline in the past is refused: {late:?}")
    };
    assert_eq!(error.field.as_deref(), Some("spec.deadline"));
    assert!(error.message.contains("later than now"), "{error}");
    assert!(matches!(bench.store.begin(&within(now - 1)).await, Err(Error::Refused(_))));

    let soon = NewJob { ..within(now + 1500) };
    bench.store.submit(&soon, &prompts, Digest::of(b"c")).await.expect("accepted");
    let job = soon.id;
    assert_eq!(until_ended(bench).await, [job]);
    bench.settle().await;
    let refused = bench.store.retry(job, NewDeadline::Same).await;
    let Err(Error::Refused(error)) = refused else { panic!("it would end at once: {refused:?}") };
    assert!(error.message.contains("has passed; retry it with a later one"), "{error}");
    assert!(
        bench.store.retry(job, NewDeadline::At(now)).await.is_err(),
        "nor with one that has passed"
    );
    let retried =
        bench.store.retry(job, NewDeadline::At(now + 3_600_000)).await.expect("retries").job;
    assert_eq!(
        (retried.state, retried.end, retried.limits.deadline_ms),
        (JobState::Active, None, Some(now + 3_600_000))
    );
    bench.settle().await;
    bench.store.cancel(job).await.expect("cancels");
    let record = bench.store.job(job).await.expect("there");
    assert_eq!((record.state, record.end), (JobState::Cancelled, None), "its user ended it");
    let retried =
        bench.store.retry(job, NewDeadline::Same).await.expect("the deadline is still to come").job;
    assert_eq!(retried.limits.deadline_ms, Some(now + 3_600_000));
    bench.settle().await;
    bench.store.cancel(job).await.expect("cancels");
    let retried = bench.store.retry(job, NewDeadline::None).await.expect("retries").job;
    assert_eq!(retried.limits.deadline_ms, None);
    bench.settle().await;
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_job_with_too_many_failures_ends_and_a_retry_runs_the_rest(bench: &Bench) {
    let limits = Limits { max_failed: Some(1), ..Limits::default() };
    let job = bench.submit_within(&["one"], 5, limits).await;
    bench.encode(job).await;
    let first = bench.dispatch("base", job, 1).await.remove(0).key;
    bench.commit("base", first, done("base")).await;
    for index in 1..=2 {
        assert_eq!(
            bench.store.end_overdue(bench.term, 9).await.expect("sweeps"),
            [],
            "one may fail"
        );
        for _ in 0..5 {
            let task = bench.dispatch("base", job, 1).await.remove(0);
            bench.commit("base", task.key, failed()).await;
        }
        assert_eq!(bench.states(job).await[index], ImageState::Dead);
    }
    let held = bench.dispatch("base", job, 1).await.remove(0).key;
    assert_eq!(bench.store.end_overdue(bench.term, 9).await.expect("sweeps"), [job]);
    let record = bench.store.job(job).await.expect("there");
    assert_eq!((record.state, record.dead), (JobState::Failed, 2));
    let reason = "more than 1 image failed, last: code: message".to_owned();
    assert_eq!(record.end, Some(JobEnd { code: EndCode::Failures, reason }));
    assert_eq!(bench.commit("base", held, done("x")).await, Fate::Discarded(Discard::JobNotLive));
    bench.settle().await;
    let record = bench.store.job(job).await.expect("there");
    assert_eq!((record.dead, record.cancelled, record.manifest.clone()), (2, 3, Manifest::Pending));
    assert_eq!(bench.store.end_overdue(bench.term, 9).await.expect("sweeps"), [], "only once");
    bench.audit(job).await;

    bench.store.retry(job, NewDeadline::Same).await.expect("retries");
    bench.store.follow(1).await.expect("follows");
    assert_eq!(
        bench.store.end_overdue(bench.term, 9).await.expect("sweeps"),
        [],
        "the dead are about to run"
    );
    bench.settle().await;
    for stage in STAGES {
        for task in bench.dispatch(stage, job, 9).await {
            bench.commit(stage, task.key, done(stage)).await;
        }
    }
    let record = bench.store.job(job).await.expect("there");
    assert_eq!((record.state, record.done, record.end), (JobState::Done, 5, None));
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_limit_on_workers_is_told_with_what_is_in_flight(bench: &Bench) {
    let limits = Limits { max_workers: Some(2), ..Limits::default() };
    let job = bench.submit_within(&["one", "two"], 8, limits).await;
    let candidates = bench.store.candidates(&bench.pool("encode")).await.expect("lists");
    assert_eq!(
        (candidates[0].allowed(1), candidates[0].max_workers),
        (3, None),
        "texts are not limited"
    );
    bench.encode(job).await;
    for (dispatched, allowed) in [(0, 6), (4, 2), (6, 0)] {
        let before = bench.store.dispatched_count(&bench.pool("base")).await.expect("counts");
        if dispatched > before {
            bench.dispatch("base", job, dispatched - before).await;
        }
        let candidates = bench.store.candidates(&bench.pool("base")).await.expect("lists");
        let candidate = &candidates[0];
        assert_eq!((candidate.ready, candidate.in_flight), (16 - dispatched, dispatched));
        assert_eq!(candidate.allowed(3), allowed, "two batches of three, less {dispatched}");
    }
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn only_who_leads_ends_overdue_jobs(bench: &Bench) {
    let limits = Limits { max_failed: Some(0), ..Limits::default() };
    let job = bench.submit_within(&["one"], 2, limits).await;
    bench.encode(job).await;
    for _ in 0..5 {
        let task = bench.dispatch("base", job, 1).await.remove(0);
        bench.commit("base", task.key, failed()).await;
    }
    let late = bench.store.end_overdue(Term(bench.term.0 + 1), 9).await;
    assert!(matches!(late, Err(Error::NotLeading(_))), "{late:?}");
    assert_eq!(bench.store.job(job).await.expect("there").state, JobState::Active);
}
