//! JPEG: baseline and progressive, grey and YCbCr, 8 bits. Its segments are checked before anything
//! is decoded.

use darkroom_core::extent::Extent;
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::{JpegDecoder, errors::DecodeErrors};

use super::{Decoded, Error, Kind, Pixels, exif, profile};

/// Most scans: each scan goes over all pixels again, however small it is.
const MAX_SCANS: usize = 100;

/// The marker of a progressive frame's header.
const PROGRESSIVE: u8 = 0xc2;

/// What the segments contain.
#[derive(Debug, Default)]
struct Facts<'a> {
    extent: Option<Extent>,
    /// The marker of the frame's header, which tells the kind of coding.
    coding: u8,
    bits: u8,
    components: u8,
    /// Whether the components are named R, G and B.
    named_rgb: bool,
    /// Whether channels have different resolutions.
    subsampled: bool,
    /// The transform in Adobe's segment.
    adobe: Option<u8>,
    exif: Option<&'a [u8]>,
    profile: &'a [u8],
    scans: usize,
    /// Whether its end marker is there.
    ended: bool,
}

pub(super) fn extent(bytes: &[u8]) -> Result<Extent, Error> {
    let facts = walk(bytes, Until::Frame);
    facts.extent.ok_or_else(|| Kind::Jpeg.damaged("it has no header"))
}

pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, Error> {
    let facts = walk(bytes, Until::End);
    check(&facts)?;
    let damaged = |error: DecodeErrors| Kind::Jpeg.damaged(&error.to_string());
    let grey = facts.components == 1;
    // Sizes are bounded before anything is decoded.
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .jpeg_set_out_colorspace(if grey { ColorSpace::Luma } else { ColorSpace::RGB });
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(damaged)?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    let extent = Extent { width: width as u32, height: height as u32 };
    if Some(extent) != facts.extent {
        return Err(Kind::Jpeg.damaged("it has two headers"));
    }
    let mut data = vec![0; decoder.output_buffer_size().unwrap_or_default()];
    decoder.decode_into(&mut data).map_err(damaged)?;
    let data = if grey { data.iter().flat_map(|grey| [*grey; 3]).collect() } else { data };
    let pixels = Pixels::new(extent, data);
    Ok(Decoded {
        pixels,
        orientation: exif::orientation(facts.exif),
        animated: false,
        other_colours: profile::is_other(facts.profile),
    })
}

/// Its EXIF block.
pub(super) fn exif(bytes: &[u8]) -> Option<&[u8]> {
    walk(bytes, Until::Frame).exif
}

fn check(facts: &Facts<'_>) -> Result<(), Error> {
    if !matches!(facts.coding, 0xc0..=0xc2) {
        return Err(Kind::Jpeg.unusual("of a rare kind (lossless, hierarchical or arithmetic)"));
    }
    if facts.bits != 8 {
        return Err(Kind::Jpeg.unusual(&format!("of {} bits a channel", facts.bits)));
    }
    // As in libjpeg: Adobe's segment decides, then the names of the components.
    let rgb =
        facts.components == 3 && facts.adobe.map_or(facts.named_rgb, |transform| transform == 0);
    match facts.components {
        3 if rgb => return Err(Kind::Jpeg.unusual("that stores RGB, not YCbCr")),
        1 | 3 => {}
        4 => {
            return Err(Error(
                "is a JPEG in CMYK, as printers use it; accepted: RGB or grey, as \
                 `convert in.jpg -auto-orient -colorspace sRGB -strip out.png` makes"
                    .to_owned(),
            ));
        }
        count => return Err(Kind::Jpeg.unusual(&format!("of {count} channels"))),
    }
    if facts.scans > MAX_SCANS {
        return Err(Kind::Jpeg.unusual(&format!("of {} scans, more than {MAX_SCANS}", facts.scans)));
    }
    // The decoder reads such a picture without an error, and wrongly.
    if facts.coding != PROGRESSIVE && facts.scans > 1 && facts.subsampled {
        return Err(Kind::Jpeg.unusual("that stores its channels one after the other"));
    }
    if facts.scans == 0 || !facts.ended {
        return Err(Kind::Jpeg.damaged("its end is missing"));
    }
    Ok(())
}

/// How far to walk through the segments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Frame,
    End,
}

fn walk(bytes: &[u8], until: Until) -> Facts<'_> {
    let mut facts = Facts::default();
    let mut at = 2;
    while let Some(marker) = next_marker(bytes, &mut at) {
        match marker {
            0xd9 => {
                facts.ended = true;
                break;
            }
            // These markers have no content.
            0x01 | 0xd0..=0xd8 => continue,
            _ => {}
        }
        let Some(segment) = segment(bytes, at) else { break };
        at += 2 + segment.len();
        match marker {
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                frame(&mut facts, marker, segment);
                if until == Until::Frame {
                    break;
                }
            }
            0xda => facts.scans += 1,
            0xe1 if facts.exif.is_none() => facts.exif = segment.strip_prefix(b"Exif\0\0"),
            // Each part begins with its number and the number of parts; the first part begins with
            // the name of the data.
            0xe2 if facts.profile.is_empty() => {
                facts.profile = segment
                    .strip_prefix(b"ICC_PROFILE\0")
                    .and_then(|rest| rest.get(2..))
                    .unwrap_or_default();
            }
            0xee if segment.starts_with(b"Adobe") => facts.adobe = segment.get(11).copied(),
            _ => {}
        }
    }
    facts
}

/// The next marker after `at`, past coded data and fill bytes; `at` is then behind the marker.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        let from = bytes.get(*at..)?;
        *at += from.iter().position(|byte| *byte == 0xff)? + 1;
        while bytes.get(*at) == Some(&0xff) {
            *at += 1;
        }
        let marker = *bytes.get(*at)?;
        *at += 1;
        // A zero follows a byte of coded data that looks like a marker.
        if marker != 0 {
            return Some(marker);
        }
    }
}

/// The bytes of a segment after its length.
fn segment(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let length = u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]);
    bytes.get(at + 2..at + usize::from(length))
}

fn frame<'a>(facts: &mut Facts<'a>, marker: u8, segment: &'a [u8]) {
    let [bits, h1, h0, w1, w0, ..] = *segment else { return };
    if facts.extent.is_some() {
        return;
    }
    let number = |high, low| u32::from(u16::from_be_bytes([high, low]));
    facts.extent = Some(Extent { width: number(w1, w0), height: number(h1, h0) });
    (facts.coding, facts.bits) = (marker, bits);
    facts.components = segment.get(5).copied().unwrap_or(0);
    let components = || segment.get(6..).unwrap_or_default().chunks_exact(3);
    facts.named_rgb = components().map(|component| component[0]).eq(*b"RGB");
    let mut samplings = components().map(|component| component[1]);
    let first = samplings.next();
    facts.subsampled = samplings.any(|sampling| Some(sampling) != first);
}
