//! Which widths and heights a cascade can make, and which of them suits a picture best.

use crate::extent::Extent;

/// How many times larger or smaller than the square another shape's area may be.
pub(crate) const AREA: u64 = 4;

/// What matters about a stage's shape: the edge of its square, and the number that its edges must
/// be multiples of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageShape {
    /// Edge of its square, pixels.
    pub size: u32,
    /// Its width and height must be multiples of this; 1 if unknown.
    pub multiple: u32,
}

/// The shapes that the stages of a job can make together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shapes {
    last: u32,
    step: u64,
}

impl Shapes {
    /// From stages in order. A stage whose output the images start from comes first, with a
    /// multiple of 1.
    pub fn of(stages: impl IntoIterator<Item = StageShape> + Clone) -> Self {
        let last = stages.clone().into_iter().last().map_or(1, |stage| stage.size.max(1));
        let step = stages.into_iter().filter(|stage| stage.size > 0).fold(1, |step, stage| {
            // Edge · size / last = multiple · n.
            let needed = u64::from(last) * u64::from(stage.multiple.max(1));
            lcm(step, needed / gcd(needed, u64::from(stage.size)))
        });
        Self { last, step }
    }

    /// The last stage's square.
    #[must_use]
    pub fn square(&self) -> Extent {
        Extent::square(self.last)
    }

    /// The number that the final picture's edges must be multiples of, so that the edges of every
    /// stage are whole and multiples of the stage's own number.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Whether a final picture can have this shape.
    #[must_use]
    pub fn has(&self, extent: Extent) -> bool {
        let square = Extent::square(self.last);
        extent == square
            || extent.area() <= AREA * square.area()
                && extent.area() * AREA >= square.area()
                && [extent.width, extent.height]
                    .iter()
                    .all(|edge| u64::from(*edge).is_multiple_of(self.step))
    }

    /// The best shape for a picture: its own, if the cascade can make it. If not, the shape with
    /// the nearest proportions among those from half the square's area to all of it; the largest if
    /// there are several.
    #[must_use]
    pub fn nearest(&self, picture: Extent) -> Extent {
        if self.has(picture) {
            return picture;
        }
        let square = Extent::square(self.last);
        let wanted = (f64::from(picture.width.max(1)) / f64::from(picture.height.max(1))).ln();
        let mut best = (f64::INFINITY, square);
        for width in
            (1..).map(|n| n * self.step).take_while(|width| width * self.step <= square.area())
        {
            for height in
                (1..).map(|n| n * self.step).take_while(|height| width * height <= square.area())
            {
                let edges = (u32::try_from(width), u32::try_from(height));
                let (Ok(width), Ok(height)) = edges else { continue };
                let extent = Extent { width, height };
                if 2 * extent.area() < square.area() {
                    continue;
                }
                let off = ((f64::from(width) / f64::from(height)).ln() - wanted).abs();
                // Equal proportions at different sizes may differ in the last bits.
                if off < best.0 - 1e-9 || (off < best.0 + 1e-9 && extent.area() > best.1.area()) {
                    best = (off, extent);
                }
            }
        }
        best.1
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

fn lcm(a: u64, b: u64) -> u64 {
    (a / gcd(a, b)).saturating_mul(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes() -> Shapes {
        Shapes::of(
            [(64, 8), (256, 16), (1024, 16)].map(|(size, multiple)| StageShape { size, multiple }),
        )
    }

    #[test]
    fn a_photos_proportions_are_kept_where_the_stages_can() {
        for (picture, shape) in [
            ((4032, 3024), (1024, 768)),
            ((3024, 4032), (768, 1024)),
            ((1000, 750), (1024, 768)),
            ((6000, 4000), (1152, 768)),
            ((512, 1024), (512, 1024)),
            ((2048, 1024), (2048, 1024)),
            ((8192, 4096), (1280, 640)),
            ((64, 64), (1024, 1024)),
            ((5000, 5000), (1024, 1024)),
            ((1000, 990), (1024, 1024)),
        ] {
            let nearest = shapes().nearest(Extent { width: picture.0, height: picture.1 });
            assert_eq!((nearest.width, nearest.height), shape, "{picture:?}");
            assert!(shapes().has(nearest));
        }
    }

    #[test]
    fn the_oddest_picture_gets_a_shape_that_can_be_made() {
        for (width, height) in [(1, 16384), (16384, 1), (1, 1), (7, 16383), (0, 0)] {
            let nearest = shapes().nearest(Extent { width, height });
            assert!(shapes().has(nearest), "{width}x{height}: {nearest}");
        }
        let huge = Shapes::of([StageShape { size: 64, multiple: 4096 }]);
        assert_eq!(huge.nearest(Extent { width: 3, height: 1 }), Extent::square(64));
    }
}
