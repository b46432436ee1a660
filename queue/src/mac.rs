//! Signatures as tasks and results carry them. How they are made is in `signing`.

use std::fmt;

use darkroom_core::{digest::Digest, error::UserError};
use serde::{Deserialize, Serialize};

/// An HMAC-SHA256. It is compared in constant time.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 32]);

impl PartialEq for Mac {
    fn eq(&self, other: &Self) -> bool {
        let differ =
            self.0.iter().zip(&other.0).fold(0, |differ, (one, other)| differ | (one ^ other));
        std::hint::black_box(differ) == 0
    }
}

impl Eq for Mac {}

impl From<[u8; 32]> for Mac {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mac")
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        Digest(mac.0).to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = UserError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Ok(Self(text.parse::<Digest>()?.0))
    }
}

/// A member's signature of a result. The result says which worker made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Id of the key that the worker joined with.
    #[serde(rename = "k", default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// When its signing key ends, seconds since 1970.
    #[serde(rename = "e")]
    pub expires: u64,
    /// The signature.
    #[serde(rename = "m")]
    pub mac: Mac,
}
