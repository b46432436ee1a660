//! The store's suite on Postgres, and checks that need a server. There is one server, and each
//! check has its own database.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use darkroom_coordinator::store::{
    farm_changes::{ChangePosition, ChangeQuery},
    postgres::{Options, PostgresStore},
};
use darkroom_suites::store::{self, Age, Bench, Fresh, rows::without_a_rule};
use darkroom_test_servers::postgres::Postgres;
use sqlx::{AssertSqlSafe, Connection as _};

async fn fresh() -> Fresh {
    let server = Postgres::shared();
    let url = server.create_database();
    let options = Options { connections: 8, ..Options::default() };
    let store = PostgresStore::connect(&url, options.clone()).await.expect("opens");
    let other = PostgresStore::connect(&url, options).await.expect("opens");
    let age: Age = Arc::new(move |by| {
        let url = url.clone();
        Box::pin(async move {
            let mut connection = sqlx::PgConnection::connect(&url).await.expect("connects");
            let seconds = by.as_secs_f64();
            for statement in OLDER {
                let older = sqlx::query(statement).bind(seconds);
                older.execute(&mut connection).await.expect("ages");
            }
        })
    });
    Fresh::two(Arc::new(store), Arc::new(other), server).with_age(age)
}

/// Makes the history this many seconds older. (Minutes move in two steps, because two rows must not
/// have the same minute.)
const OLDER: [&str; 9] = [
    "UPDATE work_log SET at = at - $1::float8 * interval '1 second'",
    "UPDATE history SET minute = $1::float8::bigint - minute",
    "UPDATE history SET minute = -minute WHERE $1::float8 >= 0",
    "UPDATE usage_days SET day = '-' || (day::timestamp - $1::float8 * interval '1 second')::date::text",
    "UPDATE usage_days SET day = substr(day, 2) WHERE $1::float8 >= 0",
    "UPDATE job_progress
     SET ready_since = ARRAY (SELECT greatest(since - ($1::float8 * 1000)::bigint * (since > 0)::int, 0)
                              FROM unnest(ready_since) WITH ORDINALITY AS r (since, stage) ORDER BY stage)",
    "UPDATE jobs SET created_at = created_at - $1::float8 * interval '1 second'",
    "UPDATE webhook_events SET created_ms = created_ms - ($1::float8 * 1000)::bigint,
         due_ms = due_ms - ($1::float8 * 1000)::bigint, ended_ms = ended_ms - ($1::float8 * 1000)::bigint",
    "UPDATE webhooks SET suspended_until_ms = suspended_until_ms - ($1::float8 * 1000)::bigint",
];

#[tokio::test]
async fn every_table_says_when_its_rows_go() {
    let server = Postgres::shared();
    let url = server.create_database();
    let _store = PostgresStore::connect(&url, Options::default()).await.expect("opens");
    let mut connection = sqlx::PgConnection::connect(&url).await.expect("connects");
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()",
    )
    .fetch_all(&mut connection)
    .await
    .expect("lists");
    assert!(tables.len() > 20, "{tables:?}");
    assert_eq!(without_a_rule(&tables), [""; 0]);
}

/// Transactions do not commit in the order in which they began. A reader that continues after the
/// newest change would skip the slower transaction.
#[tokio::test]
async fn a_change_that_is_committed_late_is_not_skipped() {
    let server = Postgres::shared();
    let url = server.create_database();
    let store = PostgresStore::connect(&url, Options::default()).await.expect("opens");
    let bench = Bench::new(Fresh::one(Arc::new(store), ())).await;
    let (slow, quick) = (bench.submit(&["one"], 1).await, bench.submit(&["two"], 1).await);
    let mut connection = sqlx::PgConnection::connect(&url).await.expect("connects");
    let mut late = connection.begin().await.expect("begins");
    sqlx::query(
        "UPDATE job_progress SET version = version + 1 WHERE job = (SELECT seq FROM jobs WHERE id = $1)",
    )
    .bind(slow.0)
    .execute(&mut *late)
    .await
    .expect("changes");
    let before = bench.store.change_bounds().await.expect("asks");
    bench.store.pause(quick).await.expect("is not held up");
    let bounds = bench.store.change_bounds().await.expect("asks");
    let from = ChangePosition::before(before.settled);
    let read = async |from: ChangePosition, next: u64| {
        let known = &HashMap::new();
        let query = ChangeQuery { tenant: None, from, next, limit: 100, known };
        bench.store.changed_jobs(query).await.expect("reads").jobs
    };
    let version = bench.store.job(slow).await.expect("there").version;
    let told = read(from, bounds.next).await;
    let of_quick = told.iter().find(|one| one.job.id == quick).expect("it is told").position;
    assert!(told.iter().all(|one| one.job.id != slow || one.job.version == version));
    late.commit().await.expect("commits");
    let after = bench.store.change_bounds().await.expect("asks");
    let told_late = read(ChangePosition::before(bounds.settled), after.next).await;
    let found = told_late.iter().find(|one| one.job.id == slow).expect("it is told");
    assert_eq!(found.job.version, version + 1);
    assert!(found.position < of_quick, "its mark is the smaller one");
    let skipped = read(of_quick, after.next).await;
    assert!(skipped.is_empty(), "so a reader must not go on behind the newest change");
    // Other databases of the server may delay it for a moment.
    while bench.store.change_bounds().await.expect("asks").settled <= of_quick.mark {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

darkroom_suites::store_suite!(#[tokio::test], fresh().await);

#[tokio::test]
async fn what_is_not_accepted_leaves_no_row() {
    let server = Postgres::shared();
    let url = server.create_database();
    let store = PostgresStore::connect(&url, Options::default()).await.expect("opens");
    let bench = Bench::new(Fresh::one(Arc::new(store), ())).await;
    store::what_is_not_accepted_leaves_nothing(&bench).await;
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
        let left: i64 = sqlx::query_scalar(AssertSqlSafe(count))
            .fetch_one(&mut connection)
            .await
            .expect("counts");
        assert_eq!(left, 0, "{table}");
    }
}

/// The first job of a farm: query plans were made while the tables were empty, and are kept.
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
    //! Leadership: who has it, when it changes, and that nobody writes in a term that has ended.

    use std::time::{Duration, Instant};

    use darkroom_coordinator::store::{
        Error,
        records::Release,
        roles::{Dispatching as _, Leading as _, Outcomes as _},
    };
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
        assert_eq!(one.lead("one").await.expect("asks"), Some(term), "and it still leads");
        assert_eq!(other.lead("other").await.expect("asks"), None);
        one.dispatch(term, &pool(), &[]).await.expect("leads");
        // The leader is stopped for eight seconds.
        server.sql(
            &database,
            "UPDATE leadership SET until = clock_timestamp() - interval '1 second'",
        );
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
        // A stopped coordinator leaves a transaction that has locked the term and never continues,
        // and renewals that wait for it.
        let url = server.url_of(&database);
        let mut stopped = sqlx::PgConnection::connect(&url).await.expect("connects");
        let idle = Options::default().idle_in_transaction.as_millis();
        for sql in [format!("SET idle_in_transaction_session_timeout = {idle}"), "BEGIN".to_owned()]
        {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut stopped).await.expect("runs");
        }
        sqlx::raw_sql("SELECT FROM leadership FOR SHARE")
            .execute(&mut stopped)
            .await
            .expect("locks");
        // New stores, since one that has just asked answers from memory. When the first renewal has
        // changed the row, Postgres reads it again for the second.
        let mut renewing = Vec::new();
        for _ in 0..2 {
            let again = PostgresStore::connect(&url, Options::default()).await.expect("opens");
            renewing.push(tokio::spawn(async move { again.lead("one").await }));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(renewing.iter().all(|one| !one.is_finished()), "the renewals wait");
        leads_within(&other, "other", Duration::from_secs(10)).await;
        for one in renewing {
            // The first one gives up; the second one then waits in its place, long enough or not.
            let answer = one.await.expect("no panic");
            let fits = matches!(answer, Ok(_) | Err(Error::Unavailable(_)));
            assert!(fits, "that changes nothing: {answer:?}");
        }
        assert!(
            sqlx::raw_sql("SELECT 1").execute(&mut stopped).await.is_err(),
            "the server has ended it"
        );
    }

    #[tokio::test]
    async fn transactions_of_a_stopped_leader_that_wait_for_each_other_end_in_time() {
        let server = Postgres::shared();
        let (one, other, database) = two(&server).await;
        leads_within(&one, "one", Duration::from_secs(1)).await;
        let settings = one.session_settings().await.expect("settings");
        let settings = settings
            .iter()
            .map(|(name, value)| format!("set_config('{name}', '{value}', FALSE)"))
            .collect::<Vec<_>>()
            .join(", ");
        let url = server.url_of(&database);
        let mut stopped = Vec::new();
        for _ in 0..4 {
            let mut connection = sqlx::PgConnection::connect(&url).await.expect("connects");
            for sql in [format!("SELECT {settings}"), "BEGIN".to_owned()] {
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("runs");
            }
            stopped.push(tokio::spawn(async move {
                let locked = sqlx::raw_sql("SELECT FROM leadership FOR UPDATE")
                    .execute(&mut connection)
                    .await;
                // Whoever got it does not go on; the connection stays.
                (locked.map(|_| ()), connection)
            }));
        }
        let began = Instant::now();
        leads_within(&other, "other", Duration::from_secs(10)).await;
        let mut locked = 0;
        for one in stopped {
            locked += usize::from(one.await.expect("no panic").0.is_ok());
        }
        // The first one that waits gives up. The second one then waits in its place until the holder
        // is ended. Without the limit, each of the four would hold the row for four seconds.
        assert!((1..=2).contains(&locked), "{locked} got it ({:?})", began.elapsed());
    }

    #[tokio::test]
    async fn a_term_that_ends_far_ahead_because_the_clock_was_set_back_is_shortened() {
        let server = Postgres::shared();
        let (one, _, database) = two(&server).await;
        leads_within(&one, "one", Duration::from_secs(1)).await;
        server.sql(&database, "UPDATE leadership SET until = until + interval '1 hour'");
        let again = PostgresStore::connect(&server.url_of(&database), Options::default()).await;
        again.expect("opens").lead("one").await.expect("asks").expect("it leads");
        let ahead = "SELECT until > clock_timestamp() + interval '8 seconds' FROM leadership";
        assert_eq!(server.sql(&database, ahead), "f");
    }

    #[tokio::test]
    async fn a_hint_reaches_the_other_coordinator() {
        let server = Postgres::shared();
        let (one, other, _) = two(&server).await;
        let told = tokio::spawn(async move { one.told().await });
        let began = Instant::now();
        // The listener may not be ready yet. Then the hint is lost, which is allowed.
        while !told.is_finished() {
            other.tell_leader().await.expect("tells");
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(began.elapsed() < Duration::from_secs(10), "nothing was heard");
        }
        told.await.expect("joins").expect("was told");
    }
}

mod opening {
    //! The errors for a database that cannot be used, and that coordinators may start at the same
    //! time.

    use darkroom_test_servers::process::free_port;

    use super::{Options, Postgres, PostgresStore};

    async fn refusal(url: &str) -> String {
        let error =
            PostgresStore::connect(url, Options::default()).await.expect_err("refused").to_string();
        assert!(!error.contains('\n') && !error.contains("a password"), "{error}");
        error
    }

    #[tokio::test]
    async fn every_reason_why_a_database_cannot_be_used_has_its_sentence() {
        let server = Postgres::shared();
        let url = server.create_database();
        let name = url.rsplit_once('/').expect("a database").1.to_owned();
        for (url, said) in [
            (
                "mysql://somewhere/else".to_owned(),
                "accepted: postgres://user:password@host:port/database",
            ),
            (
                format!("postgres://u:p@127.0.0.1:{}/farm", free_port()),
                "nothing listens at 127.0.0.1:",
            ),
            (
                format!("postgres://darkroom:wrong@127.0.0.1:{}/{name}", server.port()),
                "refuses the password of user \"darkroom\"",
            ),
            (server.url_of("nothing"), "has no database \"nothing\""),
        ] {
            let error = refusal(&url).await;
            assert!(error.contains(said), "{error}");
        }
        server.sql(
            "postgres",
            &format!("ALTER DATABASE {name} SET default_transaction_read_only = on"),
        );
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
        use darkroom_coordinator::store::roles::Agreed as _;
        let server = Postgres::shared();
        let url = server.create_database();
        let open =
            || PostgresStore::connect(&url, Options { connections: 2, ..Options::default() });
        let (one, two, three, four) = tokio::join!(open(), open(), open(), open());
        let stores = [one, two, three, four].map(|store| store.expect("opens"));
        for store in &stores {
            assert_eq!(
                store.farm_id().await.expect("known"),
                stores[0].farm_id().await.expect("known")
            );
            assert_eq!(store.database_identity(), stores[0].database_identity());
        }
        let elsewhere = PostgresStore::connect(&server.create_database(), Options::default())
            .await
            .expect("opens");
        assert_ne!(elsewhere.database_identity(), stores[0].database_identity());
    }
}

#[tokio::test]
async fn a_clock_that_goes_back_hides_no_job_from_a_policy() {
    let server = Postgres::shared();
    let url = server.create_database();
    let record = PostgresStore::connect(&url, Options::default()).await.expect("opens");
    let bench = Bench::new(Fresh::one(Arc::new(record), server)).await;
    let end = async |at_ms: i64| {
        let mut connection = sqlx::PgConnection::connect(&url).await.expect("connects");
        sqlx::query(
            "UPDATE jobs SET finished_at = to_timestamp($1::float8 / 1000) WHERE seq = (SELECT max(seq) FROM jobs)",
        )
        .bind(at_ms)
        .execute(&mut connection)
        .await
        .expect("ends");
    };
    store::a_clock_that_goes_back_hides_no_job_from_a_policy(&bench, end).await;
}
