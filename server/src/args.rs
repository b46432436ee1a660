//! The command line of a coordinator.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser;
use darkroom_coordinator::Options;
use darkroom_core::{error::UserError, retry::LARGEST_DEATH_LIMIT, sharing::Sharing};
use darkroom_runtime::{disk::ByteSize, secret::SecretUrl, server::Listen, tls::ServerSettings};
use darkroom_web::SiteSettings;

use crate::door::DoorSettings;

/// Default number of a coordinator's connections to Postgres.
const CONNECTIONS: u32 = 24;

/// Accepts jobs over gRPC and HTTP, dispatches their tasks and commits the results.
///
/// Several may run on one farm: all serve and commit, and one dispatches. If it dies, another takes
/// over within seconds.
#[derive(Debug, Parser)]
#[command(name = "darkroom-coordinator", version, max_term_width = 100)]
pub(crate) struct CoordinatorArgs {
    /// Address to listen on: HOST:PORT, or :PORT for every address of this machine. Beyond loopback
    /// it needs --tls-cert, or --plaintext
    #[arg(
        long,
        env = "DARKROOM_LISTEN",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:7878"
    )]
    pub(crate) listen: Listen,
    #[command(flatten)]
    pub(crate) tls: ServerSettings,
    #[command(flatten)]
    pub(crate) door: DoorSettings,
    #[command(flatten)]
    pub(crate) site: SiteSettings,
    /// Most connections at one time; above that, new connections replace idle ones
    #[arg(long, env = "DARKROOM_MAX_CONNECTIONS", value_name = "COUNT", default_value_t = 1000)]
    pub(crate) max_connections: usize,
    /// The farm's record: postgres://user:password@host/database (host1:port,host2:port for a
    /// primary and its standbys; the one that takes writes is used), or sqlite:FILE for a single
    /// coordinator. @FILE reads it from a file, so that no password is seen in a flag
    #[arg(long, env = "DARKROOM_DATABASE", value_name = "URL", hide_env_values = true)]
    pub(crate) database: SecretUrl,
    /// Total connections of this coordinator to Postgres, 6 or more. The server must have room for
    /// those of all coordinators (max_connections, or a pooler's pool size)
    #[arg(long, env = "DARKROOM_DATABASE_CONNECTIONS", value_name = "N", default_value_t = CONNECTIONS,
        value_parser = clap::value_parser!(u32).range(6..=1000))]
    pub(crate) database_connections: u32,
    /// The farm's Redis: redis://host:port/number, redis://user:password@host, rediss:// for TLS;
    /// or @FILE
    #[arg(long, env = "DARKROOM_REDIS", value_name = "URL", hide_env_values = true)]
    pub(crate) redis: SecretUrl,
    /// The farm's object storage: a folder that all machines share, s3://bucket/prefix, gs://…,
    /// az://…; or @FILE
    #[arg(long, env = "DARKROOM_ARTIFACTS", value_name = "URL", hide_env_values = true)]
    pub(crate) artifacts: SecretUrl,
    /// Folder of a cascade to serve; may be repeated, the first is the default. Its files are put
    /// into object storage, where the workers fetch them
    #[arg(long = "cascade", env = "DARKROOM_CASCADE", value_name = "DIR", required = true)]
    pub(crate) cascades: Vec<PathBuf>,
    /// Accept a cascade that has only its description and no files, for farms with the fake
    /// renderer
    #[arg(long, hide = true, env = "DARKROOM_CASCADE_WITHOUT_FILES")]
    pub(crate) without_files: bool,
    /// Seconds after which a lease that is not renewed ends. Default: the farm's value,
    /// initially 10. Change it only while nothing else of the farm runs
    #[arg(long, env = "DARKROOM_LEASE_SECONDS", value_name = "SECONDS")]
    pub(crate) lease_seconds: Option<f64>,
    /// Seconds between two comparisons of the database with the queue
    #[arg(long, env = "DARKROOM_SWEEP_SECONDS", value_name = "SECONDS", default_value_t = 2.0)]
    pub(crate) sweep_seconds: f64,
    /// Give an image up after this many deaths of workers that ran it alone (1 to 100); failures
    /// count too. Default: deaths count like failures, and three on distinct devices end an image,
    /// or five in all if fewer devices serve the stage
    #[arg(long, env = "DARKROOM_WORKER_DEATHS", value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(LARGEST_DEATH_LIMIT)))]
    pub(crate) worker_deaths: Option<u32>,
    /// A tenant's weight in the fair share, NAME=WEIGHT; may be repeated. Default: 1
    #[arg(long = "tenant-weight", value_name = "NAME=WEIGHT", value_parser = tenant_weight)]
    pub(crate) tenant_weights: Vec<(String, f64)>,
    /// Whether embeddings and outputs of one tenant are used for another: shared, or sealed, which
    /// also hides that somebody has used a text before. It holds for the whole farm, and for jobs
    /// that are submitted from now on. Default: as decided before; until then, a farm is shared
    /// while it has one tenant, and the first submit of a second one seals it
    #[arg(long, env = "DARKROOM_SHARING", value_name = "shared|sealed", value_parser = sharing)]
    pub(crate) sharing: Option<Sharing>,
    /// The job store was restored from a backup, or the bucket was copied, and this store is the
    /// right one: remove objects again although the bucket knows of later removals. Needed once
    #[arg(long)]
    pub(crate) restored: bool,
    /// Space that must stay free on the disks of this machine that hold the artifacts (if they are
    /// a folder) or the record (if it is SQLite's), like 500MiB; 0: none. With less, no work is
    /// dispatched and no job accepted until there is room [default: 1GiB, or 2 % of the disk if
    /// that is less, but at least 8MiB]
    #[arg(long, env = "DARKROOM_DISK_FLOOR", value_name = "SIZE")]
    pub(crate) disk_floor: Option<ByteSize>,
    /// Let webhooks lead to loopback, link-local and private addresses too, and to this machine's
    /// own. Whoever may submit jobs can then have this machine send POSTs to services that only it
    /// reaches
    #[arg(
        long,
        env = "DARKROOM_WEBHOOK_PRIVATE_ADDRESSES",
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    pub(crate) webhook_private_addresses: bool,
    /// Write the log as JSON lines
    #[arg(long)]
    pub(crate) log_json: bool,
}

fn sharing(text: &str) -> Result<Sharing, String> {
    text.parse().map_err(|error: UserError| error.message)
}

fn tenant_weight(text: &str) -> Result<(String, f64), String> {
    let wrong = || format!("{text:?} is not NAME=WEIGHT; accepted: a weight above 0");
    let (name, weight) = text.split_once('=').ok_or_else(wrong)?;
    let weight: f64 = weight.parse().map_err(|_| wrong())?;
    if name.is_empty() || !weight.is_finite() || weight <= 0.0 {
        return Err(wrong());
    }
    Ok((name.to_owned(), weight))
}

impl CoordinatorArgs {
    /// The coordinator's options.
    ///
    /// # Errors
    /// If a time is too short.
    pub(crate) fn options(&self) -> Result<Options, UserError> {
        let seconds = |field: &str, value: f64| match Duration::try_from_secs_f64(value) {
            Ok(time) if time >= Duration::from_millis(500) => Ok(time),
            _ => {
                Err(UserError::invalid(field, format!("{field} is {value}; accepted: 0.5 or more")))
            }
        };
        let lease = self.lease_seconds.map(|lease| seconds("lease-seconds", lease)).transpose()?;
        Ok(Options {
            lease: lease.unwrap_or(Options::default().lease),
            sweep: seconds("sweep-seconds", self.sweep_seconds)?,
            worker_deaths: self.worker_deaths,
            makes_up: self.without_files,
            restored: self.restored,
            tenant_weights: self.tenant_weights.iter().cloned().collect(),
            record_folder: record_folder(self.database.expose()),
            disk_floor: self.disk_floor.map(|floor| floor.0),
            webhook_private_addresses: self.webhook_private_addresses,
            ..Options::default()
        })
    }
}

/// The folder of a record that is a file.
fn record_folder(database: &str) -> Option<PathBuf> {
    let file = Path::new(database.strip_prefix("sqlite:")?);
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    Some(folder.unwrap_or(Path::new(".")).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_shown_without_passwords() {
        let args = CoordinatorArgs::parse_from([
            "darkroom-coordinator",
            "--database=postgres://user:s3cr@host/farm",
            "--redis=redis://user:s3cr@host",
            "--artifacts=s3://key:s3cr@bucket",
            "--cascade=folder",
        ]);
        assert_eq!(args.redis.expose(), "redis://user:s3cr@host");
        assert!(!format!("{args:?}").contains("s3cr"), "{args:?}");
    }
}
