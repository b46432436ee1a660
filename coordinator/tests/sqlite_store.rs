//! The store's suite on SQLite.

use std::sync::Arc;

use darkroom_coordinator::store::{conformance::Fresh, sqlite::SqliteStore};

async fn fresh() -> Fresh {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(&folder.path().join("farm.sqlite")).await.expect("opens");
    Fresh::one(Arc::new(store), folder)
}

darkroom_coordinator::store_conformance_tests!(#[tokio::test], fresh().await);
