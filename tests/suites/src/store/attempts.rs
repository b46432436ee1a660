//! The kept attempts at an image.

use darkroom_coordinator::store::{
    attempt::{Attempt, AttemptOutcome, KEPT},
    limits::NewDeadline,
    records::{Death, Fate, Release, Report},
};
use darkroom_core::id::JobId;
use darkroom_queue::task::{Outcome, TaskKey};

use super::{
    bench::Bench,
    samples::{done, failed},
};

/// The outcomes of an image's attempts, in order, each with its stage and dispatch.
async fn outcomes(bench: &Bench, job: JobId) -> Vec<(AttemptOutcome, usize, u64)> {
    attempts(bench, job).await.iter().map(|one| (one.outcome, one.stage, one.dispatch)).collect()
}

async fn attempts(bench: &Bench, job: JobId) -> Vec<Attempt> {
    bench.store.attempts(job, 0).await.expect("reads")
}

/// The job's only image ends with this outcome.
async fn ends(bench: &Bench, job: JobId, stage: &str, outcome: Outcome, alone: bool) -> TaskKey {
    let key = bench.dispatch(stage, job, 1).await.remove(0).key;
    let report = Bench::report(key, outcome, alone);
    let committed = bench.store.commit(&bench.pool(stage), &[report]).await.expect("commits");
    assert_eq!(committed.fates, [Fate::Applied]);
    key
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn attempts_say_who_did_what_and_outlive_a_retry(bench: &Bench) {
    use AttemptOutcome::{Done, Failed, Interrupted};
    let job = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    assert_eq!(attempts(bench, job).await, [], "a waiting image has no attempt");
    let in_company = ends(bench, job, "base", failed(), false).await;
    let interrupted = Outcome::Interrupted { reason: "it drains".to_owned() };
    ends(bench, job, "base", interrupted, true).await;
    for _ in 0..5 {
        ends(bench, job, "base", failed(), true).await;
    }
    assert_eq!(bench.store.job(job).await.expect("there").dead, 1);
    bench.store.retry(job, NewDeadline::Same).await.expect("retries");
    bench.settle().await;
    let success = ends(bench, job, "base", done("base"), true).await;
    assert_eq!((success.generation, success.dispatch), (2, 8));

    let all = attempts(bench, job).await;
    let told: Vec<_> = all.iter().map(|one| (one.outcome, one.counted)).collect();
    let mut expected = vec![(Failed, false), (Interrupted, false)];
    expected.extend([(Failed, true); 5]);
    expected.push((Done, false));
    assert_eq!(told, expected);
    let dispatches: Vec<_> = all.iter().map(|one| one.dispatch).collect();
    assert_eq!(dispatches, (1..=8).collect::<Vec<_>>());
    let first = &all[0];
    assert_eq!((first.generation, first.dispatch), (in_company.generation, in_company.dispatch));
    assert_eq!((first.worker.as_str(), first.place.as_str()), ("w", "h"));
    assert_eq!((first.device_class.as_str(), first.seconds), ("class", 0.5));
    assert_eq!((first.reason.as_str(), first.message.as_str()), ("code", "message"));
    assert_eq!((all[1].reason.as_str(), all[1].message.as_str()), ("interrupted", "it drains"));
    let last = &all[7];
    assert_eq!((last.generation, last.stage, last.worker.as_str()), (2, 0, "w"));
    assert_eq!(
        (last.device_class.as_str(), last.seconds, last.reason.as_str()),
        ("class", 0.5, "")
    );
    let created = bench.store.job(job).await.expect("there").created_ms;
    let times: Vec<_> = all.iter().map(|one| one.ended_ms.expect("a time")).collect();
    assert!(times.is_sorted() && times[0] >= created, "{created}: {times:?}");
    assert_eq!(bench.other.attempts(job, 0).await.expect("reads"), all, "whoever asks");
    assert_eq!(bench.store.attempts(job, 1).await.expect("reads"), [], "there is no such image");
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn deaths_and_returns_are_attempts_too(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    let death = || Death { place: "gpu/cuda:1".to_owned(), live_places: 1, limit: None };
    for why in [
        Release::Returned,
        Release::HostDied(death()),
        Release::WorkerDied(death()),
        Release::WorkerDied(death()),
    ] {
        let key = bench.dispatch("base", job, 1).await.remove(0).key;
        bench.store.release(bench.term, &bench.pool("base"), &[key], &why).await.expect("releases");
    }
    let told: Vec<_> = attempts(bench, job)
        .await
        .into_iter()
        .map(|one| (one.outcome, one.reason, one.place, one.counted))
        .collect();
    let one = |outcome, reason: &str, place: &str, counted| {
        (outcome, reason.to_owned(), place.to_owned(), counted)
    };
    let expected = [
        one(AttemptOutcome::Returned, "returned", "", false),
        one(AttemptOutcome::Died, "host_died", "gpu/cuda:1", false),
        one(AttemptOutcome::Died, "worker_died", "gpu/cuda:1", false),
        one(AttemptOutcome::Died, "worker_died", "gpu/cuda:1", true),
    ];
    assert_eq!(told, expected, "a death counts only while the image runs alone");
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn of_an_output_that_is_lost_its_attempt_stays(bench: &Bench) {
    use AttemptOutcome::{Done, InputMissing};
    let job = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    ends(bench, job, "base", done("base"), true).await;
    let before = attempts(bench, job).await;
    let lost = Outcome::InputMissing { key: "tasks/base".to_owned() };
    ends(bench, job, "sr256", lost, true).await;
    let image = bench.store.image(job, 0).await.expect("there");
    assert_eq!(
        (image.outputs.len(), image.progress.stage),
        (0, 0),
        "the preceding stage runs \
        again"
    );
    assert_eq!(outcomes(bench, job).await, [(Done, 0, 1), (InputMissing, 1, 2)]);
    let after = attempts(bench, job).await;
    assert_eq!(after[..1], before, "as it was");
    assert!(after[1].message.contains("tasks/base"), "{:?}", after[1]);
    ends(bench, job, "base", done("base"), true).await;
    ends(bench, job, "sr256", done("sr256"), true).await;
    let expected = [(Done, 0, 1), (InputMissing, 1, 2), (Done, 0, 3), (Done, 1, 4)];
    assert_eq!(outcomes(bench, job).await, expected);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn an_image_keeps_its_latest_twenty_attempts(bench: &Bench) {
    let job = bench.submit(&["one"], 2).await;
    bench.encode(job).await;
    let pool = bench.pool("base");
    for round in 0..30 {
        let tasks = bench.dispatch("base", job, 2).await;
        let report = |task: &darkroom_coordinator::store::records::Dispatched| {
            let reason = format!("round {round}");
            Bench::report(task.key, Outcome::Interrupted { reason }, true)
        };
        let reports: Vec<Report> = tasks.iter().map(report).collect();
        bench.store.commit(&pool, &reports).await.expect("commits");
    }
    for index in [0, 1] {
        let all = bench.store.attempts(job, index).await.expect("reads");
        let dispatches: Vec<_> = all.iter().map(|one| one.dispatch).collect();
        assert_eq!(dispatches, (11..=30).collect::<Vec<_>>());
        assert_eq!((all.len(), all[0].message.as_str()), (KEPT as usize, "round 10"));
    }
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn what_is_discarded_is_no_attempt(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    let key = bench.dispatch("base", job, 1).await.remove(0).key;
    let late = TaskKey { dispatch: key.dispatch + 1, ..key };
    assert!(matches!(bench.commit("base", late, failed()).await, Fate::Discarded(_)));
    let report = Bench::report(key, failed(), true);
    let twice = [report.clone(), report];
    let committed = bench.store.commit(&bench.pool("base"), &twice).await.expect("commits");
    assert!(matches!(committed.fates[..], [Fate::Applied, Fate::Discarded(_)]));
    assert_eq!(outcomes(bench, job).await, [(AttemptOutcome::Failed, 0, key.dispatch)]);
}
