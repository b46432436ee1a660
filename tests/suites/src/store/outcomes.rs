//! Committing results: each counts once, and those that do not fit are discarded.

use darkroom_coordinator::store::records::{Discard, Dispatched, Fate, Manifest, Report};
use darkroom_core::job_state::JobState;
use darkroom_queue::task::{Outcome, TaskKey};

use super::{
    bench::{Bench, STAGES},
    samples::{done, failed},
};

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn the_last_image_ends_its_job_in_the_same_transaction(bench: &Bench) {
    let job = bench.submit(&["one"], 2).await;
    bench.encode(job).await;
    for stage in STAGES {
        for task in bench.dispatch(stage, job, 9).await {
            assert_eq!(bench.store.job(job).await.expect("there").state, JobState::Active);
            assert_eq!(bench.commit(stage, task.key, done(stage)).await, Fate::Applied);
        }
    }
    let record = bench.store.job(job).await.expect("there");
    assert_eq!(
        (record.state, record.done, record.manifest.clone()),
        (JobState::Done, 2, Manifest::Pending)
    );
    assert!(record.finished_ms.is_some_and(|finished| finished >= record.created_ms));
    let image = bench.store.image(job, 1).await.expect("there");
    let keys: Vec<_> = image.outputs.iter().map(|output| output.artifact.key.as_str()).collect();
    assert_eq!(keys, ["tasks/base", "tasks/sr256"]);
    assert_eq!(bench.store.finish_overlooked().await.expect("sweeps"), []);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn results_that_do_not_fit_are_discarded_by_reason(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    let key = bench.dispatch("base", job, 1).await[0].key;
    let before = bench.store.job(job).await.expect("there").version;
    let generation = TaskKey { generation: key.generation + 1, ..key };
    let dispatch = TaskKey { dispatch: key.dispatch + 1, ..key };
    for (stage, key, outcome, reason) in [
        ("base", generation, done("x"), Discard::StaleGeneration),
        ("base", dispatch, failed(), Discard::StaleDispatch),
        ("base", dispatch, done("x"), Discard::StaleDispatch),
        ("sr256", key, done("x"), Discard::OtherStage),
        ("encode", key, done("x"), Discard::WrongPool),
    ] {
        assert_eq!(bench.commit(stage, key, outcome).await, Fate::Discarded(reason));
    }
    assert_eq!(bench.store.job(job).await.expect("there").version, before, "nothing changed");
    assert_eq!(bench.commit("base", key, done("x")).await, Fate::Applied);
    assert_eq!(bench.commit("base", key, done("x")).await, Fate::Discarded(Discard::OtherStage));
    bench.store.cancel(job).await.expect("cancels");
    assert_eq!(bench.commit("sr256", key, done("x")).await, Fate::Discarded(Discard::JobNotLive));
    bench.settle().await;
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn two_results_of_one_image_in_a_bulk_count_once(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    let key = bench.dispatch("base", job, 1).await[0].key;
    let report = Bench::report(key, done("base"), true);
    let committed =
        bench.store.commit(&bench.pool("base"), &[report.clone(), report]).await.expect("commits");
    assert_eq!(committed.fates, [Fate::Applied, Fate::Discarded(Discard::OtherStage)]);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn one_report_committed_by_two_at_once_counts_once(bench: &Bench) {
    let job = bench.submit(&["one", "two"], 8).await;
    let encode = bench.pool("encode");
    let done_all = |tasks: Vec<Dispatched>, name: &str| -> Vec<Report> {
        tasks.iter().map(|task| Bench::report(task.key, done(name), false)).collect()
    };
    let reports = done_all(bench.dispatch("encode", job, 9).await, "text");
    let (one, two) =
        tokio::join!(bench.store.commit(&encode, &reports), bench.other.commit(&encode, &reports));
    let changed = one.expect("commits").changed + two.expect("commits").changed;
    assert_eq!(changed, 3, "each text once");
    bench.settle().await;
    for stage in STAGES {
        let pool = bench.pool(stage);
        let mut reports = done_all(bench.dispatch(stage, job, 99).await, stage);
        let mut reversed = reports.clone();
        reversed.reverse();
        reports.truncate(12);
        let (one, two) =
            tokio::join!(bench.store.commit(&pool, &reports), bench.other.commit(&pool, &reversed));
        let (one, two) = (one.expect("commits"), two.expect("commits"));
        assert_eq!(one.changed + two.changed, 16, "each image once");
        let last = u64::from(stage == STAGES[1]);
        assert_eq!(
            (one.finished.len() + two.finished.len()) as u64,
            last,
            "one of them ends the job"
        );
        bench.audit(job).await;
    }
    assert_eq!(bench.store.job(job).await.expect("there").state, JobState::Done);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_lost_embedding_is_wanted_again_before_more_is_dispatched(bench: &Bench) {
    let job = bench.submit(&["one"], 3).await;
    let other = bench.submit(&["one"], 2).await;
    bench.encode(job).await;
    let key = bench.dispatch("base", job, 1).await[0].key;
    let lost = Outcome::InputMissing { key: "tasks/text".to_owned() };
    assert_eq!(bench.commit("base", key, lost).await, Fate::Applied);
    assert!(bench.dispatch("base", job, 9).await.is_empty(), "their embedding is gone");
    assert!(bench.dispatch("base", other, 9).await.is_empty());
    for job in [job, other] {
        bench.audit(job).await;
    }
    bench.store.cancel(job).await.expect("cancels");
    bench.encode(other).await;
    assert_eq!(
        bench.dispatch("base", other, 9).await.len(),
        2,
        "the other job has it encoded again"
    );
    for job in [job, other] {
        bench.audit(job).await;
    }
}
