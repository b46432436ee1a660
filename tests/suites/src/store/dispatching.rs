//! Handing tasks out: which jobs have any, in whose term, and what a commit hands on.

use darkroom_coordinator::store::records::{Discard, Dispatched, Fate, Onward, Report, Term, Work};
use darkroom_core::fair_share::Pick;
use darkroom_queue::task::Outcome;

use super::{bench::Bench, samples::done};

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_text_is_dispatched_once_for_all_jobs_and_images(bench: &Bench) {
    let (first, second) =
        (bench.submit(&["same"], 5).await, bench.submit(&["same", "same"], 5).await);
    let tasks = bench.dispatch("encode", first, 9).await;
    assert_eq!(tasks.len(), 2, "the text and the empty one");
    assert!(bench.dispatch("encode", second, 9).await.is_empty());
    for task in &tasks {
        assert_eq!(bench.commit("encode", task.key, done("text")).await, Fate::Applied);
        let again = bench.commit("encode", task.key, done("text")).await;
        assert_eq!(
            again,
            Fate::Discarded(Discard::AlreadyEncoded),
            "one embedding is committed for ever"
        );
    }
    bench.settle().await;
    for (job, images) in [(first, 5), (second, 10)] {
        let record = bench.store.job(job).await.expect("there");
        assert_eq!((record.stages[0].passed, record.stages[1].ready), (2, images));
        let others = format!("image 0 and {} others: ", images - 1);
        let notes = [format!("{others}a note"), format!("{others}negative prompt: a note")];
        assert_eq!(bench.store.notes(job, 9).await.expect("notes"), notes);
        bench.audit(job).await;
    }
    let later = bench.submit(&["same"], 1).await;
    let record = bench.store.job(later).await.expect("there");
    assert_eq!((record.stages[0].passed, record.stages[1].ready), (2, 1), "ready at once");
    let notes = ["image 0: a note", "image 0: negative prompt: a note"];
    assert_eq!(bench.store.notes(later, 9).await.expect("notes"), notes);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_job_whose_texts_are_all_handed_out_is_no_candidate(bench: &Bench) {
    let pool = bench.pool("encode");
    let job = bench.submit(&["one", "two"], 1).await;
    let tasks = bench.dispatch("encode", job, 9).await;
    assert_eq!(tasks.len(), 3);
    assert_eq!(
        bench.store.candidates(&pool).await.expect("lists"),
        [],
        "it would take the others' room"
    );
    bench.commit("encode", tasks[0].key, Outcome::Interrupted { reason: "r".to_owned() }).await;
    assert_eq!(bench.store.candidates(&pool).await.expect("lists").len(), 1, "one is wanted again");
    let version = bench.store.job(job).await.expect("there").version;
    bench.dispatch("base", job, 9).await;
    let after = bench.store.job(job).await.expect("there").version;
    assert_eq!(version, after, "without a change there is no new version");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn what_is_handed_on_is_dispatched_within_its_credit_and_in_this_term(bench: &Bench) {
    let (job, paused) = (bench.submit(&["one"], 5).await, bench.submit(&["two"], 2).await);
    bench.encode(job).await;
    bench.encode(paused).await;
    let (tasks, held) =
        (bench.dispatch("base", job, 5).await, bench.dispatch("base", paused, 2).await);
    bench.store.pause(paused).await.expect("pauses");
    let report = |task: &Dispatched| Bench::report(task.key, done("base"), false);
    let reports: Vec<Report> = held.iter().chain(&tasks).map(report).collect();
    let late: Vec<Onward> = bench
        .credit(3)
        .into_iter()
        .map(|credit| Onward { term: Term(bench.term.0 + 1), ..credit })
        .collect();
    // A backend that dispatches nothing here may commit in any term.
    let refused = bench.store.commit_onward(&bench.pool("base"), &reports[..1], &late).await;
    assert!(refused.is_err() || refused.is_ok_and(|(_, handed)| handed.is_empty()));
    let (committed, handed) = bench
        .store
        .commit_onward(&bench.pool("base"), &reports, &bench.credit(3))
        .await
        .expect("commits");
    assert_eq!(committed.fates.last(), Some(&Fate::Applied));
    assert!(handed.len() <= 3);
    let record = bench.store.job(job).await.expect("there");
    let sr256 = &record.stages[2];
    assert_eq!((sr256.dispatched, sr256.ready), (handed.len() as u64, 5 - handed.len() as u64));
    assert_eq!(bench.store.job(paused).await.expect("there").stages[2].dispatched, 0, "paused");
    let keys: Vec<_> = handed.iter().map(|(_, task)| task.key).collect();
    assert_eq!(bench.store.dispatched(&bench.pool("sr256")).await.expect("lists"), keys);
    for (pool, task) in &handed {
        assert_eq!(pool, &bench.pool("sr256"));
        let Work::Render(work) = &task.work else { panic!("renders") };
        assert_eq!((work.stage, work.text_embedding.key.as_str()), (1, "tasks/text"));
        assert_eq!(work.low_res.as_ref().expect("the stage before").key, "tasks/base");
        assert_eq!(bench.commit("sr256", task.key, done("sr256")).await, Fate::Applied);
    }
    bench.audit(job).await;
    bench.audit(paused).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn only_active_jobs_are_dispatched_and_only_in_this_term(bench: &Bench) {
    let job = bench.submit(&["one"], 3).await;
    bench.encode(job).await;
    for changed in [true, false] {
        assert_eq!(bench.store.pause(job).await.expect("pauses").changed, changed);
    }
    assert!(bench.store.candidates(&bench.pool("base")).await.expect("lists").is_empty());
    assert!(bench.dispatch("base", job, 9).await.is_empty());
    for changed in [true, false] {
        assert_eq!(bench.store.resume(job).await.expect("resumes").changed, changed);
    }
    let other = Term(bench.term.0 + 1);
    let pick = [Pick { job, count: 1 }];
    assert!(bench.store.dispatch(other, &bench.pool("base"), &pick).await.is_err());
    let tasks = bench.dispatch("base", job, 2).await;
    assert_eq!(tasks.len(), 2);
    let keys: Vec<_> = tasks.iter().map(|task| task.key).collect();
    assert_eq!(bench.store.dispatched(&bench.pool("base")).await.expect("lists"), keys);
    assert_eq!(bench.store.dispatched_count(&bench.pool("base")).await.expect("counts"), 2);
    let listed = bench.store.dispatched_of_job(job).await.expect("lists");
    assert_eq!(listed, keys.iter().map(|key| (bench.pool("base"), *key)).collect::<Vec<_>>());
    let candidates = bench.store.candidates(&bench.pool("base")).await.expect("lists");
    assert_eq!((candidates.len(), candidates[0].ready), (1, 1));
    let Work::Render(work) = &tasks[1].work else { panic!("renders") };
    assert_eq!((work.stage, work.seed, work.text_embedding.key.as_str()), (0, 0, "tasks/text"));
    assert!(work.negative_embedding.is_some() && work.low_res.is_none());
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_view_says_of_dispatched_texts_what_the_job_does(bench: &Bench) {
    let (first, between) =
        (bench.submit(&["one", "two"], 1).await, bench.submit(&["five", "six"], 1).await);
    let last = bench.submit(&["two", "three", "four"], 1).await;
    for (job, count) in [(first, 1), (last, 9), (between, 1), (first, 9)] {
        bench.dispatch("encode", job, count).await;
        for job in [first, between, last] {
            let (viewed, _) = bench.store.view(job, 1).await.expect("reads");
            assert_eq!(viewed.stages, bench.store.job(job).await.expect("reads").stages);
        }
    }
    let (viewed, _) = bench.store.view(between, 1).await.expect("reads");
    let encode = viewed.stages.first().expect("encode");
    assert_eq!(
        (encode.dispatched, encode.total),
        (2, 3),
        "the empty text and its own, but not its neighbours' texts"
    );
}
