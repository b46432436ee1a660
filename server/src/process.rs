//! A coordinator as a process: connects to the farm's database, queue and object storage, and
//! serves gRPC until a signal.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use darkroom_artifacts::{ArtifactStore, CascadeBundle, cascade_store, open};
use darkroom_coordinator::{
    Coordinator, Error, Handle, Options, note_own, server_options,
    store::{
        self, Store,
        postgres::{self, PostgresStore},
        roles::{Agreed, Maintenance},
        sqlite::SqliteStore,
    },
};
use darkroom_core::{
    cascade::Cascade,
    error::{Code, UserError},
    retry::LARGEST_DEATH_LIMIT,
    sharing::Sharing,
};
use darkroom_farm_api::{grpc, members};
use darkroom_queue::{
    TaskQueue,
    redis::{self, RedisQueue},
};
use darkroom_runtime::{
    disk::ByteSize,
    secret::SecretUrl,
    server::{self, Health, Listen},
    tls::ServerSettings,
};
use darkroom_web::SiteSettings;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    door::{Door, DoorSettings},
    engine::Engine,
};

/// How often gRPC health is updated from the farm's problems.
const LOOK: Duration = Duration::from_millis(500);
/// How often the farm's mark in Redis is renewed.
const CLAIM: Duration = Duration::from_secs(5);
/// Time between two attempts to find out why the record cannot be reached.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Time between two checks of object storage. Each writes, reads and deletes a probe, which some
/// stores charge for.
const PROBE: Duration = Duration::from_secs(30);
/// Time between two checks while storage fails.
const PROBE_AGAIN: Duration = Duration::from_secs(10);
/// A check that takes longer counts as failed.
const PROBED: Duration = Duration::from_secs(10);

/// Accepts jobs over gRPC, dispatches their tasks and commits the results.
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
    listen: Listen,
    #[command(flatten)]
    tls: ServerSettings,
    #[command(flatten)]
    door: DoorSettings,
    #[command(flatten)]
    site: SiteSettings,
    /// Most connections at one time; above that, new connections replace idle ones
    #[arg(long, env = "DARKROOM_MAX_CONNECTIONS", value_name = "COUNT", default_value_t = 1000)]
    max_connections: usize,
    /// The farm's record: postgres://user:password@host/database (host1:port,host2:port for a
    /// primary and its standbys; the one that takes writes is used), or sqlite:FILE for a single
    /// coordinator. @FILE reads it from a file, so that no password is seen in a flag
    #[arg(long, env = "DARKROOM_DATABASE", value_name = "URL", hide_env_values = true)]
    database: SecretUrl,
    /// Total connections of this coordinator to Postgres, 6 or more. The server must have room for
    /// those of all coordinators (max_connections, or a pooler's pool size)
    #[arg(long, env = "DARKROOM_DATABASE_CONNECTIONS", value_name = "N", default_value_t = CONNECTIONS,
        value_parser = clap::value_parser!(u32).range(6..=1000))]
    database_connections: u32,
    /// The farm's Redis: redis://host:port/number, redis://user:password@host, rediss:// for TLS;
    /// or @FILE
    #[arg(long, env = "DARKROOM_REDIS", value_name = "URL", hide_env_values = true)]
    redis: SecretUrl,
    /// The farm's object storage: a folder that all machines share, s3://bucket/prefix, gs://…,
    /// az://…; or @FILE
    #[arg(long, env = "DARKROOM_ARTIFACTS", value_name = "URL", hide_env_values = true)]
    artifacts: SecretUrl,
    /// Folder of a cascade to serve; may be repeated, the first is the default. Its files are put
    /// into object storage, where the workers fetch them
    #[arg(long = "cascade", env = "DARKROOM_CASCADE", value_name = "DIR", required = true)]
    cascades: Vec<PathBuf>,
    /// Accept a cascade that has only its description and no files, for farms with the fake
    /// renderer
    #[arg(long, hide = true, env = "DARKROOM_CASCADE_WITHOUT_FILES")]
    without_files: bool,
    /// Seconds after which a lease that is not renewed ends. Default: the farm's value,
    /// initially 10. Change it only while nothing else of the farm runs
    #[arg(long, env = "DARKROOM_LEASE_SECONDS", value_name = "SECONDS")]
    lease_seconds: Option<f64>,
    /// Seconds between two comparisons of the database with the queue
    #[arg(long, env = "DARKROOM_SWEEP_SECONDS", value_name = "SECONDS", default_value_t = 2.0)]
    sweep_seconds: f64,
    /// Give an image up after this many deaths of workers that ran it alone (1 to 100); failures
    /// count too. Default: deaths count like failures, and three on distinct devices end an image,
    /// or five in all if fewer devices serve the stage
    #[arg(long, env = "DARKROOM_WORKER_DEATHS", value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(LARGEST_DEATH_LIMIT)))]
    worker_deaths: Option<u32>,
    /// A tenant's weight in the fair share, NAME=WEIGHT; may be repeated. Default: 1
    #[arg(long = "tenant-weight", value_name = "NAME=WEIGHT", value_parser = tenant_weight)]
    tenant_weights: Vec<(String, f64)>,
    /// Whether embeddings and outputs of one tenant are used for another: shared, or sealed, which
    /// also hides that somebody has used a text before. It holds for the whole farm, and for jobs
    /// that are submitted from now on. Default: as decided before; until then, a farm is shared
    /// while it has one tenant, and the first submit of a second one seals it
    #[arg(long, env = "DARKROOM_SHARING", value_name = "shared|sealed", value_parser = sharing)]
    sharing: Option<Sharing>,
    /// The job store was restored from a backup, or the bucket was copied, and this store is the
    /// right one: remove objects again although the bucket knows of later removals. Needed once
    #[arg(long)]
    restored: bool,
    /// Space that must stay free on the disks of this machine that hold the artifacts (if they are
    /// a folder) or the record (if it is SQLite's), like 500MiB; 0: none. With less, no work is
    /// dispatched and no job accepted until there is room [default: 1GiB, or 2 % of the disk if
    /// that is less, but at least 8MiB]
    #[arg(long, env = "DARKROOM_DISK_FLOOR", value_name = "SIZE")]
    disk_floor: Option<ByteSize>,
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

/// Connects, recovers what an earlier process left, and serves until `stop`.
///
/// # Errors
/// One sentence that says why it cannot start.
pub(crate) async fn run(args: CoordinatorArgs, stop: CancellationToken) -> Result<(), UserError> {
    let mut options = options(&args)?;
    args.door.check()?;
    let privacy = args.tls.open()?;
    let listener = server::listen(&args.listen, &privacy).await.map_err(|error| error.to_user())?;
    let bundles = load(&args).await?;
    let artifacts = ArtifactStore::open(args.artifacts.expose(), &open::Options::from_env())?;
    artifacts.check().await?;
    let engine = Engine::start()?;
    let (database, connections) =
        (args.database.clone(), Connections::of(args.database_connections));
    let opened = engine.run(move || open_store(database, connections)).await??;
    let Record { store, front, identity } = opened.record(connections);
    let farm = store.farm_id().await.map_err(not_started)?;
    let beyond_loopback = !listener.is_loopback();
    let door = args.door.decide(front.as_ref(), beyond_loopback).await?;
    let url = args.redis.clone();
    let connect = move || async move {
        RedisQueue::connect(url.expose(), &farm.to_string(), redis::Options::default()).await
    };
    let queue = engine.run(connect).await?;
    let queue = queue.map_err(|error| error.to_user())?;
    queue.claim_farm(&identity).await.map_err(|error| error.to_user())?;
    let queue = Arc::new(queue);
    agree_on_lease(&mut options, &args, store.as_ref(), &queue).await?;
    decide_on_sharing(args.sharing, store.as_ref()).await.map_err(not_started)?;
    warn_of(&queue).await;
    for bundle in &bundles {
        cascade_store::publish(&artifacts, bundle).await?;
    }
    let cascades: Vec<Cascade> = bundles.iter().map(|bundle| bundle.cascade().clone()).collect();
    let tasks = Arc::clone(&queue) as Arc<dyn TaskQueue>;
    let storage = artifacts.clone();
    let asked = Arc::clone(&front);
    let start =
        move || Coordinator::start_fronted(options, store, front, tasks, artifacts, cascades);
    let handle = engine.run(start).await?.map_err(|error| error.to_user())?;

    let mut serve =
        server_options(&["darkroom.v1.Farm", "darkroom.v1.Admin", "darkroom.v1.Members"]);
    serve.connections = args.max_connections;
    let closing = CancellationToken::new();
    let (address, tls) = (listener.address(), listener.speaks_tls());
    let routes = Routes::new(grpc::service(handle.calls()))
        .add_service(grpc::admin_service(handle.admin_calls()))
        .add_service(members::service(handle.members()));
    let callers = match door {
        Door::Open => handle.open_door(),
        Door::Kept => handle.kept_door(),
    };
    let site = darkroom_web::router(darkroom_web::Parts {
        farm: handle.calls(),
        admin: handle.admin_calls(),
        callers: callers.clone(),
        seals: handle.seals(),
        tls,
        settings: args.site.clone(),
    });
    serve.web = Some(darkroom_web::web());
    let around = |routes| darkroom_web::beside(grpc::behind(callers, routes), site);
    let (health, serving) = server::serve_within(listener, routes, around, serve, closing.clone())
        .await
        .map_err(|error| error.to_user())?;
    let mut serving = tokio::spawn(serving);
    tracing::info!(%address, tls, farm.id = %farm, "serving");
    let (stored, storage_trouble) = watch::channel(None);
    let (recorded, store_trouble) = watch::channel(None);
    let troubles = Troubles { store: store_trouble, storage: storage_trouble };
    // If the server has ended, the coordinator ends too.
    let ended = tokio::select! {
        () = tell_health(&handle, &queue, &identity, &troubles, &health) => None,
        () = watch_store(&handle, asked.as_ref(), &recorded) => None,
        () = watch_storage(&storage, &stored) => None,
        () = stop.cancelled() => None,
        ended = &mut serving => Some(ended),
    };
    health.not_serving("shutting down").await;
    handle.shutdown().await;
    closing.cancel();
    let ended = match ended {
        Some(ended) => ended,
        None => serving.await,
    };
    match ended {
        Ok(ended) => ended.map_err(|error| error.to_user()),
        Err(error) => Err(UserError::new(Code::Internal, "INTERNAL", error.to_string())),
    }
}

fn options(args: &CoordinatorArgs) -> Result<Options, UserError> {
    let seconds = |field: &str, value: f64| match Duration::try_from_secs_f64(value) {
        Ok(time) if time >= Duration::from_millis(500) => Ok(time),
        _ => Err(UserError::invalid(field, format!("{field} is {value}; accepted: 0.5 or more"))),
    };
    let lease = args.lease_seconds.map(|lease| seconds("lease-seconds", lease)).transpose()?;
    Ok(Options {
        lease: lease.unwrap_or(Options::default().lease),
        sweep: seconds("sweep-seconds", args.sweep_seconds)?,
        worker_deaths: args.worker_deaths,
        makes_up: args.without_files,
        restored: args.restored,
        tenant_weights: args.tenant_weights.iter().cloned().collect(),
        record_folder: record_folder(args.database.expose()),
        disk_floor: args.disk_floor.map(|floor| floor.0),
        ..Options::default()
    })
}

/// The folder of a record that is a file.
fn record_folder(database: &str) -> Option<PathBuf> {
    let file = Path::new(database.strip_prefix("sqlite:")?);
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    Some(folder.unwrap_or(Path::new(".")).to_owned())
}

/// Takes the farm's lease time, which all coordinators of a farm share. With a shorter one, this
/// coordinator would take tasks from live workers, because they send heartbeats by the farm's lease
/// time.
async fn agree_on_lease(
    options: &mut Options,
    args: &CoordinatorArgs,
    store: &dyn Agreed,
    queue: &RedisQueue,
) -> Result<(), UserError> {
    let requested = options.lease;
    let mut lease = store.set_lease(None, requested).await.map_err(not_started)?;
    if args.lease_seconds.is_some() && lease != requested {
        let there = queue.workers(lease.max(requested)).await.map_err(unavailable)?;
        if there.is_empty() {
            lease = store.set_lease(Some(lease), requested).await.map_err(not_started)?;
        }
        if lease != requested {
            let message = format!(
                "lease-seconds is {}, and this farm's leases last {} seconds; leave it out, or change it while no other \
                 coordinator and no worker of the farm runs",
                requested.as_secs_f64(),
                lease.as_secs_f64()
            );
            return Err(UserError::invalid("lease-seconds", message));
        }
    }
    options.lease = lease;
    options.worker_ttl = options.worker_ttl.max(lease);
    Ok(())
}

/// Records how tenants share, if the operator says it. Jobs that were submitted before keep what
/// they have.
async fn decide_on_sharing(
    requested: Option<Sharing>,
    store: &dyn Store,
) -> Result<(), store::Error> {
    let Some(sharing) = requested else { return Ok(()) };
    if store.set_sharing(sharing).await? {
        tracing::info!(%sharing, "the operator has set how tenants share, for jobs from now on");
        note_own(store, "farm.sharing", sharing.to_string()).await;
    }
    Ok(())
}

fn unavailable(error: darkroom_queue::Error) -> UserError {
    UserError::new(Code::Unavailable, "UNAVAILABLE", error.to_string())
}

/// Logs advice about the settings of Redis. It works without these changes.
async fn warn_of(queue: &RedisQueue) {
    match queue.health().await {
        Ok(health) => health.warnings.iter().for_each(|warning| tracing::warn!("{warning}")),
        Err(error) => tracing::warn!(%error, "the settings of Redis could not be read"),
    }
}

/// Reports the farm as not serving while a part of it fails, with the reason, and as serving again
/// afterwards. Also renews the farm's mark in Redis, which a flush removes.
async fn tell_health(
    handle: &Handle,
    queue: &RedisQueue,
    identity: &str,
    troubles: &Troubles,
    health: &Health,
) {
    let mut ticks = tokio::time::interval(LOOK);
    let mut claimed = Instant::now();
    let mut strange = None;
    loop {
        ticks.tick().await;
        if claimed.elapsed() > CLAIM {
            claimed = Instant::now();
            strange = match queue.claim_farm(identity).await {
                Err(error @ redis::StartError::TwoFarms { .. }) => Some(error.to_string()),
                // Other problems of Redis are reported by the parts that cannot work.
                _ => None,
            };
        }
        let stored = || troubles.storage.borrow().clone();
        // The connection pool only reports a timeout; the check's result says more.
        let found_out = if handle.store_fails() { troubles.store.borrow().clone() } else { None };
        match strange.clone().or(found_out).or_else(|| handle.trouble()).or_else(stored) {
            Some(trouble) => health.not_serving(&trouble).await,
            None => health.serving().await,
        }
    }
}

/// What the checks found out about a failing record and a failing object storage.
struct Troubles {
    store: watch::Receiver<Option<String>>,
    storage: watch::Receiver<Option<String>>,
}

/// While the record cannot be reached, finds out why.
async fn watch_store(
    handle: &Handle,
    store: &dyn Maintenance,
    trouble: &watch::Sender<Option<String>>,
) {
    loop {
        sleep(LOOK).await;
        if handle.store_fails() {
            trouble.send_replace(store.diagnose().await);
            sleep(ASK_AGAIN).await;
        } else {
            trouble.send_replace(None);
        }
    }
}

/// Says what prevents the use of object storage, if anything. One probe at a time: if one hangs,
/// that is reported, and no second one starts.
async fn watch_storage(storage: &ArtifactStore, trouble: &watch::Sender<Option<String>>) {
    loop {
        let failing = trouble.borrow().is_some();
        sleep(if failing { PROBE_AGAIN } else { PROBE }).await;
        let mut probe = std::pin::pin!(storage.check());
        let looked = match timeout(PROBED, &mut probe).await {
            Ok(looked) => looked,
            Err(_) => {
                let slow = format!(
                    "the artifact store did not finish a probe within {} seconds",
                    PROBED.as_secs()
                );
                trouble.send_replace(Some(slow));
                probe.await
            }
        };
        trouble.send_replace(looked.err().map(|error| error.message));
    }
}

async fn load(args: &CoordinatorArgs) -> Result<Vec<CascadeBundle>, UserError> {
    let (folders, without_files) = (args.cascades.clone(), args.without_files);
    let load = move || {
        let one = |folder: &PathBuf| match CascadeBundle::load(folder) {
            Err(_) if without_files => CascadeBundle::describe(folder),
            loaded => loaded,
        };
        CascadeBundle::distinct(folders.iter().map(one).collect::<Result<_, UserError>>()?)
    };
    tokio::task::spawn_blocking(load)
        .await
        .map_err(|error| UserError::new(Code::Internal, "INTERNAL", error.to_string()))?
}

/// Default number of a coordinator's connections to Postgres.
const CONNECTIONS: u32 = 24;
/// A connection for calls that was unused for this long is checked first, because its server may be
/// gone.
const FRONT_ASKS: Duration = Duration::from_secs(1);

/// How a coordinator's connections are divided.
#[derive(Clone, Copy)]
struct Connections {
    all: u32,
    /// For calls, so that they never wait behind bulk work.
    front: u32,
}

impl Connections {
    fn of(all: u32) -> Self {
        Self { all, front: all / 3 }
    }
}

/// The record as it was opened.
enum Opened {
    Postgres(Box<PostgresStore>),
    Sqlite(SqliteStore, String),
}

/// The record as the coordinator uses it.
struct Record {
    /// For bulk work.
    store: Arc<dyn Store>,
    /// The same for calls.
    front: Arc<dyn Store>,
    /// Of its database.
    identity: String,
}

impl Opened {
    /// SQLite has one record for both, because its reads have their own connections already.
    fn record(self, connections: Connections) -> Record {
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

async fn open_store(url: SecretUrl, connections: Connections) -> Result<Opened, UserError> {
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
fn not_started(error: impl Into<Error>) -> UserError {
    let error = error.into();
    error.log();
    error.to_user()
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
