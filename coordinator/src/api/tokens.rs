//! Seals positions in listings into tokens. A token tells nothing to those who get it, and only the
//! listing that it came from takes it back.
//!
//! Positions count what every tenant does: the jobs of the farm, and its changes. So a token in
//! plain text would tell one tenant how busy the others are. The text is padded, so that its length
//! tells nothing of the numbers in it, and encrypted with a stream made by HMAC-SHA256 of a random
//! nonce. A tag (HMAC-SHA256, with another key) is made of the result and of everything that the
//! listing asks for: encrypt, then authenticate. No crate with a cipher is among those that
//! `make render` builds: see `docs/adr/0052-tenants-apart.md`.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use darkroom_core::digest::{Digest, FieldHasher};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use uuid::Uuid;

/// Bytes of the nonce, and of the tag.
const NONCE: usize = 16;
const TAG: usize = 16;
/// Longest position, bytes.
const POSITION: usize = 300;
/// A position has its length before it.
const LENGTH: usize = 2;
/// A padded position has a multiple of so many bytes. Every position that is made of numbers fits
/// into one.
const STEP: usize = 96;
/// Longest token, characters.
pub(super) const LONGEST: usize = (NONCE + TAG + padded(POSITION)).div_ceil(3) * 4;

/// Bytes of a padded position.
const fn padded(position: usize) -> usize {
    (LENGTH + position).next_multiple_of(STEP)
}

/// Seals positions, and opens what it has sealed.
pub(super) struct Tokens {
    stream: Hmac<Sha256>,
    tag: Hmac<Sha256>,
}

impl Tokens {
    /// With the farm's secret.
    pub(super) fn new(secret: [u8; 32]) -> Self {
        let key = |use_of: &str| {
            let derived = keyed(&secret).chain_update(use_of.as_bytes()).finalize().into_bytes();
            keyed(&derived)
        };
        Self { stream: key("token-stream/2"), tag: key("token-tag/2") }
    }

    /// A fresh secret for a farm that has none.
    pub(super) fn fresh_secret() -> [u8; 32] {
        let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
        FieldHasher::new("token-secret/1").field(one.as_bytes()).field(other.as_bytes()).finish().0
    }

    /// A token of this position in a listing. A position that is too long makes a token that nobody
    /// opens.
    pub(super) fn seal(&self, listing: &Digest, position: &str) -> String {
        let nonce = *Uuid::new_v4().as_bytes();
        let length = u16::try_from(position.len()).unwrap_or(u16::MAX);
        let mut sealed = nonce.to_vec();
        sealed.extend_from_slice(&length.to_le_bytes());
        sealed.extend_from_slice(position.as_bytes());
        sealed.resize(NONCE + padded(position.len()), 0);
        self.mask(&nonce, &mut sealed[NONCE..]);
        let tag = self.tag_of(listing, &sealed).finalize().into_bytes();
        sealed.extend_from_slice(&tag[..TAG]);
        URL_SAFE_NO_PAD.encode(sealed)
    }

    /// The position of a token; `None` if this listing has not sealed it.
    pub(super) fn open(&self, listing: &Digest, token: &str) -> Option<String> {
        let sealed = bytes_of(token)?;
        let (sealed, tag) = sealed.split_at_checked(sealed.len().checked_sub(TAG)?)?;
        let (nonce, padded) = sealed.split_first_chunk::<NONCE>()?;
        // How long this takes does not depend on where the two differ.
        self.tag_of(listing, sealed).verify_truncated_left(tag).ok()?;
        let mut padded = padded.to_vec();
        self.mask(nonce, &mut padded);
        let (length, position) = padded.split_first_chunk::<LENGTH>()?;
        let position = position.get(..usize::from(u16::from_le_bytes(*length)))?;
        String::from_utf8(position.to_vec()).ok()
    }

    /// Encrypts what is plain, and decrypts what is not.
    fn mask(&self, nonce: &[u8; NONCE], text: &mut [u8]) {
        for (block, bytes) in (0_u64..).zip(text.chunks_mut(32)) {
            let stream = self.stream.clone().chain_update(nonce);
            let stream = stream.chain_update(block.to_le_bytes()).finalize().into_bytes();
            bytes.iter_mut().zip(stream).for_each(|(byte, mask)| *byte ^= mask);
        }
    }

    /// A digest has always the same length, so what follows it cannot be taken for a part of it.
    fn tag_of(&self, listing: &Digest, sealed: &[u8]) -> Hmac<Sha256> {
        self.tag.clone().chain_update(listing.0).chain_update(sealed)
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// Whether a text has the form of a token, whoever made it.
pub(super) fn is_token(text: &str) -> bool {
    bytes_of(text).is_some_and(|bytes| bytes.len() > NONCE + TAG)
}

fn bytes_of(token: &str) -> Option<Vec<u8>> {
    Some(token).filter(|token| token.len() <= LONGEST).and_then(|t| URL_SAFE_NO_PAD.decode(t).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_opened_by_the_listing_that_made_it_and_by_no_other() {
        let tokens = Tokens::new(Tokens::fresh_secret());
        let (listing, other) = (Digest::of(b"tenant a"), Digest::of(b"tenant b"));
        for position in ["", "7.12", &"9".repeat(POSITION)] {
            let token = tokens.seal(&listing, position);
            assert!(token.len() <= LONGEST, "{} characters", token.len());
            assert!(is_token(&token));
            assert_eq!(tokens.open(&listing, &token).as_deref(), Some(position));
            assert_eq!(tokens.open(&other, &token), None);
            assert_eq!(Tokens::new(Tokens::fresh_secret()).open(&listing, &token), None);
        }
    }

    #[test]
    fn the_length_of_a_token_tells_nothing_of_the_numbers_in_it() {
        let (tokens, listing) = (Tokens::new([7; 32]), Digest::of(b"listing"));
        let length = |position: &str| tokens.seal(&listing, position).len();
        let cursor = format!("l.{}.{}.{}", "a".repeat(32), u64::MAX, i64::MAX);
        for position in ["7", "10", &format!("{}.{}", i64::MAX, u64::MAX), &cursor] {
            assert_eq!(length(position), length(""), "{position}");
        }
        let long = "9".repeat(70_000);
        assert_eq!(tokens.open(&listing, &tokens.seal(&listing, &long)), None);
    }

    #[test]
    fn a_token_tells_nothing_and_cannot_be_changed() {
        let tokens = Tokens::new([7; 32]);
        let listing = Digest::of(b"listing");
        let (one, two) = (tokens.seal(&listing, "1234567.1"), tokens.seal(&listing, "1234567.1"));
        assert_ne!(one, two, "equal positions look different");
        let bytes = URL_SAFE_NO_PAD.decode(&one).expect("base64");
        assert!(!String::from_utf8_lossy(&bytes).contains("1234567"), "{bytes:?}");
        for at in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[at] ^= 1;
            assert_eq!(tokens.open(&listing, &URL_SAFE_NO_PAD.encode(forged)), None, "byte {at}");
        }
        for wrong in ["", "7.12", "AAAA", "*", &one[1..], &"A".repeat(1 << 20)] {
            assert_eq!(tokens.open(&listing, wrong), None, "{}", wrong.len());
        }
        assert!(is_token(&one) && !is_token("c.era.1.1") && !is_token(&"A".repeat(LONGEST + 1)));
    }
}
