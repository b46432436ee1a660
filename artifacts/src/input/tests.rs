use std::io::Cursor;

use darkroom_core::fit::Fit;
use image::{ExtendedColorType, ImageEncoder as _, codecs};
use png::{BitDepth, ColorType};

use super::*;
use crate::picture::{encode, encode_rgb, to_byte};

const THREE: Extent = Extent { width: 3, height: 2 };

/// A PNG of samples as they are packed into rows.
fn png(extent: Extent, color: ColorType, depth: BitDepth, data: &[u8]) -> Vec<u8> {
    png_with(extent, (color, depth), data, |_| {})
}

fn png_with(
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
fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let body = [&name[..], content].concat();
    let crc = !body.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    });
    [&u32::try_from(content.len()).unwrap().to_be_bytes()[..], &body, &crc.to_be_bytes()].concat()
}

/// The PNG with a chunk before its pixels, or behind them.
fn with_chunk(png: &[u8], behind: bool, chunk: &[u8]) -> Vec<u8> {
    let at = if behind { png.len() - 12 } else { 33 };
    [&png[..at], chunk, &png[at..]].concat()
}

/// EXIF data that tell an orientation, in the byte order of Intel or of Motorola.
fn exif(orientation: u16, intel: bool) -> Vec<u8> {
    let short = |value: u16| if intel { value.to_le_bytes() } else { value.to_be_bytes() };
    let long = |value: u32| if intel { value.to_le_bytes() } else { value.to_be_bytes() };
    let start: &[u8] = if intel { b"II*\0" } else { b"MM\0*" };
    [start, &long(8), &short(1), &short(0x112), &short(3), &long(1), &short(orientation), &[0; 2], &[0; 4]]
        .concat()
}

fn rgb(extent: Extent, pixel: impl Fn(u32, u32) -> [u8; 3]) -> Vec<u8> {
    (0..extent.height)
        .flat_map(|y| (0..extent.width).map(move |x| (x, y)))
        .flat_map(|(x, y)| pixel(x, y))
        .collect()
}

fn jpeg(extent: Extent, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 100);
    encoder.write_image(data, extent.width, extent.height, ExtendedColorType::Rgb8).unwrap();
    bytes
}

/// The JPEG with an APP1 segment.
fn jpeg_with(jpeg: &[u8], marker: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len() + 2).unwrap().to_be_bytes();
    [&jpeg[..2], &[0xff, marker], &length[..], content, &jpeg[2..]].concat()
}

fn webp(extent: Extent, data: &[u8], color: ExtendedColorType, exif: Option<Vec<u8>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = codecs::webp::WebPEncoder::new_lossless(&mut bytes);
    if let Some(exif) = exif {
        encoder.set_exif_metadata(exif).unwrap();
    }
    encoder.write_image(data, extent.width, extent.height, color).unwrap();
    bytes
}

fn given(bytes: &[u8]) -> Given {
    Given::decode(bytes).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(bytes: &[u8]) -> String {
    Given::decode(bytes).expect_err("refused").to_string()
}

#[test]
fn every_colour_type_and_depth_of_png_is_read() {
    use BitDepth::{Eight, Four, One, Sixteen, Two};
    use ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
    let two = Extent { width: 2, height: 1 };
    let (red, blue) = ([255, 0, 0], [0, 0, 255]);
    for (color, depth, data, expected) in [
        (Grayscale, One, &[0b0100_0000][..], [[0; 3], [255; 3]]),
        (Grayscale, Two, &[0b0110_0000], [[85; 3], [170; 3]]),
        (Grayscale, Four, &[0x2f], [[34; 3], [255; 3]]),
        (Grayscale, Eight, &[7, 9], [[7; 3], [9; 3]]),
        (Grayscale, Sixteen, &[0x80, 0, 0xff, 0xff], [[128; 3], [255; 3]]),
        (Indexed, One, &[0b0100_0000], [red, blue]),
        (Indexed, Two, &[0b0001_0000], [red, blue]),
        (Indexed, Four, &[0x01], [red, blue]),
        (Indexed, Eight, &[0, 1], [red, blue]),
        (Rgb, Eight, &[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]),
        (Rgb, Sixteen, &[0, 128, 0, 129, 1, 0, 255, 127, 255, 128, 0, 0], [[0, 1, 1], [255, 255, 0]]),
        (GrayscaleAlpha, Eight, &[7, 255, 9, 255], [[7; 3], [9; 3]]),
        (GrayscaleAlpha, Sixteen, &[7, 7, 255, 255, 9, 9, 255, 255], [[7; 3], [9; 3]]),
        (Rgba, Eight, &[1, 2, 3, 255, 4, 5, 6, 255], [[1, 2, 3], [4, 5, 6]]),
        (Rgba, Sixteen, &[1, 1, 2, 2, 3, 3, 255, 255, 4, 4, 5, 5, 6, 6, 255, 255], [[1, 2, 3], [4, 5, 6]]),
    ] {
        let given = given(&png(two, color, depth, data));
        assert_eq!(given.pixels.data(), expected.concat(), "{color:?} {depth:?}");
        assert_eq!((given.orientation, given.notes.len()), (1, 0));
    }
}

#[test]
fn transparency_of_every_kind_is_kept_and_lies_on_white_in_a_picture() {
    use BitDepth::{Eight, Sixteen};
    let two = Extent { width: 2, height: 1 };
    let clear_palette = png_with(two, (ColorType::Indexed, Eight), &[0, 1], |png| png.set_trns(vec![0, 255]));
    let clear_grey = png_with(two, (ColorType::Grayscale, Eight), &[7, 9], |png| png.set_trns(vec![0, 7]));
    let clear_rgb = png_with(two, (ColorType::Rgb, Eight), &[1, 2, 3, 9, 9, 9], |png| {
        png.set_trns(vec![0, 1, 0, 2, 0, 3])
    });
    for (bytes, second) in [
        (clear_palette, [0, 0, 255]),
        (clear_grey, [9; 3]),
        (clear_rgb, [9; 3]),
        (png(two, ColorType::Rgba, Eight, &[1, 2, 3, 0, 4, 5, 6, 255]), [4, 5, 6]),
        (png(two, ColorType::GrayscaleAlpha, Eight, &[1, 0, 4, 255]), [4; 3]),
        (png(two, ColorType::GrayscaleAlpha, Sixteen, &[1, 1, 0, 0, 4, 4, 255, 255]), [4; 3]),
        (webp(two, &[1, 2, 3, 0, 4, 5, 6, 255], ExtendedColorType::Rgba8, None), [4, 5, 6]),
    ] {
        let given = given(&bytes);
        assert!(given.notes[0].contains("transparent"), "{:?}", given.notes);
        assert_eq!(given.pixels.data(), [&[0; 4], &second[..], &[255]].concat());
        let picture = given.pixels.for_stage(Use::Picture, two, None).unwrap();
        let pixels: Vec<u8> = (0..6).map(|at| to_byte(picture.data[at % 3 * 2 + at / 3])).collect();
        assert_eq!(pixels, [&[255; 3], &second[..]].concat());
    }
    let half = given(&png(two, ColorType::Rgba, Eight, &[0, 0, 0, 128, 255, 0, 0, 64]));
    let picture = half.pixels.for_stage(Use::Picture, two, None).unwrap();
    assert_eq!([0, 1, 3, 5].map(|at| to_byte(picture.data[at])), [127, 255, 191, 191]);
}

#[test]
fn an_interlaced_png_is_the_same_picture() {
    // Adam7 of 3x2: passes of 1, 0, 0 (3 columns are too few), 1, 1 … as the specification lists them.
    let data = rgb(THREE, |x, y| [x as u8, y as u8, 9]);
    let at = |x: usize, y: usize| &data[3 * (3 * y + x)..][..3];
    let passes: [&[(usize, usize)]; 4] = [&[(0, 0)], &[(2, 0)], &[(1, 0)], &[(0, 1), (1, 1), (2, 1)]];
    let rows: Vec<u8> = passes
        .iter()
        .flat_map(|pass| {
            [&[0][..], &pass.iter().flat_map(|(x, y)| at(*x, *y).to_vec()).collect::<Vec<_>>()].concat()
        })
        .collect();
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &rows).unwrap();
    let header = [0, 0, 0, 3, 0, 0, 0, 2, 8, 2, 0, 0, 1];
    let chunks =
        [chunk(b"IHDR", &header), chunk(b"IDAT", &packed.finish().unwrap()), chunk(b"IEND", &[])].concat();
    let interlaced = [&b"\x89PNG\r\n\x1a\n"[..], &chunks].concat();
    assert_eq!(given(&interlaced).pixels.data(), data);
}

/// A picture whose corners have colours of their own, big enough for a JPEG's blocks, and what it looks like turned as
/// orientation `n` says: in pixel (x, y) of the result lies pixel `source(x, y)` of what is stored.
fn source(n: u16, stored: Extent, x: u32, y: u32) -> (u32, u32) {
    let (right, bottom) = (stored.width - 1, stored.height - 1);
    // EXIF 2.32, tag 0x0112: which side of the picture the stored first row and first column are.
    match n {
        2 => (right - x, y),
        3 => (right - x, bottom - y),
        4 => (x, bottom - y),
        5 => (y, x),
        6 => (y, bottom - x),
        7 => (right - y, bottom - x),
        8 => (right - y, x),
        _ => (x, y),
    }
}

#[test]
fn all_eight_orientations_are_applied_in_all_three_formats() {
    let stored = Extent { width: 32, height: 16 };
    let colour = |x: u32, y: u32| match (x < 16, y < 8) {
        (true, true) => [250, 10, 10],
        (false, true) => [10, 250, 10],
        (true, false) => [10, 10, 250],
        (false, false) => [250, 250, 10],
    };
    let data = rgb(stored, colour);
    for n in 1..=8_u16 {
        for intel in [true, false] {
            let exif = exif(n, intel);
            let prefixed = [b"Exif\0\0", &exif[..]].concat();
            let plain = encode_rgb(32, 16, &data, &[]).unwrap();
            for (bytes, near) in [
                (with_chunk(&plain, false, &chunk(b"eXIf", &exif)), 0),
                (with_chunk(&plain, true, &chunk(b"eXIf", &exif)), 0),
                (jpeg_with(&jpeg(stored, &data), 0xe1, &prefixed), 40),
                (webp(stored, &data, ExtendedColorType::Rgb8, Some(exif.clone())), 0),
                (webp(stored, &data, ExtendedColorType::Rgb8, Some(prefixed.clone())), 0),
            ] {
                let given = given(&bytes);
                assert_eq!(given.orientation, u8::try_from(n).unwrap());
                let Extent { width, height } = given.pixels.extent;
                assert_eq!((width, height), if n < 5 { (32, 16) } else { (16, 32) }, "{n}");
                let expected = rgb(given.pixels.extent, |x, y| {
                    let (x, y) = source(n, stored, x, y);
                    colour(x, y)
                });
                let off = expected.iter().zip(given.pixels.data()).map(|(a, b)| a.abs_diff(*b)).max();
                assert!(off.is_some_and(|off| off <= near), "{n}: off by {off:?}");
                let says = given.notes.iter().any(|note| note.contains(&format!("EXIF orientation {n} ")));
                assert_eq!(says, n != 1, "{:?}", given.notes);
            }
        }
    }
}

#[test]
fn broken_exif_is_ignored() {
    let data = rgb(THREE, |x, y| [x as u8, y as u8, 9]);
    let plain = encode_rgb(3, 2, &data, &[]).unwrap();
    let good = exif(6, true);
    let far = [&good[..4], &[255, 255, 255, 255], &good[8..]].concat();
    let text = [&good[..12], &[2], &good[13..]].concat();
    for broken in [
        &b""[..],
        b"II",
        b"Exif",
        &good[..9],
        &good[..18],
        &far,
        &text,
        &exif(0, true),
        &exif(9, false),
        &exif(262, true),
    ] {
        let given = given(&with_chunk(&plain, false, &chunk(b"eXIf", broken)));
        assert_eq!((given.orientation, given.pixels.extent, given.notes.len()), (1, THREE, 0), "{broken:?}");
        let photo = jpeg_with(&jpeg(THREE, &data), 0xe1, &[b"Exif\0\0", broken].concat());
        assert_eq!(self::given(&photo).orientation, 1);
    }
}

#[test]
fn what_is_read_is_told_by_content_and_everything_else_by_its_name() {
    let data = rgb(THREE, |x, y| [x as u8, y as u8, 9]);
    for bytes in [jpeg(THREE, &data), webp(THREE, &data, ExtendedColorType::Rgb8, None)] {
        assert_eq!(given(&bytes).pixels.extent, THREE);
    }
    for (bytes, says) in [
        (&b""[..], "is empty"),
        (b"GIF89a\x01\0\x01\0", "is a GIF"),
        (b"II*\0\x08\0\0\0", "is a TIFF"),
        (b"MM\0*\0\0\0\x08", "is a TIFF"),
        (b"BM\x9a\0\0\0", "is a BMP"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "is a HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "is an AVIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "is a HEI"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "is a video"),
        (b"%PDF-1.7\n", "is a PDF"),
        (
            b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<!-- x -->\n<svg xmlns=\"http://www.w3.org/2000/svg\"/>",
            "is an SVG",
        ),
        (b" <svg width=\"1\"/>", "is an SVG"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"8BPS\0\x01", "Photoshop"),
        (b"\xff\x0a\0", "JPEG XL"),
        (b"P6\n1 1\n255\n", "PPM"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"no picture", "is no picture"),
        (b"\xff\xd8\xff\xe0 a photo", "is a damaged JPEG"),
        (b"\x89PNG\r\n\x1a\n", "is a damaged PNG"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\x04CgBI", "Apple"),
        (b"RIFF\x04\0\0\0WEBP", "is a damaged WebP"),
        (b"RIFF\x04\0\0\0WAVE", "is no picture"),
    ] {
        let error = refused(bytes);
        assert!(error.contains(says) && error.contains("; accepted: "), "{says}: {error}");
        assert!(memory(bytes).is_err() || says.contains("damaged"), "{says}");
    }
}

#[test]
fn what_is_cut_short_or_damaged_is_refused() {
    let extent = Extent { width: 64, height: 64 };
    let data = rgb(extent, |x, y| [(x * 4) as u8, (y * 4) as u8, (x * y) as u8]);
    let plain = encode_rgb(64, 64, &data, &[]).unwrap();
    let photo = jpeg(extent, &data);
    let web = webp(extent, &data, ExtendedColorType::Rgb8, None);
    for whole in [plain, photo.clone(), web] {
        given(&whole);
        for part in [whole.len() / 4, whole.len() / 2, whole.len() * 3 / 4] {
            let error = refused(&whole[..part]);
            assert!(error.contains("damaged"), "{error}");
        }
        // Whatever is in it: an answer, and no panic that leaves the decoder.
        for at in (0..whole.len()).step_by(7) {
            let mut broken = whole.clone();
            broken[at] ^= 0x55;
            let _ = Given::decode(&broken);
        }
    }
    let error = refused(&photo[..photo.len() - 2]);
    assert!(error.contains("its end is missing"), "{error}");
}

#[test]
fn jpegs_whose_numbers_mean_something_else_are_refused_with_a_way_out() {
    let photo = jpeg(THREE, &rgb(THREE, |_, _| [200, 30, 30]));
    let at = photo.windows(2).position(|two| two == [0xff, 0xc0]).unwrap();
    let changed = |offset: usize, value: u8| {
        let mut bytes = photo.clone();
        bytes[at + offset] = value;
        bytes
    };
    for (bytes, says) in [
        (changed(1, 0xc9), "rare kind"),
        (changed(1, 0xc3), "rare kind"),
        (changed(4, 12), "12 bits"),
        (changed(9, 4), "CMYK"),
        (changed(9, 2), "2 channels"),
        (jpeg_with(&photo, 0xee, b"Adobe\0\x64\0\0\0\0\0"), "stores RGB"),
    ] {
        let error = refused(&bytes);
        assert!(error.contains(says) && error.contains("`convert in.jpg -auto-orient"), "{says}: {error}");
    }
    let mut named = photo.clone();
    for (offset, name) in [(10, b'R'), (13, b'G'), (16, b'B')] {
        named[at + offset] = name;
    }
    assert!(refused(&named).contains("stores RGB"));
    assert_eq!(given(&jpeg_with(&photo, 0xee, b"Adobe\0\x64\0\0\0\0\x01")).pixels.extent, THREE);
    // A scan weighs little and goes over all pixels.
    let scan = photo.windows(2).position(|two| two == [0xff, 0xda]).unwrap();
    let header = &photo[scan..scan + 14];
    let many = [&photo[..photo.len() - 2], &header.repeat(101), &photo[photo.len() - 2..]].concat();
    assert!(refused(&many).contains("102 scans"), "{}", refused(&many));
}

#[test]
fn sizes_are_refused_from_the_header_alone() {
    let mut vast = png(THREE, ColorType::Grayscale, BitDepth::Eight, &[0; 6]);
    for (width, height) in [(16_385_u32, 1_u32), (1, 20_000), (8193, 8192), (u32::MAX, u32::MAX)] {
        vast[16..20].copy_from_slice(&width.to_be_bytes());
        vast[20..24].copy_from_slice(&height.to_be_bytes());
        let error = refused(&vast);
        assert!(
            error.contains(&format!("has {width}x{height} pixels; accepted: at most 16384 a side")),
            "{error}"
        );
        assert!(memory(&vast).is_err());
    }
    assert_eq!(memory(&png(THREE, ColorType::Grayscale, BitDepth::Eight, &[0; 6])), Ok(72));
    let mut photo = jpeg(THREE, &[9; 18]);
    let at = photo.windows(2).position(|two| two == [0xff, 0xc0]).unwrap();
    photo[at + 5..at + 9].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
    assert!(refused(&photo).contains("has 65535x65535 pixels"), "{}", refused(&photo));
    photo[at + 5..at + 9].copy_from_slice(&[0, 0, 0, 9]);
    assert!(refused(&photo).contains("damaged"));
    // A frame that is bigger than its picture would be decoded before anybody compares.
    let web = webp(THREE, &[9; 18], ExtendedColorType::Rgb8, Some(exif(6, true)));
    let mut big = web.clone();
    let frame = web.windows(4).position(|name| name == b"VP8L").unwrap();
    big[frame + 9..frame + 13].copy_from_slice(&(16_382_u32 | 16_382 << 14).to_le_bytes());
    assert!(refused(&big).contains("frame is bigger"), "{}", refused(&big));
}

/// Text and profiles of a hundred million bytes, packed into a file of a hundred thousand.
#[test]
fn metadata_are_not_unpacked() {
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..100 {
        std::io::Write::write_all(&mut packed, &vec![0; 1 << 20]).unwrap();
    }
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 200_000);
    let plain = encode_rgb(3, 2, &[9; 18], &[]).unwrap();
    for (name, start) in [(b"zTXt", &b"a\0\0"[..]), (b"iTXt", b"a\0\x01\0\0\0"), (b"iCCP", b"a\0\0")] {
        for behind in [false, true] {
            let bytes = with_chunk(&plain, behind, &chunk(name, &[start, &packed].concat()));
            let before = resident();
            assert_eq!(given(&bytes).pixels.data(), [9; 18]);
            let grown = resident().saturating_sub(before);
            assert!(grown < 64 << 20, "{grown} bytes for {name:?}");
        }
    }
}

/// The most memory that this process has had, bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn a_profile_or_gamma_other_than_srgb_is_noted() {
    let plain = encode_rgb(3, 2, &[9; 18], &[]).unwrap();
    let packed = |profile: &[u8]| {
        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, profile).unwrap();
        chunk(b"iCCP", &[b"icc\0\0", &packed.finish().unwrap()[..]].concat())
    };
    let icc = |profile: &[u8]| [b"ICC_PROFILE\0\x01\x01", profile].concat();
    let photo = jpeg(THREE, &[9; 18]);
    for (bytes, noted) in [
        (with_chunk(&plain, false, &packed(b"desc Display P3")), true),
        (with_chunk(&plain, false, &packed(b"desc sRGB IEC61966-2.1")), false),
        (with_chunk(&plain, false, &packed(b"mluc \0s\0R\0G\0B")), false),
        (with_chunk(&plain, false, &chunk(b"gAMA", &100_000_u32.to_be_bytes())), true),
        (with_chunk(&plain, false, &chunk(b"gAMA", &45_455_u32.to_be_bytes())), false),
        (
            with_chunk(
                &with_chunk(&plain, false, &chunk(b"gAMA", &1_u32.to_be_bytes())),
                false,
                &chunk(b"sRGB", &[0]),
            ),
            false,
        ),
        (jpeg_with(&photo, 0xe2, &icc(b"desc Adobe RGB (1998)")), true),
        (jpeg_with(&photo, 0xe2, &icc(b"desc sRGB built-in")), false),
    ] {
        assert_eq!(given(&bytes).notes.iter().any(|note| note.contains("profile or gamma")), noted);
    }
}

#[test]
fn an_animation_gives_its_first_picture_and_says_so() {
    let two = Extent { width: 2, height: 1 };
    let apng = png_with(two, (ColorType::Rgb, BitDepth::Eight), &[9; 6], |_| {});
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
    encoder.set_color(ColorType::Rgb);
    encoder.set_animated(2, 0).unwrap();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[9; 6]).unwrap();
    writer.write_image_data(&[200; 6]).unwrap();
    writer.finish().unwrap();
    let animated = given(&bytes);
    assert_eq!(animated.pixels, given(&apng).pixels);
    assert!(animated.notes[0].contains("animated"), "{:?}", animated.notes);

    // A WebP of two frames: the second would be 200.
    let frame = |value: u8| {
        let one = webp(two, &[value; 6], ExtendedColorType::Rgb8, None);
        let coded = &one[12..];
        let head = [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 50, 0, 0, 2];
        let length = u32::try_from(head.len() + coded.len()).unwrap().to_le_bytes();
        [&b"ANMF"[..], &length, &head, coded].concat()
    };
    let body = [
        &b"WEBPVP8X\x0a\0\0\0\x02\0\0\0\x01\0\0\0\0\0ANIM\x06\0\0\0\0\0\0\0\0\0"[..],
        &frame(9),
        &frame(200),
    ]
    .concat();
    let bytes = [&b"RIFF"[..], &u32::try_from(body.len()).unwrap().to_le_bytes(), &body].concat();
    let animated = given(&bytes);
    assert_eq!(animated.pixels.data(), [9; 6]);
    assert!(animated.notes[0].contains("animated"), "{:?}", animated.notes);
}

#[test]
fn equal_pixels_are_stored_as_equal_bytes_whatever_file_they_came_in() {
    let data = rgb(THREE, |x, y| [x as u8 * 40, y as u8 * 90, 7]);
    let files = [
        encode_rgb(3, 2, &data, &[("a".to_owned(), "text".to_owned())]).unwrap(),
        png(
            THREE,
            ColorType::Rgb,
            BitDepth::Sixteen,
            &data.iter().flat_map(|value| [*value; 2]).collect::<Vec<_>>(),
        ),
        png(
            THREE,
            ColorType::Rgba,
            BitDepth::Eight,
            &data.chunks(3).flat_map(|rgb| [rgb, &[255]].concat()).collect::<Vec<_>>(),
        ),
        webp(THREE, &data, ExtendedColorType::Rgb8, None),
    ];
    let stored = files.map(|file| given(&file).pixels.canonical().unwrap());
    for other in &stored {
        assert_eq!(*other, stored[0]);
    }
    assert_eq!(Pixels::stored(&stored[0]).unwrap(), given(&stored[0]).pixels);
    assert_eq!(given(&stored[0]).pixels.canonical().unwrap(), stored[0], "stored again, it stays");
    // What is quite transparent has no colour.
    let clear =
        |hidden: u8| png(THREE, ColorType::Rgba, BitDepth::Eight, &[hidden, hidden, hidden, 0].repeat(6));
    assert_eq!(given(&clear(9)).pixels.canonical().unwrap(), given(&clear(200)).pixels.canonical().unwrap());
    // An orientation in what is stored says nothing: it was not looked at when older files were sent.
    let turned = with_chunk(&stored[0], false, &chunk(b"eXIf", &exif(6, true)));
    assert_eq!(Pixels::stored(&turned).unwrap().extent, THREE);
}

/// If this fails after an update of a crate, every picture that is sent again is stored under another hash: nothing is
/// wrong, but nothing rendered from them before is used again. Say so in the changelog.
#[test]
fn canonical_bytes_are_what_they_were() {
    let data =
        rgb(Extent { width: 40, height: 30 }, |x, y| [(x * 6) as u8, (y * 8) as u8, (x * y % 251) as u8]);
    let pixels = Pixels::new(Extent { width: 40, height: 30 }, data);
    let digest = |pixels: &Pixels| darkroom_core::digest::Digest::of(&pixels.canonical().unwrap()).short();
    assert_eq!(digest(&pixels), "547aec1de3c9");
}

#[test]
fn a_picture_at_its_own_size_keeps_every_byte_and_a_flat_one_keeps_its_colour() {
    let extent = Extent { width: 8, height: 4 };
    let data: Vec<u8> = (0..=255).cycle().take(3 * 8 * 4).collect();
    let pixels = given(&png(extent, ColorType::Rgb, BitDepth::Eight, &data)).pixels;
    for fit in [None, Some(Fit::Crop), Some(Fit::Pad), Some(Fit::Stretch), Some(Fit::Exact)] {
        let tensor = pixels.for_stage(Use::Picture, extent, fit).unwrap();
        assert_eq!(tensor.shape, [3, 4, 8]);
        assert_eq!(given(&encode(&tensor, &[]).unwrap()).pixels.data(), data);
    }
    let flat = Pixels::new(Extent { width: 64, height: 32 }, [10, 20, 30].repeat(64 * 32));
    for (width, height) in [(16, 8), (128, 64), (16, 16), (100, 7)] {
        for fit in [Fit::Crop, Fit::Stretch] {
            let other = flat.for_stage(Use::Picture, Extent { width, height }, Some(fit)).unwrap();
            let other = given(&encode(&other, &[]).unwrap()).pixels;
            assert_eq!(
                other.data(),
                [10, 20, 30].repeat((width * height) as usize),
                "{width}x{height} {fit}"
            );
        }
    }
}

/// Computed with Pillow 13.0.0, `resize((6, 4), BICUBIC)`, which the reference's pipelines call.
#[test]
fn a_reduced_picture_is_pillows_but_for_a_grey_level() {
    let expected: [i16; 72] = [
        130, 127, 111, 122, 123, 135, 131, 140, 127, 134, 122, 136, 125, 151, 128, 126, 103, 138, 118, 125,
        152, 147, 129, 109, 107, 127, 138, 133, 124, 114, 120, 126, 133, 134, 135, 122, 134, 121, 122, 123,
        130, 137, 142, 132, 115, 119, 129, 145, 147, 127, 109, 104, 131, 139, 118, 153, 130, 128, 105, 131,
        121, 134, 117, 129, 116, 123, 121, 133, 136, 145, 129, 116,
    ];
    let data = (0..3 * 24 * 16).map(|i| ((i * 37 + i / 72 * 11) % 256) as u8).collect();
    let pixels = Pixels::new(Extent { width: 24, height: 16 }, data);
    let small = pixels.for_stage(Use::Picture, Extent { width: 6, height: 4 }, None).unwrap();
    for (index, expected) in expected.into_iter().enumerate() {
        let got = i16::from(to_byte(small.data[index % 3 * 24 + index / 3]));
        assert!((got - expected).abs() <= 1, "value {index}: {got}, expected {expected}");
    }
    // The same with every fit, since the shape is the same; and bit for bit what it was before there was a fit.
    for fit in [Fit::Crop, Fit::Pad, Fit::Stretch, Fit::Exact] {
        let other = pixels.for_stage(Use::Picture, Extent { width: 6, height: 4 }, Some(fit)).unwrap();
        assert_eq!(other, small);
    }
}

#[test]
fn crop_pad_and_stretch_are_applied_to_picture_and_mask_alike() {
    // Left third red, middle green, right blue; the mask is the middle.
    let wide = Extent { width: 96, height: 32 };
    let third = |x: u32, three: [[u8; 3]; 3]| three[x as usize / 32];
    let picture = Pixels::new(wide, rgb(wide, |x, _| third(x, [[255, 0, 0], [0, 255, 0], [0, 0, 255]])));
    let mask = Pixels::new(wide, rgb(wide, |x, _| third(x, [[0; 3], [255; 3], [0; 3]])));
    let square = Extent::square(24);
    let seen = |fit: Fit| {
        let tensor = picture.for_stage(Use::Picture, square, Some(fit)).unwrap();
        let mask = mask.for_stage(Use::Mask, square, Some(fit)).unwrap();
        move |x: usize, y: usize| {
            let at = y * 24 + x;
            ([0, 1, 2].map(|channel| to_byte(tensor.data[channel * 24 * 24 + at])), mask.data[at])
        }
    };
    let crop = seen(Fit::Crop);
    assert_eq!([crop(2, 0), crop(12, 12), crop(21, 23)], [([0, 255, 0], 1.0); 3]);
    let pad = seen(Fit::Pad);
    assert_eq!((pad(12, 7), pad(12, 16)), (([0; 3], 1.0), ([0; 3], 1.0)), "outside: black, painted anew");
    assert_eq!(
        (pad(3, 8), pad(12, 15), pad(20, 12)),
        (([255, 0, 0], 0.0), ([0, 255, 0], 1.0), ([0, 0, 255], 0.0))
    );
    let stretch = seen(Fit::Stretch);
    assert_eq!((stretch(3, 0), stretch(12, 23)), (([255, 0, 0], 0.0), ([0, 255, 0], 1.0)));
}

#[test]
fn no_white_pixel_of_a_mask_is_lost_on_the_way_down() {
    let edge = 64;
    for (x, y) in [(0, 0), (63, 63), (17, 5), (31, 32)] {
        let mut grey = vec![0; edge * edge];
        grey[y * edge + x] = 255;
        let pixels = Pixels::new(Extent::square(64), grey.iter().flat_map(|value| [*value; 3]).collect());
        let mask = |edge: u32| pixels.for_stage(Use::Mask, Extent::square(edge), Some(Fit::Crop)).unwrap();
        for small in [64, 16, 4, 1] {
            let mask = mask(small);
            let small = small as usize;
            let expected = y * small / edge * small + x * small / edge;
            let white: Vec<usize> = (0..small * small).filter(|at| mask.data[*at] == 1.0).collect();
            assert_eq!(white, [expected], "{x},{y} in {small}");
        }
        // A size that does not divide: both pixels that share it; a bigger one: all that stand for it.
        let count = |edge: u32| mask(edge).data.iter().filter(|value| **value == 1.0).count();
        assert!((1..=4).contains(&count(48)));
        assert_eq!(count(128), 4);
    }
}

#[test]
fn a_mask_shows_strokes_of_one_colour_on_black_or_on_nothing() {
    let extent = Extent::square(32);
    let stroke = |x: u32, y: u32| (10..20).contains(&x) && y > 4;
    let on = |paint: [u8; 4], ground: [u8; 4]| {
        let data =
            (0..32 * 32).flat_map(|at| if stroke(at % 32, at / 32) { paint } else { ground }).collect();
        Pixels::new(extent, data)
    };
    let (clear, black, white) = ([0; 4], [0, 0, 0, 255], [255; 4]);
    for (name, pixels) in [
        ("white on black", on(white, black)),
        ("white on clear", on(white, clear)),
        ("red on black", on([255, 0, 0, 255], black)),
        ("red on clear", on([255, 0, 0, 255], clear)),
        ("half red on clear", on([255, 0, 0, 128], clear)),
        ("dark blue on clear", on([0, 0, 140, 255], clear)),
        ("grey on black", on([160, 160, 160, 255], [20, 20, 20, 255])),
        ("white on hidden white", on(white, [255, 255, 255, 0])),
    ] {
        assert_eq!(pixels.check_mask(), Ok(()), "{name}");
        let mask = pixels.for_stage(Use::Mask, extent, None).unwrap();
        for (at, value) in (0..).zip(&mask.data) {
            assert_eq!(*value == 1.0, stroke(at % 32, at / 32), "{name} at {at}");
        }
    }
    let photo = |x: u32, y: u32| [(x * 8) as u8, (y * 8) as u8, ((x + y) * 4) as u8];
    let holed = (0..32 * 32).flat_map(|at| {
        let [r, g, b] = photo(at % 32, at / 32);
        if stroke(at % 32, at / 32) { [0; 4] } else { [r, g, b, 255] }
    });
    let dot = |x: u32, y: u32| if (x, y) == (3, 3) { [255, 0, 0] } else { [255; 3] };
    for (why, pixels) in [
        (NoMask::Black, on(black, black)),
        (NoMask::Black, on([100, 100, 100, 255], black)),
        (NoMask::BlackOnClear, on(black, clear)),
        (NoMask::BlackOnClear, on(clear, clear)),
        (NoMask::ColourOnWhite, on([255, 0, 0, 255], white)),
        (NoMask::ColourOnWhite, Pixels::new(extent, rgb(extent, dot))),
        (NoMask::Colours, Pixels::new(extent, rgb(extent, photo))),
        (NoMask::ColoursOnClear, Pixels::new(extent, holed.collect())),
    ] {
        assert_eq!(pixels.check_mask(), Err(why));
        assert!(why.to_string().contains("; accepted: strokes in white"), "{why}");
    }
    assert_eq!(on(white, white).check_mask(), Ok(()), "all of it");
    // A JPEG's edges.
    for (paint, ground) in [([255; 3], [0; 3]), ([255, 0, 0], [0; 3])] {
        let data = rgb(extent, |x, y| if stroke(x, y) { paint } else { ground });
        let mut bytes = Vec::new();
        let encoder = codecs::jpeg::JpegEncoder::new_with_quality(Cursor::new(&mut bytes), 75);
        encoder.write_image(&data, 32, 32, ExtendedColorType::Rgb8).unwrap();
        let pixels = given(&bytes).pixels;
        assert_eq!(pixels.check_mask(), Ok(()), "{paint:?}");
        let mask = pixels.for_stage(Use::Mask, extent, None).unwrap();
        let inside = (0..).zip(&mask.data).all(|(at, value)| (*value == 1.0) == stroke(at % 32, at / 32));
        assert!(inside, "{paint:?}");
    }
}
