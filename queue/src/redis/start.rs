//! Whether this Redis will do: one clear sentence for each reason why it will not.

use std::time::Duration;

use darkroom_core::error::{Code, UserError};
use redis::{ErrorKind, RedisError, from_redis_value};
use tokio::time::{Instant, sleep};

use super::{
    connection::Link,
    health::{self, Health},
    keys::FarmKeys,
    script::SCRIPTS,
};

/// A mark that was not renewed for so long is nobody's any more. Live coordinators renew it every few seconds, and Redis
/// does not count that while it saves to disk.
const FORSAKEN: i64 = 60;
/// Time between two looks for the mark.
const LOOK: Duration = Duration::from_millis(200);

/// What servers of several versions say to a user who may call a script, and not what is in it.
const DENIED_IN_SCRIPT: [&str; 2] = ["The user executing the script can't", "ACL failure in script"];

/// Why a process cannot start with this Redis.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The address was not understood.
    #[error(
        "the queue's address is not understood ({0}); accepted: redis://[user:password@]host[:port][/number], \
         rediss:// for TLS, unix:///path, redis+cluster://host:port,host:port, \
         redis+sentinel://host:port,host:port/MASTER"
    )]
    Url(String),
    /// The farm's id does not do.
    #[error("the farm's id is {0:?}; accepted: 1 to 64 letters, digits, '-' or '_'")]
    FarmId(String),
    /// Nobody answers there.
    #[error("no Redis answers at {address}: {reason}")]
    Unreachable {
        /// Where.
        address: String,
        /// What was tried and failed.
        reason: String,
    },
    /// Its certificate is not one to trust.
    #[error(
        "Redis at {address} has a certificate that is not trusted ({reason}); trusted are the system's authorities, or in \
         their place those in the PEM file that SSL_CERT_FILE names"
    )]
    Untrusted {
        /// Where.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The user or password is wrong or missing, or may not do what is needed.
    #[error("Redis at {address} refuses the user or password: {reason}")]
    Refused {
        /// Where.
        address: String,
        /// What Redis said.
        reason: String,
    },
    /// The server is too old.
    #[error("Redis at {address} is version {version}; 7.0 or newer is needed")]
    TooOld {
        /// Where.
        address: String,
        /// Its version.
        version: String,
    },
    /// It answers, and cannot serve now.
    #[error("Redis at {address} is not ready: {reason}")]
    NotReady {
        /// Where.
        address: String,
        /// What Redis said.
        reason: String,
    },
    /// Another SQL database uses the farm's keys.
    #[error(
        "two farms share one Redis: this database is {mine}, and the queue of the farm with its id belongs to \
         database {owner}; give a restored copy an id of its own, or delete the key {key} when the other one is gone"
    )]
    TwoFarms {
        /// Identity of the database that asked.
        mine: String,
        /// Identity of the one that came first.
        owner: String,
        /// Where that is noted.
        key: String,
    },
    /// The farm's coordinators use another Redis.
    #[error(
        "Redis at {address} is not the one of this farm, whose id is {farm}: none of its coordinators is connected to \
         it; give --redis as the coordinators have it, database number included"
    )]
    OtherRedis {
        /// Where.
        address: String,
        /// The farm's id.
        farm: String,
    },
}

impl StartError {
    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NotReady { .. })
    }

    /// The same for a user, about the setting `redis`.
    #[must_use]
    pub fn to_user(&self) -> UserError {
        let (code, reason) = match self {
            Self::Url(_) | Self::FarmId(_) => (Code::InvalidArgument, "INVALID_FIELD"),
            Self::Unreachable { .. } | Self::NotReady { .. } => (Code::Unavailable, "REDIS_UNREACHABLE"),
            Self::Untrusted { .. } => (Code::FailedPrecondition, "REDIS_UNTRUSTED"),
            Self::Refused { .. } => (Code::FailedPrecondition, "REDIS_REFUSES"),
            Self::TooOld { .. } => (Code::FailedPrecondition, "REDIS_TOO_OLD"),
            Self::TwoFarms { .. } => (Code::FailedPrecondition, "TWO_FARMS"),
            Self::OtherRedis { .. } => (Code::FailedPrecondition, "OTHER_REDIS"),
        };
        UserError { field: Some("redis".to_owned()), ..UserError::new(code, reason, self.to_string()) }
    }
}

/// Reads the server's facts and refuses one that will not do.
pub(super) async fn check(link: &Link, farm: &FarmKeys) -> Result<Health, StartError> {
    let health = health::read(link, farm).await.map_err(|error| explain(link, &error))?;
    if !health.is_new_enough() {
        return Err(StartError::TooOld { address: link.address(), version: health.version });
    }
    Ok(health)
}

pub(super) async fn claim(link: &Link, farm: &FarmKeys, mine: &str) -> Result<(), StartError> {
    let mut call = SCRIPTS.claim.call(&[&farm.owner]);
    call.arg(mine);
    let owner = link.run(&SCRIPTS.claim, call).await.and_then(|owner| Ok(from_redis_value::<String>(owner)?));
    let owner = owner.map_err(|error| explain(link, &error))?;
    if owner == mine {
        return Ok(());
    }
    Err(StartError::TwoFarms { mine: mine.to_owned(), owner, key: farm.owner.clone() })
}

pub(super) async fn expect(link: &Link, farm: &FarmKeys, patience: Duration) -> Result<(), StartError> {
    let deadline = Instant::now() + patience;
    loop {
        let call = SCRIPTS.mark.call(&[&farm.owner]);
        let idle = link.run(&SCRIPTS.mark, call).await.and_then(|idle| Ok(from_redis_value::<i64>(idle)?));
        let refusal = match idle.map_err(|error| explain(link, &error)) {
            Ok(0..=FORSAKEN) => return Ok(()),
            Ok(_) => StartError::OtherRedis { address: link.address(), farm: farm.farm.clone() },
            Err(error) if error.retryable() => error,
            Err(error) => return Err(error),
        };
        if Instant::now() >= deadline {
            return Err(refusal);
        }
        sleep(LOOK).await;
    }
}

fn explain(link: &Link, error: &RedisError) -> StartError {
    let (address, reason) = (link.address(), error.to_string());
    // The client shows no more of TLS's error than its words.
    if let Some((_, flaw)) = reason.split_once("invalid peer certificate: ") {
        return StartError::Untrusted { address, reason: flaw.to_owned() };
    }
    if DENIED_IN_SCRIPT.iter().any(|words| reason.contains(words)) {
        return StartError::Refused { address, reason };
    }
    match (error.kind(), error.code()) {
        (ErrorKind::MasterNameNotFoundBySentinel, _) => StartError::NotReady {
            address,
            reason: "the Sentinels name no master that can be reached; check its name, or wait for the failover's end"
                .to_owned(),
        },
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => {
            StartError::Refused { address, reason }
        }
        (ErrorKind::Server(_) | ErrorKind::Extension, _) => StartError::NotReady { address, reason },
        _ => StartError::Unreachable { address, reason },
    }
}
