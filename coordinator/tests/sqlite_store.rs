//! The store's suite on SQLite.

use std::sync::Arc;

use darkroom_coordinator::store::{Store, sqlite::SqliteStore};

async fn fresh() -> Arc<dyn Store> {
    let folder = tempfile::tempdir().expect("a folder").keep();
    Arc::new(SqliteStore::open(&folder.join("farm.sqlite")).await.expect("opens"))
}

darkroom_coordinator::store_conformance_tests!(#[tokio::test], fresh().await);
