//! PNGs of a compression level that was asked for.
//!
//! `png` compresses with whatever library `flate2` was built with, which any crate of a program may
//! choose by a feature. Here it is always `miniz_oxide`, so equal pixels give equal bytes. Level 0
//! stores the rows as they are; from 1 on every row has the Paeth filter.

use darkroom_core::output::Format;
use miniz_oxide::deflate::compress_to_vec_zlib;
use png::{BitDepth, ColorType, Encoder, chunk, text_metadata::ITXtChunk};

use super::{Error, Raster};

/// Types of filters, as PNG counts.
const NO_FILTER: u8 = 0;
const PAETH: u8 = 4;
/// Bytes of a pixel.
const PIXEL: usize = 3;
/// Most bytes of a chunk.
const MAX_CHUNK: usize = i32::MAX as usize;

pub(super) fn encode(
    raster: &Raster,
    level: u8,
    text: &[(String, String)],
) -> Result<Vec<u8>, Error> {
    let wrong = |error: png::EncodingError| Error::Codec(Format::Png, error.to_string());
    let row = PIXEL * raster.width as usize;
    let rows = if level == 0 { unfiltered(&raster.rgb, row) } else { paeth(&raster.rgb, row) };
    let data = compress_to_vec_zlib(&rows, level);
    let mut bytes = Vec::with_capacity(data.len() + 4096);
    let mut encoder = Encoder::new(&mut bytes, raster.width, raster.height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(wrong)?;
    for (keyword, text) in text {
        writer.write_text_chunk(&ITXtChunk::new(keyword.clone(), text.clone())).map_err(wrong)?;
    }
    for part in data.chunks(MAX_CHUNK) {
        writer.write_chunk(chunk::IDAT, part).map_err(wrong)?;
    }
    writer.finish().map_err(wrong)?;
    Ok(bytes)
}

fn unfiltered(rgb: &[u8], row: usize) -> Vec<u8> {
    let mut rows = Vec::with_capacity(rgb.len() + rgb.len() / row);
    for line in rgb.chunks_exact(row) {
        rows.push(NO_FILTER);
        rows.extend(line);
    }
    rows
}

/// Every value less that of the neighbour which the filter foretells.
fn paeth(rgb: &[u8], row: usize) -> Vec<u8> {
    let mut rows = Vec::with_capacity(rgb.len() + rgb.len() / row);
    let first = vec![0; row];
    let mut above: &[u8] = &first;
    for line in rgb.chunks_exact(row) {
        rows.push(PAETH);
        for (at, value) in line.iter().enumerate() {
            let left = |of: &[u8]| at.checked_sub(PIXEL).map_or(0, |left| of[left]);
            rows.push(value.wrapping_sub(nearest(left(line), above[at], left(above))));
        }
        above = line;
    }
    rows
}

/// Whichever of the three is nearest to left + above − corner (PNG, third edition, 9.4).
fn nearest(left: u8, above: u8, corner: u8) -> u8 {
    let estimate = i16::from(left) + i16::from(above) - i16::from(corner);
    let distance = |value: u8| (estimate - i16::from(value)).abs();
    if distance(left) <= distance(above) && distance(left) <= distance(corner) {
        left
    } else if distance(above) <= distance(corner) {
        above
    } else {
        corner
    }
}
