//! What a submit does: whole, by chunks, repeated, given up.

use std::time::Duration;

use darkroom_coordinator::store::Error;
use darkroom_core::{digest::Digest, id::JobId, job_state::JobState};
use uuid::Uuid;

use super::{bench::Bench, samples::done};

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_submitted_job_is_read_back_as_it_was(bench: &Bench) {
    let id = bench.submit(&["one", "two"], 2).await;
    let job = bench.store.job(id).await.expect("there");
    assert_eq!((job.state, job.images, job.seed, job.priority), (JobState::Active, 4, u64::MAX, 1));
    assert_eq!((job.stages[0].total, job.stages.len()), (3, 3));
    assert_eq!(job.settings.stages.len(), 2);
    let image = bench.store.image(id, 2).await.expect("there");
    assert_eq!((image.prompt.as_str(), image.seed), ("two", 1), "seeds wrap");
    assert!(matches!(bench.store.image(id, 4).await, Err(Error::NotFound(_))));
    assert!(matches!(bench.store.job(JobId(Uuid::now_v7())).await, Err(Error::NotFound(_))));
    bench.audit(id).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_repeated_request_returns_the_first_job_and_other_content_is_refused(bench: &Bench) {
    let (first, second) = (bench.job(Some("r")), bench.job(Some("r")));
    let prompts = bench.prompts(&["one"], 1);
    let content = Digest::of(b"content");
    assert!(!bench.store.submit(&first, &prompts, content).await.expect("accepted").existed);
    let again = bench.store.submit(&second, &prompts, content).await.expect("accepted");
    assert_eq!((again.existed, again.job.id), (true, first.id));
    let other = bench.store.submit(&second, &prompts, Digest::of(b"other")).await;
    assert!(matches!(other, Err(Error::Refused(_))));
    assert_eq!(
        bench.store.find_submitted("t", "r").await.expect("finds"),
        Some((first.id, content))
    );
    let streamed = bench.job(Some("r"));
    bench.store.begin(&streamed).await.expect("begins");
    bench.store.receive(streamed.id, &prompts).await.expect("receives");
    let streamed = bench.store.accept(streamed.id, content).await.expect("accepted");
    assert_eq!((streamed.existed, streamed.job.id), (true, first.id));
    assert_eq!(bench.store.count(JobState::Receiving).await.expect("counts"), 0);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn chunks_are_invisible_until_they_are_accepted(bench: &Bench) {
    let job = bench.job(None);
    let prompts = bench.prompts(&["one", "two", "three"], 2);
    bench.store.begin(&job).await.expect("begins");
    for chunk in prompts.chunks(2) {
        bench.store.receive(job.id, chunk).await.expect("receives");
    }
    assert!(matches!(bench.store.job(job.id).await, Err(Error::NotFound(_))));
    assert!(bench.store.candidates(&bench.pool("encode")).await.expect("lists").is_empty());
    assert!(bench.dispatch("encode", job.id, 9).await.is_empty());
    bench.store.accept(job.id, Digest::of(b"c")).await.expect("accepted");
    let record = bench.store.job(job.id).await.expect("there");
    assert_eq!((record.images, record.stages[0].total), (6, 4));
    assert!(bench.store.accept(job.id, Digest::of(b"c")).await.is_err(), "only once");
    bench.audit(job.id).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn what_is_not_accepted_leaves_nothing(bench: &Bench) {
    let (left, swept) = (bench.job(Some("x")), bench.job(Some("x")));
    for job in [&left, &swept] {
        bench.store.begin(job).await.expect("begins");
        bench.store.receive(job.id, &bench.prompts(&["one"], 1)).await.expect("receives");
    }
    bench.store.abandon(left.id).await.expect("abandons");
    assert_eq!(bench.store.sweep_receiving(Duration::from_secs(3600)).await.expect("sweeps"), 0);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(bench.store.sweep_receiving(Duration::from_millis(1)).await.expect("sweeps"), 1);
    let late = bench.store.receive(swept.id, &bench.prompts(&["two"], 1)).await;
    assert!(matches!(late, Err(Error::NotFound(_))));
    let accepted = bench.submit(&["one"], 1).await;
    bench.store.abandon(accepted).await.expect("does nothing");
    bench.store.job(accepted).await.expect("accepted prompts stay");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn two_submits_of_one_request_at_once_make_one_job(bench: &Bench) {
    for round in 0..5 {
        let request = format!("r{round}");
        let (first, second) = (bench.job(Some(&request)), bench.job(Some(&request)));
        let streamed = bench.job(Some(&request));
        let prompts = bench.prompts(&["one", "two"], 2);
        let content = Digest::of(b"content");
        bench.store.begin(&streamed).await.expect("begins");
        bench.store.receive(streamed.id, &prompts).await.expect("receives");
        let (one, two, three) = tokio::join!(
            bench.store.submit(&first, &prompts, content),
            bench.other.submit(&second, &prompts, content),
            bench.other.accept(streamed.id, content),
        );
        let submitted = [one.expect("accepted"), two.expect("accepted"), three.expect("accepted")];
        assert_eq!(submitted.iter().filter(|one| !one.existed).count(), 1, "one of them made it");
        assert!(submitted.iter().all(|one| one.job.id == submitted[0].job.id));
        bench.audit(submitted[0].job.id).await;
    }
    assert_eq!(bench.store.count(JobState::Active).await.expect("counts"), 5);
    assert_eq!(bench.store.count(JobState::Receiving).await.expect("counts"), 0);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_text_that_is_encoded_while_its_prompts_arrive_is_told_to_all_of_them(bench: &Bench) {
    for round in 0..10 {
        let text = format!("text {round}");
        let texts = [text.as_str(); 3];
        let first = bench.submit(&texts[..1], 1).await;
        let reports: Vec<_> = bench
            .dispatch("encode", first, 9)
            .await
            .iter()
            .map(|task| Bench::report(task.key, done("text"), false))
            .collect();
        let (streamed, prompts) = (bench.job(None), bench.prompts(&texts, 2));
        bench.store.begin(&streamed).await.expect("begins");
        let encode = bench.pool("encode");
        let receive = async {
            for prompt in prompts.chunks(1) {
                bench.store.receive(streamed.id, prompt).await.expect("receives");
            }
        };
        let commit = async {
            bench.other.commit(&encode, &reports).await.expect("commits");
            bench.other.spread(100).await.expect("spreads");
        };
        tokio::join!(receive, commit);
        bench.store.accept(streamed.id, Digest::of(b"c")).await.expect("accepted");
        bench.settle().await;
        let job = bench.store.job(streamed.id).await.expect("there");
        assert_eq!((job.stages[0].passed, job.stages[1].ready), (2, 6), "round {round}");
        bench.audit(streamed.id).await;
    }
}
