//! PNG: every colour type and depth, interlaced or not.

use std::io::Cursor;

use darkroom_core::extent::Extent;
use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

use super::{Decoded, Error, Kind, Pixels, exif, profile};
use crate::palette;

/// Bytes that the decoder may use beside the pixels: rows, and chunks that are read.
const MAX_WORK: usize = 128 << 20;
/// A gamma of 1/2.2, as the gAMA chunk has it, and the accepted difference.
const GAMMA: u32 = 45_455;
const NEAR: u32 = 1_000;

/// Width and height, which come first.
pub(super) fn extent(bytes: &[u8]) -> Result<Extent, Error> {
    let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let is_header = bytes.get(12..16) == Some(b"IHDR");
    number(16)
        .zip(number(20))
        .filter(|_| is_header)
        .map(|(width, height)| Extent { width, height })
        .ok_or_else(|| Kind::Png.damaged("it has no header"))
}

pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, Error> {
    let damaged = |error: png::DecodingError| Kind::Png.damaged(&error.to_string());
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: MAX_WORK });
    decoder.set_transformations(Transformations::EXPAND);
    // Neither is needed, and both can be a thousand times larger than in the file.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info().map_err(damaged)?;
    if let Some(fault) = palette::fault(reader.info()) {
        return Err(Kind::Png.damaged(&fault));
    }
    let extent = Extent { width: reader.info().width, height: reader.info().height };
    let (color, depth) = reader.output_color_type();
    let size = reader.output_buffer_size().ok_or_else(|| Kind::Png.damaged("it is too big"))?;
    let mut data = vec![0; size];
    let frame = reader.next_frame(&mut data).map_err(damaged)?;
    data.truncate(frame.buffer_size());
    // EXIF may come after the pixels. An error there does not affect the decoded pixels.
    let _ = reader.finish();
    let info = reader.info();
    let orientation = exif::orientation(info.exif_metadata.as_deref());
    let animated = info.animation_control.is_some_and(|animation| animation.num_frames > 1);
    let other_colours = other_colours(bytes);
    drop(reader);
    let pixels = pixels(extent, data, (color, depth))?;
    Ok(Decoded { pixels, orientation, animated, other_colours })
}

/// Converts samples, two bytes each if they are 16 bits, to RGB or RGBA of 8 bits.
fn pixels(
    extent: Extent,
    data: Vec<u8>,
    (color, depth): (ColorType, BitDepth),
) -> Result<Pixels, Error> {
    let data = if depth == BitDepth::Sixteen { eight_bits(data) } else { data };
    Ok(match color {
        ColorType::Rgb | ColorType::Rgba => Pixels::new(extent, data),
        ColorType::Grayscale => {
            Pixels::new(extent, data.iter().flat_map(|grey| [*grey; 3]).collect())
        }
        ColorType::GrayscaleAlpha => {
            let rgba = |pixel: &[u8]| [pixel[0], pixel[0], pixel[0], pixel[1]];
            Pixels::new(extent, data.chunks_exact(2).flat_map(rgba).collect())
        }
        ColorType::Indexed => return Err(Kind::Png.damaged("it has no palette")),
    })
}

/// Rounds to the nearest, in place: 65535 becomes 255.
fn eight_bits(mut data: Vec<u8>) -> Vec<u8> {
    let samples = data.len() / 2;
    for at in 0..samples {
        let value = u32::from(data[2 * at]) << 8 | u32::from(data[2 * at + 1]);
        data[at] = u8::try_from((value * 255 + 32_767) / 65_535).unwrap_or(u8::MAX);
    }
    data.truncate(samples);
    data
}

/// Whether chunks before the pixels say that the values are not sRGB. An sRGB chunk overrides all
/// others.
fn other_colours(bytes: &[u8]) -> bool {
    let mut at = 8;
    let mut other = false;
    while let Some(head) = bytes.get(at..at + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some(chunk) = bytes.get(at + 8..(at + 8).saturating_add(length)) else { break };
        match &head[4..] {
            b"IDAT" | b"IEND" => break,
            b"sRGB" => return false,
            b"iCCP" => other |= profile::is_other_packed(chunk),
            b"gAMA" => {
                let gamma = chunk.first_chunk().map_or(GAMMA, |gamma| u32::from_be_bytes(*gamma));
                other |= gamma.abs_diff(GAMMA) > NEAR;
            }
            _ => {}
        }
        at += 12 + length;
    }
    other
}
