//! Gets everything that a worker needs, starting from a coordinator's address.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use darkroom_artifacts::{ArtifactStore, CascadeBundle, CascadeCache, cascade_store, open};
use darkroom_core::{digest::Digest, error::UserError};
use darkroom_queue::{
    TaskQueue,
    redis::{self, RedisQueue},
    signing::Signer,
};
use darkroom_runtime::{
    credential::{Ending, Found, KeySettings},
    peer::Addresses,
    secret::SecretUrl,
    tls::ClientSettings,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    facts::{self, Computes, Door, Facts, Joining},
    renew::keep_renewing,
};

/// How long to wait for a Redis to carry the farm's mark. Coordinators renew it every few seconds,
/// and a flush may just have deleted it.
const MARKED: Duration = Duration::from_secs(15);

/// Which farm to join, and where it stores things. Flags of every process that joins one.
#[derive(Clone, Debug, Args)]
pub struct JoinArgs {
    /// Address of a coordinator, host:port or https://host:port, or several separated by commas. It
    /// is asked at the start, with retries until one answers, and every few hours for new keys
    #[arg(long, env = "DARKROOM_FARM", value_name = "ADDRESS", default_value = "127.0.0.1:7878")]
    pub farm: String,
    /// How to trust it.
    #[command(flatten)]
    pub tls: ClientSettings,
    /// The key to show to it, which needs the scope member.
    #[command(flatten)]
    pub key: KeySettings,
    /// The farm's Redis: redis://host:port/number, redis://user:password@host, rediss:// for TLS.
    /// @FILE reads it from a file, so that no password is seen in a flag
    #[arg(long, env = "DARKROOM_REDIS", value_name = "URL", hide_env_values = true)]
    pub redis: SecretUrl,
    /// The farm's object storage: a folder that all machines share, s3://bucket/prefix, gs://…,
    /// az://…; or @FILE
    #[arg(long, env = "DARKROOM_ARTIFACTS", value_name = "URL", hide_env_values = true)]
    pub artifacts: SecretUrl,
    /// Serve only this cascade of the farm, by name or digest; may be repeated. Default: all of
    /// them
    #[arg(long = "cascade", env = "DARKROOM_CASCADE", value_name = "NAME")]
    pub cascades: Vec<String>,
    /// Folder for fetched cascades; the processes of one machine share it
    #[arg(long, env = "DARKROOM_CACHE", value_name = "DIR", default_value = "/var/cache/darkroom")]
    pub cache: PathBuf,
    /// Most disk space for fetched cascades, GiB
    #[arg(long, env = "DARKROOM_CACHE_GIB", value_name = "GIB", default_value_t = 64)]
    pub cache_gib: u64,
}

/// A member of a farm.
#[derive(Clone)]
pub struct Member {
    /// The farm's identity.
    pub farm: Uuid,
    /// A lease ends when it is not renewed for this long.
    pub lease: Duration,
    /// The farm's queue.
    pub queue: Arc<dyn TaskQueue>,
    /// The farm's object storage.
    pub artifacts: ArtifactStore,
    /// The cascades to serve, on this machine's disk.
    pub cascades: Vec<CascadeBundle>,
    /// Signs its results; the keys are renewed for as long as the process runs.
    pub signer: Signer,
}

impl Member {
    /// Time between two heartbeats: a fifth of a lease.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        (self.lease / 5).min(Duration::from_secs(2))
    }
}

/// Joins the farm, and renews its keys for as long as the process runs. Of cascades whose networks
/// it does not compute, no files are fetched. `None` if `stop` came first.
///
/// # Errors
/// One sentence about the problem: an address, the queue, a queue or a cascade of another farm, the
/// storage, a cascade that cannot be fetched completely.
pub async fn join(
    args: &JoinArgs,
    joining: &Joining,
    stop: &CancellationToken,
) -> Result<Option<Member>, UserError> {
    // Checked before anything is opened, so that a wrong address is reported first.
    let addresses = Addresses::parse(&args.farm)?;
    let tls = addresses.secure(&args.tls)?;
    let keys = args.key.open(&addresses, Found::Named)?.telling(log_end);
    if let Some(warning) = keys.warning() {
        tracing::warn!("{warning}");
    }
    let artifacts = ArtifactStore::open(args.artifacts.expose(), &open::Options::from_env())?;
    let door = Door::new(&args.farm, (tls, &keys), joining, &args.cascades)?;
    let Some(facts) = facts::ask(&door, stop).await? else { return Ok(None) };
    let farm = facts.farm.to_string();
    let queue = RedisQueue::connect(args.redis.expose(), &farm, redis::Options::default()).await;
    let queue = queue.map_err(|error| error.to_user())?;
    let Some(marked) = stop.run_until_cancelled(queue.expect_farm(MARKED)).await else {
        return Ok(None);
    };
    marked.map_err(|error| error.to_user())?;
    artifacts.check().await?;
    let mut cascades = Vec::new();
    for digest in wanted(args, &facts)? {
        let fetched = stop.run_until_cancelled(fetch(args, &artifacts, digest, joining.computes));
        match fetched.await {
            Some(bundle) => cascades.push(bundle?),
            None => return Ok(None),
        }
    }
    tracing::info!(farm.id = %facts.farm, cascades = cascades.len(), "joined the farm");
    let signer = Signer::new(facts.credentials);
    tokio::spawn(keep_renewing(door, signer.clone(), facts.renew));
    Ok(Some(Member {
        farm: facts.farm,
        lease: facts.lease,
        queue: Arc::new(queue),
        artifacts,
        cascades,
        signer,
    }))
}

/// Logs that the key ends soon. The farm refuses members with a key that has ended.
fn log_end(end: &Ending) {
    if end.urgent {
        tracing::error!("{}", end.sentence);
    } else {
        tracing::warn!("{}", end.sentence);
    }
}

fn wanted(args: &JoinArgs, facts: &Facts) -> Result<Vec<Digest>, UserError> {
    if args.cascades.is_empty() {
        return Ok(facts.cascades.iter().map(|(_, digest)| *digest).collect());
    }
    let find = |wanted: &String| {
        let found = facts
            .cascades
            .iter()
            .find(|(name, digest)| name == wanted || digest.to_string() == *wanted);
        found.map(|(_, digest)| *digest).ok_or_else(|| {
            let names: Vec<_> = facts.cascades.iter().map(|(name, _)| name.as_str()).collect();
            UserError::invalid(
                "cascade",
                format!("cascade is {wanted:?}; this farm has {}", names.join(", ")),
            )
        })
    };
    args.cascades.iter().map(find).collect()
}

async fn fetch(
    args: &JoinArgs,
    artifacts: &ArtifactStore,
    digest: Digest,
    computes: Computes,
) -> Result<CascadeBundle, UserError> {
    if computes == Computes::Nothing {
        let cascade = cascade_store::describe(artifacts, digest).await?;
        return Ok(CascadeBundle::without_files(cascade));
    }
    let cache = CascadeCache::new(&args.cache, args.cache_gib << 30)?;
    cache.fetch(artifacts, digest).await
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        join: JoinArgs,
    }

    #[test]
    fn arguments_are_shown_without_passwords() {
        let urls = ["--redis=redis://user:s3cr@host", "--artifacts=s3://key:s3cr@bucket"];
        let program = Program::parse_from(["program"].into_iter().chain(urls));
        assert_eq!(program.join.redis.expose(), "redis://user:s3cr@host");
        assert!(!format!("{program:?}").contains("s3cr"), "{program:?}");
    }
}
