use png::{
    Encoder,
    text_metadata::{ITXtChunk, TEXtChunk, ZTXtChunk},
};

use super::*;

const EDGE: u32 = 24;

/// A picture with so few colours that a palette can hold them.
fn pixels() -> Vec<[u8; 3]> {
    (0..EDGE * EDGE)
        .map(|i| [(i % 5) as u8 * 60, (i % 3) as u8 * 100, (i % 4) as u8 * 77])
        .collect()
}

fn greys() -> Vec<[u8; 3]> {
    (0..EDGE * EDGE).map(|i| [(i % 2) as u8 * 255; 3]).collect()
}

fn write(
    color: ColorType,
    depth: BitDepth,
    data: &[u8],
    more: impl Fn(&mut Encoder<'_, &mut Vec<u8>>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, EDGE, EDGE);
    encoder.set_color(color);
    encoder.set_depth(depth);
    more(&mut encoder);
    let mut writer = encoder.write_header().expect("header");
    writer.write_image_data(data).expect("pixels");
    writer.finish().expect("the end");
    bytes
}

fn flat<const N: usize>(pixels: impl IntoIterator<Item = [u8; N]>) -> Vec<u8> {
    pixels.into_iter().flatten().collect()
}

fn palette() -> (Vec<[u8; 3]>, Vec<u8>) {
    let mut colours = pixels();
    colours.sort_unstable();
    colours.dedup();
    let at = |pixel: &[u8; 3]| {
        colours.iter().position(|colour| colour == pixel).expect("a colour") as u8
    };
    let indices = pixels().iter().map(at).collect();
    (colours, indices)
}

#[test]
fn every_lossless_form_of_the_pixels_is_the_same_picture() {
    let none = |_: &mut Encoder<'_, &mut Vec<u8>>| {};
    let (colours, indices) = palette();
    let wide = |pixel: [u8; 3], low: fn(u8) -> u8| pixel.map(|value| [value, low(value)]).concat();
    let repeated: Vec<u8> =
        pixels().into_iter().flat_map(|pixel| wide(pixel, |value| value)).collect();
    let shifted: Vec<u8> = pixels().into_iter().flat_map(|pixel| wide(pixel, |_| 0)).collect();
    let opaque = flat(pixels().into_iter().map(|[r, g, b]| [r, g, b, 255]));
    let wide_opaque: Vec<u8> = opaque.iter().flat_map(|value| [*value; 2]).collect();
    for (form, bytes) in [
        ("RGB", write(ColorType::Rgb, BitDepth::Eight, &flat(pixels()), none)),
        ("16 bits", write(ColorType::Rgb, BitDepth::Sixteen, &repeated, none)),
        ("16 bits, shifted", write(ColorType::Rgb, BitDepth::Sixteen, &shifted, none)),
        ("RGBA", write(ColorType::Rgba, BitDepth::Eight, &opaque, none)),
        ("RGBA of 16 bits", write(ColorType::Rgba, BitDepth::Sixteen, &wide_opaque, none)),
        (
            "palette",
            write(ColorType::Indexed, BitDepth::Eight, &indices, |encoder| {
                encoder.set_palette(colours.concat());
            }),
        ),
        (
            "palette with alpha",
            write(ColorType::Indexed, BitDepth::Eight, &indices, |encoder| {
                encoder.set_palette(colours.concat());
                encoder.set_trns(vec![255; 3]);
            }),
        ),
    ] {
        let picture = decode(&bytes).expect(form);
        assert_eq!((picture.width, picture.height), (EDGE, EDGE), "{form}");
        assert!(picture.rgb == flat(pixels()), "{form}");
    }
    let bits: Vec<u8> = greys()
        .chunks(8)
        .map(|row| row.iter().fold(0, |byte, pixel| byte << 1 | pixel[0] & 1))
        .collect();
    let grey: Vec<u8> = greys().iter().map(|pixel| pixel[0]).collect();
    let with_alpha: Vec<u8> = grey.iter().flat_map(|value| [*value, 255]).collect();
    for (form, bytes) in [
        ("grey", write(ColorType::Grayscale, BitDepth::Eight, &grey, none)),
        ("one bit", write(ColorType::Grayscale, BitDepth::One, &bits, none)),
        ("grey with alpha", write(ColorType::GrayscaleAlpha, BitDepth::Eight, &with_alpha, none)),
    ] {
        assert!(decode(&bytes).expect(form).rgb == flat(greys()), "{form}");
    }
}

#[test]
fn pixels_that_are_not_those_of_eight_bits_are_refused() {
    let none = |_: &mut Encoder<'_, &mut Vec<u8>>| {};
    let clear = flat(pixels().into_iter().map(|[r, g, b]| [r, g, b, 254]));
    let clear =
        decode(&write(ColorType::Rgba, BitDepth::Eight, &clear, none)).expect_err("transparent");
    assert!(clear.to_string().contains("transparent"), "{clear}");
    let fine: Vec<u8> = pixels().concat().iter().flat_map(|value| [*value, 9]).collect();
    let fine = decode(&write(ColorType::Rgb, BitDepth::Sixteen, &fine, none)).expect_err("finer");
    assert!(fine.to_string().contains("16-bit"), "{fine}");
}

/// A picture with text of each kind, before or after its pixels.
fn with_text(behind: bool, text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, EDGE, EDGE);
    encoder.set_color(ColorType::Rgb);
    let mut writer = encoder.write_header().expect("header");
    let pixels = flat(pixels());
    if behind {
        writer.write_image_data(&pixels).expect("pixels");
    }
    let mut compressed = ITXtChunk::new("darkroom.compressed", text);
    compressed.compressed = true;
    writer.write_text_chunk(&ITXtChunk::new("darkroom.itxt", text)).expect("iTXt");
    writer.write_text_chunk(&compressed).expect("iTXt");
    writer.write_text_chunk(&TEXtChunk::new("darkroom.text", text)).expect("tEXt");
    writer.write_text_chunk(&ZTXtChunk::new("darkroom.ztxt", text)).expect("zTXt");
    writer.write_text_chunk(&TEXtChunk::new("Software", "a library")).expect("tEXt");
    if !behind {
        writer.write_image_data(&pixels).expect("pixels");
    }
    writer.finish().expect("the end");
    bytes
}

#[test]
fn text_is_found_in_every_kind_of_chunk_before_and_behind_the_pixels() {
    for behind in [false, true] {
        let picture = decode(&with_text(behind, "großer Kreis\nzwei")).expect("read");
        assert!(picture.rgb == flat(pixels()));
        for kind in ["itxt", "compressed", "text", "ztxt"] {
            assert_eq!(
                picture.text(&format!("darkroom.{kind}")),
                Some("großer Kreis\nzwei"),
                "{kind}"
            );
        }
        assert_eq!(picture.text.len(), 4, "other text is ignored");
    }
}

#[test]
fn utf8_in_chunks_of_latin1_is_read_as_what_it_is() {
    // UTF-8 bytes in a Latin-1 chunk, as ImageMagick writes them.
    let bytes: String = "ein Kreis über 青い四角".bytes().map(char::from).collect();
    let picture = decode(&with_text(false, &bytes)).expect("read");
    for kind in ["text", "ztxt"] {
        assert_eq!(
            picture.text(&format!("darkroom.{kind}")),
            Some("ein Kreis über 青い四角"),
            "{kind}"
        );
    }
}

#[test]
fn text_that_inflates_without_end_is_refused_where_it_is_ours_and_left_alone_elsewhere() {
    let bomb = "a".repeat(64 << 20);
    let with = |keyword: &str, latin1: bool| {
        write(ColorType::Rgb, BitDepth::Eight, &flat(pixels()), |encoder| {
            let keyword = keyword.to_owned();
            if latin1 {
                encoder.add_ztxt_chunk(keyword, bomb.clone()).expect("added");
            } else {
                encoder.add_itxt_chunk(keyword, bomb.clone()).expect("added");
            }
        })
    };
    let error = decode(&with("darkroom.prompt", true)).expect_err("too long");
    assert!(error.to_string().contains("darkroom.prompt"), "{error}");
    assert!(
        decode(&with("parameters", true)).expect("the line for people is left out").text.is_empty()
    );
    assert!(decode(&with("Comment", true)).expect("not ours").text.is_empty());
    // Without compression it would need the memory that it claims.
    decode(&with("Comment", false)).expect_err("larger than what is read");
}

#[test]
fn a_file_that_claims_more_pixels_than_it_could_hold_takes_no_memory() {
    let mut bytes = write(ColorType::Rgb, BitDepth::Eight, &flat(pixels()), |_| {});
    bytes[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    let check = crc32(&bytes[12..29]).to_be_bytes();
    bytes[29..33].copy_from_slice(&check);
    let error = decode(&bytes).expect_err("too many pixels");
    assert!(error.to_string().contains("65535×65535"), "{error}");
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn pictures_that_image_libraries_saved_again_keep_their_recipe() {
    use darkroom_core::picture_text::Recipe;
    for bytes in [
        &include_bytes!("../cases/pillow-tEXt.png")[..],
        include_bytes!("../cases/lossless-palette.png"),
    ] {
        let picture = decode(bytes).expect("a picture");
        let pairs = picture.text.iter().map(|(keyword, text)| (keyword.as_str(), text.as_str()));
        let recipe = Recipe::from_pairs(pairs).expect("a recipe");
        assert_eq!((recipe.prompt.as_str(), recipe.cascade.as_str()), ("a red circle", "demo"));
        assert_eq!((picture.width, picture.height, picture.rgb.len()), (64, 64, 3 * 64 * 64));
    }
}
