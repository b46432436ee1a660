//! Resizing one plane with a bicubic filter that widens when it shrinks, so that nothing is skipped.
//!
//! Catmull and Rom's cubic (a = −½; Keys 1981) over two source pixels each side, times the scale when shrinking; weights
//! are cut at the picture's edge and normalised. Sums are f64 and each pass is rounded to f32: Pillow's `BICUBIC` on
//! mode `F` with a `box`. Plain arithmetic throughout, so every machine gives the same bytes.

/// A part of an axis, in pixels from its start; not always whole ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    from: f64,
    to: f64,
}

/// The largest part of a picture, in the middle, with the proportions of `wanted`: columns and rows. Sizes are (width, height).
pub(super) fn middle(own: (usize, usize), wanted: (usize, usize)) -> (Span, Span) {
    let (width, height) = (own.0 as f64, own.1 as f64);
    let scale = (width / wanted.0 as f64).min(height / wanted.1 as f64);
    let span = |own: f64, wanted: usize| {
        let part = (wanted as f64 * scale).min(own);
        let from = (own - part) / 2.0;
        Span { from, to: from + part }
    };
    (span(width, wanted.0), span(height, wanted.1))
}

/// One plane of rows of `width` pixels, its columns and rows resized from their spans to their counts.
pub(super) fn plane(
    pixels: &[f32],
    width: usize,
    (columns, new_width): (&Span, usize),
    (rows, new_height): (&Span, usize),
) -> Vec<f32> {
    let height = pixels.len() / width;
    let (least, most) = pixels.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(least, most), value| {
        (least.min(*value), most.max(*value))
    });
    let taps = taps(columns, width, new_width);
    let narrowed: Vec<f32> = pixels
        .chunks_exact(width)
        .flat_map(|row| taps.iter().map(|tap| tap.sum(|index| row[index])))
        .collect();
    let taps = self::taps(rows, height, new_height);
    let mut result = Vec::with_capacity(new_width * new_height);
    for tap in &taps {
        for column in 0..new_width {
            result.push(tap.sum(|index| narrowed[index * new_width + column]).clamp(least, most));
        }
    }
    result
}

/// The source pixels that make up one new pixel.
struct Tap {
    first: usize,
    weights: Vec<f64>,
}

impl Tap {
    fn sum(&self, pixel: impl Fn(usize) -> f32) -> f32 {
        let terms = self.weights.iter().enumerate();
        terms.map(|(offset, weight)| f64::from(pixel(self.first + offset)) * weight).sum::<f64>() as f32
    }
}

fn taps(span: &Span, size: usize, new_size: usize) -> Vec<Tap> {
    let scale = (span.to - span.from) / new_size as f64;
    let stretch = scale.max(1.0);
    let reach = 2.0 * stretch;
    (0..new_size)
        .map(|index| {
            let centre = span.from + (index as f64 + 0.5) * scale;
            let first = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(size);
            let weights: Vec<f64> =
                (first..end).map(|source| cubic((source as f64 + 0.5 - centre) / stretch)).collect();
            let sum: f64 = weights.iter().sum();
            Tap { first, weights: weights.iter().map(|weight| weight / sum).collect() }
        })
        .collect()
}

fn cubic(distance: f64) -> f64 {
    const A: f64 = -0.5;
    let x = distance.abs();
    match x {
        ..1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        ..2.0 => A * (((x - 5.0) * x + 8.0) * x - 4.0),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_has_the_wanted_proportions() {
        let (columns, rows) = middle((600, 400), (64, 64));
        assert_eq!((columns, rows), (Span { from: 100.0, to: 500.0 }, Span { from: 0.0, to: 400.0 }));
        let (columns, rows) = middle((100, 300), (64, 32));
        assert_eq!((columns, rows), (Span { from: 0.0, to: 100.0 }, Span { from: 125.0, to: 175.0 }));
    }

    /// Computed with Pillow 13.0.0: `Image.fromarray(plane, "F").resize(size, BICUBIC, box=middle)`.
    #[test]
    fn resized_planes_are_pillows() {
        let shrunk: &[f32] = &[
            -0.124_995_574,
            0.087_832_11,
            0.030_599_713,
            0.232_690_26,
            -0.036_987_12,
            -0.231_711_78,
            0.165_261_83,
            -0.176_357_21,
            0.058_080_386,
        ];
        let other_shape: &[f32] = &[
            -0.322_566_06,
            -0.074_289_61,
            -0.091_941_28,
            0.199_610_9,
            -0.211_264_98,
            -0.153_413_22,
            0.070_982_456,
            0.007_761_05,
        ];
        let grown: &[f32] = &[
            -0.967_786_5,
            -0.385_246_37,
            0.183_880_08,
            0.489_519_2,
            -0.277_244_66,
            -0.777_937_4,
            -0.252_165_56,
            -0.412_338_4,
            -0.344_047_75,
            0.092_838_85,
            0.448_335_32,
            -0.369_245_9,
            -0.892_011_5,
            -0.312_840_4,
        ];
        for (own, wanted, expected) in
            [((9, 6), (3, 3), shrunk), ((7, 10), (4, 2), other_shape), ((5, 4), (7, 7), grown)]
        {
            let value = |i: usize| ((i * 37 + i / own.0 * 11) % 101) as f32 / 50.0 - 1.0;
            let pixels: Vec<f32> = (0..own.0 * own.1).map(value).collect();
            let (columns, rows) = middle(own, wanted);
            let got = plane(&pixels, own.0, (&columns, wanted.0), (&rows, wanted.1));
            assert_eq!(got.len(), wanted.0 * wanted.1);
            for (got, expected) in got.iter().zip(expected) {
                assert!((got - expected).abs() < 1e-6, "{own:?} to {wanted:?}: {got}, expected {expected}");
            }
        }
    }
}
