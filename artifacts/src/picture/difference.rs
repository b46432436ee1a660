//! How far two pictures of one size are apart.

/// What differs between the pixels of two pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Difference {
    /// Pixels of each.
    pub pixels: u64,
    /// Pixels that have another value in any channel.
    pub different: u64,
    /// The largest difference of a value, in levels, 0 to 255.
    pub largest: u8,
    /// The mean difference of all values of all pixels, in levels.
    pub mean: f64,
}

impl Difference {
    /// Of rows of RGB triples, as many of one picture as of the other.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a sum of bytes, far below 2⁵³")]
    pub fn of(before: &[u8], after: &[u8]) -> Self {
        let pixels = before.chunks_exact(3).zip(after.chunks_exact(3));
        let different = pixels.filter(|(one, other)| one != other).count();
        let levels = || before.iter().zip(after).map(|(one, other)| one.abs_diff(*other));
        let sum: u64 = levels().map(u64::from).sum();
        Self {
            pixels: before.len() as u64 / 3,
            different: different as u64,
            largest: levels().max().unwrap_or(0),
            mean: sum as f64 / before.len().max(1) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_counts_pixels_and_measures_values() {
        let before = [10; 3000];
        let same = Difference { pixels: 1000, ..Difference::default() };
        assert_eq!(Difference::of(&before, &before), same);
        let mut after = before;
        (after[0], after[2], after[2999]) = (7, 11, 12);
        let difference = Difference { different: 2, largest: 3, mean: 0.002, ..same };
        assert_eq!(Difference::of(&before, &after), difference);
        assert_eq!(Difference::of(&[], &[]), Difference::default());
    }
}
