//! Ids as types, so that a job's id cannot be used as a worker's.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    error::UserError,
    guard::{Guard, stands},
};

/// A job's id: a UUID, version 7, so that newer jobs sort later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        Uuid::try_parse(text).map(Self).map_err(|_| {
            UserError::invalid(
                "id",
                format!("id is {text:?}; accepted: a job's UUID as submit printed it"),
            )
        })
    }
}

/// One picture of a job: the job and the 0-based index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImageId {
    /// The job.
    pub job: JobId,
    /// Position in the job, from 0.
    pub index: u64,
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.job, self.index)
    }
}

/// A stage's name in its cascade, e.g. `base`. Lower-case letters, digits, `-` and `_`, 1 to 32 of
/// them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StageName(String);

impl StageName {
    /// The name of the text-encoding stage, which every cascade has.
    pub const ENCODE: &'static str = "encode";

    /// The text-encoding stage.
    #[must_use]
    pub fn encode() -> Self {
        Self(Self::ENCODE.to_owned())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the text-encoding stage.
    #[must_use]
    pub fn is_encode(&self) -> bool {
        self.0 == Self::ENCODE
    }
}

impl TryFrom<String> for StageName {
    type Error = UserError;

    fn try_from(name: String) -> Result<Self, UserError> {
        let fits = (1..=32).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        if fits {
            Ok(Self(name))
        } else {
            Err(UserError::invalid(
                "stage",
                format!(
                    "stage is {name:?}; accepted: 1 to 32 lower-case letters, digits, '-' or '_'"
                ),
            ))
        }
    }
}

impl From<StageName> for String {
    fn from(name: StageName) -> Self {
        name.0
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A worker process. The id is new for each process, so that a restarted worker never renews the
/// leases of the process that died.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub String);

impl WorkerId {
    /// `{host}-{fresh UUID}`.
    #[must_use]
    pub fn fresh(host: &str) -> Self {
        let fresh = if stands(Guard::FreshWorker) { Uuid::new_v4() } else { Uuid::nil() };
        Self(format!("{host}-{}", fresh.simple()))
    }

    /// The host that it was made for. Of an id of another form, all of it.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.rsplit_once('-').map_or(&self.0, |(host, _)| host)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
