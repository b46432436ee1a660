//! Which way up a picture is, as its camera wrote it down.

use darkroom_core::extent::Extent;
use image::{DynamicImage, RgbImage, RgbaImage, metadata::Orientation};

use super::Pixels;

/// The orientation that EXIF data tell; upright where they tell none, or are broken.
pub(super) fn orientation(exif: Option<&[u8]>) -> Orientation {
    let told = exif.and_then(|exif| {
        // As JPEG has it; PNG and WebP should not, but some programs write it there too.
        Orientation::from_exif_chunk(exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))
    });
    told.unwrap_or(Orientation::NoTransforms)
}

/// The picture, upright.
pub(super) fn turned(pixels: Pixels, orientation: Orientation) -> Pixels {
    if orientation == Orientation::NoTransforms {
        return pixels;
    }
    let Extent { width, height } = pixels.extent;
    let alpha = pixels.has_alpha();
    let data = pixels.into_data();
    let picture = if alpha {
        RgbaImage::from_raw(width, height, data).map(DynamicImage::ImageRgba8)
    } else {
        RgbImage::from_raw(width, height, data).map(DynamicImage::ImageRgb8)
    };
    let mut picture = picture.unwrap_or_default();
    picture.apply_orientation(orientation);
    let extent = Extent { width: picture.width(), height: picture.height() };
    Pixels::new(extent, picture.into_bytes())
}
