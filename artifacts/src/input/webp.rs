//! WebP: lossy and lossless, with and without alpha; for an animated file, the first picture.

use std::io::Cursor;

use darkroom_core::extent::Extent;
use image_webp::{DecodingError, WebPDecoder};

use super::{Decoded, Error, Kind, Pixels, exif, profile};

/// What the chunks contain.
#[derive(Debug, Default)]
struct Facts<'a> {
    /// Size of the whole picture.
    canvas: Option<Extent>,
    /// Size of the first coded frame.
    frame: Option<Extent>,
    animated: bool,
    exif: Option<&'a [u8]>,
    profile: &'a [u8],
}

pub(super) fn extent(bytes: &[u8]) -> Result<Extent, Error> {
    let facts = walk(bytes);
    let (Some(canvas), Some(frame)) = (facts.canvas, facts.frame) else {
        return Err(Kind::WebP.damaged("it has no header"));
    };
    // A decoder allocates the frame before it compares sizes.
    if frame.width > canvas.width || frame.height > canvas.height {
        return Err(Kind::WebP.damaged("its frame is bigger than the picture"));
    }
    Ok(canvas)
}

pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, Error> {
    let facts = walk(bytes);
    let damaged = |error: DecodingError| Kind::WebP.damaged(&error.to_string());
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
    let extent = Extent { width: decoder.dimensions().0, height: decoder.dimensions().1 };
    if Some(extent) != facts.canvas {
        return Err(Kind::WebP.damaged("it has two headers"));
    }
    let size = decoder.output_buffer_size();
    let mut data = vec![0; size.ok_or_else(|| Kind::WebP.damaged("it is too large"))?];
    decoder.read_image(&mut data).map_err(damaged)?;
    Ok(Decoded {
        pixels: Pixels::new(extent, data),
        orientation: exif::orientation(facts.exif),
        animated: facts.animated,
        other_colours: profile::is_other(facts.profile),
    })
}

/// Whether the file is as long as it says; a decoder does not miss what stands behind the pixels.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let length = bytes.get(4..8).and_then(|length| length.first_chunk());
    length.is_some_and(|length| bytes.len() as u64 >= 8 + u64::from(u32::from_le_bytes(*length)))
}

/// Its EXIF block.
pub(super) fn exif(bytes: &[u8]) -> Option<&[u8]> {
    walk(bytes).exif
}

fn walk(bytes: &[u8]) -> Facts<'_> {
    let mut facts = Facts::default();
    let (mut rest, mut first) = (bytes.get(12..).unwrap_or_default(), true);
    while let Some((name, chunk, after)) = next_chunk(rest) {
        match name {
            b"VP8X" if first => {
                facts.canvas = number24(chunk, 4)
                    .zip(number24(chunk, 7))
                    .map(|(width, height)| Extent { width: width + 1, height: height + 1 });
                facts.animated = chunk.first().is_some_and(|flags| flags & 2 != 0);
            }
            b"ANMF" if facts.frame.is_none() => {
                let mut inner = chunk.get(16..).unwrap_or_default();
                while let Some((name, chunk, after)) = next_chunk(inner) {
                    facts.frame = facts.frame.or_else(|| frame(name, chunk));
                    inner = after;
                }
            }
            b"EXIF" if facts.exif.is_none() => facts.exif = Some(chunk),
            b"ICCP" if facts.profile.is_empty() => facts.profile = chunk,
            _ => facts.frame = facts.frame.or_else(|| frame(name, chunk)),
        }
        (rest, first) = (after, false);
    }
    facts.canvas = facts.canvas.or(facts.frame);
    facts
}

/// Name and content of the next chunk, and what follows it. A last chunk that is cut short is
/// returned as far as it goes.
fn next_chunk(bytes: &[u8]) -> Option<(&[u8; 4], &[u8], &[u8])> {
    let (name, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = u32::from_le_bytes(*length) as usize;
    let chunk = &rest[..length.min(rest.len())];
    Some((name, chunk, rest.get(length + length % 2..).unwrap_or_default()))
}

/// Width and height of coded pixels.
fn frame(name: &[u8; 4], chunk: &[u8]) -> Option<Extent> {
    match name {
        b"VP8 " => {
            let [w0, w1, h0, h1] = *chunk.get(6..)?.first_chunk()?;
            let edge = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
            Some(Extent { width: edge(w0, w1), height: edge(h0, h1) })
        }
        b"VP8L" => {
            let bits = u32::from_le_bytes(*chunk.get(1..)?.first_chunk()?);
            Some(Extent { width: (bits & 0x3fff) + 1, height: ((bits >> 14) & 0x3fff) + 1 })
        }
        _ => None,
    }
}

fn number24(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 3)?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]))
}
