//! Reads a picture back as an image library may have saved it: any lossless form of its 8-bit RGB pixels (a palette, grey,
//! 16 bits that say no more than 8, an alpha channel that hides nothing, interlaced), and its text in any of PNG's three
//! kinds, before or after the pixels. What it takes is bounded, whatever the file claims.

use std::{borrow::Cow, io::Cursor};

use png::{BitDepth, ColorType, Decoder, Limits, Reader, Transformations};

use super::{Error, Picture};

/// Most bytes of a picture's file that are worth reading.
pub const MAX_FILE_BYTES: u64 = 256 << 20;
/// Most pixels of a picture.
const MAX_PIXELS: u64 = 1 << 26;
/// Bytes that decoding may take beside the pixels, compressed text included.
const MAX_WORK: usize = 64 << 20;
/// Most bytes of all text of ours, inflated.
const MAX_TEXT: usize = 1 << 20;
/// Keywords of text that is read; the rest may be as long as it likes and is left alone.
const OURS: &str = "darkroom.";
const FOR_PEOPLE: &str = "parameters";

type Source<'a> = Cursor<&'a [u8]>;

/// Reads a PNG's pixels as RGB, and its text.
///
/// # Errors
/// If it is damaged, too big, or its pixels are not those of an 8-bit RGB picture in another form.
pub fn decode(bytes: &[u8]) -> Result<Picture, Error> {
    let mut reader = open(bytes)?;
    let (width, height) = reader.info().size();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Error::Shape(format!("{width}×{height} pixels; accepted: at most {MAX_PIXELS} pixels")));
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

/// Reads the text that stands before the pixels, as [`encode`](super::encode) writes it, without decoding those.
///
/// # Errors
/// If it is damaged or no PNG.
pub fn read_text(bytes: &[u8]) -> Result<Vec<(String, String)>, Error> {
    text_of(open(bytes)?.info())
}

fn open(bytes: &[u8]) -> Result<Reader<Source<'_>>, Error> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: MAX_WORK });
    // Palettes and one to four bits of grey become bytes, a transparent colour becomes an alpha channel.
    decoder.set_transformations(Transformations::EXPAND);
    // Numbers are compared as they are; a colour profile changes none of them.
    decoder.set_ignore_iccp_chunk(true);
    decoder.read_info().map_err(damaged)
}

fn damaged(error: png::DecodingError) -> Error {
    Error::Png(error.to_string())
}

/// The bytes that were made 16 bits: repeated (ImageMagick, libpng) or followed by zero.
fn eight_bits(data: &[u8]) -> Result<Vec<u8>, Error> {
    let pairs = || data.chunks_exact(2);
    if pairs().all(|pair| pair[0] == pair[1]) || pairs().all(|pair| pair[1] == 0) {
        return Ok(pairs().map(|pair| pair[0]).collect());
    }
    Err(Error::Shape(
        "its 16-bit values are finer than 8 bits; accepted: the values of an 8-bit picture".to_owned(),
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

/// The text of ours, each keyword's first. iTXt comes before the other two kinds, which cannot hold every character.
fn text_of(info: &png::Info<'_>) -> Result<Vec<(String, String)>, Error> {
    let mut room = Room { left: MAX_TEXT, text: Vec::new() };
    for chunk in &info.utf8_text {
        if room.wants(&chunk.keyword) {
            let mut chunk = Cow::Borrowed(chunk);
            let inflated = chunk.to_mut().decompress_text_with_limit(room.left);
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
            let inflated = chunk.decompress_text_with_limit(room.left);
            let text = inflated.and_then(|()| chunk.get_text());
            room.take(&chunk.keyword, text.map(latin1_or_utf8))?;
        }
    }
    Ok(room.text)
}

/// Text so far, and bytes that more of it may have.
struct Room {
    left: usize,
    text: Vec<(String, String)>,
}

impl Room {
    fn wants(&self, keyword: &str) -> bool {
        let is_ours = keyword.starts_with(OURS) || keyword == FOR_PEOPLE;
        is_ours && !self.text.iter().any(|(found, _)| found == keyword)
    }

    fn take(&mut self, keyword: &str, text: Result<String, png::DecodingError>) -> Result<(), Error> {
        let text = text.map_err(|error| Error::Text(keyword.to_owned(), error.to_string()));
        let fits = text.and_then(|text| match self.left.checked_sub(text.len()) {
            Some(left) => Ok((left, text)),
            None => {
                let reason = format!("all text together has more than {MAX_TEXT} bytes");
                Err(Error::Text(keyword.to_owned(), reason))
            }
        });
        match fits {
            Ok((left, text)) => {
                self.left = left;
                self.text.push((keyword.to_owned(), text));
                Ok(())
            }
            // Nothing is read out of the line for people.
            Err(_) if keyword == FOR_PEOPLE => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// tEXt and zTXt are Latin-1 by the standard, and UTF-8 from libraries that do not mind (ImageMagick). Latin-1 that is UTF-8
/// as well is hardly ever meant.
fn latin1_or_utf8(latin1: String) -> String {
    let bytes: Option<Vec<u8>> = latin1.chars().map(|character| u8::try_from(character).ok()).collect();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or(latin1)
}

#[cfg(test)]
mod tests;
