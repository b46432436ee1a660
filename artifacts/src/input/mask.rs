//! Which part of a picture is painted anew, if the picture is a mask.
//!
//! A mask shows strokes in white or in one other colour, on black or on transparent. It is laid on
//! black, and a pixel is painted anew if its brightest channel is then at least half. So white,
//! grey and red strokes count the same, on black and on transparent; the edges of a soft brush are
//! cut at half, and JPEG artefacts around a stroke are not painted.
//!
//! A picture with many colours is not a mask: it is the photo, or strokes on a coloured background,
//! and it is not clear which part is meant.

use std::fmt;

/// A pixel of at least this brightness is painted anew.
const HALF: u8 = 128;
/// A darker pixel counts as black, without a colour.
const DARK: u8 = 48;
/// How much a channel may differ from the value that the strokes' colour and the pixel's brightness
/// give: JPEG blurs colours.
const OFF: u32 = 64;
/// Of this many coloured pixels, one may have another colour than the strokes.
const ONE_IN: u64 = 20;
/// A stroke's colour this close to white counts as white.
const GREY: u32 = 40;

/// Why a picture is not a mask; the text follows its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMask {
    /// Nothing is bright.
    Black,
    /// Nothing is bright, and some of it is transparent.
    BlackOnClear,
    /// It has many colours.
    Colours,
    /// It has many colours, and some of it is transparent.
    ColoursOnClear,
    /// It has coloured strokes on white.
    ColourOnWhite,
}

impl fmt::Display for NoMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, help) = match self {
            Self::Black => (
                "is dark everywhere (black alone, or strokes that are less than half bright), so nothing would be painted anew",
                "",
            ),
            Self::BlackOnClear => (
                "is dark and transparent, so it is unclear what would be painted anew",
                ". `convert mask.png -alpha extract -threshold 0 out.png` paints where there are strokes, \
                 `convert mask.png -alpha extract -threshold 0 -negate out.png` where it is transparent",
            ),
            Self::Colours => ("has many colours, as a photo has", ""),
            Self::ColoursOnClear => (
                "has many colours, as a photo has, so it is unclear what would be painted anew",
                ". `convert mask.png -alpha extract -threshold 0 -negate out.png` paints where it is transparent, \
                 `convert mask.png -alpha extract -threshold 0 out.png` where it is not",
            ),
            Self::ColourOnWhite => (
                "has strokes in colour on white, and what is white would be painted anew too",
                ". `convert mask.png -fuzz 25% -fill black -opaque white -fill white +opaque black out.png` paints the strokes",
            ),
        };
        let accepted =
            "strokes in white or one colour on black or transparent, which are painted anew";
        write!(f, "{what}; accepted: {accepted}{help}")
    }
}

/// Whether a pixel, RGB or RGBA, is painted anew.
pub(super) fn is_painted(pixel: &[u8]) -> bool {
    brightness(&on_black(pixel)) >= HALF
}

/// Whether pixels are a mask.
pub(super) fn check<'a>(pixels: impl Iterator<Item = &'a [u8]> + Clone) -> Result<(), NoMask> {
    let mut sums = [0_u64; 3];
    let (mut painted, mut bright_sum) = (0_u64, 0_u64);
    let (mut white, mut clear) = (false, false);
    for pixel in pixels.clone() {
        clear |= pixel.get(3).is_some_and(|alpha| *alpha < HALF);
        let pixel = on_black(pixel);
        if brightness(&pixel) >= HALF {
            white |= pixel.iter().all(|value| *value >= 255 - 32);
            painted += 1;
            bright_sum += u64::from(brightness(&pixel));
            sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += u64::from(value));
        }
    }
    let most = sums.into_iter().max().unwrap_or(0);
    if most == 0 {
        return Err(if clear { NoMask::BlackOnClear } else { NoMask::Black });
    }
    // The strokes' colour, scaled to full brightness.
    let colour = sums.map(|sum| u32::try_from(sum * 255 / most).unwrap_or(255));
    let grey = colour.iter().all(|value| 255 - value <= GREY);
    let (mut coloured, mut off, mut between) = (0_u64, 0_u64, 0_u64);
    for pixel in pixels {
        let pixel = on_black(pixel);
        let bright = brightness(&pixel);
        if bright < DARK {
            continue;
        }
        coloured += 1;
        between += u64::from(u64::from(bright) * painted * 4 < bright_sum * 3);
        let wanted = colour
            .map(|value| if grey { u32::from(bright) } else { value * u32::from(bright) / 255 });
        let differs =
            wanted.iter().zip(pixel).any(|(wanted, value)| wanted.abs_diff(u32::from(value)) > OFF);
        off += u64::from(differs);
    }
    // A photo in one tint has many brightnesses, but strokes mostly have one. Grey has no colour
    // that JPEG could blur.
    let photo = if grey { off > 0 } else { off * ONE_IN > coloured || between * 2 > coloured };
    match (photo, clear) {
        (false, _) => Ok(()),
        (true, true) => Err(NoMask::ColoursOnClear),
        (true, false) if white && between * 4 < coloured => Err(NoMask::ColourOnWhite),
        (true, false) => Err(NoMask::Colours),
    }
}

fn on_black(pixel: &[u8]) -> [u8; 3] {
    let rgb = [pixel[0], pixel[1], pixel[2]];
    match pixel.get(3) {
        None => rgb,
        Some(alpha) => rgb.map(|value| {
            let product = u32::from(value) * u32::from(*alpha);
            u8::try_from((product + 127) / 255).unwrap_or(u8::MAX)
        }),
    }
}

fn brightness(pixel: &[u8; 3]) -> u8 {
    pixel.iter().copied().max().unwrap_or(0)
}
