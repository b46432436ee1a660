//! Whether this Redis will do: one clear sentence for each reason why it will not.

use darkroom_core::error::{Code, UserError};
use redis::{ErrorKind, RedisError, from_redis_value};

use super::{
    connection::Link,
    health::{self, Health},
    keys::FarmKeys,
    script::SCRIPTS,
};

/// Why a process cannot start with this Redis.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The address was not understood.
    #[error(
        "the queue's address is not understood ({0}); accepted: redis://[user:password@]host[:port][/number], \
         rediss:// for TLS, unix:///path, redis+cluster://host:port,host:port"
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
            Self::Refused { .. } => (Code::FailedPrecondition, "REDIS_REFUSES"),
            Self::TooOld { .. } => (Code::FailedPrecondition, "REDIS_TOO_OLD"),
            Self::TwoFarms { .. } => (Code::FailedPrecondition, "TWO_FARMS"),
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

fn explain(link: &Link, error: &RedisError) -> StartError {
    let (address, reason) = (link.address(), error.to_string());
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS" | "NOPERM")) => {
            StartError::Refused { address, reason }
        }
        (ErrorKind::Server(_) | ErrorKind::Extension, _) => StartError::NotReady { address, reason },
        _ => StartError::Unreachable { address, reason },
    }
}
