//! Problems that prevent a coordinator from using its Postgres. Each is reported at once, with its
//! own sentence and exit code.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    time::{Duration, Instant},
};

use darkroom_coordinator::store::{
    postgres::{Options, PostgresStore},
    roles::{Agreed as _, Maintenance as _},
};
use darkroom_test_servers::{postgres::Postgres, process::free_port, proxy::Proxy, redis::Redis};
use sqlx::Connection as _;

use super::{refusal, refusal_with};

/// Exit codes: a wrong URL, a problem to fix, a problem that passes.
const WRONG: u8 = 2;
const MEND: u8 = 3;
const WAIT: u8 = 4;

/// A server that sends the same bytes to everybody.
fn saying(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Reads everything, because closing a connection with unread bytes would discard the
            // answer.
            let mut request = [0; 512];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer);
        }
    });
    port
}

#[tokio::test]
async fn every_cause_has_its_sentence_and_its_exit_code_at_once() {
    let server = Postgres::start_with(&["max_connections=20"]);
    let (port, nobody, redis) = (server.port(), free_port(), Redis::start());
    server.sql(
        "postgres",
        "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    );
    server.sql(
        "postgres",
        "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
    );
    server.sql("postgres", "CREATE DATABASE locked");
    server.sql("postgres", "REVOKE CONNECT ON DATABASE locked FROM PUBLIC");
    server.sql("postgres", "CREATE ROLE guest LOGIN PASSWORD 'a password'");
    server.sql("postgres", "CREATE ROLE few LOGIN PASSWORD 'a password' CONNECTION LIMIT 4");
    server.sql("postgres", "CREATE ROLE barred NOLOGIN");
    server.sql("postgres", "CREATE DATABASE bare");
    server.sql("bare", "DROP SCHEMA public");
    server.sql("postgres", "CREATE DATABASE standing");
    server.sql("postgres", "ALTER DATABASE standing SET default_transaction_read_only = on");
    server.sql("postgres", "CREATE DATABASE closed ALLOW_CONNECTIONS = false");
    server.allow_first("host locked_out all 127.0.0.1/32 reject");
    server.sql("postgres", "CREATE DATABASE locked_out");
    let of = |userinfo: &str, database: &str| {
        format!("postgres://{userinfo}@127.0.0.1:{port}/{database}")
    };
    let at = |port: u16| format!("postgres://u:a%20password@127.0.0.1:{port}/farm");
    let http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    let cases = [
        (at(nobody), WAIT, format!("nothing listens at 127.0.0.1:{nobody}")),
        (at(redis.port()), WRONG, "is a Redis, not Postgres".to_owned()),
        (at(saying(http)), WRONG, "is an HTTP server, not Postgres".to_owned()),
        (at(saying(b"SSH-2.0-OpenSSH_9\r\n")), WRONG, "is an SSH server, not Postgres".to_owned()),
        (at(saying(b"")), WAIT, "ends the connection at once".to_owned()),
        (
            "postgres://u:a%20password@no-such-host.invalid/farm".to_owned(),
            WRONG,
            "\"no-such-host.invalid\" is not known".to_owned(),
        ),
        (
            "postgres:///farm?host=/nowhere".to_owned(),
            WAIT,
            "no socket /nowhere/.s.PGSQL.5432".to_owned(),
        ),
        (
            of("darkroom:a%20password", "postgres"),
            WRONG,
            "refuses the password of user \"darkroom\"".to_owned(),
        ),
        (
            of("stranger:a%20password", "postgres"),
            WRONG,
            "refuses the password of user \"stranger\"".to_owned(),
        ),
        (of("darkroom", "postgres"), WRONG, "refuses the password of user \"darkroom\"".to_owned()),
        (server.url_of("nothing"), MEND, "has no database \"nothing\"".to_owned()),
        (server.url_of("locked_out"), MEND, "pg_hba.conf".to_owned()),
        (server.url_of("closed"), MEND, "not currently accepting connections".to_owned()),
        (of("guest:a%20password", "locked"), MEND, "GRANT CONNECT".to_owned()),
        (
            of("guest:a%20password", "postgres"),
            MEND,
            "GRANT CREATE, USAGE ON SCHEMA public TO guest".to_owned(),
        ),
        (server.url_of("bare"), MEND, "has no schema for our tables".to_owned()),
        (server.url_of("standing"), MEND, "is read-only".to_owned()),
        (server.url_of("latin"), MEND, "has encoding LATIN1".to_owned()),
        (server.url_of("ascii"), MEND, "has encoding SQL_ASCII".to_owned()),
        (
            format!("{}?sslmode=require", server.url()),
            WRONG,
            "offers no TLS, and sslmode is require".to_owned(),
        ),
        (of("few:a%20password", "postgres"), WRONG, "at most 4 of user \"few\"".to_owned()),
    ];
    for (url, exit, said) in cases {
        let began = Instant::now();
        let error = refusal(&url).await;
        assert!(error.message.contains(&said), "{url}: {}", error.message);
        assert_eq!(error.code.exit_code(), exit, "{}", error.message);
        let field = if said.contains("at most") { "database-connections" } else { "database" };
        assert_eq!(error.field.as_deref(), Some(field), "{url}");
        assert!(began.elapsed() < Duration::from_secs(8), "{url}: {:?}", began.elapsed());
    }
    let error = refusal(&of("barred:a%20password", "postgres")).await;
    assert_eq!(error.code.exit_code(), WRONG, "{}", error.message);
    let many = Options { connections: 60, ..Options::default() };
    let error = refusal_with(&server.url(), many).await;
    assert!(error.message.contains("at most 17 of user"), "{}", error.message);

    // All connections are taken by others.
    let mut taken = Vec::new();
    while let Ok(connection) = sqlx::PgConnection::connect(&server.url()).await {
        taken.push(connection);
    }
    let began = Instant::now();
    let error = refusal(&server.url()).await;
    assert!(error.message.contains("has no connection left"), "{}", error.message);
    assert_eq!(error.code.exit_code(), WAIT);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_server_that_does_not_answer_or_stops_is_one_to_wait_for() {
    let mut server = Postgres::start();
    let proxy = Proxy::start(server.port());
    proxy.stall();
    let url = format!(
        "postgres://{}@127.0.0.1:{}/postgres?connect_timeout=2",
        Postgres::USERINFO,
        proxy.port()
    );
    let error = refusal(&url).await;
    assert!(error.message.contains("did not answer within 2 s"), "{}", error.message);
    assert_eq!(error.code.exit_code(), WAIT);

    // A session that does not end delays a shutdown, during which new sessions are refused.
    let held = sqlx::PgConnection::connect(&server.url()).await.expect("connects");
    server.stop_smartly();
    let error = refusal(&server.url()).await;
    assert!(error.message.contains("is shutting down"), "{}", error.message);
    assert_eq!(error.code.exit_code(), WAIT);
    drop(held);
    server.kill();
}

#[tokio::test]
async fn a_server_that_recovers_is_one_to_wait_for() {
    let primary = Postgres::start();
    let mut standby = primary.start_standby();
    standby.set("hot_standby=off");
    standby.restart_to_reject();
    let error = refusal(&standby.url()).await;
    assert!(error.message.contains("takes no connections yet"), "{}", error.message);
    assert_eq!(error.code.exit_code(), WAIT);
}

#[tokio::test]
async fn sockets_ipv6_and_lists_are_ways_to_a_server() {
    let server = Postgres::start_with(&["listen_addresses=127.0.0.1,::1"]);
    server.allow_first("host all all ::1/128 scram-sha-256");
    let (user, port) = (Postgres::USERINFO, server.port());
    let folder = server.socket_folder().to_str().expect("UTF-8").to_owned();
    let nobody = free_port();
    let mut identities = Vec::new();
    for url in [
        server.url(),
        format!("postgres://{user}@[::1]:{port}/postgres"),
        format!("postgres://{user}@{}:{port}/postgres", folder.replace('/', "%2F")),
        format!("postgres://{user}@/postgres?host={folder}&port={port}"),
        format!(
            "postgres://{user}@127.0.0.1:{nobody},[::1]:{port}/postgres?target_session_attrs=read-write"
        ),
    ] {
        let store = PostgresStore::connect(&url, Options::default())
            .await
            .unwrap_or_else(|error| panic!("{url}: {error}"));
        identities
            .push((store.database_identity().to_owned(), store.farm_id().await.expect("an id")));
        store.close().await;
    }
    identities.dedup();
    assert_eq!(identities.len(), 1);
}

#[tokio::test]
async fn settings_of_a_role_or_a_database_do_not_become_ours() {
    let server = Postgres::start();
    let url = server.create_database();
    let database = url.rsplit_once('/').expect("a database").1;
    for setting in [
        "synchronous_commit = off",
        "default_transaction_isolation = 'serializable'",
        "statement_timeout = 5000",
        "lock_timeout = 50000",
        "idle_session_timeout = 5000",
        "timezone = 'Asia/Tokyo'",
        "bytea_output = 'escape'",
        "client_encoding = 'LATIN1'",
    ] {
        server.sql("postgres", &format!("ALTER DATABASE {database} SET {setting}"));
    }
    let store = PostgresStore::connect(&url, Options::default()).await.expect("opens");
    for (name, value) in store.session_settings().await.expect("settings") {
        let expected = match name.as_str() {
            "synchronous_commit" => "on",
            "default_transaction_isolation" => "read committed",
            "statement_timeout" => "1min",
            "idle_in_transaction_session_timeout" => "4s",
            "lock_timeout" => "3s",
            "timezone" => "UTC",
            "bytea_output" => "hex",
            "client_encoding" => "UTF8",
            "idle_session_timeout" => "0",
            _ => continue,
        };
        assert_eq!(value, expected, "{name}");
    }
}

#[tokio::test]
async fn a_running_coordinators_database_says_why_it_fails() {
    let mut server = Postgres::start_with(&["max_connections=16"]);
    let options =
        Options { connections: 2, acquire: Duration::from_millis(300), ..Options::default() };
    let store = PostgresStore::connect(&server.url(), options).await.expect("opens");
    assert_eq!(store.diagnose().await, None);
    let mut taken = Vec::new();
    while let Ok(connection) = sqlx::PgConnection::connect(&server.url()).await {
        taken.push(connection);
    }
    let said = store.diagnose().await.expect("a cause");
    assert!(said.contains("has no connection left"), "{said}");
    drop(taken);
    server.kill();
    let said = store.diagnose().await.expect("a cause");
    assert!(said.contains("nothing listens at 127.0.0.1"), "{said}");
    server.restart();
    assert_eq!(store.diagnose().await, None);
}
