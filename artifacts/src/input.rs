//! Pictures that users send to start from, and masks: what is accepted, what is stored, and what a
//! stage gets.
//!
//! A file is decoded once, when it arrives. Its canonical form is stored and covered by digests: a
//! PNG of 8 bits per channel, turned upright, without metadata, RGB, or RGBA if something is
//! transparent. From there on only whole numbers and this crate's own arithmetic are used, so
//! neither decoders nor CPUs change the result.
//!
//! Colour profiles and gamma are not applied: values are read as sRGB, as everywhere here. A file
//! that says otherwise gets a note.
//!
//! PNG, JPEG and WebP are read, and recognised by their content. For every other format the error
//! names it and says how to convert it.

mod canonical;
mod decoded;
mod error;
mod exif;
mod header;
mod jpeg;
mod kind;
mod mask;
mod pixels;
mod png_file;
mod profile;
mod webp;

use darkroom_core::{extent::Extent, output::Format};

use self::{
    decoded::Decoded,
    exif::Orientation,
    header::{header, header_within},
    kind::Kind,
};
pub use self::{
    error::Error,
    header::{MAX_EDGE, MAX_PIXELS},
    mask::NoMask,
    pixels::{Pixels, Use},
};

/// Most bytes of a file.
pub const MAX_BYTES: usize = 64 << 20;
/// Most bytes that decoding and storing take per pixel: the coefficients of a progressive JPEG,
/// 16-bit RGBA, or a WebP's frame and canvas, plus the resulting pixels.
const BYTES_PER_PIXEL: u64 = 12;

/// A decoded file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Upright.
    pub pixels: Pixels,
    /// As EXIF numbers it: 1 is upright, 2 to 8 say how the picture was turned.
    pub orientation: u8,
    /// Notes for the user; each follows the file's name.
    pub notes: Vec<String>,
}

impl Given {
    /// Decodes a file.
    ///
    /// # Errors
    /// One sentence, with what is accepted.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let (kind, _) = header(bytes)?;
        let Decoded { pixels, orientation, animated, other_colours } = decode(kind, bytes)?;
        let stored = pixels.extent;
        let pixels = exif::turned(pixels, orientation);
        let mut notes = Vec::new();
        if orientation != Orientation::UPRIGHT {
            let mut note =
                format!("is turned as its EXIF orientation {} says", orientation.number());
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
            let note = "has colours of its own (a profile or gamma other than sRGB): its numbers are taken as sRGB";
            notes.push(note.to_owned());
        }
        Ok(Self { pixels, orientation: orientation.number(), notes })
    }
}

/// A picture as it lies in its file: not turned, without alpha.
pub(crate) struct Stored<'a> {
    pub(crate) extent: Extent,
    /// Rows of RGB triples.
    pub(crate) rgb: Vec<u8>,
    /// Its EXIF block.
    pub(crate) exif: Option<&'a [u8]>,
}

/// Decodes a picture of ours that may have been saved again.
///
/// # Errors
/// One sentence, if it is not a supported picture, or if a part of it is transparent.
pub(crate) fn stored(bytes: &[u8]) -> Result<Stored<'_>, Error> {
    let (kind, extent) = header_within(bytes, Format::Jpeg.max_edge())?;
    if kind == Kind::WebP && !webp::is_whole(bytes) {
        return Err(kind.damaged("its end is missing"));
    }
    let pixels = decode(kind, bytes)?.pixels;
    if pixels.has_alpha() {
        return Err(Error("is transparent in places; accepted: an opaque picture".to_owned()));
    }
    Ok(Stored { extent, rgb: pixels.into_data(), exif: exif_of(bytes)? })
}

/// The EXIF block of a JPEG or WebP.
///
/// # Errors
/// If it is not a supported picture.
pub(crate) fn exif_of(bytes: &[u8]) -> Result<Option<&[u8]>, Error> {
    Ok(match kind::of(bytes)? {
        Kind::Png => None,
        Kind::Jpeg => jpeg::exif(bytes),
        Kind::WebP => webp::exif(bytes),
    })
}

/// Decoders are meant never to panic. One that does must not take more than this file with it.
fn decode(kind: Kind, bytes: &[u8]) -> Result<Decoded, Error> {
    let decoded = std::panic::catch_unwind(|| match kind {
        Kind::Png => png_file::decode(bytes),
        Kind::Jpeg => jpeg::decode(bytes),
        Kind::WebP => webp::decode(bytes),
    });
    decoded.unwrap_or_else(|_| Err(kind.damaged("its decoder gave up")))
}

/// Bytes of memory that decoding and storing a file takes at most, read off its header alone.
///
/// # Errors
/// If the file is not a supported picture, or is too big.
pub fn memory(bytes: &[u8]) -> Result<u64, Error> {
    header(bytes).map(|(_, extent)| extent.area() * BYTES_PER_PIXEL)
}

#[cfg(test)]
mod tests;
