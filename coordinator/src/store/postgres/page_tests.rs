//! How many rows a page of images reads, and how many a tenant's changes and a retention policy, as
//! the server itself counts them.
//!
//! The bench is built with this crate's library, which is not the copy under test. It fills the
//! database like another process would, and the store under test reads it.

use std::{collections::BTreeMap, sync::Arc};

use ::darkroom_coordinator::store::{postgres as others, records::NewJob};
use darkroom_core::{digest::Digest, id::JobId, image_state::ImageState};
use darkroom_queue::task::{Outcome, Subject};
use darkroom_suites::store::{Bench, Fresh, STAGES, done};
use darkroom_test_servers::postgres::Postgres;

use super::{
    Options, PostgresStore,
    both::{
        farm_changes::OF_TENANT,
        page::Images,
        policy_walk::{ENDED, ENDED_OF_TENANT},
    },
};
use crate::store::{
    image_pages::{page, watched},
    records::{ImageOrder, ImagePage, ImageQuery},
};

const IMAGES: u32 = 6000;

async fn fresh() -> (PostgresStore, Bench) {
    let server = Postgres::shared();
    let url = server.create_database();
    let others = others::PostgresStore::connect(&url, others::Options::default());
    let bench = Bench::new(Fresh::one(Arc::new(others.await.expect("opens")), server)).await;
    (PostgresStore::connect(&url, Options::default()).await.expect("opens"), bench)
}

/// Rows that this transaction has read so far, by table.
async fn rows_read(tx: &mut super::Tx) -> BTreeMap<String, i64> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT relname::text, (coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint
         FROM pg_stat_xact_user_tables",
    )
    .fetch_all(&mut **tx)
    .await
    .expect("counts");
    rows.into_iter().collect()
}

/// A page, and the rows of images, blocks and runs of changes that it read.
async fn read(store: &PostgresStore, seq: i64, query: &ImageQuery) -> (ImagePage, [i64; 3]) {
    let mut tx = store.begin_read().await.expect("begins");
    let before = rows_read(&mut tx).await;
    let mut images = Images { tx: &mut tx, job: query.job, seq };
    let page = page(&mut images, query).await.expect("lists");
    let after = rows_read(&mut tx).await;
    let of = |table: &str| {
        after.get(table).copied().unwrap_or(0) - before.get(table).copied().unwrap_or(0)
    };
    (page, ["images", "image_blocks", "image_changes"].map(of))
}

/// Every 97th image is dead; of the others fifty are done, fifty are with workers, and the rest are
/// ready.
async fn mixed_job(bench: &Bench) -> JobId {
    let job = bench.submit(&["one"], IMAGES).await;
    bench.encode(job).await;
    for _ in 0..6 {
        let reports: Vec<_> = bench
            .dispatch(STAGES[0], job, u64::from(IMAGES))
            .await
            .iter()
            .map(|task| {
                let failing = matches!(task.key.subject, Subject::Image(id) if id.index % 97 == 0);
                let outcome = if failing {
                    let message = "message".to_owned();
                    Outcome::Failed { code: "code".into(), message }
                } else {
                    done("base")
                };
                Bench::report(task.key, outcome, true)
            })
            .collect();
        for bulk in reports.chunks(1000) {
            bench.store.commit(&bench.pool(STAGES[0]), bulk).await.expect("commits");
        }
    }
    let reports: Vec<_> = bench
        .dispatch(STAGES[1], job, 100)
        .await
        .iter()
        .step_by(2)
        .map(|task| Bench::report(task.key, done("sr256"), true))
        .collect();
    bench.store.commit(&bench.pool(STAGES[1]), &reports).await.expect("commits");
    bench.audit(job).await;
    job
}

#[tokio::test]
async fn a_page_reads_the_images_that_it_returns_and_one_more() {
    use ImageState as S;
    let (store, bench) = fresh().await;
    let job = mixed_job(&bench).await;
    let record = bench.store.job(job).await.expect("there");
    let middle = Some(u64::from(IMAGES / 2));
    for (states, after, expected) in [
        (vec![], None, 100),
        (vec![], middle, 100),
        (vec![S::Dead], None, 62),
        (vec![S::Dead], middle, 31),
        (vec![S::Ready], middle, 100),
        (vec![S::Done], None, 50),
        (vec![S::Done], middle, 0),
        (vec![S::Waiting, S::Cancelled], None, 0),
        (vec![S::Done, S::Dead, S::Dispatched], None, 100),
        (vec![S::Waiting, S::Ready, S::Dispatched, S::Done, S::Dead, S::Cancelled], middle, 100),
    ] {
        let order = ImageOrder::Index(after);
        let query = ImageQuery { states: states.clone(), ..ImageQuery::all(job, order, 100) };
        let (page, [images, blocks, _]) = read(&store, record.seq, &query).await;
        let what = format!("{states:?} after {after:?}: {images} images, {blocks} blocks");
        assert_eq!(page.images.len(), expected, "{what}");
        let returned = i64::try_from(expected).expect("small");
        // By index alone the page is found by a look at its images, and one more.
        let found = if states.is_empty() { returned + 1 } else { 0 };
        assert!((returned..=returned + found).contains(&images), "{what}");
        // Four blocks for each state, then sixteen; never one without an image of the state.
        let most = if states.is_empty() { 0 } else { returned.min(20) + 4 * 6 };
        assert!(blocks <= most, "{what}");
    }
    for (version, limit) in [(record.version - 1, 100), (record.version - 1, 40)] {
        let query = ImageQuery::all(job, ImageOrder::Version(version, None), limit);
        let (page, [images, _, runs]) = read(&store, record.seq, &query).await;
        let returned = i64::try_from(page.images.len()).expect("small");
        let what = format!("since {version}: {returned} returned, {images} images, {runs} runs");
        assert!(returned >= 40, "{what}");
        assert!(images <= 2 * returned + 1, "{what}");
        assert!(runs <= 3, "{what}");
    }
}

#[tokio::test]
async fn a_page_reads_a_thousand_stale_changes_and_the_next_one_goes_on() {
    let (store, bench) = fresh().await;
    let job = mixed_job(&bench).await;
    let record = bench.store.job(job).await.expect("there");
    // Nearly all of the oldest changes are stale.
    let mut query = ImageQuery::all(job, ImageOrder::Version(0, None), 10);
    let (mut found, mut empty) = (Vec::new(), 0);
    loop {
        let (page, [images, _, runs]) = read(&store, record.seq, &query).await;
        let returned = i64::try_from(page.images.len()).expect("small");
        let what = format!("{images} images and {runs} runs for {returned} images");
        assert!(images <= 10 + 1000 + returned, "{what}");
        // A run has up to a thousand images; runs beyond a statement's last entry are not read.
        assert!(runs <= 100, "{what}");
        empty += u32::from(returned == 0);
        found.extend(page.images.iter().map(|image| (image.version, image.id.index)));
        let Some(next) = page.next else { break };
        query.order = next;
    }
    assert!(empty > 0, "no page had only stale changes");
    assert!(found.is_sorted(), "{found:?}");
    assert_eq!(found.len(), IMAGES as usize);
    // A watch reads on until it has images.
    let mut tx = store.begin_read().await.expect("begins");
    let query = ImageQuery::all(job, ImageOrder::Version(0, None), 10);
    let mut images = Images { tx: &mut tx, job, seq: record.seq };
    assert_eq!(watched(&mut images, &query).await.expect("lists").images.len(), 10);
}

#[tokio::test]
async fn pages_over_many_blocks_have_every_image_once_and_in_order() {
    use ImageState as S;
    let (store, bench) = fresh().await;
    let job = mixed_job(&bench).await;
    // A done image far behind the others, so that one state's blocks lie apart from another's.
    let last = bench.dispatch(STAGES[1], job, u64::from(IMAGES)).await;
    let last = last.iter().max_by_key(|task| match task.key.subject {
        Subject::Image(id) => id.index,
        Subject::Text(_) => 0,
    });
    let report = Bench::report(last.expect("some").key, done("sr256"), true);
    bench.store.commit(&bench.pool(STAGES[1]), &[report]).await.expect("commits");
    let mut images = Vec::new();
    let mut query = ImageQuery::all(job, ImageOrder::Index(None), 1000);
    loop {
        let page = store.images_for_tests(&query).await;
        images.extend(page.images.iter().map(|image| (image.id.index, image.progress.state)));
        let Some(next) = page.next else { break };
        query.order = next;
    }
    assert_eq!(images.len(), IMAGES as usize);
    for states in [vec![S::Done, S::Dead], vec![S::Dispatched, S::Done], vec![S::Dead]] {
        let expected: Vec<u64> = images
            .iter()
            .filter(|(_, state)| states.contains(state))
            .map(|(index, _)| *index)
            .collect();
        let order = ImageOrder::Index(None);
        let mut query = ImageQuery { states: states.clone(), ..ImageQuery::all(job, order, 70) };
        let mut found = Vec::new();
        loop {
            let page = store.images_for_tests(&query).await;
            found.extend(page.images.iter().map(|image| image.id.index));
            let Some(next) = page.next else { break };
            query.order = next;
        }
        assert_eq!(found, expected, "{states:?}");
    }
}

#[tokio::test]
async fn blocks_whose_bits_are_not_known_are_listed_all_the_same() {
    let (store, bench) = fresh().await;
    let job = mixed_job(&bench).await;
    let query = ImageQuery {
        states: vec![ImageState::Dead, ImageState::Done],
        ..ImageQuery::all(job, ImageOrder::Index(Some(20)), 100)
    };
    let listed =
        |page: ImagePage| -> Vec<u64> { page.images.iter().map(|image| image.id.index).collect() };
    let before = listed(store.images_for_tests(&query).await);
    // As a coordinator of the version before counts: the trigger forgets the bits.
    sqlx::query("UPDATE image_blocks SET done = done + 0 WHERE block % 2 = 1")
        .execute(&store.pool)
        .await
        .expect("updates");
    let known: i64 =
        sqlx::query_scalar("SELECT count(*) FROM image_blocks WHERE dead_bits IS NOT NULL")
            .fetch_one(&store.pool)
            .await
            .expect("counts");
    assert_eq!(known, 12, "every second of 24 blocks");
    assert_eq!(listed(store.images_for_tests(&query).await), before);
    bench.audit(job).await;
}

impl PostgresStore {
    async fn images_for_tests(&self, query: &ImageQuery) -> ImagePage {
        use crate::store::roles::Queries as _;
        self.images(query).await.expect("lists")
    }
}

#[tokio::test]
async fn a_tenants_changes_are_found_without_reading_those_of_others() {
    let (store, bench) = fresh().await;
    for number in 0..200 {
        let tenant = if number == 100 { "quiet" } else { "busy" };
        let job = NewJob { tenant: tenant.to_owned(), ..bench.job(None) };
        let prompts = bench.prompts(&["one"], 1);
        bench.store.submit(&job, &prompts, Digest::of(b"c")).await.expect("accepted");
    }
    sqlx::raw_sql("ANALYZE").execute(&store.pool).await.expect("analyses");
    let mut tx = store.begin_read().await.expect("begins");
    let before = rows_read(&mut tx).await;
    let found: Vec<(String, i64, i64)> = sqlx::query_as(OF_TENANT)
        .bind("0")
        .bind(0_i64)
        .bind((u64::MAX >> 1).to_string())
        .bind(100_i64)
        .bind("quiet")
        .fetch_all(&mut *tx)
        .await
        .expect("reads");
    let after = rows_read(&mut tx).await;
    let read = |table: &str| {
        after.get(table).copied().unwrap_or(0) - before.get(table).copied().unwrap_or(0)
    };
    assert_eq!((found.len(), read("job_progress")), (1, 1), "{before:?} {after:?}");
    assert!(read("jobs") <= 1, "{before:?} {after:?}");
}

#[tokio::test]
async fn a_policy_goes_on_from_its_place_and_reads_no_other_tenants_jobs() {
    let (store, bench) = fresh().await;
    bench.submit(&["one"], 1).await;
    let copies = "INSERT INTO jobs (id, tenant, content, name, priority, state, cascade, encoder, settings, requested,
                                   seed, finished_at)
                  SELECT gen_random_uuid(), CASE n % 1000 WHEN 7 THEN 'quiet' ELSE 'busy' END, content, name,
                         priority, 'done', cascade, encoder, settings, requested, seed, to_timestamp(n)
                  FROM jobs CROSS JOIN generate_series(1, 5000) AS n";
    sqlx::raw_sql(copies).execute(&store.pool).await.expect("copies");
    sqlx::raw_sql("ANALYZE").execute(&store.pool).await.expect("analyses");
    let mut tx = store.begin_read().await.expect("begins");
    let until = 4_500_000_i64;
    for (tenant, from, limit, expected) in [
        (None, 0, 20, 20),
        (None, 4000, 20, 20),
        (None, 4490, 20, 11),
        (Some("quiet"), 0, 20, 5),
        (Some("quiet"), 3500, 20, 1),
        (Some("nobody"), 0, 20, 0),
    ] {
        let before = rows_read(&mut tx).await;
        let query = sqlx::query(if tenant.is_some() { ENDED_OF_TENANT } else { ENDED });
        let query = query
            .bind("done")
            .bind(until)
            .bind(from * 1_000_000_i64)
            .bind(0_i64)
            .bind(i64::from(limit));
        let query = if tenant.is_some() { query.bind(tenant) } else { query };
        let found = query.fetch_all(&mut *tx).await.expect("reads").len();
        let after = rows_read(&mut tx).await;
        let read = |table: &str| {
            after.get(table).copied().unwrap_or(0) - before.get(table).copied().unwrap_or(0)
        };
        assert_eq!(
            (found, read("jobs")),
            (expected, i64::try_from(expected).expect("few")),
            "{tenant:?} {from}"
        );
    }
}
