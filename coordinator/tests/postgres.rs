//! The store's suite on Postgres: one server, a database of its own for each check.

use std::sync::Arc;

use darkroom_coordinator::store::{
    conformance::Fresh,
    postgres::{Options, PostgresStore},
};
use darkroom_test_servers::postgres::Postgres;

async fn fresh() -> Fresh {
    let server = Postgres::shared();
    let url = server.create_database();
    let options = Options { connections: 8, ..Options::default() };
    let store = PostgresStore::connect(&url, options.clone()).await.expect("opens");
    let other = PostgresStore::connect(&url, options).await.expect("opens");
    Fresh::two(Arc::new(store), Arc::new(other), server)
}

darkroom_coordinator::store_conformance_tests!(#[tokio::test], fresh().await);
