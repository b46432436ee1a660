//! Sessions of browsers: who has shown a key gets a token that stands for it for a while, so that
//! the key itself is kept nowhere.

use std::{fmt, str::FromStr};

use subtle::ConstantTimeEq as _;

use crate::{
    error::{Code, UserError},
    key::KeyId,
};

/// How every token begins.
const PREFIX: &str = "ds_";
/// Bytes of a seal.
pub const SEAL: usize = 32;

/// A session: a key, an end, and the seal of the farm that made it.
#[derive(Clone)]
pub struct Session {
    key: KeyId,
    expires: u64,
    seal: [u8; SEAL],
}

impl Session {
    /// The session of a key until a time (seconds since 1970), sealed by `seal`.
    pub fn new(key: KeyId, expires: u64, seal: impl FnOnce(&[u8]) -> [u8; SEAL]) -> Self {
        let seal = seal(sealed(&key, expires).as_bytes());
        Self { key, expires, seal }
    }

    /// The key that it stands for.
    #[must_use]
    pub fn key(&self) -> &KeyId {
        &self.key
    }

    /// When it ends, in seconds since 1970.
    #[must_use]
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// Whether whoever makes seals with `seal` made this one. How long it takes does not depend on
    /// where the two differ.
    pub fn is_sealed(&self, seal: impl FnOnce(&[u8]) -> [u8; SEAL]) -> bool {
        seal(sealed(&self.key, self.expires).as_bytes()).ct_eq(&self.seal).into()
    }

    /// The whole token, for the cookie.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}_{}_{}", self.key, self.expires, hex::encode(self.seal))
    }
}

/// What is sealed.
fn sealed(key: &KeyId, expires: u64) -> String {
    format!("{key}_{expires}")
}

impl FromStr for Session {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        read(text).ok_or_else(|| {
            UserError::new(
                Code::Unauthenticated,
                "MALFORMED_SESSION",
                "the session's cookie is malformed; log in again",
            )
        })
    }
}

fn read(text: &str) -> Option<Session> {
    let mut parts = text.strip_prefix(PREFIX)?.split('_');
    let (key, expires, digits) = (parts.next()?, parts.next()?, parts.next()?);
    let is_number = !expires.is_empty() && expires.bytes().all(|byte| byte.is_ascii_digit());
    if parts.next().is_some() || !is_number {
        return None;
    }
    let mut seal = [0; SEAL];
    hex::decode_to_slice(digits, &mut seal).ok()?;
    Some(Session { key: key.parse().ok()?, expires: expires.parse().ok()?, seal })
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session(of key {} until {})", self.key, self.expires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(with: u8) -> impl Fn(&[u8]) -> [u8; SEAL] {
        move |text| {
            let mut seal = [with; SEAL];
            for (place, byte) in text.iter().enumerate() {
                seal[place % SEAL] ^= byte.rotate_left(u32::try_from(place).unwrap_or_default());
            }
            seal
        }
    }

    fn session() -> Session {
        Session::new("0123456789ab".parse().expect("an id"), 1_800_000_000, seal(7))
    }

    #[test]
    fn a_token_is_read_back_and_shows_its_seal_to_nobody() {
        let token = session().expose();
        let read: Session = token.parse().expect("a token");
        assert_eq!((read.key().as_str(), read.expires()), ("0123456789ab", 1_800_000_000));
        assert!(read.is_sealed(seal(7)) && !read.is_sealed(seal(8)));
        let shown = format!("{read:?}");
        assert!(!token.split('_').any(|part| part.len() > 12 && shown.contains(part)), "{shown}");
    }

    #[test]
    fn what_is_changed_is_not_sealed_and_what_is_cut_is_no_token() {
        let token = session().expose();
        for (from, to) in [("0123456789ab", "0123456789ac"), ("1800000000", "1800000001")] {
            let changed: Session = token.replace(from, to).parse().expect("a token");
            assert!(!changed.is_sealed(seal(7)), "{changed:?}");
        }
        for end in 0..token.len() {
            assert!(token[..end].parse::<Session>().is_err(), "{end}");
        }
        let more = [
            format!("{token}0"),
            format!("{token}_"),
            token.replace("ds_", "dk_"),
            token.replace("1800000000", "-1"),
            token.replace("1800000000", "99999999999999999999"),
            token[..token.len() - 2].to_owned() + "+f",
            token[..token.len() - 2].to_owned() + "é",
        ];
        for wrong in more {
            let error = wrong.parse::<Session>().expect_err(&wrong);
            assert_eq!((error.code, &*error.reason), (Code::Unauthenticated, "MALFORMED_SESSION"));
        }
    }
}
