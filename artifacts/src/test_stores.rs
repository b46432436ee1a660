//! Stores of every kind for tests. `make test-stores` adds one on a server that it starts; see
//! `DARKROOM_TEST_STORE`.

use std::{path::Path, time::Duration};

use darkroom_test_servers::s3::S3;

use crate::{blob::ArtifactStore, open::Options};

/// A folder, memory and S3, and the store that `DARKROOM_TEST_STORE` names,
/// `scheme://bucket?parameters`.
pub(crate) struct Stores {
    folder: tempfile::TempDir,
    _s3: S3,
    stores: Vec<ArtifactStore>,
}

impl Stores {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let local = ArtifactStore::local(&folder.path().join("artifacts")).expect("a store");
        let (s3, on_s3) = on_s3();
        let mut stores = vec![local, ArtifactStore::in_memory(), on_s3];
        stores.extend(std::env::var("DARKROOM_TEST_STORE").ok().map(|url| elsewhere(&url)));
        Self { folder, _s3: s3, stores }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn all(&self) -> Vec<ArtifactStore> {
        self.stores.clone()
    }
}

/// A store on a running server, with a unique prefix.
fn elsewhere(url: &str) -> ArtifactStore {
    let (place, query) = url.split_once('?').expect("a URL with parameters");
    let url = format!("{place}/{}?{query}", uuid::Uuid::new_v4());
    ArtifactStore::open(&url, &Options::from_env()).expect("a store")
}

/// A server, and a store on it that retries faults quickly.
pub(crate) fn on_s3() -> (S3, ArtifactStore) {
    let s3 = S3::start();
    let store = ArtifactStore::open(&s3.url(), &quick(&s3)).expect("a store");
    (s3, store)
}

/// Options with the server's credentials and short pauses.
pub(crate) fn quick(s3: &S3) -> Options {
    Options {
        environment: s3.environment().into_iter().collect(),
        silence: Duration::from_secs(20),
        retries: 3,
        pause: Duration::from_millis(2),
        patience: Duration::from_secs(2),
        ..Options::default()
    }
}
