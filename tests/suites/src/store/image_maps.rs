//! The states of all images of a job, and their changes.

use darkroom_coordinator::store::{
    Error,
    image_map::{MapPart, MapRun},
    limits::NewDeadline,
    records::{ImageOrder, ImageQuery},
};
use darkroom_core::{id::JobId, image_state::ImageState};
use uuid::Uuid;

use super::{
    bench::Bench,
    samples::{done, failed},
};

/// The images of a map: index, state, stage.
fn images(part: &MapPart) -> Vec<(u64, ImageState, usize)> {
    let of = |run: &MapRun| {
        let MapRun { first, count, state, stage } = *run;
        (first..first + count).map(move |index| (index, state, stage))
    };
    part.runs.iter().flat_map(of).collect()
}

/// The same from the images' rows.
async fn rows(bench: &Bench, job: JobId) -> Vec<(u64, ImageState, usize)> {
    let query = ImageQuery::all(job, ImageOrder::Index(None), 1000);
    let page = bench.store.images(&query).await.expect("lists");
    let of = |image: &darkroom_coordinator::store::records::ImageRecord| {
        let state = image.progress.state;
        let in_none = matches!(state, ImageState::Waiting | ImageState::Done);
        (image.id.index, state, if in_none { 0 } else { image.progress.stage })
    };
    page.images.iter().map(of).collect()
}

fn runs_are_joined(part: &MapPart) -> bool {
    let alike = |a: &MapRun, b: &MapRun| {
        a.first + a.count == b.first && (a.state, a.stage) == (b.state, b.stage)
    };
    part.runs.windows(2).all(|pair| !alike(&pair[0], &pair[1]))
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_map_tells_of_every_image_in_runs_and_of_changes_since_a_version(bench: &Bench) {
    use ImageState::{Cancelled, Dead, Dispatched, Done, Ready, Waiting};
    let job = bench.submit(&["one", "two"], 300).await;
    let run = |first, count, state, stage| MapRun { first, count, state, stage };
    let map = bench.store.map_part(job, 0).await.expect("reads");
    assert_eq!((map.images, &map.runs[..]), (600, &[run(0, 600, Waiting, 0)][..]));
    bench.encode(job).await;
    let began = bench.store.job(job).await.expect("there").version;
    let tasks = bench.dispatch("base", job, 5).await;
    for task in &tasks[..3] {
        bench.commit("base", task.key, done("base")).await;
    }
    for task in bench.dispatch("sr256", job, 1).await {
        bench.commit("sr256", task.key, done("sr256")).await;
    }
    for _ in 0..5 {
        let key = bench.dispatch("sr256", job, 1).await.remove(0).key;
        bench.commit("sr256", key, failed()).await;
    }
    let expected = [
        run(0, 1, Done, 0),
        run(1, 1, Dead, 1),
        run(2, 1, Ready, 1),
        run(3, 2, Dispatched, 0),
        run(5, 595, Ready, 0),
    ];
    let map = bench.other.map_part(job, 0).await.expect("reads");
    assert_eq!(map.runs, expected);
    assert_eq!(map.version, bench.store.job(job).await.expect("there").version);
    assert_eq!(images(&map), rows(bench, job).await);
    let rest = bench.store.map_part(job, 4).await.expect("reads");
    assert_eq!(rest.runs, [run(4, 1, Dispatched, 0), run(5, 595, Ready, 0)]);
    assert_eq!(bench.store.map_part(job, 600).await.expect("reads").runs, [], "behind the end");

    let changes = bench.store.map_changes(job, began, 100).await.expect("reads").expect("few");
    assert_eq!((&changes.runs[..], changes.version), (&expected[..4], map.version));
    let none = bench.store.map_changes(job, map.version, 100).await.expect("reads").expect("few");
    assert_eq!((none.runs, none.images), (Vec::new(), 600));

    bench.store.cancel(job).await.expect("cancels");
    bench.settle().await;
    let map = bench.store.map_part(job, 0).await.expect("reads");
    assert_eq!(images(&map), rows(bench, job).await);
    assert_eq!(map.runs.last(), Some(&run(3, 597, Cancelled, 0)));
    let unknown = bench.store.map_part(JobId(Uuid::now_v7()), 0).await;
    assert!(matches!(unknown, Err(Error::NotFound(_))), "{unknown:?}");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_map_that_changes_much_is_told_whole(bench: &Bench) {
    let job = bench.submit(&["one"], 20).await;
    let began = bench.store.job(job).await.expect("there").version;
    bench.encode(job).await;
    let changes = bench.store.map_changes(job, began, 20).await.expect("reads").expect("twenty");
    assert_eq!(images(&changes).len(), 20);
    assert_eq!(bench.store.map_changes(job, began, 19).await.expect("reads"), None);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn whatever_happens_a_map_and_its_changes_are_the_images(bench: &Bench) {
    let job = bench.submit(&["one", "two", "three"], 100).await;
    let mut followed = images(&bench.store.map_part(job, 0).await.expect("reads"));
    let mut version = bench.store.job(job).await.expect("there").version;
    for round in 0..40_u64 {
        match round {
            0 => bench.encode(job).await,
            20 => {
                bench.store.cancel(job).await.expect("cancels");
                drop(bench.store.follow(50).await.expect("follows"));
            }
            21 => {
                bench.store.retry(job, NewDeadline::Same).await.expect("retries");
                bench.settle().await;
            }
            _ => {
                let stage = if round % 3 == 0 { "sr256" } else { "base" };
                for task in bench.dispatch(stage, job, 1 + round % 7).await {
                    let outcome = match task.key.dispatch % 4 {
                        0 => failed(),
                        1 | 2 => done(stage),
                        _ => continue,
                    };
                    bench.commit(stage, task.key, outcome).await;
                }
            }
        }
        let changes = bench.store.map_changes(job, version, 1000).await.expect("reads");
        let changes = changes.expect("few");
        for (index, state, stage) in images(&changes) {
            followed[usize::try_from(index).expect("small")] = (index, state, stage);
        }
        version = changes.version;
        let map = bench.store.map_part(job, 0).await.expect("reads");
        assert!(runs_are_joined(&map), "{:?}", map.runs);
        assert_eq!(images(&map), rows(bench, job).await, "round {round}");
        assert_eq!(followed, images(&map), "round {round}");
    }
}
