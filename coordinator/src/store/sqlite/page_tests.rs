//! How much work a page of images is, by the steps of SQLite's virtual machine: each row that is
//! read takes some. And which index a tenant's changes are read by, and jobs that have ended.
//!
//! The bench is built with this crate's library, which is not the copy under test. It fills the
//! file like another process would, and the store under test reads it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use ::darkroom_coordinator::store::sqlite as others;
use darkroom_core::{id::JobId, image_state::ImageState};
use darkroom_suites::store::{Bench, Fresh};

use super::{
    SqliteStore,
    both::{
        farm_changes::OF_TENANT,
        page::Images,
        policy_walk::{ENDED, ENDED_OF_TENANT},
    },
};
use crate::store::{
    image_pages::page,
    records::{ImageOrder, ImageQuery},
};

/// The steps of a page, and the images that it returned.
async fn steps(store: &SqliteStore, seq: i64, query: &ImageQuery) -> (u64, usize) {
    let mut tx = store.readers.begin().await.expect("begins");
    // Statements are prepared, which takes steps too.
    page(&mut Images { tx: &mut tx, job: query.job, seq }, query).await.expect("lists");
    let steps = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&steps);
    let mut handle = tx.lock_handle().await.expect("a handle");
    handle.set_progress_handler(1, move || {
        counter.fetch_add(1, Ordering::Relaxed);
        true
    });
    drop(handle);
    let page = page(&mut Images { tx: &mut tx, job: query.job, seq }, query).await.expect("lists");
    let counted = steps.load(Ordering::Relaxed);
    tx.lock_handle().await.expect("a handle").remove_progress_handler();
    (counted, page.images.len())
}

/// A record with a job of `images` images. Every image whose index is divisible by `every` is dead,
/// and the next one is with a worker. The images changed one after the other.
async fn with_job(images: u32, every: u32) -> (SqliteStore, Bench, i64, JobId) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("farm.sqlite");
    let filling = others::SqliteStore::open(&file).await.expect("opens");
    let bench = Bench::new(Fresh::one(Arc::new(filling), folder)).await;
    let job = bench.submit(&["one"], images.min(10_000)).await;
    let seq = bench.store.job(job).await.expect("there").seq;
    let store = SqliteStore::open(&file).await.expect("opens");
    sqlx::query(
        "UPDATE images SET version = 2 + idx, state = CASE idx % ?1 WHEN 0 THEN 'dead' WHEN 1 THEN 'dispatched'
                                                     ELSE state END",
    )
    .bind(every)
    .execute(&store.writer)
    .await
    .expect("updates");
    (store, bench, seq, job)
}

#[tokio::test]
async fn a_page_costs_the_same_whatever_lies_between_its_images() {
    use ImageState as S;
    let (small, _keep, small_seq, small_job) = with_job(1000, 10).await;
    let (large, _keep_too, large_seq, large_job) = with_job(10_000, 100).await;
    for (states, order) in [
        (vec![], ImageOrder::Index(Some(500))),
        (vec![], ImageOrder::Version(600, None)),
        (vec![], ImageOrder::Version(600, Some(598))),
        (vec![S::Dead], ImageOrder::Index(None)),
        (vec![S::Dead], ImageOrder::Index(Some(300))),
        (vec![S::Dead, S::Dispatched, S::Done], ImageOrder::Index(Some(300))),
        (vec![S::Waiting, S::Dead, S::Cancelled], ImageOrder::Index(None)),
    ] {
        let query = |job| ImageQuery { states: states.clone(), ..ImageQuery::all(job, order, 50) };
        let (few, returned) = steps(&small, small_seq, &query(small_job)).await;
        let (many, same) = steps(&large, large_seq, &query(large_job)).await;
        let what = format!("{states:?} {order:?}: {few} steps among 1,000, {many} among 10,000");
        assert_eq!((returned, same), (50, 50), "{what}");
        assert!(few > 50 * 10, "{what}");
        // Other images lie between those that are returned, and none of them is read.
        assert!(many.abs_diff(few) <= few / 20, "{what}");
    }
}

#[tokio::test]
async fn a_page_of_changes_in_a_state_that_none_has_stops_after_a_thousand() {
    let (store, _keep, seq, job) = with_job(3000, 10).await;
    let changes = async |states| {
        let mut tx = store.readers.begin().await.expect("begins");
        let order = ImageOrder::Version(0, None);
        let query = ImageQuery { states, ..ImageQuery::all(job, order, 50) };
        page(&mut Images { tx: &mut tx, job, seq }, &query).await.expect("lists")
    };
    let none = changes(vec![ImageState::Cancelled]).await;
    // The image with index i has changed in version i + 2.
    assert_eq!((none.images.len(), none.next), (0, Some(ImageOrder::Version(1051, Some(1049)))));
    let dead = changes(vec![ImageState::Dead]).await;
    let found: Vec<_> = dead.images.iter().map(|image| image.id.index).collect();
    assert_eq!(found, (0..50).map(|number| number * 10).collect::<Vec<_>>());
}

/// The steps of a statement's plan.
async fn plan(statement: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(&folder.path().join("farm.sqlite")).await.expect("opens");
    let plan: Vec<(i64, i64, i64, String)> =
        sqlx::query_as(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
            .fetch_all(&store.readers)
            .await
            .expect("explains");
    plan.into_iter().map(|(.., step)| step).collect()
}

#[tokio::test]
async fn a_tenants_changes_are_found_without_reading_those_of_others() {
    let steps = plan(OF_TENANT).await;
    let index = "INDEX jobs_of_tenant_by_change (tenant=? AND ";
    assert!(steps.len() == 1 && steps[0].contains(index), "{steps:?}");
}

#[tokio::test]
async fn a_policy_goes_on_from_its_place_and_reads_no_other_tenants_jobs() {
    for (statement, index) in [
        (ENDED, "INDEX jobs_ended (state=? AND finished_ms>? AND finished_ms<?)"),
        (
            ENDED_OF_TENANT,
            "INDEX jobs_ended_of_tenant (tenant=? AND state=? AND finished_ms>? AND finished_ms<?)",
        ),
    ] {
        let steps = plan(statement).await;
        assert!(steps[0].contains(index), "{steps:?}");
        // Nothing is sorted.
        assert!(!steps.iter().any(|step| step.contains("B-TREE")), "{steps:?}");
    }
}
