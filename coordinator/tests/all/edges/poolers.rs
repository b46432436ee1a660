//! PgBouncer in front of the database: its session mode works, and the other modes are refused by
//! name.

use std::{sync::Arc, time::Duration};

use darkroom_coordinator::store::postgres::{Options, PostgresStore};
use darkroom_suites::store::{self, Bench, Fresh};
use darkroom_test_servers::{pgbouncer::PgBouncer, postgres::Postgres};

use super::refusal;

#[tokio::test]
async fn a_pooler_in_session_mode_works() {
    let server = Postgres::shared();
    let pooler = PgBouncer::start(&server, &["pool_mode=session", "default_pool_size=30"]);
    for forgiving in ["", "ignore_startup_parameters=options,extra_float_digits"] {
        let url = server.create_database();
        let database = url.rsplit_once('/').expect("a database").1;
        let pooler = if forgiving.is_empty() {
            &pooler
        } else {
            &PgBouncer::start(&server, &["default_pool_size=30", forgiving])
        };
        let options = Options { connections: 6, ..Options::default() };
        let store =
            PostgresStore::connect(&pooler.url_of(database), options.clone()).await.expect("opens");
        let direct = PostgresStore::connect(&url, options).await.expect("opens");
        assert_eq!(store.database_identity(), direct.database_identity());
        let settings = store.session_settings().await.expect("settings");
        assert_eq!(settings, direct.session_settings().await.expect("settings"));
        // Prepared statements, transactions and hints.
        let bench =
            Bench::new(Fresh::two(Arc::new(store), Arc::new(direct), Arc::clone(&server))).await;
        store::what_is_not_accepted_leaves_nothing(&bench).await;
        let job = bench.submit(&["one", "two"], 3).await;
        bench.encode(job).await;
        assert_eq!(bench.dispatch("base", job, 2).await.len(), 2);
        let told = bench.store.told();
        let tell = async {
            loop {
                bench.store.tell_leader().await.expect("tells");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            told = told => told.expect("told"),
            () = tell => {}
            () = tokio::time::sleep(Duration::from_secs(20)) => panic!("nothing was heard"),
        }
    }
}

#[tokio::test]
async fn poolers_that_share_sessions_are_refused_by_name() {
    let server = Postgres::shared();
    let url = server.create_database();
    let database = url.rsplit_once('/').expect("a database").1;
    for (settings, said) in [
        (&["pool_mode=transaction"][..], "a pooler in transaction mode"),
        (&["pool_mode=transaction", "default_pool_size=1"], "a pooler in transaction mode"),
        (
            &["pool_mode=transaction", "server_round_robin=1", "min_pool_size=5"],
            "a pooler in transaction mode",
        ),
        (&["pool_mode=statement"], "a pooler in statement mode"),
        (&["pool_mode=session", "default_pool_size=1"], "a second connection to Postgres"),
        (&["pool_mode=session", "max_client_conn=1"], "has no connection left"),
    ] {
        let pooler = PgBouncer::start(&server, settings);
        let url = format!("{}?connect_timeout=2", pooler.url_of(database));
        let error = refusal(&url).await;
        assert!(error.message.contains(said), "{settings:?}: {}", error.message);
        let exit = if said.contains("mode") { 3 } else { 4 };
        assert_eq!(error.code.exit_code(), exit, "{}", error.message);
    }
}

#[tokio::test]
async fn a_pooler_without_a_server_or_a_database_says_so() {
    let mut server = Postgres::start();
    let pooler = PgBouncer::start(&server, &["pool_mode=session"]);
    let error = refusal(&pooler.url_of("nothing")).await;
    assert!(error.message.contains("nothing"), "{}", error.message);
    server.kill();
    let error = refusal(&format!("{}?connect_timeout=2", pooler.url_of("postgres"))).await;
    assert_eq!(error.code.exit_code(), 4, "{}", error.message);
}
