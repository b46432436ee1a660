//! Taking tasks back, and what the deaths of workers cost.

use darkroom_coordinator::store::records::{Death, Release};
use darkroom_core::{image_state::ImageState, job_state::JobState, retry::MOST_SPARED};
use darkroom_queue::task::TaskKey;

use super::bench::Bench;

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_release_names_its_dispatch(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    let key = bench.dispatch("base", job, 1).await[0].key;
    let pool = bench.pool("base");
    let stale = TaskKey { dispatch: key.dispatch - 1, ..key };
    let released =
        bench.store.release(bench.term, &pool, &[stale], &Release::Returned).await.expect("ok");
    assert_eq!(released.changed, 0);
    let released =
        bench.store.release(bench.term, &pool, &[key], &Release::Returned).await.expect("ok");
    assert_eq!(released.changed, 1);
    let again = bench.dispatch("base", job, 1).await;
    assert_eq!((again[0].key.dispatch, again[0].suspect), (key.dispatch + 1, false));
    assert_eq!(bench.store.image(job, 0).await.expect("there").progress.failures, 0);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_dead_workers_task_becomes_suspect_and_dies_only_alone(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    let died = Release::WorkerDied(death(None));
    for deaths in 0..6 {
        let task = bench.dispatch("base", job, 1).await.remove(0);
        assert_eq!(task.suspect, deaths > 0);
        let pool = bench.pool("base");
        bench.store.release(bench.term, &pool, &[task.key], &died).await.expect("ok");
        assert_eq!(bench.store.image(job, 0).await.expect("there").progress.failures, deaths);
    }
    assert_eq!(bench.states(job).await, [ImageState::Dead]);
    assert_eq!(bench.store.job(job).await.expect("there").state, JobState::Failed);
    bench.audit(job).await;
}

fn death(limit: Option<u32>) -> Death {
    Death { place: "h".to_owned(), live_places: 1, limit }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_limit_of_deaths_ends_an_image_sooner(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    for _ in 0..3 {
        let task = bench.dispatch("base", job, 1).await.remove(0);
        let died = Release::WorkerDied(death(Some(2)));
        bench.store.release(bench.term, &bench.pool("base"), &[task.key], &died).await.expect("ok");
    }
    // The first failure made it suspect, and two more counted.
    assert_eq!(bench.states(job).await, [ImageState::Dead]);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn deaths_with_a_host_count_from_the_eleventh_on(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    let other = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    let pool = bench.pool("base");
    let died = Release::HostDied(death(None));
    let run = async |job| {
        let task = bench.dispatch("base", job, 1).await.remove(0);
        bench.store.release(bench.term, &pool, &[task.key], &died).await.expect("ok");
        (task.suspect, bench.store.image(job, 0).await.expect("there").progress)
    };
    for _ in 0..MOST_SPARED {
        let (suspect, progress) = run(job).await;
        assert_eq!((suspect, progress.suspect, progress.failures), (false, false, 0));
    }
    assert_eq!(run(other).await.1.failures, 0, "each image by itself");
    let (_, progress) = run(job).await;
    assert_eq!((progress.suspect, progress.failures), (true, 0), "as a worker's death from now on");
    let (suspect, progress) = run(job).await;
    assert_eq!((suspect, progress.failures), (true, 1));
    bench.store.cancel(job).await.expect("cancels");
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_texts_deaths_with_a_host_are_spared_too(bench: &Bench) {
    let job = bench.submit(&["its own text"], 1).await;
    let died = Release::HostDied(death(None));
    for deaths in 0..=MOST_SPARED {
        let task = bench.dispatch("encode", job, 1).await.remove(0);
        assert!(!task.suspect, "after {deaths} deaths");
        bench
            .store
            .release(bench.term, &bench.pool("encode"), &[task.key], &died)
            .await
            .expect("ok");
    }
    assert!(bench.dispatch("encode", job, 1).await.remove(0).suspect);
}
