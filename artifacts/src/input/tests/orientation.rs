//! Pictures that EXIF says to turn.

use super::*;

/// A picture whose corners have different colours, big enough for a JPEG's blocks, and its view
/// turned as orientation `n` says: pixel (x, y) of the result is pixel `source(x, y)` of the stored
/// picture.
fn source(n: u16, stored: Extent, x: u32, y: u32) -> (u32, u32) {
    let (right, bottom) = (stored.width - 1, stored.height - 1);
    // EXIF 2.32, tag 0x0112: which sides of the picture are the first stored row and column.
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
                let off =
                    expected.iter().zip(given.pixels.data()).map(|(a, b)| a.abs_diff(*b)).max();
                assert!(off.is_some_and(|off| off <= near), "{n}: off by {off:?}");
                let says =
                    given.notes.iter().any(|note| note.contains(&format!("EXIF orientation {n} ")));
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
        assert_eq!(
            (given.orientation, given.pixels.extent, given.notes.len()),
            (1, THREE, 0),
            "{broken:?}"
        );
        let photo = jpeg_with(&jpeg(THREE, &data), 0xe1, &[b"Exif\0\0", broken].concat());
        assert_eq!(self::given(&photo).orientation, 1);
    }
}
