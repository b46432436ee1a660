//! Facts that a farm's coordinators share, and deleted data of ended jobs.

use std::{sync::Arc, time::Duration};

use darkroom_coordinator::store::{
    limits::NewDeadline,
    records::{ImageOrder, ImageQuery},
    worker_health::DRAIN_KEPT,
};
use darkroom_core::{digest::Digest, id::WorkerId, sharing::Sharing};

use super::{
    bench::{Bench, STAGES},
    samples::done,
};

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn the_first_one_says_how_long_a_lease_lasts(bench: &Bench) {
    let seconds = Duration::from_secs;
    assert_eq!(bench.store.lease().await.expect("asks"), None);
    assert_eq!(bench.store.set_lease(None, seconds(7)).await.expect("sets"), seconds(7));
    assert_eq!(
        bench.other.set_lease(None, seconds(3)).await.expect("sets"),
        seconds(7),
        "it is said"
    );
    assert_eq!(bench.other.lease().await.expect("asks"), Some(seconds(7)));
    if !Arc::ptr_eq(&bench.store, &bench.other) {
        let led = bench.other.set_lease(Some(seconds(7)), seconds(3)).await.expect("asks");
        assert_eq!(led, seconds(7), "not while somebody leads");
    }
    bench.store.resign("bench").await.expect("resigns");
    assert_eq!(
        bench.other.set_lease(Some(seconds(9)), seconds(3)).await.expect("asks"),
        seconds(7)
    );
    assert_eq!(
        bench.other.set_lease(Some(seconds(7)), seconds(3)).await.expect("sets"),
        seconds(3)
    );
    assert_eq!(bench.store.lease().await.expect("asks"), Some(seconds(3)));
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_farm_has_one_secret_and_one_kind_of_pictures(bench: &Bench) {
    let (one, other) = tokio::join!(bench.store.secret(), bench.other.secret());
    let (one, other) = (one.expect("a secret"), other.expect("a secret"));
    assert_eq!(one, other, "both asked first");
    assert_eq!(bench.store.secret().await.expect("a secret"), one, "it stays");
    assert_ne!(one.expose(), [0; 32], "it is random");
    assert!(!bench.store.set_makes_up(false).await.expect("says"));
    assert!(!bench.other.set_makes_up(true).await.expect("says"), "it is said");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_second_tenant_seals_the_farm_unless_an_operator_has_decided(bench: &Bench) {
    let of_new = async |tenant| bench.store.sharing_of_new(tenant).await.expect("asks");
    assert_eq!(bench.other.sharing().await.expect("asks"), None);
    assert_eq!(of_new("a").await, Sharing::Shared);
    assert_eq!(bench.other.sharing_of_new("a").await.expect("asks"), Sharing::Shared);
    assert_eq!(bench.other.sharing().await.expect("asks"), None, "there is one tenant");
    assert_eq!(of_new("b").await, Sharing::Sealed);
    assert_eq!(bench.other.sharing().await.expect("asks"), Some(Sharing::Sealed));
    assert_eq!(of_new("a").await, Sharing::Sealed, "the first one too, from now on");
    for decided in [Sharing::Shared, Sharing::Sealed] {
        for changed in [true, false] {
            let set = bench.other.set_sharing(decided).await.expect("decides");
            assert_eq!(set, changed, "{decided}");
        }
        for tenant in ["a", "b", "c"] {
            assert_eq!(of_new(tenant).await, decided, "{tenant}");
        }
    }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn of_two_first_tenants_at_once_at_most_one_shares(bench: &Bench) {
    let (a, b) =
        tokio::try_join!(bench.store.sharing_of_new("a"), bench.other.sharing_of_new("b"),)
            .expect("asks");
    assert!([a, b].contains(&Sharing::Sealed), "{a} and {b}");
    assert_eq!(bench.store.sharing().await.expect("asks"), Some(Sharing::Sealed));
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn the_first_token_secret_is_the_farms(bench: &Bench) {
    let told = bench.store.token_secret([1; 32]).await.expect("asks");
    assert_eq!(told, [1; 32]);
    assert_eq!(bench.other.token_secret([2; 32]).await.expect("asks"), told);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_command_to_drain_is_remembered(bench: &Bench) {
    let (one, two) = (WorkerId("one".to_owned()), WorkerId("two".to_owned()));
    for (worker, is_new) in [(&two, true), (&one, true), (&two, false)] {
        assert_eq!(bench.store.command_drain(worker).await.expect("commands"), is_new);
    }
    bench.store.forget_worker_health(DRAIN_KEPT).await.expect("forgets");
    assert_eq!(bench.other.drains().await.expect("asks"), [one, two]);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn of_an_ended_job_only_changes_that_are_stale_are_forgotten(bench: &Bench) {
    let job = bench.submit(&["one", "two", "three"], 100).await;
    bench.encode(job).await;
    for (stage, rounds) in [(STAGES[0], 5), (STAGES[1], 4)] {
        for _ in 0..rounds {
            let tasks = bench.dispatch(stage, job, 60).await;
            let reports: Vec<_> =
                tasks.iter().map(|task| Bench::report(task.key, done(stage), false)).collect();
            bench.store.commit(&bench.pool(stage), &reports).await.expect("commits");
        }
    }
    let query = ImageQuery::all(job, ImageOrder::Version(0, None), 1000);
    bench.store.cancel(job).await.expect("cancels");
    bench.settle().await;
    while bench.store.prune_changes().await.expect("prunes") {}
    bench.audit(job).await;
    let version = bench.store.job(job).await.expect("there").version;
    assert!(
        bench.store.manifest_written((job, 1), "k", Digest::of(b"m"), None).await.expect("writes")
    );
    let before: Vec<_> = listed(bench, &query).await;
    assert_eq!(before.len(), 300);
    while bench.store.prune_changes().await.expect("prunes") {}
    assert_eq!(listed(bench, &query).await, before, "each image with its last change");
    let page = ImageQuery { limit: 7, ..query.clone() };
    assert_eq!(listed(bench, &page).await, before[..7]);
    bench.audit(job).await;
    let record = bench.store.job(job).await.expect("there");
    assert_eq!(record.version, version + 1, "no watcher is told of it");
    bench.store.retry(job, NewDeadline::Same).await.expect("retries");
    bench.settle().await;
    bench.audit(job).await;
}

async fn listed(bench: &Bench, query: &ImageQuery) -> Vec<(u64, u64)> {
    let page = bench.store.images(query).await.expect("lists");
    page.images.iter().map(|image| (image.version, image.id.index)).collect()
}
