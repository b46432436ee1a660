//! The store's suite on Postgres, and what only a server can do: one server, a database of its own for each check.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use darkroom_coordinator::store::{
    conformance::{self, Bench, Fresh},
    postgres::{Options, PostgresStore},
};
use darkroom_test_servers::postgres::Postgres;
use sqlx::{AssertSqlSafe, Connection as _};

async fn fresh() -> Fresh {
    let server = Postgres::shared();
    let url = server.create_database();
    let options = Options { connections: 8, ..Options::default() };
    let store = PostgresStore::connect(&url, options.clone()).await.expect("opens");
    let other = PostgresStore::connect(&url, options).await.expect("opens");
    Fresh::two(Arc::new(store), Arc::new(other), server)
}

darkroom_coordinator::store_conformance_tests!(#[tokio::test], fresh().await);

#[tokio::test]
async fn what_is_not_accepted_leaves_no_row() {
    let server = Postgres::shared();
    let url = server.create_database();
    let store = PostgresStore::connect(&url, Options::default()).await.expect("opens");
    let bench = Bench::new(Fresh::one(Arc::new(store), ())).await;
    conformance::what_is_not_accepted_leaves_nothing(&bench).await;
    let mut connection = sqlx::PgConnection::connect(&url).await.expect("connects");
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT table_name::text FROM information_schema.columns
         WHERE table_schema = 'public' AND column_name = 'job' AND data_type = 'bigint'",
    )
    .fetch_all(&mut connection)
    .await
    .expect("lists");
    assert!(tables.len() >= 7, "{tables:?}");
    for table in tables {
        let count = format!("SELECT count(*) FROM {table} WHERE job NOT IN (SELECT seq FROM jobs)");
        let left: i64 =
            sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut connection).await.expect("counts");
        assert_eq!(left, 0, "{table}");
    }
}

/// As a job is that was just accepted by a farm that had none: plans were made while tables were empty, and are kept.
#[tokio::test]
async fn the_dispatched_images_of_a_large_new_job_are_found_without_a_look_at_all() {
    let server = Postgres::shared();
    let url = server.create_database();
    let store = PostgresStore::connect(&url, Options::default()).await.expect("opens");
    let bench = Bench::new(Fresh::one(Arc::new(store), ())).await;
    let mut connection = sqlx::PgConnection::connect(&url).await.expect("connects");
    sqlx::query("ALTER TABLE images SET (autovacuum_enabled = FALSE)")
        .execute(&mut connection)
        .await
        .expect("alters");
    let before = bench.submit(&["one"], 1).await;
    for _ in 0..20 {
        assert!(bench.store.dispatched(&bench.pool("base")).await.expect("lists").is_empty());
        assert!(bench.store.dispatched_of_job(before).await.expect("lists").is_empty());
    }
    let job = bench.submit(&["one"], 100_000).await;
    bench.encode(job).await;
    assert_eq!(bench.dispatch("base", job, 2).await.len(), 2);
    let (mut all, mut asked, mut of_job) = (Duration::MAX, Duration::MAX, Duration::MAX);
    for _ in 0..5 {
        let began = Instant::now();
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM images")
            .fetch_one(&mut connection)
            .await
            .expect("counts");
        all = all.min(began.elapsed());
        let began = Instant::now();
        let tasks = bench.store.dispatched(&bench.pool("base")).await.expect("lists");
        asked = asked.min(began.elapsed());
        let began = Instant::now();
        let tasks_of_job = bench.store.dispatched_of_job(job).await.expect("lists");
        of_job = of_job.min(began.elapsed());
        assert_eq!((count, tasks.len(), tasks_of_job.len()), (100_001, 2, 2));
    }
    assert!(
        asked * 4 < all && of_job * 4 < all,
        "{asked:?} and {of_job:?}, where looking at all takes {all:?}"
    );
}

mod leading {
    //! Leadership: who has it, when it passes on, and that nobody writes in a term that is over.

    use std::time::{Duration, Instant};

    use darkroom_coordinator::store::{Error, Store, records::Release};
    use darkroom_core::{digest::Digest, id::StageName};
    use darkroom_queue::task::PoolId;
    use sqlx::{AssertSqlSafe, Connection as _};

    use super::{Options, Postgres, PostgresStore};

    async fn two(server: &Postgres) -> (PostgresStore, PostgresStore, String) {
        let url = server.create_database();
        let one = PostgresStore::connect(&url, Options::default()).await.expect("opens");
        let other = PostgresStore::connect(&url, Options::default()).await.expect("opens");
        (one, other, url.rsplit_once('/').expect("a database").1.to_owned())
    }

    async fn leads_within(store: &PostgresStore, holder: &str, limit: Duration) -> u64 {
        let began = Instant::now();
        loop {
            if let Some(term) = store.lead(holder).await.expect("asks") {
                return term.0;
            }
            assert!(began.elapsed() < limit, "{holder} does not lead in time");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn pool() -> PoolId {
        let stage = StageName::try_from("base".to_owned()).expect("a name");
        PoolId { stage, digest: Digest::of(b"cascade") }
    }

    #[tokio::test]
    async fn one_leads_and_what_it_does_after_a_takeover_is_refused() {
        let server = Postgres::shared();
        let (one, other, database) = two(&server).await;
        let term = one.lead("one").await.expect("asks").expect("leads");
        assert_eq!(one.lead("one").await.expect("asks"), Some(term), "and goes on leading");
        assert_eq!(other.lead("other").await.expect("asks"), None);
        one.dispatch(term, &pool(), &[]).await.expect("leads");
        // Eight seconds in which the leader was stopped.
        server.sql(&database, "UPDATE leadership SET until = clock_timestamp() - interval '1 second'");
        let next = leads_within(&other, "other", Duration::from_secs(2)).await;
        assert!(next > term.0, "a new holder raises the term");
        let late = one.dispatch(term, &pool(), &[]).await;
        assert!(matches!(late, Err(Error::NotLeading(_))), "{late:?}");
        let late = one.release(term, &pool(), &[], &Release::Returned).await;
        assert!(matches!(late, Err(Error::NotLeading(_))), "{late:?}");
        assert_eq!(one.lead("one").await.expect("asks"), None, "it knows by now");
    }

    #[tokio::test]
    async fn who_resigns_is_followed_at_once() {
        let server = Postgres::shared();
        let (one, other, _) = two(&server).await;
        let term = leads_within(&one, "one", Duration::from_secs(1)).await;
        assert_eq!(other.lead("other").await.expect("asks"), None);
        other.resign("other").await.expect("has nothing to give up");
        one.resign("one").await.expect("resigns");
        assert!(leads_within(&other, "other", Duration::from_secs(1)).await > term);
    }

    #[tokio::test]
    async fn a_leader_that_stops_within_a_transaction_is_followed_in_ten_seconds() {
        let server = Postgres::shared();
        let (one, other, database) = two(&server).await;
        leads_within(&one, "one", Duration::from_secs(1)).await;
        // What a stopped coordinator leaves: a transaction that has locked the term and never goes on.
        let url = server.url_of(&database);
        let mut stopped = sqlx::PgConnection::connect(&url).await.expect("connects");
        let idle = Options::default().idle_in_transaction.as_millis();
        for sql in [format!("SET idle_in_transaction_session_timeout = {idle}"), "BEGIN".to_owned()] {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut stopped).await.expect("runs");
        }
        sqlx::raw_sql("SELECT FROM leadership FOR SHARE").execute(&mut stopped).await.expect("locks");
        leads_within(&other, "other", Duration::from_secs(10)).await;
        assert!(sqlx::raw_sql("SELECT 1").execute(&mut stopped).await.is_err(), "the server has ended it");
    }

    #[tokio::test]
    async fn a_hint_reaches_the_other_coordinator() {
        let server = Postgres::shared();
        let (one, other, _) = two(&server).await;
        let told = tokio::spawn(async move { one.told().await });
        let began = Instant::now();
        // The listener may not be there yet: then the hint is lost, as hints may be.
        while !told.is_finished() {
            other.tell_leader().await.expect("tells");
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(began.elapsed() < Duration::from_secs(10), "nothing was heard");
        }
        told.await.expect("joins").expect("was told");
    }
}

mod opening {
    //! What is said when the database cannot be used, and that coordinators may start together.

    use darkroom_test_servers::process::free_port;

    use super::{Options, Postgres, PostgresStore};

    async fn refusal(url: &str) -> String {
        let error = PostgresStore::connect(url, Options::default()).await.expect_err("refused").to_string();
        assert!(!error.contains('\n') && !error.contains("a password"), "{error}");
        error
    }

    #[tokio::test]
    async fn every_reason_why_a_database_cannot_be_used_has_its_sentence() {
        let server = Postgres::shared();
        let url = server.create_database();
        let name = url.rsplit_once('/').expect("a database").1.to_owned();
        for (url, said) in [
            ("mysql://somewhere/else".to_owned(), "accepted: postgres://user:password@host:port/database"),
            (format!("postgres://u:p@127.0.0.1:{}/farm", free_port()), "nothing listens at 127.0.0.1:"),
            (
                format!("postgres://darkroom:wrong@127.0.0.1:{}/{name}", server.port()),
                "refuses the password of user \"darkroom\"",
            ),
            (server.url_of("nothing"), "has no database \"nothing\""),
        ] {
            let error = refusal(&url).await;
            assert!(error.contains(said), "{error}");
        }
        server.sql("postgres", &format!("ALTER DATABASE {name} SET default_transaction_read_only = on"));
        let error = refusal(&url).await;
        assert!(error.contains("is read-only"), "{error}");
    }

    #[tokio::test]
    async fn a_record_of_a_newer_darkroom_is_refused_with_both_versions() {
        let server = Postgres::shared();
        let url = server.create_database();
        let store = PostgresStore::connect(&url, Options::default()).await.expect("opens");
        drop(store);
        let name = url.rsplit_once('/').expect("a database").1;
        server.sql(
            name,
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (99, 'later', TRUE, '', 0)",
        );
        let error = refusal(&url).await;
        assert!(error.contains("newer Darkroom (schema 99, this one knows "), "{error}");
    }

    #[tokio::test]
    async fn coordinators_that_start_together_open_one_record() {
        use darkroom_coordinator::store::Store as _;
        let server = Postgres::shared();
        let url = server.create_database();
        let open = || PostgresStore::connect(&url, Options { connections: 2, ..Options::default() });
        let (one, two, three, four) = tokio::join!(open(), open(), open(), open());
        let stores = [one, two, three, four].map(|store| store.expect("opens"));
        for store in &stores {
            assert_eq!(store.farm_id().await.expect("known"), stores[0].farm_id().await.expect("known"));
            assert_eq!(store.database_identity(), stores[0].database_identity());
        }
        let elsewhere =
            PostgresStore::connect(&server.create_database(), Options::default()).await.expect("opens");
        assert_ne!(elsewhere.database_identity(), stores[0].database_identity());
    }
}
