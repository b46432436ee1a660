//! Pictures: `[3, height, width]` floats in −1…1 as 8-bit RGB files with text metadata, and back.
//!
//! Equal pixels, text and settings give equal bytes on every machine: the codecs compute with whole
//! numbers, and none of them has a variant for some CPUs or some builds.

mod difference;
mod error;
mod exif;
mod jpeg;
mod level;
mod png_file;
mod raster;
mod read;
mod scale;
mod text;
mod webp;

use darkroom_core::output::Output;

pub use self::{
    difference::Difference,
    error::{Error, MAX_RECIPE_BYTES},
    png_file::{encode_rgb, encode_rgba},
    raster::{Raster, to_byte},
    read::{MAX_FILE_BYTES, decode, read_text},
};
use crate::tensor::FloatTensor;

/// File extension of pictures that users sent.
pub const EXTENSION: &str = "png";
/// A decoded picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Width, pixels.
    pub width: u32,
    /// Height, pixels.
    pub height: u32,
    /// Rows of RGB triples.
    pub rgb: Vec<u8>,
    /// Text metadata in file order: keyword, text.
    pub text: Vec<(String, String)>,
}

impl Picture {
    /// The text of a keyword.
    #[must_use]
    pub fn text(&self, keyword: &str) -> Option<&str> {
        self.text.iter().find(|(found, _)| found == keyword).map(|(_, text)| text.as_str())
    }
}

/// Writes a picture as PNG with text pairs (keyword of 1 to 79 Latin-1 characters, any text) in
/// iTXt chunks.
///
/// Compression is chosen for speed: with filter `Up` and fdeflate a 1024² picture takes tens of
/// milliseconds.
///
/// # Errors
/// If the tensor is not `[3, height, width]` of finite values, or a keyword is not allowed.
pub fn encode(tensor: &FloatTensor, text: &[(String, String)]) -> Result<Vec<u8>, Error> {
    encode_to(Output::default(), tensor, text)
}

/// As [`encode`], stored as `output` says. In JPEG and WebP the text is in EXIF; the line for
/// people ([`PARAMETERS`](darkroom_core::picture_text::PARAMETERS)) is cut where there is no room
/// for it.
///
/// # Errors
/// If the tensor is not `[3, height, width]` of finite values, a keyword is not allowed in a PNG,
/// the rest of the text has more than [`MAX_RECIPE_BYTES`] and some, or the picture is too big for
/// the format.
pub fn encode_to(
    output: Output,
    tensor: &FloatTensor,
    text: &[(String, String)],
) -> Result<Vec<u8>, Error> {
    let raster = Raster::of(tensor)?;
    match output {
        Output::Png { level: None } => encode_rgb(raster.width, raster.height, &raster.rgb, text),
        Output::Png { level: Some(level) } => level::encode(&raster, level, text),
        Output::Jpeg { quality } => jpeg::encode(&raster, quality, text),
        Output::WebP => webp::encode(&raster, text),
    }
}

/// Bytes that a recipe takes in a JPEG or WebP, the line for people left out.
#[must_use]
pub fn recipe_bytes(text: &[(String, String)]) -> usize {
    exif::note_bytes(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(edge: usize) -> FloatTensor {
        let value = |i: usize| (i % 997) as f32 / 498.0 - 1.0;
        FloatTensor { shape: vec![3, edge, edge], data: (0..3 * edge * edge).map(value).collect() }
    }

    #[test]
    fn pixels_and_text_survive() {
        let text = vec![
            (
                "darkroom.prompt".to_owned(),
                "ein roter Kreis über 青い四角\nzweite Zeile".to_owned(),
            ),
            ("darkroom.seed".to_owned(), u64::MAX.to_string()),
            ("darkroom.negative".to_owned(), String::new()),
        ];
        let tensor = gradient(33);
        let picture = decode(&encode(&tensor, &text).unwrap()).unwrap();
        assert_eq!((picture.width, picture.height), (33, 33));
        assert_eq!(picture.text, text);
        assert_eq!(read_text(&encode(&tensor, &text).unwrap()).unwrap(), text);
        assert_eq!(picture.text("darkroom.seed"), Some(u64::MAX.to_string().as_str()));
        for (i, byte) in picture.rgb.iter().enumerate() {
            assert_eq!(*byte, to_byte(tensor.data[i % 3 * 33 * 33 + i / 3]));
        }
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let nan = FloatTensor { shape: vec![3, 1, 1], data: vec![0.0, f32::NAN, 0.0] };
        assert!(matches!(encode(&nan, &[]), Err(Error::NonFinite)));
        let grey = FloatTensor { shape: vec![1, 2, 2], data: vec![0.0; 4] };
        assert!(matches!(encode(&grey, &[]), Err(Error::Shape(_))));
        let bytes = encode(&gradient(64), &[]).unwrap();
        decode(&bytes[..bytes.len() / 2]).expect_err("truncated");
        encode(&gradient(2), &[(String::new(), "x".to_owned())]).expect_err("keyword");
    }
}
