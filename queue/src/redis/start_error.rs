//! Why a process cannot start with a Redis: one clear sentence for each reason.

use darkroom_core::error::{Code, UserError};

/// Why a process cannot start with this Redis.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The address cannot be parsed.
    #[error(
        "the queue's address cannot be parsed ({0}); \
         accepted: redis://[user:password@]host[:port][/number], \
         rediss:// for TLS, unix:///path, redis+cluster://host:port,host:port, \
         redis+sentinel://host:port,host:port/MASTER"
    )]
    Url(String),
    /// The farm's id is not allowed.
    #[error("the farm's id is {0:?}; accepted: 1 to 64 letters, digits, '-' or '_'")]
    FarmId(String),
    /// Nobody answers there.
    #[error("no Redis answers at {address}: {reason}")]
    Unreachable {
        /// The address.
        address: String,
        /// What was tried and failed.
        reason: String,
    },
    /// Its certificate is not trusted.
    #[error(
        "Redis at {address} has a certificate that is not trusted ({reason}); \
         accepted: a certificate of the system's authorities, or, if SSL_CERT_FILE is set, of \
         those in that PEM file"
    )]
    Untrusted {
        /// The address.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The user or password is wrong or missing, or the user lacks a permission.
    #[error("Redis at {address} refuses the user or password: {reason}")]
    Refused {
        /// The address.
        address: String,
        /// What Redis said.
        reason: String,
    },
    /// The server is too old.
    #[error("Redis at {address} is version {version}; 7.0 or newer is needed")]
    TooOld {
        /// The address.
        address: String,
        /// Its version.
        version: String,
    },
    /// It answers, but cannot serve now.
    #[error("Redis at {address} is not ready: {reason}")]
    NotReady {
        /// The address.
        address: String,
        /// What Redis said.
        reason: String,
    },
    /// Another SQL database uses the farm's keys.
    #[error(
        "two farms share one Redis under the same id: this one has database {mine}, and the queue belongs to \
         database {owner}; give a restored copy an id of its own, or delete the key {key} if the other farm is gone"
    )]
    TwoFarms {
        /// Identity of the database that asked.
        mine: String,
        /// Identity of the database that came first.
        owner: String,
        /// The key that records this.
        key: String,
    },
    /// The farm's coordinators use another Redis.
    #[error(
        "Redis at {address} is not the one of this farm, {farm}: none of its coordinators is \
         connected to it; pass the same --redis as the coordinators, with the database number"
    )]
    OtherRedis {
        /// The address.
        address: String,
        /// The farm's id.
        farm: String,
    },
}

impl StartError {
    /// Whether the same call may succeed later without any change by a person.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NotReady { .. })
    }

    /// The same as a user's error about the setting `redis`.
    #[must_use]
    pub fn to_user(&self) -> UserError {
        let (code, reason) = match self {
            Self::Url(_) | Self::FarmId(_) => (Code::InvalidArgument, "INVALID_FIELD"),
            Self::Unreachable { .. } | Self::NotReady { .. } => {
                (Code::Unavailable, "REDIS_UNREACHABLE")
            }
            Self::Untrusted { .. } => (Code::FailedPrecondition, "REDIS_UNTRUSTED"),
            Self::Refused { .. } => (Code::FailedPrecondition, "REDIS_REFUSES"),
            Self::TooOld { .. } => (Code::FailedPrecondition, "REDIS_TOO_OLD"),
            Self::TwoFarms { .. } => (Code::FailedPrecondition, "TWO_FARMS"),
            Self::OtherRedis { .. } => (Code::FailedPrecondition, "OTHER_REDIS"),
        };
        UserError {
            field: Some("redis".to_owned()),
            ..UserError::new(code, reason, self.to_string())
        }
    }
}
