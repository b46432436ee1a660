//! Counts distinct texts in bounded memory: exactly up to some number, and beyond it by a sample.

use std::collections::HashSet;

use darkroom_core::digest::Digest;

/// Most digests that are kept: about 1.5 MiB.
const MOST: usize = 1 << 17;

/// The number of different digests that were added.
///
/// At first all of them are kept. Whenever there are too many, half of those kept so far, chosen by
/// a bit of the digest, no longer count, and each of the others counts twice as much. The error is
/// about 1 % then. Digests are of SHA-256, so such a bit is as good as a coin. (Reference: adaptive
/// sampling, Flajolet, "On adaptive sampling", Computing 34, 1990.)
#[derive(Debug, Default)]
pub(super) struct Distinct {
    kept: HashSet<u64>,
    halvings: u32,
}

impl Distinct {
    pub(super) fn add(&mut self, digest: &Digest) {
        // The beginning is enough to tell them apart.
        let beginning = digest.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if !counts(beginning, self.halvings) {
            return;
        }
        self.kept.insert(beginning);
        while self.kept.len() > MOST && self.halvings < u64::BITS {
            self.halvings += 1;
            self.kept.retain(|kept| counts(*kept, self.halvings));
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        let each = 1_u64.checked_shl(self.halvings).unwrap_or(u64::MAX);
        (self.kept.len() as u64).saturating_mul(each)
    }

    /// How many are kept.
    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }
}

/// Whether a digest is kept after so many halvings.
fn counts(beginning: u64, halvings: u32) -> bool {
    beginning.trailing_zeros() >= halvings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_counted_exactly_and_many_within_two_per_cent_in_the_same_memory() {
        let mut distinct = Distinct::default();
        for number in (0..MOST as u64).chain(0..1000) {
            distinct.add(&Digest::of(&number.to_le_bytes()));
        }
        assert_eq!(distinct.count(), MOST as u64);
        let all = 5 * MOST as u64;
        for number in 0..all {
            distinct.add(&Digest::of(&number.to_le_bytes()));
        }
        assert!(distinct.kept() <= MOST, "{}", distinct.kept());
        let counted = distinct.count();
        assert!(counted.abs_diff(all) * 50 < all, "{counted} of {all}");
    }

    #[test]
    fn digests_that_were_chosen_take_no_more_memory() {
        let mut distinct = Distinct::default();
        for number in 0..2 * MOST as u64 {
            let mut chosen = [0; 32];
            chosen[..8].copy_from_slice(&(number << 40).to_le_bytes());
            distinct.add(&Digest(chosen));
        }
        assert!(distinct.kept() <= MOST, "{}", distinct.kept());
    }
}
