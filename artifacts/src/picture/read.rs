//! Reads a picture back as an image library may have saved it: any lossless form of its 8-bit RGB
//! pixels (a palette, grey, 16 bits that say no more than 8, an alpha channel that hides nothing,
//! interlaced), and its text in any of PNG's three kinds, before or after the pixels. What it takes
//! is bounded, whatever the file claims. JPEGs and WebPs are decoded as pictures to start from are.

use std::{borrow::Cow, io::Cursor};

use png::{BitDepth, ColorType, Decoder, Limits, Reader, Transformations};

use darkroom_core::{extent::Extent, output::Format};

use super::{Error, Picture, exif, text::Room};
use crate::{input, palette};

/// Largest file of a picture that is read, bytes.
pub const MAX_FILE_BYTES: u64 = 256 << 20;
/// Most pixels of a picture.
const MAX_PIXELS: u64 = 1 << 26;
/// Bytes that decoding may use beside the pixels, with compressed text.
const MAX_WORK: usize = 64 << 20;

type Source<'a> = Cursor<&'a [u8]>;

/// Reads the pixels of a PNG, JPEG or WebP as RGB, and its text. What the file is its first bytes
/// say.
///
/// # Errors
/// If it is none of these, damaged, too big, or its pixels are not those of an 8-bit RGB picture in
/// another form.
pub fn decode(bytes: &[u8]) -> Result<Picture, Error> {
    match Format::of_bytes(bytes) {
        Some(Format::Png) => decode_png(bytes),
        Some(Format::Jpeg | Format::WebP) | None => {
            let stored = input::stored(bytes)?;
            let Extent { width, height } = stored.extent;
            let text = stored.exif.map(exif::read).transpose()?.unwrap_or_default();
            Ok(Picture { width, height, rgb: stored.rgb, text })
        }
    }
}

fn decode_png(bytes: &[u8]) -> Result<Picture, Error> {
    let mut reader = open(bytes)?;
    let (width, height) = reader.info().size();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Error::Shape(format!(
            "{width}×{height} pixels; accepted: at most {MAX_PIXELS} pixels"
        )));
    }
    let size = reader.output_buffer_size().ok_or_else(|| Error::Shape("too big".to_owned()))?;
    let (color, depth) = reader.output_color_type();
    let mut data = vec![0; size];
    let frame = reader.next_frame(&mut data).map_err(damaged)?;
    data.truncate(frame.buffer_size());
    reader.finish().map_err(damaged)?;
    if depth == BitDepth::Sixteen {
        data = eight_bits(&data)?;
    }
    let rgb = rgb(data, color)?;
    Ok(Picture { width, height, rgb, text: text_of(reader.info())? })
}

/// Reads the text without decoding the pixels; in a PNG that which stands before them, as
/// [`encode`](super::encode) writes it.
///
/// # Errors
/// If it is damaged or no PNG, JPEG or WebP.
pub fn read_text(bytes: &[u8]) -> Result<Vec<(String, String)>, Error> {
    match Format::of_bytes(bytes) {
        Some(Format::Png) => text_of(open(bytes)?.info()),
        Some(Format::Jpeg | Format::WebP) | None => {
            Ok(input::exif_of(bytes)?.map(exif::read).transpose()?.unwrap_or_default())
        }
    }
}

fn open(bytes: &[u8]) -> Result<Reader<Source<'_>>, Error> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: MAX_WORK });
    // A palette and grey of one to four bits become bytes; a transparent colour becomes an alpha
    // channel.
    decoder.set_transformations(Transformations::EXPAND);
    // Values are compared as they are; a colour profile changes none of them.
    decoder.set_ignore_iccp_chunk(true);
    let reader = decoder.read_info().map_err(damaged)?;
    match palette::fault(reader.info()) {
        None => Ok(reader),
        Some(fault) => Err(Error::Codec(Format::Png, fault)),
    }
}

fn damaged(error: png::DecodingError) -> Error {
    Error::Codec(Format::Png, error.to_string())
}

/// The bytes that were extended to 16 bits: repeated (ImageMagick, libpng) or followed by zero.
fn eight_bits(data: &[u8]) -> Result<Vec<u8>, Error> {
    let pairs = || data.chunks_exact(2);
    if pairs().all(|pair| pair[0] == pair[1]) || pairs().all(|pair| pair[1] == 0) {
        return Ok(pairs().map(|pair| pair[0]).collect());
    }
    Err(Error::Shape(
        "its 16-bit values are finer than 8 bits; accepted: the values of an 8-bit picture"
            .to_owned(),
    ))
}

fn rgb(data: Vec<u8>, color: ColorType) -> Result<Vec<u8>, Error> {
    let opaque = |channels: usize| {
        if data.chunks_exact(channels).all(|pixel| pixel[channels - 1] == u8::MAX) {
            Ok(())
        } else {
            Err(Error::Shape("it is transparent in places; accepted: an opaque picture".to_owned()))
        }
    };
    match color {
        ColorType::Rgb => Ok(data),
        ColorType::Rgba => {
            opaque(4)?;
            Ok(data.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect())
        }
        ColorType::Grayscale => Ok(data.iter().flat_map(|grey| [*grey; 3]).collect()),
        ColorType::GrayscaleAlpha => {
            opaque(2)?;
            Ok(data.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect())
        }
        ColorType::Indexed => Err(Error::Shape("its palette was not expanded".to_owned())),
    }
}

/// Our text; of each keyword the first. iTXt is preferred to the other two kinds, which cannot hold
/// every character.
fn text_of(info: &png::Info<'_>) -> Result<Vec<(String, String)>, Error> {
    let mut room = Room::default();
    for chunk in &info.utf8_text {
        if room.wants(&chunk.keyword) {
            let mut chunk = Cow::Borrowed(chunk);
            let inflated = chunk.to_mut().decompress_text_with_limit(room.left());
            let text = inflated.and_then(|()| chunk.get_text());
            room.take(&chunk.keyword, text)?;
        }
    }
    for chunk in &info.uncompressed_latin1_text {
        if room.wants(&chunk.keyword) {
            room.take(&chunk.keyword, Ok(latin1_or_utf8(chunk.text.clone())))?;
        }
    }
    for chunk in &info.compressed_latin1_text {
        if room.wants(&chunk.keyword) {
            let mut chunk = chunk.clone();
            let inflated = chunk.decompress_text_with_limit(room.left());
            let text = inflated.and_then(|()| chunk.get_text());
            room.take(&chunk.keyword, text.map(latin1_or_utf8))?;
        }
    }
    let text = room.into_text();
    // A JPEG or WebP of ours that was converted brings its block along.
    match &info.exif_metadata {
        Some(block) if text.is_empty() => exif::read(block),
        _ => Ok(text),
    }
}

/// tEXt and zTXt are Latin-1 by the standard, but some libraries write UTF-8 (ImageMagick). Text
/// that is valid as both is hardly ever meant as Latin-1.
fn latin1_or_utf8(latin1: String) -> String {
    let bytes: Option<Vec<u8>> =
        latin1.chars().map(|character| u8::try_from(character).ok()).collect();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or(latin1)
}

#[cfg(test)]
mod tests;
