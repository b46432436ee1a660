//! A Postgres that speaks TLS with a wrong certificate: the sentence says what is wrong with it.

use darkroom_coordinator::store::{
    postgres::{Options, PostgresStore},
    roles::Maintenance as _,
};
use darkroom_test_servers::{
    certificates::{Authority, Validity},
    postgres::Postgres,
};

use super::refusal;

/// Exit codes: a wrong URL, a problem to fix at the server.
const WRONG: u8 = 2;
const MEND: u8 = 3;
const HERE: &str = "DNS:localhost,IP:127.0.0.1";

#[tokio::test]
async fn a_certificate_that_cannot_be_trusted_is_refused_by_what_is_wrong_with_it() {
    let (authority, another) = (Authority::new(), Authority::new());
    let mut server = Postgres::start_with_certificate(&authority.sign(HERE, Validity::Now));
    let port = server.port();
    let url = |host: &str, settings: &str| {
        format!("postgres://{}@{host}:{port}/postgres?{settings}", Postgres::USERINFO)
    };
    let trusting = |authority: &Authority, mode: &str| {
        url(
            "localhost",
            &format!("sslmode={mode}&sslrootcert={}", authority.file().to_str().expect("UTF-8")),
        )
    };
    let (known, unknown) = (trusting(&authority, "verify-full"), trusting(&another, "verify-full"));
    let opens = async |url: &str| {
        let store = PostgresStore::connect(url, Options::default()).await;
        store.unwrap_or_else(|error| panic!("{url}: {error}")).close().await;
    };
    let refuses = async |url: &str, said: &str, exit: u8| {
        let error = refusal(url).await;
        assert!(
            error.message.contains(said) && error.message.contains(&format!("localhost:{port}")),
            "{said:?}: {}",
            error.message
        );
        assert_eq!(error.code.exit_code(), exit, "{}", error.message);
    };

    opens(&known).await;
    opens(&url("localhost", "sslmode=require")).await;
    refuses(&unknown, "signed by nobody who is trusted here", WRONG).await;
    refuses(&trusting(&another, "verify-ca"), "signed by nobody who is trusted here", WRONG).await;
    // The system's authorities have not signed it either.
    refuses(
        &url("localhost", "sslmode=verify-full"),
        "signed by nobody who is trusted here",
        WRONG,
    )
    .await;
    refuses(
        &url("localhost", "sslmode=verify-full&sslrootcert=/nowhere/ca.pem"),
        "check sslrootcert",
        WRONG,
    )
    .await;

    server.write_certificate(&authority.sign("DNS:db.example.org", Validity::Now));
    server.restart();
    refuses(&known, "is for another host", WRONG).await;
    opens(&trusting(&authority, "verify-ca")).await;

    server.write_certificate(&authority.sign(HERE, Validity::Over));
    server.restart();
    refuses(&known, "has expired", MEND).await;
    refuses(&trusting(&authority, "verify-ca"), "has expired", MEND).await;
    opens(&url("localhost", "sslmode=require")).await;

    server.write_certificate(&authority.sign(HERE, Validity::ToCome));
    server.restart();
    refuses(&known, "is not valid yet", MEND).await;
}
