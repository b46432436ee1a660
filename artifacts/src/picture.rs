//! Pictures: `[3, height, width]` floats in −1…1 as 8-bit RGB PNG with text metadata, and back.

mod read;

use png::{BitDepth, ColorType, Compression, Encoder, Filter, text_metadata::ITXtChunk};

pub use read::{MAX_FILE_BYTES, decode, read_text};

use crate::tensor::FloatTensor;

/// File extension of pictures.
pub const EXTENSION: &str = "png";

/// Why a picture cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tensor is no picture.
    #[error("not a picture: {0}")]
    Shape(String),
    /// A value is NaN or an infinity.
    #[error("the picture holds values that are not finite")]
    NonFinite,
    /// A text cannot be read: its keyword, and why.
    #[error("the text {0} cannot be read: {1}")]
    Text(String, String),
    /// The PNG format refuses it.
    #[error("png: {0}")]
    Png(String),
}

/// A picture read back.
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
    /// The text under a keyword.
    #[must_use]
    pub fn text(&self, keyword: &str) -> Option<&str> {
        self.text.iter().find(|(found, _)| found == keyword).map(|(_, text)| text.as_str())
    }
}

/// One channel value as a byte: (x + 1) · 127.5, rounded half away from zero, −1…1 to 0…255; beyond is clamped.
#[must_use]
pub fn to_byte(value: f32) -> u8 {
    // The cast saturates; adding a half and cutting off is rounding half up, the same for values that are not negative.
    ((value + 1.0).mul_add(127.5, 0.5)) as u8
}

/// Writes a picture as PNG with text pairs (keyword of 1 to 79 Latin-1 characters, any text) in iTXt chunks.
///
/// Compression is chosen for speed: with filter `Up` and fdeflate a 1024² picture takes tens of milliseconds.
///
/// # Errors
/// If the tensor is not `[3, height, width]` of finite values, or a keyword is not allowed.
pub fn encode(tensor: &FloatTensor, text: &[(String, String)]) -> Result<Vec<u8>, Error> {
    let &[3, height, width] = tensor.shape.as_slice() else {
        return Err(Error::Shape(format!("shape {:?}; accepted: [3, height, width]", tensor.shape)));
    };
    if tensor.data.len() != 3 * height * width || tensor.data.is_empty() {
        return Err(Error::Shape(format!("shape {:?} with {} values", tensor.shape, tensor.data.len())));
    }
    if !tensor.data.iter().all(|value| value.is_finite()) {
        return Err(Error::NonFinite);
    }
    let (red, rest) = tensor.data.split_at(height * width);
    let (green, blue) = rest.split_at(height * width);
    let rgb: Vec<u8> = red
        .iter()
        .zip(green)
        .zip(blue)
        .flat_map(|((r, g), b)| [to_byte(*r), to_byte(*g), to_byte(*b)])
        .collect();
    let extent = |extent: usize| u32::try_from(extent).map_err(|_| Error::Shape(format!("{extent} pixels")));
    encode_rgb(extent(width)?, extent(height)?, &rgb, text)
}

/// Writes RGB bytes as PNG with text pairs.
///
/// # Errors
/// If a keyword is not allowed or the bytes do not fill the picture.
pub fn encode_rgb(width: u32, height: u32, rgb: &[u8], text: &[(String, String)]) -> Result<Vec<u8>, Error> {
    encode_as(ColorType::Rgb, (width, height), rgb, text)
}

/// Writes RGBA bytes as PNG.
///
/// # Errors
/// If the bytes do not fill the picture.
pub fn encode_rgba(width: u32, height: u32, rgba: &[u8]) -> Result<Vec<u8>, Error> {
    encode_as(ColorType::Rgba, (width, height), rgba, &[])
}

fn encode_as(
    color: ColorType,
    (width, height): (u32, u32),
    pixels: &[u8],
    text: &[(String, String)],
) -> Result<Vec<u8>, Error> {
    let wrong = |error: png::EncodingError| Error::Png(error.to_string());
    let mut bytes = Vec::with_capacity(pixels.len() / 4 + 4096);
    let mut encoder = Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Fast);
    encoder.set_filter(Filter::Up);
    let mut writer = encoder.write_header().map_err(wrong)?;
    for (keyword, text) in text {
        writer.write_text_chunk(&ITXtChunk::new(keyword.clone(), text.clone())).map_err(wrong)?;
    }
    writer.write_image_data(pixels).map_err(wrong)?;
    writer.finish().map_err(wrong)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(edge: usize) -> FloatTensor {
        let value = |i: usize| (i % 997) as f32 / 498.0 - 1.0;
        FloatTensor { shape: vec![3, edge, edge], data: (0..3 * edge * edge).map(value).collect() }
    }

    #[test]
    fn rounding_is_as_stated() {
        for (value, byte) in
            [(-1.0, 0), (1.0, 255), (0.0, 128), (-9.0, 0), (9.0, 255), (-1.0 + 0.5 / 127.5, 1), (-0.997, 0)]
        {
            assert_eq!(to_byte(value), byte, "{value}");
        }
        for byte in 0..=255u8 {
            assert_eq!(
                to_byte(f32::from(byte) / 127.5 - 1.0),
                byte,
                "a byte survives the way to floats and back"
            );
        }
    }

    #[test]
    fn pixels_and_text_survive() {
        let text = vec![
            ("darkroom.prompt".to_owned(), "ein roter Kreis über 青い四角\nzweite Zeile".to_owned()),
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
