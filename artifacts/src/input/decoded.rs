//! What a decoder finds in a file.

use super::{exif::Orientation, pixels::Pixels};

/// A decoded file before it is turned.
pub(super) struct Decoded {
    pub(super) pixels: Pixels,
    pub(super) orientation: Orientation,
    /// Whether it has more pictures than this one.
    pub(super) animated: bool,
    /// Whether its values are not meant as sRGB.
    pub(super) other_colours: bool,
}
