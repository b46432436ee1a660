//! A primary and its streaming standby in one URL: the primary is killed, the standby promoted, and
//! the store continues.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use darkroom_coordinator::store::{
    Error,
    postgres::{Options, PostgresStore},
    roles::{Maintenance as _, WorkerHealth as _},
};
use darkroom_core::id::{JobId, WorkerId};
use darkroom_suites::store::{Bench, Fresh};
use darkroom_test_servers::postgres::Postgres;

use super::refusal;

fn url(servers: &[&Postgres]) -> String {
    let hosts: Vec<String> =
        servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
    format!(
        "postgres://{}@{}/postgres?target_session_attrs=read-write",
        Postgres::USERINFO,
        hosts.join(",")
    )
}

/// Retries until the store answers.
async fn found(bench: &Bench, job: JobId) -> u64 {
    let give_up = Instant::now() + Duration::from_secs(30);
    loop {
        match bench.store.job(job).await {
            Ok(job) => return job.images,
            Err(error) if error.retryable() && Instant::now() < give_up => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// The server that the store writes to now.
async fn submits(bench: &Bench) -> JobId {
    bench.submit(&["later"], 1).await
}

#[tokio::test]
async fn a_promoted_standby_is_written_to_and_the_old_primary_is_not() {
    let mut primary = Postgres::start();
    let standby = primary.start_standby();
    primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
    primary.sql("postgres", "SELECT pg_reload_conf()");
    // The standby is listed first, but the primary is used.
    let url = url(&[&standby, &primary]);
    let options = Options { connections: 4, acquire: Duration::from_secs(2), ..Options::default() };
    let store = PostgresStore::connect(&url, options.clone()).await.expect("opens");
    let bench = Bench::new(Fresh::one(Arc::new(store), ())).await;
    let job = bench.submit(&["one", "two"], 3).await;
    primary.kill();
    // Meanwhile no server takes writes, and the error says so.
    let said = bench.store.diagnose().await.expect("a cause");
    assert!(
        said.contains("none of the 2 servers")
            && said.contains("read-only")
            && said.contains("nothing listens"),
        "{said}"
    );
    standby.promote();
    assert_eq!(found(&bench, job).await, 6, "what was accepted is there");
    let later = submits(&bench).await;
    let on = |server: &Postgres, job: JobId| {
        server.sql("postgres", &format!("SELECT count(*) FROM jobs WHERE id = '{job}'"))
    };
    assert_eq!(on(&standby, later), "1");

    // The old primary comes back and takes writes. A store that knows its successor writes to the
    // successor.
    primary.set("synchronous_standby_names=");
    primary.restart();
    let another =
        PostgresStore::connect(&self::url(&[&primary, &standby]), options).await.expect("opens");
    another.command_drain(&WorkerId("another".to_owned())).await.expect("writes");
    let commands = |server: &Postgres| server.sql("postgres", "SELECT worker FROM worker_drains");
    assert_eq!((commands(&standby).as_str(), commands(&primary).as_str()), ("another", ""));
    another.close().await;
    // The first store never goes back to it, even while the successor is away.
    let mut standby = standby;
    standby.kill();
    let said = bench.store.diagnose().await.expect("a cause");
    assert!(said.contains("another server has replaced"), "{said}");
    let written = bench.store.command_drain(&WorkerId("first".to_owned())).await;
    assert!(matches!(written, Err(Error::Unavailable(_))), "{written:?}");
    assert_eq!(commands(&primary), "");
    standby.restart();
    assert_eq!(found(&bench, later).await, 1);
}

#[tokio::test]
async fn a_server_of_another_database_is_refused() {
    let (one, other) = (Postgres::start(), Postgres::start_unrelated());
    let error = refusal(&url(&[&one, &other])).await;
    assert!(error.message.contains("holds another database"), "{}", error.message);
    assert_eq!(error.code.exit_code(), 3);
}

#[tokio::test]
async fn of_standbys_alone_it_is_said_that_none_takes_writes() {
    let mut primary = Postgres::start();
    let standby = primary.start_standby();
    let list = url(&[&standby, &primary]);
    let single = url(&[&standby]);
    primary.kill();
    let error = refusal(&single).await;
    assert!(error.message.contains("is read-only (a standby?)"), "{}", error.message);
    assert_eq!(error.code.exit_code(), 3);
    let error = refusal(&list).await;
    assert!(error.message.contains("none of the 2 servers"), "{}", error.message);
    assert_eq!(error.code.exit_code(), 4, "a promotion may be on its way");
}
