//! The stored form of a picture that was sent: a canonical PNG.

use darkroom_core::extent::Extent;

use super::{Error, Pixels, header::header, kind::Kind, png_file};
use crate::picture;

impl Pixels {
    /// Reads a stored picture: a canonical PNG, or, from older versions, a PNG as it was sent.
    /// Orientation in its metadata is ignored.
    ///
    /// # Errors
    /// One sentence, if it is damaged or not a PNG.
    pub fn stored(bytes: &[u8]) -> Result<Self, Error> {
        if Kind::Png != header(bytes)?.0 {
            return Err(Error("is not stored as a PNG".to_owned()));
        }
        png_file::decode(bytes).map(|decoded| decoded.pixels)
    }

    /// The canonical PNG: equal pixels give equal bytes, whatever the file format was.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn canonical(&self) -> Result<Vec<u8>, Error> {
        let Extent { width, height } = self.extent;
        let encoded = if self.has_alpha() {
            picture::encode_rgba(width, height, self.data())
        } else {
            picture::encode_rgb(width, height, self.data(), &[])
        };
        encoded.map_err(|error| Error(format!("cannot be stored: {error}")))
    }
}
