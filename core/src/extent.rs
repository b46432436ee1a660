//! Width and height of a picture, and its size in other stages of a cascade.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Extent {
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
}

impl Extent {
    /// A square.
    #[must_use]
    pub fn square(edge: u32) -> Self {
        Self { width: edge, height: edge }
    }

    /// How many pixels.
    #[must_use]
    pub fn area(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// The same picture scaled by `to / from`; `None` if the result is not whole pixels.
    #[must_use]
    pub fn scaled(self, from: u32, to: u32) -> Option<Self> {
        let scale = |edge: u32| {
            let pixels = u64::from(edge) * u64::from(to);
            let from = u64::from(from);
            (from > 0 && pixels > 0 && pixels.is_multiple_of(from))
                .then(|| u32::try_from(pixels / from).ok())?
        };
        Some(Self { width: scale(self.width)?, height: scale(self.height)? })
    }

    /// Whether both edges are multiples of a number.
    #[must_use]
    pub fn is_multiple_of(self, multiple: u32) -> bool {
        self.width.is_multiple_of(multiple) && self.height.is_multiple_of(multiple)
    }

    /// Whether `other` has the same proportions.
    #[must_use]
    pub fn has_shape_of(self, other: Self) -> bool {
        u64::from(self.width) * u64::from(other.height)
            == u64::from(other.width) * u64::from(self.height)
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_scaled_to_whole_pixels_or_not_at_all() {
        let wide = Extent { width: 1024, height: 512 };
        assert_eq!(wide.scaled(1024, 64), Some(Extent { width: 64, height: 32 }));
        assert_eq!(wide.scaled(1024, 1024), Some(wide));
        assert_eq!(Extent { width: 1000, height: 512 }.scaled(1024, 64), None);
        assert_eq!(Extent { width: 0, height: 512 }.scaled(1024, 64), None);
        assert_eq!(Extent::square(u32::MAX).scaled(1, 2), None, "beyond a number's range");
    }

    #[test]
    fn shapes_are_compared_by_their_proportions() {
        let wide = Extent { width: 64, height: 32 };
        for (other, same) in [
            ((64, 32), true),
            ((66, 33), true),
            ((2, 1), true),
            ((64, 64), false),
            ((32, 64), false),
        ] {
            assert_eq!(
                wide.has_shape_of(Extent { width: other.0, height: other.1 }),
                same,
                "{other:?}"
            );
        }
    }
}
