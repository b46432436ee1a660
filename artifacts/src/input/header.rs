//! What a file's header says, and the bounds of a picture.

use darkroom_core::extent::Extent;

use super::{
    Error, jpeg,
    kind::{self, Kind},
    png_file, webp,
};

/// Most pixels of a picture: 64 megapixels.
pub const MAX_PIXELS: u64 = 64 << 20;
/// Longest edge of a picture.
pub const MAX_EDGE: u32 = 16_384;

/// Kind and size of a file, if it is within the usual bounds.
pub(super) fn header(bytes: &[u8]) -> Result<(Kind, Extent), Error> {
    header_within(bytes, MAX_EDGE)
}

/// The same with another longest edge.
pub(super) fn header_within(bytes: &[u8], longest: u32) -> Result<(Kind, Extent), Error> {
    let kind = kind::of(bytes)?;
    let extent = match kind {
        Kind::Png => png_file::extent(bytes),
        Kind::Jpeg => jpeg::extent(bytes),
        Kind::WebP => webp::extent(bytes),
    }?;
    if extent.width == 0 || extent.height == 0 {
        return Err(kind.damaged(&format!("it has {extent} pixels")));
    }
    if extent.area() > MAX_PIXELS || extent.width.max(extent.height) > longest {
        return Err(Error(format!(
            "has {extent} pixels; accepted: at most {longest} a side and {MAX_PIXELS} in all, as \
             `{} -resize 8192x8192 out.png` makes",
            kind.convert()
        )));
    }
    Ok((kind, extent))
}
