//! The text of a key: `dk_ID_SECRET`.

use std::{fmt, str::FromStr};

/// Characters of the id, and of the secret; both base62.
const ID: usize = 12;
const SECRET: usize = 43;

/// A key. Its `Debug` and its `Display` show its id alone.
#[derive(Clone)]
pub struct Key(String);

/// What is not a key. It does not say what it is instead, since that may be a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key")]
pub struct NoKey;

impl Key {
    /// The id, which is no secret.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.get(3..3 + ID).unwrap_or_default()
    }

    /// The whole text: for requests and files, not for logs.
    #[must_use]
    pub fn expose(&self) -> String {
        self.0.clone()
    }
}

impl FromStr for Key {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        let of = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        let parts = text.strip_prefix("dk_").and_then(|rest| rest.split_once('_'));
        let whole = parts.is_some_and(|(id, secret)| of(id, ID) && of(secret, SECRET));
        whole.then(|| Self(text.to_owned())).ok_or(NoKey)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}…)", self.id())
    }
}
