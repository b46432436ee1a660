//! Masks: OpenAI's are transparent where the picture is to be edited, ours have white strokes on
//! black.

use std::{io::Cursor, sync::Arc};

use bytes::Bytes;
use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::Answer;
use image_webp::WebPDecoder;
use png::{BitDepth, ColorType, Transformations};
use tokio::sync::Semaphore;

use crate::words::told;

/// How a PNG begins.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Memory for all masks that are being decoded, in MiB: enough for one of the largest.
const MEMORY_MIB: u32 = 640;
/// Memory for reading a file's beginning, in MiB.
const HEADER_MIB: u32 = 16;
/// Largest edge and most pixels; as the farm has them for pictures.
const LONGEST_EDGE: u32 = 16_384;
const MOST_PIXELS: u64 = 64 << 20;
/// What a mask is.
const ACCEPTED: &str = "a PNG or WebP with alpha 0 where the picture is to be repainted";

/// Converts masks, within a common memory limit.
pub(crate) struct Masks(Arc<Semaphore>);

impl Masks {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MEMORY_MIB as usize)))
    }

    /// The mask as white strokes on black, as a PNG: white where the file's alpha is 0.
    pub(super) async fn strokes(&self, file: Bytes) -> Answer<Bytes> {
        let read = file.clone();
        let mib = self.within(HEADER_MIB, move || memory(&read)).await?;
        self.within(mib, move || converted(&file, mib)).await
    }

    /// Runs on a blocking thread, while it may use so much memory.
    async fn within<T: Send + 'static>(
        &self,
        mib: u32,
        work: impl FnOnce() -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let permit = Arc::clone(&self.0).acquire_many_owned(mib.min(MEMORY_MIB)).await;
        let permit = permit.map_err(|_| fault("the memory for masks is closed"))?;
        let work = tokio::task::spawn_blocking(move || {
            // The permit moves here, because the work continues even if the request ends.
            let _permit = permit;
            work()
        });
        work.await.map_err(|_| fault("a mask could not be converted"))?
    }
}

/// Memory to decode a mask, in MiB.
pub(super) fn memory(file: &Bytes) -> Answer<u32> {
    let mask = Mask::open(file, HEADER_MIB)?;
    let (width, height) = mask.size();
    let pixels = u64::from(width) * u64::from(height);
    if width.max(height) > LONGEST_EDGE || pixels > MOST_PIXELS {
        return Err(wrong(format!(
            "mask has {width}x{height} pixels; accepted: at most {} megapixels and {LONGEST_EDGE} \
             pixels per side",
            MOST_PIXELS >> 20
        )));
    }
    let bytes = mask.bytes()? + pixels;
    Ok(u32::try_from((bytes >> 20) + 1).unwrap_or(MEMORY_MIB))
}

/// A mask's file, whose beginning has been read.
enum Mask<'a> {
    Png(Box<png::Reader<Cursor<&'a [u8]>>>),
    Webp(Box<WebPDecoder<Cursor<&'a [u8]>>>),
}

impl<'a> Mask<'a> {
    /// Reads a file's beginning, with at most this memory.
    fn open(file: &'a [u8], mib: u32) -> Answer<Self> {
        let bytes = usize::try_from(u64::from(mib) << 20).unwrap_or(usize::MAX);
        if file.starts_with(PNG) {
            let limits = png::Limits { bytes };
            let mut decoder = png::Decoder::new_with_limits(Cursor::new(file), limits);
            // A palette's transparency becomes alpha, and so does a transparent colour.
            decoder.set_transformations(Transformations::EXPAND);
            let reader = decoder.read_info().map_err(|error| unread(&error))?;
            // The library expands a palette without looking at its length, and panics.
            let palette = reader.info().palette.as_deref().map_or(3, <[u8]>::len);
            if !palette.is_multiple_of(3) || !(3..=768).contains(&palette) {
                return Err(wrong(format!(
                    "mask has a palette of {palette} bytes, where each of 1 to 256 colours takes \
                     three; accepted: {ACCEPTED}"
                )));
            }
            return Ok(Self::Png(Box::new(reader)));
        }
        if file.starts_with(b"RIFF") && file.get(8..12) == Some(b"WEBP") {
            let mut decoder =
                WebPDecoder::new(Cursor::new(file)).map_err(|error| unread(&error))?;
            decoder.set_memory_limit(bytes);
            return Ok(Self::Webp(Box::new(decoder)));
        }
        Err(wrong(format!("mask is not a PNG or WebP file; accepted: {ACCEPTED}")))
    }

    /// Width and height.
    fn size(&self) -> (u32, u32) {
        match self {
            Self::Png(reader) => reader.info().size(),
            Self::Webp(decoder) => decoder.dimensions(),
        }
    }

    /// Bytes of a decoded pixel, and where its alpha begins.
    fn pixel(&self) -> Answer<(usize, usize)> {
        let (has_alpha, channels, sample) = match self {
            Self::Png(reader) => {
                let (color, depth) = reader.output_color_type();
                let has_alpha = matches!(color, ColorType::GrayscaleAlpha | ColorType::Rgba);
                (has_alpha, color.samples(), if depth == BitDepth::Sixteen { 2 } else { 1 })
            }
            Self::Webp(decoder) => (decoder.has_alpha(), 4, 1),
        };
        if !has_alpha {
            return Err(wrong(format!("mask has no alpha channel; accepted: {ACCEPTED}")));
        }
        Ok((channels * sample, (channels - 1) * sample))
    }

    /// Memory for decoding it, in bytes.
    fn bytes(&self) -> Answer<u64> {
        let (width, height) = self.size();
        let (pixel, _) = self.pixel()?;
        // WebP is decoded into a second buffer.
        let copies = if matches!(self, Self::Webp(_)) { 2 } else { 1 };
        Ok(copies * pixel as u64 * u64::from(width) * u64::from(height))
    }

    fn pixels(self) -> Answer<Vec<u8>> {
        let too_large = || fault("a mask is too large");
        match self {
            Self::Png(mut reader) => {
                let mut pixels = vec![0; reader.output_buffer_size().ok_or_else(too_large)?];
                reader.next_frame(&mut pixels).map_err(|error| unread(&error))?;
                Ok(pixels)
            }
            Self::Webp(mut decoder) => {
                let mut pixels = vec![0; decoder.output_buffer_size().ok_or_else(too_large)?];
                decoder.read_image(&mut pixels).map_err(|error| unread(&error))?;
                Ok(pixels)
            }
        }
    }
}

pub(super) fn converted(file: &Bytes, mib: u32) -> Answer<Bytes> {
    let mask = Mask::open(file, mib)?;
    let ((width, height), (pixel, alpha)) = (mask.size(), mask.pixel()?);
    let pixels = mask.pixels()?;
    let is_clear = |pixel: &[u8]| pixel[alpha..].iter().all(|byte| *byte == 0);
    let strokes: Vec<u8> =
        pixels.chunks_exact(pixel).map(|pixel| if is_clear(pixel) { 255 } else { 0 }).collect();
    drop(pixels);
    if strokes.iter().all(|stroke| *stroke == 0) {
        return Err(wrong(format!("mask has no pixel with alpha 0; accepted: {ACCEPTED}")));
    }
    written(&strokes, width, height).map_err(|error| {
        tracing::error!(%error, "a mask cannot be written");
        fault("the mask cannot be written")
    })
}

/// A grey picture as a PNG.
fn written(pixels: &[u8], width: u32, height: u32) -> Result<Bytes, png::EncodingError> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(file.into())
}

fn unread(error: &dyn std::error::Error) -> UserError {
    let error = error.to_string();
    wrong(format!("mask cannot be read: {}; accepted: {ACCEPTED}", told(&error)))
}

fn wrong(message: String) -> UserError {
    UserError::invalid("mask", message)
}

fn fault(message: &str) -> UserError {
    let message = format!("{message}; the farm's log may say why; please report this");
    UserError::new(Code::Internal, "INTERNAL", message)
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, GrayAlphaImage, ImageFormat, RgbImage, RgbaImage};

    use super::*;

    fn file(picture: impl Into<DynamicImage>, format: ImageFormat) -> Bytes {
        let mut bytes = Cursor::new(Vec::new());
        picture.into().write_to(&mut bytes, format).expect("written");
        bytes.into_inner().into()
    }

    /// Three pixels: opaque, half transparent, transparent.
    fn rgba() -> RgbaImage {
        RgbaImage::from_raw(3, 1, vec![255, 255, 255, 255, 9, 9, 9, 127, 255, 255, 255, 0])
            .expect("three pixels")
    }

    async fn strokes(file: Bytes) -> Answer<Vec<u8>> {
        let masks = Masks::new();
        let strokes = masks.strokes(file).await?;
        assert_eq!(masks.0.available_permits(), MEMORY_MIB as usize, "memory is given back");
        let strokes = image::load_from_memory_with_format(&strokes, ImageFormat::Png);
        Ok(strokes.expect("a PNG").into_luma8().into_raw())
    }

    #[tokio::test]
    async fn transparent_pixels_become_white_strokes_and_all_others_stay() {
        for format in [ImageFormat::Png, ImageFormat::WebP] {
            assert_eq!(strokes(file(rgba(), format)).await, Ok(vec![0, 0, 255]), "{format:?}");
        }
        let deep = DynamicImage::from(rgba()).into_rgba16();
        assert_eq!(strokes(file(deep, ImageFormat::Png)).await, Ok(vec![0, 0, 255]));
        let gray = GrayAlphaImage::from_raw(2, 1, vec![0, 0, 0, 1]).expect("two pixels");
        assert_eq!(strokes(file(gray, ImageFormat::Png)).await, Ok(vec![255, 0]));
    }

    /// A PNG of palette entries, two bits each, of which the first ones have this alpha.
    fn indexed(pixels: &[u8], alpha: Option<&'static [u8]>) -> Bytes {
        let mut file = Vec::new();
        let width = u32::try_from(pixels.len()).expect("few");
        let mut encoder = png::Encoder::new(&mut file, width, 1);
        encoder.set_color(ColorType::Indexed);
        encoder.set_depth(BitDepth::Two);
        encoder.set_palette(&[255, 0, 0, 0, 255, 0, 0, 0, 255][..]);
        if let Some(alpha) = alpha {
            encoder.set_trns(alpha);
        }
        let mut writer = encoder.write_header().expect("a header");
        let packed = |four: &[u8]| {
            (0..4).fold(0, |byte, place| (byte << 2) | four.get(place).copied().unwrap_or(0))
        };
        let rows: Vec<u8> = pixels.chunks(4).map(packed).collect();
        writer.write_image_data(&rows).expect("pixels");
        writer.finish().expect("an end");
        file.into()
    }

    #[tokio::test]
    async fn a_palettes_transparent_colours_are_strokes() {
        // The second colour is transparent, and the third has no entry, so it is opaque.
        let mask = indexed(&[0, 1, 2, 1, 0], Some(&[255, 0]));
        assert_eq!(strokes(mask).await, Ok(vec![0, 255, 0, 255, 0]));
        let half = indexed(&[0, 1, 2], Some(&[127, 1, 0]));
        assert_eq!(strokes(half).await, Ok(vec![0, 0, 255]), "alpha 0 alone");
        let error = strokes(indexed(&[0, 1], None)).await.expect_err("no alpha");
        assert!(error.message.starts_with("mask has no alpha channel"), "{error}");
    }

    #[tokio::test]
    async fn what_is_no_mask_is_refused() {
        let said = async |file: Bytes| strokes(file).await.expect_err("no mask").message;
        let opaque = file(RgbImage::new(2, 2), ImageFormat::Png);
        let accepted = format!("accepted: {ACCEPTED}");
        assert_eq!(said(opaque).await, format!("mask has no alpha channel; {accepted}"));
        let whole = RgbaImage::from_pixel(2, 2, image::Rgba([0, 0, 0, 255]));
        let whole = file(whole, ImageFormat::Png);
        assert_eq!(said(whole).await, format!("mask has no pixel with alpha 0; {accepted}"));
        let jpeg = file(RgbImage::new(2, 2), ImageFormat::Jpeg);
        let expected = format!("mask is not a PNG or WebP file; {accepted}");
        assert_eq!(said(jpeg).await, expected);
        assert_eq!(said(Bytes::from_static(b"GIF89a")).await, expected);
        assert_eq!(said(Bytes::new()).await, expected);
        let mut cut = file(rgba(), ImageFormat::Png);
        cut.truncate(40);
        let cut = said(cut).await;
        assert!(cut.starts_with("mask cannot be read: "), "{cut}");
    }

    #[tokio::test]
    async fn a_bomb_is_refused_by_its_size_before_it_is_decoded() {
        // A PNG of 3 KB whose header claims 100,000 × 100,000 pixels.
        let mut bomb = file(rgba(), ImageFormat::Png).to_vec();
        bomb[16..20].copy_from_slice(&100_000_u32.to_be_bytes());
        bomb[20..24].copy_from_slice(&100_000_u32.to_be_bytes());
        let checksum = crc32fast::hash(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
        let error = strokes(bomb.into()).await.expect_err("a bomb");
        assert_eq!(
            error.message,
            "mask has 100000x100000 pixels; accepted: at most 64 megapixels and 16384 pixels \
             per side"
        );
    }
}
