//! What ended jobs leave in storage beside their pictures.

use darkroom_coordinator::store::{
    Error,
    leftovers::{End, Left},
    limits::NewDeadline,
    records::Term,
};
use darkroom_core::{digest::Digest, id::JobId};

use super::{
    bench::{Bench, STAGES},
    samples::done,
};

/// Runs some stages of an image of the job, and names their outputs after it.
async fn run(bench: &Bench, job: JobId, name: &str, stages: &[&str]) {
    for stage in stages {
        let task = bench.dispatch(stage, job, 1).await.remove(0);
        bench.commit(stage, task.key, done(&format!("{name}-{stage}"))).await;
    }
}

async fn written(bench: &Bench, job: JobId, generation: u32) {
    bench.settle().await;
    bench.store.pending_manifests(9).await.expect("lists");
    let digest = Digest::of(b"m");
    let written = bench.store.manifest_written((job, generation), "k", digest, None).await;
    assert!(written.expect("writes"));
}

async fn keys(bench: &Bench, job: JobId) -> Vec<String> {
    let mut keys = Vec::new();
    let mut after = None;
    // Page by page.
    let left = (job, Left::Intermediates);
    while let Some(next) = bench.store.leftovers(left, after, 1).await.expect("lists").pop() {
        after = Some((next.index, next.stage));
        keys.push(next.artifact.key);
    }
    keys
}

/// Takes all of the job's pictures or intermediates; the number of those that were taken.
async fn take(bench: &Bench, job: JobId, left: Left) -> u64 {
    let all = bench.store.leftovers((job, left), None, 99).await.expect("lists");
    let outputs: Vec<_> = all.iter().map(|one| (one.index, one.stage)).collect();
    bench.store.take(bench.term, (job, left), &outputs, "a test").await.expect("takes")
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn an_ended_job_leaves_all_but_its_pictures_and_what_unfinished_jobs_name(bench: &Bench) {
    let [base, sr] = STAGES;
    let job = bench.submit(&["one"], 3).await;
    bench.encode(job).await;
    run(bench, job, "whole", &[base, sr]).await;
    run(bench, job, "half", &[base]).await;
    assert_eq!(keys(bench, job).await, Vec::<String>::new(), "it has not ended");
    assert_eq!(bench.store.ended_after(End::default(), 9).await.expect("lists"), []);

    bench.store.cancel(job).await.expect("cancels");
    bench.settle().await;
    assert_eq!(
        bench.store.ended_after(End::default(), 9).await.expect("lists"),
        [],
        "its manifest is not written"
    );
    written(bench, job, 1).await;
    let ended = bench.store.ended_after(End::default(), 9).await.expect("lists");
    assert_eq!(ended.iter().map(|ended| ended.id).collect::<Vec<_>>(), [job]);
    let mut left = keys(bench, job).await;
    left.sort_unstable();
    assert_eq!(left, [format!("tasks/half-{base}"), format!("tasks/whole-{base}")]);

    // Another job that uses one of them and has not ended.
    let other = bench.submit(&["one"], 1).await;
    bench.settle().await;
    run(bench, other, "whole", &[base]).await;
    assert_eq!(keys(bench, job).await, [format!("tasks/half-{base}")]);
    run(bench, other, "other", &[sr]).await;
    written(bench, other, 1).await;
    assert_eq!(keys(bench, job).await.len(), 2, "it needs it no more");

    // In the order of their ends.
    let both = bench.store.ended_after(End::default(), 9).await.expect("lists");
    assert_eq!(both.iter().map(|ended| ended.id).collect::<Vec<_>>(), [job, other]);
    assert!(both[0].end < both[1].end, "{both:?}");
    assert_eq!(bench.store.ended_after(End::default(), 1).await.expect("lists"), both[..1]);
    assert_eq!(bench.store.ended_after(both[0].end, 9).await.expect("lists"), both[1..]);
    assert_eq!(bench.store.ended_after(both[1].end, 9).await.expect("lists"), []);

    // A retried job needs what it has.
    bench.store.retry(job, NewDeadline::Same).await.expect("retries");
    assert_eq!(keys(bench, job).await, Vec::<String>::new());
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn what_is_taken_is_a_candidate_and_jobs_at_work_keep_what_they_have(bench: &Bench) {
    let [base, sr] = STAGES;
    let job = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    run(bench, job, "whole", &[base, sr]).await;
    assert_eq!(take(bench, job, Left::Intermediates).await, 1);
    assert_eq!(keys(bench, job).await, Vec::<String>::new());
    assert_eq!(take(bench, job, Left::Intermediates).await, 0, "it is taken once");
    let record = bench.store.job(job).await.expect("reads");
    assert!(record.pictures_removed.is_none());
    assert_eq!(take(bench, job, Left::Pictures).await, 1);
    let record = bench.store.job(job).await.expect("reads");
    assert_eq!(record.pictures_removed.expect("says so").by, "a test");
    assert_eq!(bench.store.leavings().await.expect("counts").candidates, 2);

    // A job that is at work again keeps what it has.
    let other = bench.submit(&["two"], 1).await;
    bench.encode(other).await;
    run(bench, other, "half", &[base]).await;
    bench.store.cancel(other).await.expect("cancels");
    bench.settle().await;
    let left = (other, Left::Intermediates);
    let before = bench.store.leftovers(left, None, 9).await.expect("lists");
    assert_eq!(before.len(), 1);
    bench.store.retry(other, NewDeadline::Same).await.expect("retries");
    let taken = bench.store.take(bench.term, left, &[(0, 0)], "a test").await;
    assert_eq!(taken.expect("answers"), 0);
    let ended = Term(bench.term.0 + 1);
    let refused = bench.store.take(ended, left, &[(0, 0)], "a test").await;
    assert!(matches!(refused, Err(Error::NotLeading(_))), "{refused:?}");
}
