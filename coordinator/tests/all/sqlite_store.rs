//! The store's suite on SQLite.

use std::sync::Arc;

use darkroom_coordinator::store::sqlite::SqliteStore;
use darkroom_suites::store::{self, Age, Bench, Fresh, rows::without_a_rule};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

async fn fresh() -> Fresh {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("farm.sqlite");
    let store = SqliteStore::open(&file).await.expect("opens");
    let options = SqliteConnectOptions::new().filename(file);
    let age: Age = Arc::new(move |by| {
        let (options, ms) = (options.clone(), i64::try_from(by.as_millis()).expect("small"));
        Box::pin(async move {
            let mut connection =
                SqliteConnection::connect_with(&options).await.expect("a second connection");
            for statement in OLDER {
                sqlx::query(statement).bind(ms).execute(&mut connection).await.expect("ages");
            }
            connection.close().await.expect("closes");
        })
    });
    Fresh::one(Arc::new(store), folder).with_age(age)
}

/// Makes the history this many milliseconds older. (Minutes move in two steps, because two rows
/// must not have the same minute.)
const OLDER: [&str; 9] = [
    "UPDATE work_log SET at_ms = at_ms - ?1",
    "UPDATE history SET minute = ?1 / 1000 - minute",
    "UPDATE history SET minute = -minute WHERE ?1 >= 0",
    "UPDATE usage_days SET day = '-' || date(day, (-?1 / 1000) || ' seconds')",
    "UPDATE usage_days SET day = substr(day, 2) WHERE ?1 >= 0",
    "UPDATE job_stages SET ready_since_ms = ready_since_ms - ?1",
    "UPDATE jobs SET created_ms = created_ms - ?1",
    "UPDATE webhook_events
     SET created_ms = created_ms - ?1, due_ms = due_ms - ?1, ended_ms = ended_ms - ?1",
    "UPDATE webhooks SET suspended_until_ms = suspended_until_ms - ?1",
];

darkroom_suites::store_suite!(#[tokio::test], fresh().await);

#[tokio::test]
async fn every_table_says_when_its_rows_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("farm.sqlite");
    let _store = SqliteStore::open(&file).await.expect("opens");
    let options = SqliteConnectOptions::new().filename(file);
    let mut connection = SqliteConnection::connect_with(&options).await.expect("opens");
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table'")
            .fetch_all(&mut connection)
            .await
            .expect("lists");
    assert!(tables.len() > 20, "{tables:?}");
    assert_eq!(without_a_rule(&tables), [""; 0]);
}

#[tokio::test]
async fn a_clock_that_goes_back_hides_no_job_from_a_policy() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("farm.sqlite");
    let record = Arc::new(SqliteStore::open(&file).await.expect("opens"));
    let bench = Bench::new(Fresh::one(record, folder)).await;
    let end = async |at_ms: i64| {
        let options = SqliteConnectOptions::new().filename(&file);
        let mut connection = SqliteConnection::connect_with(&options).await.expect("connects");
        sqlx::query("UPDATE jobs SET finished_ms = ?1 WHERE seq = (SELECT max(seq) FROM jobs)")
            .bind(at_ms)
            .execute(&mut connection)
            .await
            .expect("ends");
    };
    store::a_clock_that_goes_back_hides_no_job_from_a_policy(&bench, end).await;
}
