//! Whether the tenants of a farm share what was made for them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::UserError;

/// Whether embeddings and outputs that were made for one tenant are used for another. A job keeps
/// the one that it was submitted with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Equal work is done once for all tenants. From an encode count or an instant result, a tenant
    /// can tell that someone has used a text or rendered a picture before.
    #[default]
    Shared,
    /// Equal work is done once for each tenant: its name is part of the digests. Nobody learns
    /// anything of another tenant's work.
    Sealed,
}

impl Sharing {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Shared, Self::Sealed];

    /// Its name in SQL, flags and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Sealed => "sealed",
        }
    }

    /// The tenant that is part of the digests of a job: its own if it is sealed.
    #[must_use]
    pub fn seal(self, tenant: &str) -> Option<&str> {
        match self {
            Self::Shared => None,
            Self::Sealed => Some(tenant),
        }
    }
}

impl fmt::Display for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Sharing {
    type Err = UserError;

    fn from_str(name: &str) -> Result<Self, UserError> {
        Self::ALL.into_iter().find(|sharing| sharing.name() == name).ok_or_else(|| {
            let message = format!("sharing is {name:?}; accepted: shared, sealed");
            UserError::invalid("sharing", message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_as_it_is_written_and_no_other() {
        for sharing in Sharing::ALL {
            assert_eq!(sharing.to_string().parse(), Ok(sharing));
        }
        for wrong in ["", "Shared", "sealed ", "open"] {
            let error = wrong.parse::<Sharing>().expect_err(wrong);
            assert!(error.message.ends_with("accepted: shared, sealed"), "{error}");
        }
        assert_eq!(Sharing::Sealed.seal("studio"), Some("studio"));
        assert_eq!(Sharing::Shared.seal("studio"), None);
    }
}
