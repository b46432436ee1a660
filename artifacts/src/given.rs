//! Pictures and masks that a user gives: read from PNG, checked, and never resized unless that was asked for.
//!
//! [`read_picture`] gives `[3, height, width]` in −1…1, [`read_mask`] `[1, height, width]` in 0…1. Accepted is what loses
//! nothing on the way: RGB, grey or palette with up to 8 bits a channel and no transparency. [`fit`] brings either to a
//! stage's size: by [`Fit::Exact`] it must have that size already; by [`Fit::Crop`] the largest part of the wanted shape
//! in the middle is resized (bicubic, antialiased: the filter of Pillow's `BICUBIC`, which the reference uses).

mod resample;

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

use crate::tensor::FloatTensor;

/// Width and height accepted at most, in pixels.
pub const MOST_PIXELS_AN_EDGE: usize = 8192;

/// Why a given file is refused; each a sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No PNG, or a damaged one.
    #[error("not a readable PNG: {0}")]
    Png(String),
    /// Its pixels cannot be taken without loss.
    #[error("its pixels are {found}; accepted: {accepted}")]
    Mode {
        /// What it holds.
        found: String,
        /// What would do.
        accepted: &'static str,
    },
    /// It does not have the size that is needed.
    #[error(
        "it has {width} x {height} pixels; accepted: exactly {wanted_width} x {wanted_height}, or any size where \
         cropping is asked for"
    )]
    Size {
        /// Its width, pixels.
        width: usize,
        /// Its height, pixels.
        height: usize,
        /// The width needed, pixels.
        wanted_width: usize,
        /// The height needed, pixels.
        wanted_height: usize,
    },
    /// It is too big, or has no pixels.
    #[error("it has {width} x {height} pixels; accepted: 1 to 8192 each")]
    Extent {
        /// Its width, pixels.
        width: usize,
        /// Its height, pixels.
        height: usize,
    },
    /// A tensor that is neither picture nor mask.
    #[error("shape {0:?} with that many values; accepted: [channels, height, width], filled")]
    Shape(Vec<usize>),
}

/// What may be done to a picture that does not have the size needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fit {
    /// Nothing: it is refused.
    #[default]
    Exact,
    /// The largest part with the wanted proportions, in the middle, is taken and resized.
    Crop,
}

/// Reads a picture: `[3, height, width]`, bytes 0…255 as −1…1.
///
/// # Errors
/// If it is no PNG, has more than 8 bits a channel or transparency, or is too big.
pub fn read_picture(png: &[u8]) -> Result<FloatTensor, Error> {
    let Pixels { width, height, bytes } = read(png)?;
    let channels = bytes.len() / (width * height);
    let channel = |index: usize| bytes.iter().skip(index % channels).step_by(channels);
    let data = (0..3).flat_map(|index| channel(index).map(|byte| f32::from(*byte) / 127.5 - 1.0)).collect();
    Ok(FloatTensor { shape: vec![3, height, width], data })
}

/// Reads a mask: `[1, height, width]`, black as 0 (keep) and white as 1 (repaint).
///
/// # Errors
/// As [`read_picture`]; and if it is not grey.
pub fn read_mask(png: &[u8]) -> Result<FloatTensor, Error> {
    let Pixels { width, height, bytes } = read(png)?;
    let channels = bytes.len() / (width * height);
    if bytes.chunks_exact(channels).any(|pixel| pixel.iter().any(|byte| *byte != pixel[0])) {
        let accepted = "grey, from black (keep) to white (repaint)";
        return Err(Error::Mode { found: "coloured".to_owned(), accepted });
    }
    let data = bytes.iter().step_by(channels).map(|byte| f32::from(*byte) / 255.0).collect();
    Ok(FloatTensor { shape: vec![1, height, width], data })
}

/// Brings a picture or mask, `[channels, height, width]`, to a size.
///
/// Resized values stay within the range of the given ones: a bicubic filter overshoots at edges.
///
/// # Errors
/// [`Error::Size`] if it has another size and `fit` is [`Fit::Exact`].
pub fn fit(tensor: &FloatTensor, width: usize, height: usize, fit: Fit) -> Result<FloatTensor, Error> {
    let &[channels, own_height, own_width] = tensor.shape.as_slice() else {
        return Err(Error::Shape(tensor.shape.clone()));
    };
    if channels == 0 || tensor.data.len() != channels * own_height * own_width {
        return Err(Error::Shape(tensor.shape.clone()));
    }
    check_extent(own_width, own_height)?;
    check_extent(width, height)?;
    match fit {
        _ if (own_width, own_height) == (width, height) => Ok(tensor.clone()),
        Fit::Exact => Err(Error::Size {
            width: own_width,
            height: own_height,
            wanted_width: width,
            wanted_height: height,
        }),
        Fit::Crop => {
            let (columns, rows) = resample::middle((own_width, own_height), (width, height));
            let data = tensor
                .data
                .chunks_exact(own_width * own_height)
                .flat_map(|plane| resample::plane(plane, own_width, (&columns, width), (&rows, height)))
                .collect();
            Ok(FloatTensor { shape: vec![channels, height, width], data })
        }
    }
}

/// Rows of 8-bit pixels, one or three channels.
struct Pixels {
    width: usize,
    height: usize,
    bytes: Vec<u8>,
}

fn read(png: &[u8]) -> Result<Pixels, Error> {
    let wrong = |error: png::DecodingError| Error::Png(error.to_string());
    let most = 3 * MOST_PIXELS_AN_EDGE * MOST_PIXELS_AN_EDGE;
    let mut decoder = Decoder::new_with_limits(Cursor::new(png), Limits { bytes: most });
    decoder.set_transformations(Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(wrong)?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    check_extent(width, height)?;
    let (color, depth) = reader.output_color_type();
    let accepted = "RGB, grey or palette with up to 8 bits a channel, without transparency";
    let refuse = |found: &str| Err(Error::Mode { found: found.to_owned(), accepted });
    match (color, depth) {
        (ColorType::Rgb | ColorType::Grayscale, BitDepth::Eight) => {}
        (ColorType::Rgba | ColorType::GrayscaleAlpha, _) => return refuse("with transparency"),
        (_, BitDepth::Sixteen) => return refuse("of 16 bits a channel"),
        other => return refuse(&format!("{other:?}")),
    }
    let size = reader.output_buffer_size().ok_or(Error::Extent { width, height })?;
    let mut bytes = vec![0; size];
    let frame = reader.next_frame(&mut bytes).map_err(wrong)?;
    bytes.truncate(frame.buffer_size());
    reader.finish().map_err(wrong)?;
    Ok(Pixels { width, height, bytes })
}

fn check_extent(width: usize, height: usize) -> Result<(), Error> {
    let accepted = 1..=MOST_PIXELS_AN_EDGE;
    if accepted.contains(&width) && accepted.contains(&height) {
        Ok(())
    } else {
        Err(Error::Extent { width, height })
    }
}

#[cfg(test)]
mod tests {
    use png::Encoder;

    use super::*;

    fn file(size: (u32, u32), color: ColorType, depth: BitDepth, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out, size.0, size.1);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == ColorType::Indexed {
            encoder.set_palette(vec![0, 0, 0, 255, 255, 255, 255, 0, 0]);
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(bytes).unwrap();
        writer.finish().unwrap();
        out
    }

    #[test]
    fn every_mode_without_loss_is_read() {
        let rgb = file((2, 1), ColorType::Rgb, BitDepth::Eight, &[0, 255, 51, 255, 0, 0]);
        let picture = read_picture(&rgb).unwrap();
        assert_eq!(picture.shape, [3, 1, 2]);
        assert_eq!(picture.data, [-1.0, 1.0, 1.0, -1.0, 51.0 / 127.5 - 1.0, -1.0]);
        let grey = file((2, 1), ColorType::Grayscale, BitDepth::Eight, &[0, 255]);
        assert_eq!(read_picture(&grey).unwrap().data, [-1.0, 1.0, -1.0, 1.0, -1.0, 1.0]);
        assert_eq!(read_mask(&grey).unwrap().data, [0.0, 1.0]);
        let bits = file((3, 1), ColorType::Grayscale, BitDepth::One, &[0b0100_0000]);
        assert_eq!(read_mask(&bits).unwrap().data, [0.0, 1.0, 0.0]);
        let palette = file((3, 1), ColorType::Indexed, BitDepth::Eight, &[0, 1, 2]);
        assert_eq!(read_picture(&palette).unwrap().data, [-1.0, 1.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0, -1.0]);
        let written = crate::picture::encode(&picture, &[]).unwrap();
        assert_eq!(read_picture(&written).unwrap(), picture, "our own pictures come back");
    }

    #[test]
    fn what_would_lose_something_is_refused_in_a_sentence() {
        let message = |bytes: &[u8]| read_picture(bytes).unwrap_err().to_string();
        let rgba = file((1, 1), ColorType::Rgba, BitDepth::Eight, &[1, 2, 3, 255]);
        let deep = file((1, 1), ColorType::Grayscale, BitDepth::Sixteen, &[1, 2]);
        let accepted = "accepted: RGB, grey or palette with up to 8 bits a channel, without transparency";
        assert_eq!(message(&rgba), format!("its pixels are with transparency; {accepted}"));
        assert_eq!(message(&deep), format!("its pixels are of 16 bits a channel; {accepted}"));
        assert!(message(b"\xff\xd8\xff\xe0 a JPEG").starts_with("not a readable PNG: "));
        let whole = file((64, 64), ColorType::Grayscale, BitDepth::Eight, &[7; 4096]);
        assert!(message(&whole[..whole.len() - 20]).starts_with("not a readable PNG: "));
        let coloured = file((1, 1), ColorType::Rgb, BitDepth::Eight, &[1, 2, 3]);
        assert_eq!(
            read_mask(&coloured).unwrap_err().to_string(),
            "its pixels are coloured; accepted: grey, from black (keep) to white (repaint)"
        );
        let wide = file((8193, 1), ColorType::Grayscale, BitDepth::One, &[0; 1025]);
        assert_eq!(message(&wide), "it has 8193 x 1 pixels; accepted: 1 to 8192 each");
    }

    #[test]
    fn another_size_is_refused_unless_cropping_is_asked_for() {
        let picture = FloatTensor { shape: vec![3, 4, 6], data: vec![0.25; 72] };
        assert_eq!(fit(&picture, 6, 4, Fit::Exact).unwrap(), picture);
        assert_eq!(
            fit(&picture, 4, 4, Fit::Exact).unwrap_err().to_string(),
            "it has 6 x 4 pixels; accepted: exactly 4 x 4, or any size where cropping is asked for"
        );
        let cropped = fit(&picture, 8, 8, Fit::Crop).unwrap();
        assert_eq!(cropped.shape, [3, 8, 8]);
        assert!(cropped.data.iter().all(|value| (value - 0.25).abs() < 1e-6), "a flat colour stays");
        fit(&picture, 0, 8, Fit::Crop).unwrap_err();
        fit(&FloatTensor { shape: vec![3, 4, 7], ..picture }, 8, 8, Fit::Crop).unwrap_err();
    }

    #[test]
    fn resized_values_stay_within_their_range() {
        let data: Vec<f32> = (0..64).map(|i| if i % 8 < 4 { -1.0 } else { 1.0 }).collect();
        let mask = FloatTensor { shape: vec![1, 8, 8], data };
        for size in [4, 5, 12] {
            let fitted = fit(&mask, size, size, Fit::Crop).unwrap();
            assert!(fitted.data.iter().all(|value| (-1.0..=1.0).contains(value)), "{size}");
        }
    }
}
