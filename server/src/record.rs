//! The farm's record: the database that a URL names, and how its connections are divided.

use std::{sync::Arc, time::Duration};

use darkroom_coordinator::{
    Error,
    store::{
        Store,
        postgres::{self, PostgresStore},
        sqlite::SqliteStore,
    },
};
use darkroom_core::error::UserError;
use darkroom_runtime::secret::SecretUrl;

/// A connection for calls that was unused for this long is checked first, because its server may be
/// gone.
const FRONT_ASKS: Duration = Duration::from_secs(1);

/// How a coordinator's connections are divided.
#[derive(Clone, Copy)]
pub(crate) struct Connections {
    all: u32,
    /// For calls, so that they never wait behind bulk work.
    front: u32,
}

impl Connections {
    pub(crate) fn of(all: u32) -> Self {
        Self { all, front: all / 3 }
    }
}

/// The record as it was opened.
pub(crate) enum Opened {
    Postgres(Box<PostgresStore>),
    Sqlite(SqliteStore, String),
}

/// The record as the coordinator uses it.
pub(crate) struct Record {
    /// For bulk work.
    pub(crate) store: Arc<dyn Store>,
    /// The same for calls.
    pub(crate) front: Arc<dyn Store>,
    /// Of its database.
    pub(crate) identity: String,
}

impl Opened {
    /// SQLite has one record for both, because its reads have their own connections already.
    pub(crate) fn record(self, connections: Connections) -> Record {
        match self {
            Self::Postgres(store) => {
                let options = postgres::Options {
                    connections: connections.front,
                    ask_after: FRONT_ASKS,
                    ..postgres::Options::default()
                };
                let identity = store.database_identity().to_owned();
                let front = store.beside(&options);
                Record {
                    store: Arc::from(store as Box<dyn Store>),
                    front: Arc::new(front),
                    identity,
                }
            }
            Self::Sqlite(store, identity) => {
                let store: Arc<dyn Store> = Arc::new(store);
                Record { store: Arc::clone(&store), front: store, identity }
            }
        }
    }
}

pub(crate) async fn open_store(
    url: SecretUrl,
    connections: Connections,
) -> Result<Opened, UserError> {
    let url = url.expose();
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        let options = postgres::Options {
            connections: connections.all - connections.front,
            wanted: connections.all,
            ..postgres::Options::default()
        };
        let store = PostgresStore::connect(url, options).await.map_err(not_started)?;
        return Ok(Opened::Postgres(Box::new(store)));
    }
    let Some(file) = url.strip_prefix("sqlite:") else {
        let message = "database is not a known URL; accepted: \
            postgres://user:password@host/database, sqlite:FILE";
        return Err(UserError::invalid("database", message));
    };
    if file.trim().is_empty() {
        return Err(UserError::invalid(
            "database",
            "database is sqlite: without a file; accepted: sqlite:FILE",
        ));
    }
    let store = SqliteStore::open(file.as_ref()).await.map_err(not_started)?;
    let path = std::fs::canonicalize(file).unwrap_or_else(|_| file.into());
    let identity = format!("{}:{}", darkroom_runtime::program::host_name(), path.to_string_lossy());
    Ok(Opened::Sqlite(store, identity))
}

/// The sentence that says why it cannot start. An internal error is logged, because its sentence
/// refers to the log.
pub(crate) fn not_started(error: impl Into<Error>) -> UserError {
    let error = error.into();
    error.log();
    error.to_user()
}
