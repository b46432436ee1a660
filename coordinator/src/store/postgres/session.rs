//! A connection as we need it: its settings made by SQL after it connected, and read back, because
//! a pooler in between may refuse settings at connecting, or drop them without a word.

use std::{fmt::Write as _, time::Duration};

use darkroom_core::error::UserError;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, postgres::PgRow};

use super::{Options, url::Server, why};

/// Oldest server that is understood, as `server_version_num`.
const OLDEST: i32 = 140_000;

/// The settings of every connection. Every statement goes by key through nested loops, in the order
/// in which it is written, whatever the statistics say of tables that were all but empty a moment
/// ago; so plans are made once, and none is ever made for a table that has grown since. (A `LATERAL
/// … OFFSET 0` is there to the same end: what it reads cannot be read first.)
fn settings(options: &Options) -> Vec<(&'static str, String)> {
    let milliseconds = |time: Duration| time.as_millis().to_string();
    let fixed = [
        ("client_encoding", "UTF8"),
        ("standard_conforming_strings", "on"),
        ("synchronous_commit", "on"),
        ("default_transaction_isolation", "read committed"),
        ("default_transaction_deferrable", "off"),
        ("timezone", "UTC"),
        ("datestyle", "ISO, MDY"),
        ("intervalstyle", "postgres"),
        ("bytea_output", "hex"),
        // A connection that waits for its next call is no fault.
        ("idle_session_timeout", "0"),
        // A cut connection is noticed.
        ("tcp_keepalives_idle", "5"),
        ("tcp_keepalives_interval", "2"),
        ("tcp_keepalives_count", "3"),
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
    ];
    let mut settings: Vec<_> =
        fixed.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    settings
        .push(("idle_in_transaction_session_timeout", milliseconds(options.idle_in_transaction)));
    settings.push(("lock_timeout", milliseconds(options.lock)));
    settings.push(("statement_timeout", milliseconds(options.statement)));
    settings
}

/// Why a session cannot be used: what the connection said, or a sentence.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error("{0}")]
    Refused(UserError),
}

impl Unfit {
    /// The sentence.
    pub(super) async fn told(self, server: &Server) -> UserError {
        match self {
            Self::Refused(error) => error,
            Self::Sql(error) => why::cannot_connect(server, &error).await,
        }
    }

    /// For a pool's hook, which can return only SQL errors.
    pub(super) fn into_sql(self) -> sqlx::Error {
        match self {
            Self::Sql(error) => error,
            Self::Refused(error) => sqlx::Error::Protocol(error.message),
        }
    }
}

/// Facts that a server reports about itself.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    version: (i32, String),
    encoding: String,
    schema: Option<String>,
    pub(super) read_only: bool,
    /// Connections that an ordinary user may have here.
    room: i64,
}

/// Makes the settings of a connection and reads them back.
///
/// # Errors
/// If a setting did not last from one statement to the next.
pub(super) async fn prepare(
    connection: &mut PgConnection,
    server: &Server,
    options: &Options,
) -> Result<(), Unfit> {
    let settings = settings(options);
    // A plain statement leaves nothing on the server, so it works through every pooler.
    let mut set = "SELECT ".to_owned();
    let mut read =
        "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean AS read_only"
            .to_owned();
    for (position, (name, value)) in settings.iter().enumerate() {
        let comma = if position == 0 { "" } else { ", " };
        // Both are words of ours.
        let _ = write!(set, "{comma}set_config('{name}', '{value}', FALSE)");
        let _ = write!(read, ", current_setting('{name}')");
    }
    let made = sqlx::raw_sql(AssertSqlSafe(set)).fetch_one(&mut *connection).await?;
    let there = sqlx::raw_sql(AssertSqlSafe(read)).fetch_one(&mut *connection).await?;
    for (position, (name, _)) in settings.iter().enumerate() {
        let (made, there): (String, String) =
            (made.try_get(position)?, there.try_get(position + 1)?);
        if made != there {
            return Err(Unfit::Refused(why::unusable(format!(
                "the connection to Postgres at {server} does not keep its settings ({name} is {there:?} after it was made \
                 {made:?}): a pooler in transaction or statement mode; use its session mode, or Postgres directly"
            ))));
        }
    }
    if there.try_get::<bool, _>(0)? {
        return Err(Unfit::Refused(why::read_only(server)));
    }
    Ok(())
}

/// The settings of ours as a connection has them.
pub(super) async fn read(
    connection: &mut PgConnection,
) -> Result<Vec<(String, String)>, sqlx::Error> {
    let mut read = Vec::new();
    for (name, _) in settings(&Options::default()) {
        let value = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(name)
            .fetch_one(&mut *connection)
            .await?;
        read.push((name.to_owned(), value));
    }
    Ok(read)
}

/// Asks a server what it is; by statements that any version and any pooler understands.
pub(super) async fn ask(connection: &mut PgConnection) -> Result<Facts, sqlx::Error> {
    let row = sqlx::raw_sql(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
                current_setting('server_encoding'), current_schema()::text,
                pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean,
                least(current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint,
                      (SELECT CASE WHEN rolconnlimit < 0 THEN 1000000 ELSE rolconnlimit END FROM pg_roles
                       WHERE rolname = current_user),
                      (SELECT CASE WHEN datconnlimit < 0 THEN 1000000 ELSE datconnlimit END FROM pg_database
                       WHERE datname = current_database()))::bigint",
    )
    .fetch_one(connection)
    .await?;
    Ok(Facts {
        version: version(&row)?,
        encoding: row.try_get(2)?,
        schema: row.try_get(3)?,
        read_only: row.try_get(4)?,
        room: row.try_get(5)?,
    })
}

/// The server's version, as a number and as text, from the first two columns of its answer.
fn version(row: &PgRow) -> Result<(i32, String), sqlx::Error> {
    Ok((row.try_get(0)?, row.try_get(1)?))
}

fn check_version(server: &Server, (number, version): &(i32, String)) -> Result<(), UserError> {
    if *number >= OLDEST {
        return Ok(());
    }
    let oldest = OLDEST / 10_000;
    Err(why::unusable(format!(
        "Postgres at {server} is version {version}; Darkroom needs {oldest} or newer"
    )))
}

impl Facts {
    /// Whether a farm's record can be in this database at all, now or after a promotion.
    pub(super) fn check(&self, server: &Server, wanted: u32) -> Result<(), UserError> {
        let database = server.database();
        check_version(server, &self.version)?;
        if self.encoding != "UTF8" {
            return Err(why::unusable(format!(
                "database {database:?} at {server} has encoding {}, which does not keep every prompt as it is; make it \
                 anew with UTF8 (createdb --encoding=UTF8 --template=template0 {database})",
                self.encoding
            )));
        }
        if self.schema.is_none() {
            return Err(why::unusable(format!(
                "database {database:?} at {server} has no schema for our tables: none of the search_path of user {:?} is \
                 there; CREATE SCHEMA public, or set its search_path",
                server.user()
            )));
        }
        if i64::from(wanted) > self.room {
            let message = format!(
                "database-connections is {wanted}, and Postgres at {server} takes at most {} of user {:?}; name fewer, or \
                 raise its limit (max_connections, CONNECTION LIMIT)",
                self.room,
                server.user()
            );
            return Err(UserError::invalid("database-connections", message));
        }
        Ok(())
    }

    /// The schema that our tables are in.
    pub(super) fn schema(&self) -> &str {
        self.schema.as_deref().unwrap_or("public")
    }
}

/// Refuses a pooler that gives a session's statements to whatever server connection is free: two
/// sessions are used in turn, and one then meets the other's server process, or its own changes.
/// One in statement mode refuses BEGIN.
///
/// # Errors
/// When that is so, or the two do not get on with it.
pub(super) async fn refuse_shared_sessions(
    (one, other): (&mut PgConnection, &mut PgConnection),
    server: &Server,
) -> Result<(), Unfit> {
    let mode = |mode: &str, shown: &str| {
        Unfit::Refused(why::unusable(format!(
            "a pooler in {mode} mode stands at {server} ({shown}); Darkroom needs sessions of its own: set pool_mode = \
             session for this database, or name Postgres directly"
        )))
    };
    let shared = || mode("transaction", "two sessions take turns on one server process");
    let (mut of_one, mut of_other) = (Vec::new(), Vec::new());
    of_one.push(process(one).await?);
    of_other.push(process(other).await?);
    of_one.push(process(one).await?);
    if let Err(error) = sqlx::raw_sql("BEGIN").execute(&mut *other).await {
        return Err(match &error {
            sqlx::Error::Database(said) if said.message().contains("statement pooling") => {
                mode("statement", said.message())
            }
            _ => error.into(),
        });
    }
    // If a pooler shares processes, the second connection now holds the one that the first had.
    of_other.push(process(other).await?);
    let changes = |pids: &[i32]| pids.iter().any(|pid| Some(pid) != pids.first());
    let shares = |one: &[i32], other: &[i32]| {
        changes(one) || changes(other) || one.iter().any(|pid| other.contains(pid))
    };
    // Check now. If both connections share one process, the next query on the first would wait for
    // the second's transaction.
    if shares(&of_one, &of_other) {
        return Err(shared());
    }
    of_one.push(process(one).await?);
    sqlx::raw_sql("ROLLBACK").execute(&mut *other).await?;
    of_one.push(process(one).await?);
    if shares(&of_one, &of_other) {
        return Err(shared());
    }
    Ok(())
}

async fn process(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(connection).await?.try_get(0)
}

/// Whether a connection still reaches a server that takes writes.
pub(super) async fn writable(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let row = sqlx::raw_sql(
        "SELECT NOT pg_is_in_recovery() AND NOT current_setting('transaction_read_only')::boolean",
    )
    .fetch_one(connection)
    .await?;
    row.try_get(0)
}

/// Which database it is, the same on every copy that replication keeps; and the timeline that it
/// writes, which every promotion raises.
pub(super) async fn identity(connection: &mut PgConnection) -> Result<(String, u32), sqlx::Error> {
    let row = sqlx::raw_sql(
        "SELECT c.system_identifier::text || '/' || d.oid::text,
                CASE WHEN pg_is_in_recovery() THEN '0' ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END
         FROM pg_control_system() AS c, pg_database AS d WHERE d.datname = current_database()",
    )
    .fetch_one(connection)
    .await?;
    let timeline: String = row.try_get(1)?;
    Ok((row.try_get(0)?, u32::from_str_radix(&timeline, 16).unwrap_or(0)))
}

/// Ends a connection in order, so that its place is free at once.
pub(super) async fn end(connection: PgConnection) {
    let _ = tokio::time::timeout(Duration::from_secs(1), connection.close()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_coordinators_transactions_end_before_its_leadership_does() {
        let options = Options::default();
        let longest = 2 * options.lock + options.idle_in_transaction;
        assert!(longest <= Duration::from_secs(10), "{options:?}");
        let settings = settings(&options);
        for (name, value) in
            [("idle_in_transaction_session_timeout", "4000"), ("lock_timeout", "3000")]
        {
            assert!(settings.contains(&(name, value.to_owned())), "{settings:?}");
        }
    }

    fn facts(version: (i32, &str)) -> Facts {
        Facts {
            version: (version.0, version.1.to_owned()),
            encoding: "UTF8".to_owned(),
            schema: Some("public".to_owned()),
            read_only: false,
            room: 100,
        }
    }

    #[test]
    fn a_server_that_is_too_old_is_refused_with_its_version_before_anything_else() {
        let target = super::super::url::parse("postgres://u:secret@db:5433/farm").expect("a URL");
        let server = &target.servers[0];
        for (number, version) in [
            (90_624, "9.6.24"),
            (100_023, "10.23"),
            (130_099, "13.99 (Debian 13.99-1.pgdg120+1)"),
            (139_999, "13.9999"),
        ] {
            let old = Facts { encoding: "LATIN1".to_owned(), ..facts((number, version)) };
            let error = old.check(server, 24).expect_err(version);
            let said =
                format!("Postgres at db:5433 is version {version}; Darkroom needs 14 or newer");
            assert_eq!(error.message, said);
            assert_eq!((error.code.exit_code(), error.field.as_deref()), (3, Some("database")));
        }
        for version in
            [(140_000, "14.0"), (140_001, "14.1"), (180_000, "18beta1"), (190_000, "19devel")]
        {
            facts(version).check(server, 24).expect(version.1);
        }
    }
}
