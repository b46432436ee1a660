//! Workers that fail on images that others complete.

use std::time::Duration;

use darkroom_coordinator::store::{
    Error,
    records::{Fate, Report, Term},
};
use darkroom_core::id::{JobId, WorkerId};
use darkroom_queue::task::Outcome;

use super::{
    bench::Bench,
    samples::{done, failed},
};

const WINDOW: Duration = Duration::from_secs(60);

fn worker(name: &str) -> WorkerId {
    WorkerId(name.to_owned())
}

/// The next image of a job ends with this outcome on a worker.
async fn ends(bench: &Bench, job: JobId, name: &str, outcome: Outcome, alone: bool) {
    let key = bench.dispatch("base", job, 1).await.remove(0).key;
    let report = Bench::report(key, outcome, alone);
    let mut result = report.result.clone();
    (result.worker, result.place) = (worker(name), format!("{name}/cpu"));
    let committed = bench
        .store
        .commit(&bench.pool("base"), &[Report { result, ..report }])
        .await
        .expect("commits");
    assert_eq!(committed.fates, [Fate::Applied]);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_worker_that_fails_at_what_others_do_is_blamed(bench: &Bench) {
    let job = bench.submit(&["one"], 9).await;
    bench.encode(job).await;
    for image in 0..3 {
        assert_eq!(
            bench.store.blamed(WINDOW, 3).await.expect("asks"),
            [],
            "{image} images are too few"
        );
        ends(bench, job, "bad", failed(), true).await;
        ends(bench, job, "bad", failed(), true).await;
        ends(bench, job, "good", done("base"), true).await;
    }
    let blamed = [(worker("bad"), 3)];
    assert_eq!(
        bench.store.blamed(WINDOW, 3).await.expect("asks"),
        blamed,
        "images count, not failures"
    );
    assert_eq!(bench.other.blamed(WINDOW, 3).await.expect("asks"), blamed, "whoever asks");
    assert_eq!(bench.store.blamed(WINDOW, 4).await.expect("asks"), []);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(
        bench.store.blamed(Duration::from_millis(1), 3).await.expect("asks"),
        [],
        "long ago"
    );
    bench.store.forget_worker_health(Duration::from_millis(1)).await.expect("forgets");
    assert_eq!(bench.store.blamed(WINDOW, 3).await.expect("asks"), []);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn an_image_that_fails_everywhere_blames_nobody(bench: &Bench) {
    let job = bench.submit(&["one"], 9).await;
    bench.encode(job).await;
    for _ in 0..3 {
        // A failure in a shared batch proves nothing. A worker that completes the image later
        // itself is not to blame.
        ends(bench, job, "unlucky", failed(), false).await;
        ends(bench, job, "a", failed(), true).await;
        ends(bench, job, "a", done("base"), true).await;
    }
    for _ in 0..4 {
        for name in ["a", "b", "c"] {
            ends(bench, job, name, failed(), true).await;
        }
    }
    assert_eq!(bench.store.job(job).await.expect("there").dead, 4);
    assert_eq!(bench.store.blamed(WINDOW, 1).await.expect("asks"), []);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn who_is_set_aside_is_so_for_a_time_and_longer_the_next_time(bench: &Bench) {
    let job = bench.submit(&["one"], 9).await;
    bench.encode(job).await;
    for _ in 0..3 {
        ends(bench, job, "bad", failed(), true).await;
        ends(bench, job, "good", done("base"), true).await;
    }
    let late = bench.store.set_aside(Term(bench.term.0 + 1), &worker("bad"), "why").await;
    assert!(matches!(late, Err(Error::NotLeading(_))), "{late:?}");
    assert_eq!(bench.store.asides().await.expect("asks"), []);
    for minutes in [5, 10, 20] {
        bench.store.set_aside(bench.term, &worker("bad"), "why").await.expect("sets aside");
        assert_eq!(bench.store.blamed(WINDOW, 1).await.expect("asks"), [], "settled");
        let asides = bench.other.asides().await.expect("asks");
        assert_eq!(
            (asides.len(), &asides[0].worker, asides[0].reason.as_str()),
            (1, &worker("bad"), "why")
        );
        let limit = Duration::from_secs(60 * minutes);
        assert!(
            asides[0].left <= limit && asides[0].left > limit - Duration::from_secs(30),
            "{asides:?}"
        );
        bench.store.forget_worker_health(Duration::ZERO).await.expect("forgets");
        assert_eq!(bench.store.asides().await.expect("asks").len(), 1, "this is not deleted");
        bench.store.take_back(bench.term, &worker("bad")).await.expect("takes back");
        assert_eq!(bench.store.asides().await.expect("asks"), []);
    }
}
