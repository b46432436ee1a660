//! PNGs that are written fast.

use darkroom_core::output::Format;
use png::{BitDepth, ColorType, Compression, Encoder, Filter, text_metadata::ITXtChunk};

use super::Error;

/// Writes RGB bytes as PNG with text pairs.
///
/// # Errors
/// If a keyword is not allowed or the bytes do not fill the picture.
pub fn encode_rgb(
    width: u32,
    height: u32,
    rgb: &[u8],
    text: &[(String, String)],
) -> Result<Vec<u8>, Error> {
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
    let wrong = |error: png::EncodingError| Error::Codec(Format::Png, error.to_string());
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
