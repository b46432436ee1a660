//! Pictures of a few pixels for tests, in every format that is read.

use darkroom_core::extent::Extent;
use image::{ExtendedColorType, ImageEncoder as _, codecs};
use png::{BitDepth, ColorType};

pub(crate) const THREE: Extent = Extent { width: 3, height: 2 };

/// A PNG from packed rows of samples.
pub(crate) fn png(extent: Extent, color: ColorType, depth: BitDepth, data: &[u8]) -> Vec<u8> {
    png_with(extent, (color, depth), data, |_| {})
}

pub(crate) fn png_with(
    extent: Extent,
    (color, depth): (ColorType, BitDepth),
    data: &[u8],
    more: impl FnOnce(&mut png::Encoder<'_, &mut Vec<u8>>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, extent.width, extent.height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == ColorType::Indexed {
        encoder.set_palette(vec![255, 0, 0, 0, 0, 255, 0, 255, 0, 9, 9, 9]);
    }
    more(&mut encoder);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(data).unwrap();
    writer.finish().unwrap();
    bytes
}

/// A chunk with its checksum.
pub(crate) fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let body = [&name[..], content].concat();
    let crc = !body.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    });
    [&u32::try_from(content.len()).unwrap().to_be_bytes()[..], &body, &crc.to_be_bytes()].concat()
}

/// The PNG with a chunk before or after its pixels.
pub(crate) fn with_chunk(png: &[u8], behind: bool, chunk: &[u8]) -> Vec<u8> {
    let at = if behind { png.len() - 12 } else { 33 };
    [&png[..at], chunk, &png[at..]].concat()
}

/// EXIF data with an orientation, in the byte order of Intel or of Motorola.
pub(crate) fn exif(orientation: u16, intel: bool) -> Vec<u8> {
    let short = |value: u16| if intel { value.to_le_bytes() } else { value.to_be_bytes() };
    let long = |value: u32| if intel { value.to_le_bytes() } else { value.to_be_bytes() };
    let start: &[u8] = if intel { b"II*\0" } else { b"MM\0*" };
    [
        start,
        &long(8),
        &short(1),
        &short(0x112),
        &short(3),
        &long(1),
        &short(orientation),
        &[0; 2],
        &[0; 4],
    ]
    .concat()
}

pub(crate) fn rgb(extent: Extent, pixel: impl Fn(u32, u32) -> [u8; 3]) -> Vec<u8> {
    (0..extent.height)
        .flat_map(|y| (0..extent.width).map(move |x| (x, y)))
        .flat_map(|(x, y)| pixel(x, y))
        .collect()
}

pub(crate) fn jpeg(extent: Extent, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 100);
    encoder.write_image(data, extent.width, extent.height, ExtendedColorType::Rgb8).unwrap();
    bytes
}

/// The JPEG with an APP1 segment.
pub(crate) fn jpeg_with(jpeg: &[u8], marker: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len() + 2).unwrap().to_be_bytes();
    [&jpeg[..2], &[0xff, marker], &length[..], content, &jpeg[2..]].concat()
}

pub(crate) fn webp(
    extent: Extent,
    data: &[u8],
    color: ExtendedColorType,
    exif: Option<Vec<u8>>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = codecs::webp::WebPEncoder::new_lossless(&mut bytes);
    if let Some(exif) = exif {
        encoder.set_exif_metadata(exif).unwrap();
    }
    encoder.write_image(data, extent.width, extent.height, color).unwrap();
    bytes
}
