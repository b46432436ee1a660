//! Content digests: SHA-256, written as 64 lower-case hexadecimal digits.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::UserError;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first 12 digits, for display.
    #[must_use]
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

/// Bytes that come one after the other, on the way to their digest.
#[derive(Clone, Debug, Default)]
pub struct DigestOfParts(Sha256);

impl DigestOfParts {
    /// Adds the next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all of them.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| {
            UserError::invalid(
                "digest",
                format!("digest is {text:?}; accepted: 64 hexadecimal digits"),
            )
        })?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = UserError;

    fn try_from(text: String) -> Result<Self, UserError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// Digests a sequence of fields. Each field is preceded by its length, so that different sequences
/// cannot give the same bytes.
#[derive(Clone, Default)]
pub struct FieldHasher(Sha256);

impl FieldHasher {
    /// Starts a digest in its own domain (`"task/1"`), so that digests of different things never
    /// collide.
    #[must_use]
    pub fn new(domain: &str) -> Self {
        Self::default().field(domain.as_bytes())
    }

    /// Adds one field.
    #[must_use]
    pub fn field(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds a value as one field, in its JSON form.
    ///
    /// # Panics
    /// If the value cannot be written as JSON, for example a map whose keys are not strings.
    /// Hashing an empty field instead would give different values the same digest.
    #[must_use]
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        let json = serde_json::to_vec(value)
            .expect("numbers, texts, and structs and lists of them have a JSON form");
        self.field(&json)
    }

    /// The digest of all fields in order.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_of_parts_is_that_of_the_whole() {
        let mut parts = DigestOfParts::default();
        for part in [&b"a"[..], b"", b"bc"] {
            parts.add(part);
        }
        assert_eq!(parts.finish(), Digest::of(b"abc"));
    }

    #[test]
    fn fields_do_not_run_together() {
        let one = FieldHasher::new("t").field(b"ab").field(b"c").finish();
        let other = FieldHasher::new("t").field(b"a").field(b"bc").finish();
        assert_ne!(one, other);
    }

    #[test]
    fn a_digest_parses_back() {
        let digest = Digest::of(b"darkroom");
        assert_eq!(digest.to_string().parse::<Digest>().expect("own text"), digest);
    }
}
