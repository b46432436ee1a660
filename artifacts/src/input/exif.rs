//! Which side of a picture is up, as its camera recorded it.

use darkroom_core::extent::Extent;

use super::Pixels;
use crate::exif_tags::Tags;

const ORIENTATION: u16 = 0x0112;

/// How stored pixels are to be turned: a number of EXIF, from 1 to 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orientation(u8);

impl Orientation {
    /// The pixels are stored as they are seen.
    pub(super) const UPRIGHT: Self = Self(1);

    /// The number of EXIF.
    pub(super) fn number(self) -> u8 {
        self.0
    }

    /// Whether rows of the stored picture are columns of the one that is seen.
    fn swaps_edges(self) -> bool {
        self.0 >= 5
    }

    /// The stored pixel that is seen at (x, y).
    fn source(self, (x, y): (usize, usize), stored: (usize, usize)) -> (usize, usize) {
        let (right, bottom) = (stored.0 - 1, stored.1 - 1);
        match self.0 {
            2 => (right - x, y),
            3 => (right - x, bottom - y),
            4 => (x, bottom - y),
            5 => (y, x),
            6 => (y, bottom - x),
            7 => (right - y, bottom - x),
            8 => (right - y, x),
            _ => (x, y),
        }
    }
}

/// The orientation in EXIF data; upright if there is none or the data are broken.
pub(super) fn orientation(exif: Option<&[u8]>) -> Orientation {
    let told = exif.and_then(Tags::of).and_then(|tags| tags.first_short(ORIENTATION));
    match told {
        Some(number @ 2..=8) => Orientation(number as u8),
        _ => Orientation::UPRIGHT,
    }
}

/// The picture, upright.
pub(super) fn turned(pixels: Pixels, orientation: Orientation) -> Pixels {
    if orientation == Orientation::UPRIGHT {
        return pixels;
    }
    let Extent { width, height } = pixels.extent;
    let channels = if pixels.has_alpha() { 4 } else { 3 };
    let stored = (width as usize, height as usize);
    let extent = if orientation.swaps_edges() {
        Extent { width: height, height: width }
    } else {
        pixels.extent
    };
    let data = pixels.into_data();
    let mut turned = Vec::with_capacity(data.len());
    for y in 0..extent.height as usize {
        for x in 0..extent.width as usize {
            let (column, row) = orientation.source((x, y), stored);
            let at = channels * (row * stored.0 + column);
            turned.extend_from_slice(&data[at..at + channels]);
        }
    }
    Pixels::new(extent, turned)
}
