//! What a file's pixels become: canonical bytes, other sizes and shapes, masks.

use darkroom_core::fit::Fit;

use super::*;
use crate::picture::encode;

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
    assert_eq!(
        given(&stored[0]).pixels.canonical().unwrap(),
        stored[0],
        "storing it again changes nothing"
    );
    // Fully transparent pixels have no colour.
    let clear = |hidden: u8| {
        png(THREE, ColorType::Rgba, BitDepth::Eight, &[hidden, hidden, hidden, 0].repeat(6))
    };
    assert_eq!(
        given(&clear(9)).pixels.canonical().unwrap(),
        given(&clear(200)).pixels.canonical().unwrap()
    );
    // An orientation in a stored picture is ignored: it was not applied when older files were sent.
    let turned = with_chunk(&stored[0], false, &chunk(b"eXIf", &exif(6, true)));
    assert_eq!(Pixels::stored(&turned).unwrap().extent, THREE);
}

/// If this fails after an update of a crate, every picture that is sent again gets another hash.
/// Nothing is wrong then, but results rendered from the old picture are not reused. Say so in the
/// changelog.
#[test]
fn canonical_bytes_are_what_they_were() {
    let data = rgb(Extent { width: 40, height: 30 }, |x, y| {
        [(x * 6) as u8, (y * 8) as u8, (x * y % 251) as u8]
    });
    let pixels = Pixels::new(Extent { width: 40, height: 30 }, data);
    let digest =
        |pixels: &Pixels| darkroom_core::digest::Digest::of(&pixels.canonical().unwrap()).short();
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
        130, 127, 111, 122, 123, 135, 131, 140, 127, 134, 122, 136, 125, 151, 128, 126, 103, 138,
        118, 125, 152, 147, 129, 109, 107, 127, 138, 133, 124, 114, 120, 126, 133, 134, 135, 122,
        134, 121, 122, 123, 130, 137, 142, 132, 115, 119, 129, 145, 147, 127, 109, 104, 131, 139,
        118, 153, 130, 128, 105, 131, 121, 134, 117, 129, 116, 123, 121, 133, 136, 145, 129, 116,
    ];
    let data = (0..3 * 24 * 16).map(|i| ((i * 37 + i / 72 * 11) % 256) as u8).collect();
    let pixels = Pixels::new(Extent { width: 24, height: 16 }, data);
    let small = pixels.for_stage(Use::Picture, Extent { width: 6, height: 4 }, None).unwrap();
    for (index, expected) in expected.into_iter().enumerate() {
        let got = i16::from(to_byte(small.data[index % 3 * 24 + index / 3]));
        assert!((got - expected).abs() <= 1, "value {index}: {got}, expected {expected}");
    }
    // All fits give the same, because the shape is the same, and the bits are those from before
    // fits existed.
    for fit in [Fit::Crop, Fit::Pad, Fit::Stretch, Fit::Exact] {
        let other =
            pixels.for_stage(Use::Picture, Extent { width: 6, height: 4 }, Some(fit)).unwrap();
        assert_eq!(other, small);
    }
}

#[test]
fn crop_pad_and_stretch_are_applied_to_picture_and_mask_alike() {
    // Left third red, middle third green, right third blue; the mask covers the middle.
    let wide = Extent { width: 96, height: 32 };
    let third = |x: u32, three: [[u8; 3]; 3]| three[x as usize / 32];
    let picture =
        Pixels::new(wide, rgb(wide, |x, _| third(x, [[255, 0, 0], [0, 255, 0], [0, 0, 255]])));
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
    assert_eq!(
        (pad(12, 7), pad(12, 16)),
        (([0; 3], 1.0), ([0; 3], 1.0)),
        "outside: black, painted anew"
    );
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
        let pixels =
            Pixels::new(Extent::square(64), grey.iter().flat_map(|value| [*value; 3]).collect());
        let mask =
            |edge: u32| pixels.for_stage(Use::Mask, Extent::square(edge), Some(Fit::Crop)).unwrap();
        for small in [64, 16, 4, 1] {
            let mask = mask(small);
            let small = small as usize;
            let expected = y * small / edge * small + x * small / edge;
            let white: Vec<usize> = (0..small * small).filter(|at| mask.data[*at] == 1.0).collect();
            assert_eq!(white, [expected], "{x},{y} in {small}");
        }
        // The painted pixel may overlap several pixels at a size that does not divide the mask's,
        // and covers all four of its pixels at twice the size.
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
        let data = (0..32 * 32)
            .flat_map(|at| if stroke(at % 32, at / 32) { paint } else { ground })
            .collect();
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
        let inside =
            (0..).zip(&mask.data).all(|(at, value)| (*value == 1.0) == stroke(at % 32, at / 32));
        assert!(inside, "{paint:?}");
    }
}
