//! Opening the database: one clear sentence when it cannot be used, migrations under a lock that coordinators which
//! start together share, and who the database is.

use std::{str::FromStr, time::Duration};

use sqlx::{
    Connection as _, PgPool,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

use super::{
    Error, PostgresStore, dispatch_text::DispatchedFrom, fault, leadership::Leadership, plans::KnownPlans,
    spread::SpreadFrom,
};

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/postgres");

/// Oldest server that is understood, as `server_version_num`.
const OLDEST: i32 = 140_000;
const STATEMENTS: usize = 300;

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most connections, of all parts of one coordinator together; at least 2.
    pub connections: u32,
    /// How long a call waits for a free connection before it says that the store cannot be reached.
    pub acquire: Duration,
    /// A transaction in which nothing happens for so long is ended by the server: one of a stopped or cut off
    /// coordinator holds nobody up for longer. It must come well within the leadership's eight seconds.
    pub idle_in_transaction: Duration,
    /// Longest that one statement may run.
    pub statement: Duration,
    /// A connection that was not used for so long is asked whether it is still there before it is used: where nobody
    /// repeats what fails, a restart of the server should not be found out by a call.
    pub ask_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 16,
            acquire: Duration::from_secs(10),
            idle_in_transaction: Duration::from_secs(4),
            statement: Duration::from_secs(60),
            ask_after: Duration::MAX,
        }
    }
}

impl PostgresStore {
    /// Opens the record in the database that `url` names (`postgres://user:password@host:port/database`), making its
    /// tables if they are not there.
    ///
    /// # Errors
    /// [`Error::Unusable`] in one sentence: not to be reached, wrong password, no such database, too old, read-only,
    /// made by a newer Darkroom.
    pub async fn connect(url: &str, options: Options) -> Result<Self, Error> {
        let connect = connect_options(url, &options)?;
        let place = Place::of(&connect);
        let pool = PgPoolOptions::new()
            .max_connections(options.connections.max(2))
            .acquire_timeout(options.acquire)
            .test_before_acquire(false)
            .before_acquire(move |connection, of| {
                Box::pin(async move {
                    if of.idle_for > options.ask_after {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(connect)
            .await
            .map_err(|error| place.cannot_connect(error))?;
        check_server(&place, &pool).await?;
        migrate(&place, &pool).await?;
        let farm = farm_id(&pool).await?;
        let identity = identity(&pool).await?;
        Ok(Self {
            pool,
            farm,
            identity,
            process: Uuid::new_v4(),
            leadership: Leadership::default(),
            listener: tokio::sync::Mutex::default(),
            spread_from: SpreadFrom::default(),
            dispatched_from: DispatchedFrom::default(),
            viewed_from: DispatchedFrom::default(),
            plans: KnownPlans::default(),
        })
    }

    /// Which database this is, the same for every coordinator that uses it and for no other database: a copy of a
    /// database in another cluster has the same farm id, but not this.
    #[must_use]
    pub fn database_identity(&self) -> &str {
        &self.identity
    }
}

fn connect_options(url: &str, options: &Options) -> Result<PgConnectOptions, Error> {
    let refused = |why: &str| {
        Error::Unusable(format!(
            "the job store's URL cannot be read ({why}); accepted: postgres://user:password@host:port/database"
        ))
    };
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(refused("it names another kind of store"));
    }
    let connect = PgConnectOptions::from_str(url).map_err(|error| refused(&error.to_string()))?;
    let milliseconds = |time: Duration| time.as_millis().to_string();
    Ok(connect
        .application_name("darkroom")
        .statement_cache_capacity(STATEMENTS)
        .options([
            ("idle_in_transaction_session_timeout", milliseconds(options.idle_in_transaction)),
            ("statement_timeout", milliseconds(options.statement)),
            ("synchronous_commit", "on".to_owned()),
            ("default_transaction_isolation", "read committed".to_owned()),
            ("timezone", "UTC".to_owned()),
            // A cut connection is noticed.
            ("tcp_keepalives_idle", "5".to_owned()),
            ("tcp_keepalives_interval", "2".to_owned()),
            ("tcp_keepalives_count", "3".to_owned()),
        ])
        // Every statement goes by key through nested loops, in the order in which it is written, whatever the statistics
        // say of tables that were all but empty a moment ago; so plans are made once, and none is ever made for a table
        // that has grown since. (A `LATERAL … OFFSET 0` is there to the same end: what it reads cannot be read first.)
        .options([
            ("plan_cache_mode", "force_generic_plan"),
            ("join_collapse_limit", "1"),
            ("from_collapse_limit", "1"),
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("enable_bitmapscan", "off"),
            ("enable_material", "off"),
            ("enable_memoize", "off"),
            ("max_parallel_workers_per_gather", "0"),
            ("jit", "off"),
        ]))
}

/// Where the database is, for sentences: never the password.
struct Place {
    host: String,
    user: String,
    database: String,
}

impl Place {
    fn of(options: &PgConnectOptions) -> Self {
        Self {
            host: format!("{}:{}", options.get_host(), options.get_port()),
            user: options.get_username().to_owned(),
            database: options.get_database().unwrap_or(options.get_username()).to_owned(),
        }
    }

    fn cannot_connect(&self, error: sqlx::Error) -> Error {
        let Self { host, user, database } = self;
        Error::Unusable(match fault::state(&error).as_deref() {
            Some("28P01" | "28000") => format!(
                "Postgres at {host} refuses user {user:?} ({error}); check the user and the password in the job \
                 store's URL"
            ),
            Some("3D000") => format!(
                "Postgres at {host} has no database {database:?}; create it (createdb {database}), or correct the \
                 job store's URL"
            ),
            Some("42501") => format!(
                "Postgres at {host} does not let user {user:?} use database {database:?} ({error}); grant it"
            ),
            Some(_) => format!("Postgres at {host} does not accept the connection: {error}"),
            None => format!(
                "no Postgres answers at {host} ({error}); check the host and port in the job store's URL, and that \
                 the server runs"
            ),
        })
    }

    fn unusable(&self, why: &str) -> Error {
        Error::Unusable(format!("database {:?} at {} {why}", self.database, self.host))
    }
}

async fn check_server(place: &Place, pool: &PgPool) -> Result<(), Error> {
    let (number, version, read_only): (i32, String, bool) = sqlx::query_as(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
                pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean",
    )
    .fetch_one(pool)
    .await?;
    if number < OLDEST {
        let why = format!("is served by Postgres {version}; Darkroom needs {} or newer", OLDEST / 10_000);
        return Err(place.unusable(&why));
    }
    if read_only {
        return Err(place.unusable("is read-only (a standby?); name the primary in the job store's URL"));
    }
    Ok(())
}

async fn migrate(place: &Place, pool: &PgPool) -> Result<(), Error> {
    let newest = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
    // A connection of their own: they may take longer than any other statement.
    let mut connection = pool.acquire().await?.detach();
    sqlx::raw_sql("SET statement_timeout = 0").execute(&mut connection).await?;
    let migrated = MIGRATIONS.run(&mut connection).await;
    connection.close().await?;
    migrated.map_err(|error| match error {
        MigrateError::VersionMissing(version) => place.unusable(&format!(
            "was made by a newer Darkroom (schema {version}, this one knows {newest}); run that version, or choose \
             another database"
        )),
        MigrateError::VersionMismatch(version) => place.unusable(&format!(
            "was made by another build of Darkroom (schema {version} differs); run that build, or choose another \
             database"
        )),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            match fault::state(&error).as_deref() {
                Some("42501") => place.unusable(&format!("does not let {:?} create tables; grant it", place.user)),
                _ => error.into(),
            }
        }
        other => place.unusable(&format!("cannot be brought up to schema {newest}: {other}")),
    })
}

async fn farm_id(pool: &PgPool) -> Result<Uuid, Error> {
    sqlx::query("INSERT INTO farm (id) VALUES ($1) ON CONFLICT (one) DO NOTHING")
        .bind(Uuid::new_v4())
        .execute(pool)
        .await?;
    Ok(sqlx::query_scalar("SELECT id FROM farm").fetch_one(pool).await?)
}

async fn identity(pool: &PgPool) -> Result<String, Error> {
    Ok(sqlx::query_scalar(
        "SELECT c.system_identifier::text || '/' || d.oid::text
         FROM pg_control_system() AS c, pg_database AS d WHERE d.datname = current_database()",
    )
    .fetch_one(pool)
    .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_coordinators_transaction_ends_before_its_leadership_does() {
        let connect = connect_options("postgres://darkroom@127.0.0.1/darkroom", &Options::default());
        let connect = connect.expect("a URL");
        let settings = connect.get_options().expect("settings");
        assert!(settings.contains("idle_in_transaction_session_timeout=4000"), "{settings}");
    }
}
