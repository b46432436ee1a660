//! Commands to whole jobs, which the rows of images follow.

use darkroom_coordinator::store::{
    limits::NewDeadline,
    records::{Commanded, Discard, Fate, Manifest},
};
use darkroom_core::{image_state::ImageState, job_state::JobState};

use super::{
    bench::{Bench, STAGES},
    samples::{done, failed},
};

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_cancel_is_one_update_and_rows_follow_in_chunks(bench: &Bench) {
    let job = bench.submit(&["one", "two"], 5).await;
    bench.encode(job).await;
    let key = bench.dispatch("base", job, 2).await[0].key;
    let Commanded { job: cancelled, changed } = bench.store.cancel(job).await.expect("cancels");
    assert!(changed);
    assert_eq!(
        (cancelled.state, cancelled.cancelled, cancelled.manifest),
        (JobState::Cancelled, 0, Manifest::None)
    );
    assert_eq!(bench.commit("base", key, done("x")).await, Fate::Discarded(Discard::JobNotLive));
    let chunk = bench.store.follow(4).await.expect("follows");
    assert_eq!((chunk.changed, chunk.more), (4, true));
    bench.audit(job).await;
    bench.settle().await;
    let record = bench.store.job(job).await.expect("there");
    assert_eq!((record.cancelled, record.manifest), (10, Manifest::Pending));
    let again = bench.store.cancel(job).await.expect("again");
    assert_eq!((again.job.version, again.changed), (record.version, false), "idempotent");
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_retry_makes_a_new_generation_of_what_failed_only(bench: &Bench) {
    let job = bench.submit(&["one"], 2).await;
    bench.encode(job).await;
    for task in bench.dispatch("base", job, 2).await {
        bench.commit("base", task.key, done("base")).await;
    }
    let first = bench.dispatch("sr256", job, 1).await.remove(0).key;
    bench.commit("sr256", first, done("sr256")).await;
    while let Some(task) = bench.dispatch("sr256", job, 1).await.pop() {
        bench.commit("sr256", task.key, failed()).await;
    }
    assert_eq!(bench.states(job).await, [ImageState::Done, ImageState::Dead]);
    let retried = bench.store.retry(job, NewDeadline::Same).await.expect("retries").job;
    assert_eq!(
        (retried.state, retried.generation, retried.manifest),
        (JobState::Active, 2, Manifest::None)
    );
    bench.settle().await;
    assert_eq!(bench.states(job).await, [ImageState::Done, ImageState::Ready]);
    let task = bench.dispatch("sr256", job, 9).await.remove(0);
    assert_eq!(task.key.generation, 2);
    assert!(
        bench.store.retry(job, NewDeadline::Same).await.is_err(),
        "an active job is not retried"
    );
    bench.commit("sr256", task.key, done("sr256")).await;
    assert_eq!(bench.store.job(job).await.expect("there").state, JobState::Done);
    assert!(
        bench.store.retry(job, NewDeadline::Same).await.is_err()
            && bench.store.cancel(job).await.is_err()
    );
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_retried_job_does_not_end_while_rows_follow(bench: &Bench) {
    let job = bench.submit(&["one"], 2).await;
    bench.encode(job).await;
    bench.store.cancel(job).await.expect("cancels");
    bench.settle().await;
    bench.store.retry(job, NewDeadline::Same).await.expect("retries");
    assert_eq!(bench.store.follow(1).await.expect("follows").changed, 1);
    for stage in STAGES {
        for task in bench.dispatch(stage, job, 9).await {
            assert_eq!(bench.commit(stage, task.key, done(stage)).await, Fate::Applied);
        }
    }
    let record = bench.store.job(job).await.expect("there");
    assert_eq!((record.state, record.done, record.cancelled), (JobState::Active, 1, 1));
    bench.settle().await;
    assert_eq!(bench.states(job).await, [ImageState::Done, ImageState::Ready]);
    bench.audit(job).await;
}
