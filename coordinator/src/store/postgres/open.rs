//! Opens the database: one clear sentence if it cannot be used, migrations under a lock (several
//! coordinators may start at the same time), and the identity of the database.

use std::{sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions as _, PgConnection, PgPool, migrate::MigrateError, postgres::PgPoolOptions,
};
use tokio::time::timeout;
use uuid::Uuid;

use crate::store::migrations::POSTGRES;

use super::{
    Error, PostgresStore, fault,
    hints::FoundFrom,
    leadership::Leadership,
    options::Options,
    plans::KnownPlans,
    servers::{Found, Servers},
    session::{self, Unfit},
    url::{self, Server},
    why,
};

impl PostgresStore {
    /// Opens the record in the database that `url` names
    /// (`postgres://user:password@host:port/database`, or several hosts of which one takes writes),
    /// making its tables if they are not there.
    ///
    /// # Errors
    /// [`Error::NotOpened`] in one sentence that names the cause.
    pub async fn connect(url: &str, options: Options) -> Result<Self, Error> {
        // If a program links both of rustls's providers, it must choose one, or sslmode=verify-ca
        // panics. Choosing twice is no error.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let target = url::parse(url).map_err(Error::NotOpened)?;
        let options = Options { wanted: options.wanted.max(options.connections), ..options };
        let servers = Arc::new(Servers::new(target, options.clone()));
        let found = servers.find().await.map_err(Error::NotOpened)?;
        let server = servers.chosen().clone();
        let Found { mut connection, facts, identity } = found;
        refuse_poolers(&server, &mut connection, servers.patience()).await?;
        if let Err(error) = session::prepare(&mut connection, &server, &options).await {
            return Err(Error::NotOpened(error.told(&server).await));
        }
        migrate(&server, facts.schema(), connection).await?;
        let pool = pool(&servers, &options);
        match farm_id(&pool).await {
            Ok(farm) => Ok(Self::over(pool, servers, (farm, identity), options.settle)),
            Err(error) => Err(not_opened(&servers, &server, error).await),
        }
    }

    /// The same record, with its own connections.
    #[must_use]
    pub fn beside(&self, options: &Options) -> Self {
        let pool = pool(&self.servers, options);
        Self::over(
            pool,
            Arc::clone(&self.servers),
            (self.farm, self.identity.clone()),
            options.settle,
        )
    }

    fn over(
        pool: PgPool,
        servers: Arc<Servers>,
        (farm, identity): (Uuid, String),
        settle: Duration,
    ) -> Self {
        servers.serve(&pool);
        Self {
            pool,
            servers,
            farm,
            identity,
            settle,
            process: Uuid::new_v4(),
            leadership: Leadership::default(),
            listener: tokio::sync::Mutex::default(),
            spread_from: FoundFrom::default(),
            dispatched_from: FoundFrom::default(),
            viewed_from: FoundFrom::default(),
            plans: KnownPlans::default(),
        }
    }

    /// The settings of one of its connections, as the server has them: name and value.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn session_settings(&self) -> Result<Vec<(String, String)>, Error> {
        let mut connection = self.pool.acquire().await?;
        Ok(session::read(&mut connection).await?)
    }

    /// Which database this is, the same for every coordinator that uses it and for no other
    /// database: a copy of a database in another cluster has the same farm id, but not this.
    #[must_use]
    pub fn database_identity(&self) -> &str {
        &self.identity
    }
}

/// Connections are opened when they are needed. Each is prepared; a connection to a standby is
/// refused.
fn pool(servers: &Arc<Servers>, options: &Options) -> PgPool {
    let (asking, preparing) = (Arc::clone(servers), Arc::clone(servers));
    let (ask_after, settings) = (options.ask_after, options.clone());
    PgPoolOptions::new()
        .max_connections(options.connections.max(2))
        .acquire_timeout(options.acquire)
        .test_before_acquire(false)
        .before_acquire(move |connection, of| {
            let left = asking.left_since(of.age);
            Box::pin(async move {
                if left {
                    return Ok(false);
                }
                if of.idle_for > ask_after {
                    return session::writable(connection).await;
                }
                Ok(true)
            })
        })
        .after_connect(move |connection, _| {
            let (server, settings) = (preparing.chosen().clone(), settings.clone());
            Box::pin(async move {
                session::prepare(connection, &server, &settings).await.map_err(Unfit::into_sql)
            })
        })
        .connect_lazy_with(servers.chosen().options.clone())
}

async fn refuse_poolers(
    server: &Server,
    connection: &mut PgConnection,
    patience: Duration,
) -> Result<(), Error> {
    let compare = async {
        let mut other = server.options.connect().await?;
        session::refuse_shared_sessions((connection, &mut other), server).await?;
        session::end(other).await;
        Ok(())
    };
    let error = match timeout(patience, compare).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => Unfit::told(error, server).await,
        Err(_) => why::passes(format!(
            "a second connection to Postgres at {server} gets no answer within {} s; a pooler there must have a server \
             connection for each of --database-connections (default_pool_size)",
            patience.as_secs()
        )),
    };
    Err(Error::NotOpened(error))
}

/// How often the migrations are tried while running coordinators hold locks that they need.
const MIGRATION_TRIES: u32 = 5;
/// Pause between two tries.
const BREATHER: Duration = Duration::from_millis(200);

/// Whether a migration was ended because it and a running coordinator waited for each other.
fn is_deadlock(error: &MigrateError) -> bool {
    matches!(error, MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)
        if fault::state(error).as_deref() == Some("40P01"))
}

async fn migrate(server: &Server, schema: &str, mut connection: PgConnection) -> Result<(), Error> {
    let newest = POSTGRES.iter().map(|migration| migration.version).max().unwrap_or(0);
    // Migrations may take longer than any other statement, and wait longer for running coordinators.
    sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = 0")
        .execute(&mut connection)
        .await?;
    let mut migrated = POSTGRES.run(&mut connection).await;
    for _ in 1..MIGRATION_TRIES {
        if !migrated.as_ref().is_err_and(is_deadlock) {
            break;
        }
        // It was a deadlock with a running coordinator. Files that were applied stay applied.
        tokio::time::sleep(BREATHER).await;
        migrated = POSTGRES.run(&mut connection).await;
    }
    session::end(connection).await;
    let (database, user) = (server.database(), server.user());
    let unusable = |said: String| {
        Error::NotOpened(why::unusable(format!("database {database:?} at {server} {said}")))
    };
    match migrated {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(version)) => Err(unusable(format!(
            "was made by a newer Darkroom (schema {version}, this one knows {newest}); run that version, or choose \
             another database"
        ))),
        Err(MigrateError::VersionMismatch(version)) => Err(unusable(format!(
            "was made by another build of Darkroom (schema {version} differs); run that build, or choose another \
             database"
        ))),
        Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
            Err(match (fault::state(&error).as_deref(), &error) {
                (Some("42501"), _) => unusable(format!(
                    "does not let user {user:?} make tables in schema {schema:?}; GRANT CREATE, USAGE ON SCHEMA {schema} \
                     TO {user}, or let the user own the database"
                )),
                (Some("53100"), _) => Error::Full,
                (Some(_), sqlx::Error::Database(said)) => {
                    unusable(format!("cannot be brought up to schema {newest}: {}", said.message()))
                }
                _ => Error::NotOpened(why::cannot_connect(server, &error).await),
            })
        }
        Err(other) => Err(unusable(format!("cannot be brought up to schema {newest}: {other}"))),
    }
}

/// Replaces a pool's mere timeout by its cause. An error of the server stays as it is.
async fn not_opened(servers: &Servers, server: &Server, error: sqlx::Error) -> Error {
    let (database, user) = (server.database(), server.user());
    match (&error, fault::state(&error).as_deref()) {
        (_, Some("42501")) => Error::NotOpened(why::unusable(format!(
            "database {database:?} at {server} does not let user {user:?} use its tables ({error}); GRANT ALL ON ALL TABLES \
             AND SEQUENCES, or name the user who made them"
        ))),
        (sqlx::Error::Database(said), _) => Error::NotOpened(why::unusable(format!(
            "database {database:?} at {server} cannot be used: {}",
            said.message()
        ))),
        _ => match servers.diagnose().await {
            Some(cause) => Error::NotOpened(cause),
            None => Error::NotOpened(why::cannot_connect(server, &error).await),
        },
    }
}

async fn farm_id(pool: &PgPool) -> Result<Uuid, sqlx::Error> {
    sqlx::query("INSERT INTO farm (id) VALUES ($1) ON CONFLICT (one) DO NOTHING")
        .bind(Uuid::new_v4())
        .execute(pool)
        .await?;
    sqlx::query_scalar("SELECT id FROM farm").fetch_one(pool).await
}
