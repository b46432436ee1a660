//! Keys: who calls shows one. A key is `dk_ID_SECRET`, where the id is public and the secret is
//! 256 random bits. Only the hash of the secret is kept.

use std::{fmt, str::FromStr};

use subtle::ConstantTimeEq as _;

use crate::{
    digest::Digest,
    error::{Code, UserError},
    label::printable,
};

/// How every key begins.
const PREFIX: &str = "dk_";
/// Characters of an id.
const ID: usize = 12;
/// Characters of a secret: as many as 256 bits take in base62.
const SECRET: usize = 43;
/// Random bytes that a key is made of.
pub const RANDOM_BYTES: usize = ID + 32;
/// Metadata of an answer to a call whose key has an end: that time in seconds since 1970, as
/// digits.
pub const EXPIRES_METADATA: &str = "darkroom-key-expires";
/// Longest label of a key, characters.
pub const MAX_LABEL: usize = 200;

/// The public part of a key: 12 characters of base62.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        if is_base62(text, ID) {
            return Ok(Self(text.to_owned()));
        }
        // A whole key may stand here by mistake, so the value is not repeated.
        let message = format!(
            "id is not the id of a key; accepted: the {ID} letters and digits between dk_ and the \
             next _"
        );
        Err(UserError::invalid("id", message))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A whole key. Neither `Display` nor `Debug` shows its secret.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    secret: String,
}

impl Key {
    /// The key that these random bytes make.
    #[must_use]
    pub fn of_random(bytes: &[u8; RANDOM_BYTES]) -> Self {
        let (id, secret) = bytes.split_at(ID);
        Self { id: KeyId(base62(id, ID)), secret: base62(secret, SECRET) }
    }

    /// Its public part.
    #[must_use]
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// What is kept of its secret.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash(Digest::of(self.secret.as_bytes()))
    }

    /// The whole key, for whoever it is made for, and for the header of a call.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, self.secret)
    }
}

impl FromStr for Key {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        let parts = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_'));
        match parts {
            Some((id, secret)) if is_base62(id, ID) && is_base62(secret, SECRET) => {
                Ok(Self { id: KeyId(id.to_owned()), secret: secret.to_owned() })
            }
            // What came may be nearly a key, so it is not repeated.
            _ => Err(UserError::new(
                Code::Unauthenticated,
                "MALFORMED_KEY",
                format!(
                    "the key is malformed; accepted: dk_, {ID} letters and digits, _, and {SECRET} \
                     letters and digits"
                ),
            )),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}_…", self.id)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// SHA-256 of a secret. The secret is random, so a fast hash is enough.
#[derive(Clone, Copy)]
pub struct SecretHash(pub Digest);

impl SecretHash {
    /// Whether the key has this secret. How long it takes does not depend on where the two differ.
    #[must_use]
    pub fn is_of(&self, key: &Key) -> bool {
        self.0.0.ct_eq(&key.hash().0.0).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

/// Checks a key's label.
///
/// # Errors
/// If it is too long, or has a character that cannot be printed.
pub fn check_label(label: &str) -> Result<(), UserError> {
    let characters = label.chars().count();
    if characters > MAX_LABEL {
        let message = format!("label has {characters} characters; accepted: at most {MAX_LABEL}");
        return Err(UserError::invalid("label", message));
    }
    printable("label", label, &[])
}

fn is_base62(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The lowest `length` digits of a number in base 62, highest first.
fn base62(bytes: &[u8], length: usize) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut number = bytes.to_vec();
    let mut digits: Vec<char> = (0..length)
        .map(|_| {
            let mut rest = 0_u32;
            for byte in &mut number {
                let part = rest << 8 | u32::from(*byte);
                *byte = u8::try_from(part / 62).expect("the rest is below 62, so this is a byte");
                rest = part % 62;
            }
            char::from(DIGITS[rest as usize])
        })
        .collect();
    digits.reverse();
    digits.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn key() -> Key {
        let mut bytes = [0; RANDOM_BYTES];
        (0_u8..).zip(&mut bytes).for_each(|(n, byte)| *byte = n.wrapping_mul(37));
        Key::of_random(&bytes)
    }

    #[test]
    fn the_secret_has_room_for_256_bits() {
        let largest = Key::of_random(&[0xff; RANDOM_BYTES]);
        // 2^256 - 1 in base 62.
        assert_eq!(largest.secret, "yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp1");
        assert_ne!(largest.secret.as_bytes()[0], b'0', "its highest digit is needed");
        assert_eq!(Key::of_random(&[0; RANDOM_BYTES]).secret, "0".repeat(SECRET));
        let mut one = [0; RANDOM_BYTES];
        one[RANDOM_BYTES - 1] = 63;
        assert!(Key::of_random(&one).secret.ends_with("011"));
    }

    #[test]
    fn a_key_is_never_shown_whole_but_by_expose() {
        let key = key();
        let shown = format!("{key} {key:?} {:?} {:?}", key.hash(), key.id());
        assert!(shown.contains(key.id().as_str()), "{shown}");
        assert!(!shown.contains(&key.secret[..8]), "{shown}");
        assert!(!shown.contains(&key.hash().0.to_string()[..8]), "{shown}");
        assert!(key.expose().ends_with(&key.secret));
    }

    #[test]
    fn what_is_not_a_key_is_refused_and_not_repeated() {
        let whole = key().expose();
        let shorter = &whole[..whole.len() - 1];
        for wrong in [
            "",
            "dk_",
            "dk__",
            shorter,
            &format!("{whole}0"),
            &format!(" {whole}"),
            &format!("{whole}\n"),
            &whole.replacen("dk_", "DK_", 1),
            &whole.replacen("dk_", "dk-", 1),
            &format!("{shorter}é"),
            &format!("{shorter}-"),
            &format!("{shorter}_"),
            &format!("dk_{}", "0".repeat(56)),
            &format!("dk_{}_{}", "0".repeat(11), "0".repeat(44)),
            &"x".repeat(100_000),
        ] {
            let error = wrong.parse::<Key>().expect_err(wrong);
            assert_eq!(
                (error.code, error.reason.as_str()),
                (Code::Unauthenticated, "MALFORMED_KEY")
            );
            assert!(error.message.len() < 200, "{error}");
            assert!(!error.message.contains(&whole[20..30]), "{error}");
        }
        let error = whole.parse::<KeyId>().expect_err("a whole key is no id");
        assert!(!error.message.contains(&whole[20..30]), "{error}");
    }

    #[test]
    fn a_label_is_short_and_can_be_printed() {
        for label in ["", "Ana's laptop", &"é".repeat(MAX_LABEL)] {
            check_label(label).unwrap_or_else(|error| panic!("{error}"));
        }
        for label in ["a\nb", "\u{202e}a", &"é".repeat(MAX_LABEL + 1)] {
            let error = check_label(label).expect_err(label);
            assert_eq!(error.field.as_deref(), Some("label"));
        }
    }

    #[test]
    fn each_character_of_the_secret_counts() {
        let key = key();
        let hash = key.hash();
        assert!(hash.is_of(&key));
        for place in 0..SECRET {
            let mut other = key.clone();
            let letter = if other.secret.as_bytes()[place] == b'x' { "y" } else { "x" };
            other.secret.replace_range(place..=place, letter);
            assert!(!hash.is_of(&other), "{place}");
        }
    }

    proptest! {
        #[test]
        fn a_key_of_any_bytes_is_read_back(bytes in proptest::collection::vec(any::<u8>(), RANDOM_BYTES)) {
            let bytes: [u8; RANDOM_BYTES] = bytes.try_into().expect("as many");
            let key = Key::of_random(&bytes);
            let read: Key = key.expose().parse().expect("its own text");
            prop_assert_eq!(read.id(), key.id());
            prop_assert!(key.hash().is_of(&read));
            prop_assert_eq!(key.expose().len(), 3 + 12 + 1 + 43);
        }

        #[test]
        fn no_text_makes_the_parser_fail_otherwise_than_by_refusing(text in ".{0,80}") {
            let _ = text.parse::<Key>();
            let _ = text.parse::<KeyId>();
        }
    }

    #[test]
    fn bits_that_differ_make_different_keys() {
        let all: BTreeSet<_> = (0..RANDOM_BYTES * 8)
            .map(|bit| {
                let mut bytes = [0; RANDOM_BYTES];
                bytes[bit / 8] = 1 << (bit % 8);
                Key::of_random(&bytes).expose()
            })
            .collect();
        assert!(all.len() >= 256 + 71, "{}", all.len());
    }
}
