//! Which files are read, and with what result. The tests of their pixels are in `made`.

mod made;
mod orientation;

use std::io::Cursor;

use image::{ExtendedColorType, ImageEncoder as _, codecs};
use png::{BitDepth, ColorType};

use super::*;
use crate::{
    picture::{encode_rgb, to_byte},
    test_pictures::{THREE, chunk, exif, jpeg, jpeg_with, png, png_with, rgb, webp, with_chunk},
};

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
        (
            Rgb,
            Sixteen,
            &[0, 128, 0, 129, 1, 0, 255, 127, 255, 128, 0, 0],
            [[0, 1, 1], [255, 255, 0]],
        ),
        (GrayscaleAlpha, Eight, &[7, 255, 9, 255], [[7; 3], [9; 3]]),
        (GrayscaleAlpha, Sixteen, &[7, 7, 255, 255, 9, 9, 255, 255], [[7; 3], [9; 3]]),
        (Rgba, Eight, &[1, 2, 3, 255, 4, 5, 6, 255], [[1, 2, 3], [4, 5, 6]]),
        (
            Rgba,
            Sixteen,
            &[1, 1, 2, 2, 3, 3, 255, 255, 4, 4, 5, 5, 6, 6, 255, 255],
            [[1, 2, 3], [4, 5, 6]],
        ),
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
    let clear_palette =
        png_with(two, (ColorType::Indexed, Eight), &[0, 1], |png| png.set_trns(vec![0, 255]));
    let clear_grey =
        png_with(two, (ColorType::Grayscale, Eight), &[7, 9], |png| png.set_trns(vec![0, 7]));
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
    // Adam7 of 3x2: passes of 1, 0, 0 (3 columns are too few), 1, 1 … as in the specification.
    let data = rgb(THREE, |x, y| [x as u8, y as u8, 9]);
    let at = |x: usize, y: usize| &data[3 * (3 * y + x)..][..3];
    let passes: [&[(usize, usize)]; 4] =
        [&[(0, 0)], &[(2, 0)], &[(1, 0)], &[(0, 1), (1, 1), (2, 1)]];
    let rows: Vec<u8> = passes
        .iter()
        .flat_map(|pass| {
            [&[0][..], &pass.iter().flat_map(|(x, y)| at(*x, *y).to_vec()).collect::<Vec<_>>()]
                .concat()
        })
        .collect();
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &rows).unwrap();
    let header = [0, 0, 0, 3, 0, 0, 0, 2, 8, 2, 0, 0, 1];
    let chunks =
        [chunk(b"IHDR", &header), chunk(b"IDAT", &packed.finish().unwrap()), chunk(b"IEND", &[])]
            .concat();
    let interlaced = [&b"\x89PNG\r\n\x1a\n"[..], &chunks].concat();
    assert_eq!(given(&interlaced).pixels.data(), data);
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
        // Whatever the content is, there is an answer and no panic.
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
fn a_jpeg_whose_channels_come_one_after_the_other_is_refused_where_it_would_be_read_wrongly() {
    use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
    let extent = Extent { width: 48, height: 32 };
    let data = rgb(extent, |x, y| [(x * 5) as u8, (y * 7) as u8, 128]);
    let made = |sampling: SamplingFactor, own_tables: bool| {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 95);
        encoder.set_sampling_factor(sampling);
        // Tables of its own make a scan for each channel.
        encoder.set_optimized_huffman_tables(own_tables);
        encoder.encode(&data, 48, 32, ColorType::Rgb).expect("a JPEG");
        bytes
    };
    let error = refused(&made(SamplingFactor::F_2_2, true));
    assert!(error.contains("one after the other") && error.contains("convert"), "{error}");
    for (sampling, own_tables) in [
        (SamplingFactor::F_2_2, false),
        (SamplingFactor::F_1_1, true),
        (SamplingFactor::F_1_1, false),
    ] {
        let read = given(&made(sampling, own_tables)).pixels;
        let off = read.data().iter().zip(&data).map(|(one, other)| one.abs_diff(*other)).max();
        assert!(off < Some(40), "{sampling:?} {own_tables}: {off:?}");
    }
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
        assert!(
            error.contains(says) && error.contains("`convert in.jpg -auto-orient"),
            "{says}: {error}"
        );
    }
    let mut named = photo.clone();
    for (offset, name) in [(10, b'R'), (13, b'G'), (16, b'B')] {
        named[at + offset] = name;
    }
    assert!(refused(&named).contains("stores RGB"));
    assert_eq!(given(&jpeg_with(&photo, 0xee, b"Adobe\0\x64\0\0\0\0\x01")).pixels.extent, THREE);
    // A scan is small but goes over all pixels.
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
    // Without this check, a frame larger than its picture would be decoded first.
    let web = webp(THREE, &[9; 18], ExtendedColorType::Rgb8, Some(exif(6, true)));
    let mut big = web.clone();
    let frame = web.windows(4).position(|name| name == b"VP8L").unwrap();
    big[frame + 9..frame + 13].copy_from_slice(&(16_382_u32 | 16_382 << 14).to_le_bytes());
    assert!(refused(&big).contains("frame is bigger"), "{}", refused(&big));
}

/// Text and profiles of a hundred million bytes, compressed into a file of a hundred thousand.
#[test]
fn metadata_are_not_unpacked() {
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..100 {
        std::io::Write::write_all(&mut packed, &vec![0; 1 << 20]).unwrap();
    }
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 200_000);
    let plain = encode_rgb(3, 2, &[9; 18], &[]).unwrap();
    for (name, start) in
        [(b"zTXt", &b"a\0\0"[..]), (b"iTXt", b"a\0\x01\0\0\0"), (b"iCCP", b"a\0\0")]
    {
        for behind in [false, true] {
            let bytes = with_chunk(&plain, behind, &chunk(name, &[start, &packed].concat()));
            let before = resident();
            assert_eq!(given(&bytes).pixels.data(), [9; 18]);
            let grown = resident().saturating_sub(before);
            assert!(grown < 64 << 20, "{grown} bytes for {name:?}");
        }
    }
}

/// Highest memory use of this process so far, bytes.
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
