//! Seals positions in listings into tokens. A token tells nothing to those who get it, and only the
//! listing that it came from takes it back.
//!
//! Positions count what every tenant does: the jobs of the farm, and its changes. So a token in
//! plain text would tell one tenant how busy the others are. The text is encrypted with a stream
//! made by SHA-256 from the farm's secret and a random nonce. A tag is made of the result and of
//! everything that the listing asks for (encrypt, then authenticate). No crate for this is among
//! those that `make render` builds: see `docs/adr/0052-tenants-apart.md`.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use darkroom_core::digest::{Digest, FieldHasher};
use uuid::Uuid;

/// Bytes of the nonce, and of the tag.
const NONCE: usize = 16;
const TAG: usize = 16;
/// Longest position, bytes.
const POSITION: usize = 300;
/// Longest token, characters.
pub(super) const LONGEST: usize = (NONCE + TAG + POSITION).div_ceil(3) * 4;

/// Seals positions, and opens what it has sealed.
pub(super) struct Tokens {
    secret: [u8; 32],
}

impl Tokens {
    /// With the farm's secret.
    pub(super) fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// A fresh secret for a farm that has none.
    pub(super) fn fresh_secret() -> [u8; 32] {
        let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
        FieldHasher::new("token-secret/1").field(one.as_bytes()).field(other.as_bytes()).finish().0
    }

    /// A token of this position in a listing.
    pub(super) fn seal(&self, listing: &Digest, position: &str) -> String {
        let nonce = *Uuid::new_v4().as_bytes();
        let mut sealed = nonce.to_vec();
        sealed.extend_from_slice(position.as_bytes());
        self.mask(&nonce, &mut sealed[NONCE..]);
        let tag = self.tag(listing, &sealed);
        sealed.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(sealed)
    }

    /// The position of a token; `None` if this listing has not sealed it.
    pub(super) fn open(&self, listing: &Digest, token: &str) -> Option<String> {
        let sealed = bytes_of(token)?;
        let (sealed, tag) = sealed.split_at_checked(sealed.len().checked_sub(TAG)?)?;
        let (nonce, position) = sealed.split_first_chunk::<NONCE>()?;
        // Compared as digests, so that the time says nothing of where they differ.
        if Digest::of(tag) != Digest::of(&self.tag(listing, sealed)) {
            return None;
        }
        let mut position = position.to_vec();
        self.mask(nonce, &mut position);
        String::from_utf8(position).ok()
    }

    /// Encrypts what is plain, and decrypts what is not.
    fn mask(&self, nonce: &[u8; NONCE], text: &mut [u8]) {
        for (block, bytes) in (0_u64..).zip(text.chunks_mut(32)) {
            let stream = FieldHasher::new("token-stream/1")
                .field(&self.secret)
                .field(nonce)
                .field(&block.to_le_bytes())
                .finish();
            bytes.iter_mut().zip(stream.0).for_each(|(byte, mask)| *byte ^= mask);
        }
    }

    /// Half of a digest, so that it cannot be continued.
    fn tag(&self, listing: &Digest, sealed: &[u8]) -> [u8; TAG] {
        let hasher = FieldHasher::new("token-tag/1").field(&self.secret).field(&listing.0);
        let whole = hasher.field(sealed).finish();
        let mut tag = [0; TAG];
        tag.copy_from_slice(&whole.0[..TAG]);
        tag
    }
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
            assert_eq!(tokens.open(&listing, &token).as_deref(), Some(position));
            assert_eq!(tokens.open(&other, &token), None);
            assert_eq!(Tokens::new(Tokens::fresh_secret()).open(&listing, &token), None);
        }
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
