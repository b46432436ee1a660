//! Pictures that users send to start from, and masks: what is accepted, what is stored of them, and what a stage gets.
//!
//! A file is decoded once, where it arrives. What is stored, and what digests cover, is its canonical form: a PNG of 8 bits
//! a channel, turned upright, without metadata, RGB, or RGBA where something is transparent. From there on only whole
//! numbers and this crate's own arithmetic decide, so neither decoders nor CPUs change what a picture comes to.
//!
//! Colour profiles and gamma are not applied: numbers are taken as sRGB, as everywhere here. A file that says otherwise gets a note.
//!
//! PNG, JPEG and WebP are read, told apart by their content. Everything else is named and refused with a way out.

mod exif;
mod jpeg;
mod kind;
mod mask;
mod pixels;
mod png_file;
mod profile;
mod webp;

use darkroom_core::extent::Extent;
use image::metadata::Orientation;

pub use mask::NoMask;
pub use pixels::{Pixels, Use};

use kind::Kind;

/// Most bytes of a file.
pub const MAX_BYTES: usize = 64 << 20;
/// Most pixels of a picture: 64 megapixels.
pub const MAX_PIXELS: u64 = 64 << 20;
/// Longest edge of a picture.
pub const MAX_EDGE: u32 = 16_384;
/// Most bytes that decoding and storing take per pixel: a progressive JPEG's coefficients, 16-bit RGBA, or a WebP's frame and canvas,
/// and the pixels they become.
const BYTES_PER_PIXEL: u64 = 12;

/// What is wrong with a file, to follow its name: "cat.png" + " " + this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// A file that was decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Upright.
    pub pixels: Pixels,
    /// As EXIF counts: 1 is upright, 2 to 8 say how it was turned.
    pub orientation: u8,
    /// What its user should know, each to follow its name.
    pub notes: Vec<String>,
}

/// A decoded file before it is turned.
struct Decoded {
    pixels: Pixels,
    orientation: Orientation,
    /// It has more pictures than this one.
    animated: bool,
    /// Its numbers are not meant as sRGB.
    other_colours: bool,
}

impl Given {
    /// Decodes a file.
    ///
    /// # Errors
    /// One sentence, with what would be accepted.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let (kind, _) = header(bytes)?;
        // Decoders are meant never to panic. One that does must not take more than this file with it.
        let decoded = std::panic::catch_unwind(|| match kind {
            Kind::Png => png_file::decode(bytes),
            Kind::Jpeg => jpeg::decode(bytes),
            Kind::WebP => webp::decode(bytes),
        });
        let decoded = decoded.unwrap_or_else(|_| Err(kind.damaged("its decoder gave up")))?;
        let Decoded { pixels, orientation, animated, other_colours } = decoded;
        let stored = pixels.extent;
        let pixels = exif::turned(pixels, orientation);
        let mut notes = Vec::new();
        if orientation != Orientation::NoTransforms {
            let mut note = format!("is turned as its EXIF orientation {} says", orientation.to_exif());
            if pixels.extent != stored {
                note += &format!(": {stored} becomes {}", pixels.extent);
            }
            notes.push(note);
        }
        if animated {
            notes.push("is animated: its first picture is used".to_owned());
        }
        notes.extend(pixels.notes());
        if other_colours {
            let note =
                "has colours of its own (a profile or gamma other than sRGB): its numbers are taken as sRGB";
            notes.push(note.to_owned());
        }
        Ok(Self { pixels, orientation: orientation.to_exif(), notes })
    }
}

/// Bytes of memory that decoding and storing a file takes at most, read off its header alone.
///
/// # Errors
/// If it is no picture that is read, or is too big.
pub fn memory(bytes: &[u8]) -> Result<u64, Error> {
    header(bytes).map(|(_, extent)| extent.area() * BYTES_PER_PIXEL)
}

fn header(bytes: &[u8]) -> Result<(Kind, Extent), Error> {
    let kind = kind::of(bytes)?;
    let extent = match kind {
        Kind::Png => png_file::extent(bytes),
        Kind::Jpeg => jpeg::extent(bytes),
        Kind::WebP => webp::extent(bytes),
    }?;
    if extent.width == 0 || extent.height == 0 {
        return Err(kind.damaged(&format!("it has {extent} pixels")));
    }
    if extent.area() > MAX_PIXELS || extent.width.max(extent.height) > MAX_EDGE {
        return Err(Error(format!(
            "has {extent} pixels; accepted: at most {MAX_EDGE} a side and {MAX_PIXELS} in all, as \
             `{} -resize 8192x8192 out.png` makes",
            kind.convert()
        )));
    }
    Ok((kind, extent))
}

#[cfg(test)]
mod tests;
