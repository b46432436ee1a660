//! Pictures that users send to start from, and masks: what is accepted, and what a stage gets of them.
//!
//! They are kept as they came, byte for byte, so that their hash is the one their user knows. What is lossless is
//! converted when they are read: palettes and grey to RGB, an alpha channel that hides nothing is left out. Colour
//! profiles and gamma are not looked at: numbers are taken for sRGB, as everywhere here.

use std::io::Cursor;

use darkroom_core::extent::Extent;
use png::{BitDepth, ColorType, Decoder, Limits, Transformations};
use resize::{Pixel, Type};
use rgb::FromSlice as _;

use crate::tensor::FloatTensor;

/// Most bytes of a file.
pub const MAX_BYTES: usize = 64 << 20;
/// Most pixels of a picture.
pub const MAX_PIXELS: u64 = 4096 * 4096;
/// Bytes that decoding may take beside the pixels.
const MAX_WORK: usize = 256 << 20;
/// From this brightness on, a mask is white.
const WHITE: u8 = 128;

/// What is wrong with a file, to follow its name: "cat.png" + " " + this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its pixels.
    pub extent: Extent,
    /// Whether it can be a mask: black and white, and not black alone.
    pub is_mask: bool,
}

/// A file's pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// How many.
    pub extent: Extent,
    /// Rows of RGB triples.
    rgb: Vec<u8>,
}

impl Pixels {
    /// Reads a PNG.
    ///
    /// # Errors
    /// One sentence, with what would be accepted.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: MAX_WORK });
        decoder.set_transformations(Transformations::EXPAND);
        let mut reader = decoder.read_info().map_err(|error| no_png(bytes, &error))?;
        let extent = Extent { width: reader.info().width, height: reader.info().height };
        if extent.area() > MAX_PIXELS {
            return Err(Error(format!(
                "has {extent} pixels; accepted: at most {MAX_PIXELS}, as of 4096x4096"
            )));
        }
        let (color, depth) = reader.output_color_type();
        if depth != BitDepth::Eight {
            return Err(Error(
                "has 16 bits a channel; accepted: 8, as `magick in.png -depth 8 out.png` makes".to_owned(),
            ));
        }
        let size = reader.output_buffer_size().ok_or_else(|| Error("is too big to be decoded".to_owned()))?;
        let mut data = vec![0; size];
        let frame = reader.next_frame(&mut data).map_err(|error| no_png(bytes, &error))?;
        data.truncate(frame.buffer_size());
        Ok(Self { extent, rgb: to_rgb(data, color)? })
    }

    /// What the file is.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let grey = self.rgb.chunks_exact(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]);
        Seen { extent: self.extent, is_mask: grey && self.rgb.iter().any(|value| *value >= WHITE) }
    }

    /// The picture at a stage's size, `[3, height, width]` in −1…1: bicubic (Catmull-Rom), its support widened as the
    /// picture gets smaller, rounded to 8 bits; as it is where the size is its own.
    ///
    /// # Errors
    /// If there is not the memory for it.
    pub fn picture(&self, extent: Extent) -> Result<FloatTensor, Error> {
        let (width, height) = edges(extent);
        if extent == self.extent {
            return Ok(planes(&self.rgb, width, height));
        }
        let (from_width, from_height) = edges(self.extent);
        let mut reduced = vec![0; 3 * width * height];
        resize::new(from_width, from_height, width, height, Pixel::RGB8, Type::Catrom)
            .and_then(|mut resizer| resizer.resize(self.rgb.as_rgb(), reduced.as_rgb_mut()))
            .map_err(|error| Error(format!("cannot be reduced to {extent}: {error}")))?;
        Ok(planes(&reduced, width, height))
    }

    /// The mask at a stage's size, `[1, height, width]`: 1 is painted anew, 0 stays. A pixel is painted anew if any part
    /// of what it stands for is, so that no stage keeps what a later one paints over.
    #[must_use]
    pub fn mask(&self, extent: Extent) -> FloatTensor {
        let (width, height) = edges(extent);
        let (from_width, from_height) = edges(self.extent);
        // The pixels that a pixel of the smaller one touches.
        let touched =
            |at: usize, to: usize, from: usize| at * from / to..((at + 1) * from).div_ceil(to).max(1);
        let white =
            |x: usize, y: usize| self.rgb.get(3 * (y * from_width + x)).is_some_and(|value| *value >= WHITE);
        let mut data = Vec::with_capacity(width * height);
        for y in 0..height {
            for x in 0..width {
                let any = touched(y, height, from_height)
                    .any(|y| touched(x, width, from_width).any(|x| white(x, y)));
                data.push(f32::from(u8::from(any)));
            }
        }
        FloatTensor { shape: vec![1, height, width], data }
    }
}

fn edges(extent: Extent) -> (usize, usize) {
    (extent.width as usize, extent.height as usize)
}

fn planes(rgb: &[u8], width: usize, height: usize) -> FloatTensor {
    let channel = |channel: usize| rgb.iter().skip(channel).step_by(3);
    let data = (0..3).flat_map(channel).map(|value| f32::from(*value) / 127.5 - 1.0).collect();
    FloatTensor { shape: vec![3, height, width], data }
}

fn no_png(bytes: &[u8], error: &png::DecodingError) -> Error {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Error(format!("is damaged: {error}; accepted: a whole PNG"));
    }
    Error("is no PNG; accepted: a PNG, as `magick in.jpg out.png` makes".to_owned())
}

fn to_rgb(data: Vec<u8>, color: ColorType) -> Result<Vec<u8>, Error> {
    let opaque =
        |channels: usize| data.iter().skip(channels - 1).step_by(channels).all(|alpha| *alpha == u8::MAX);
    match color {
        ColorType::Rgb => Ok(data),
        ColorType::Grayscale => Ok(data.iter().flat_map(|value| [*value; 3]).collect()),
        ColorType::GrayscaleAlpha if opaque(2) => {
            Ok(data.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect())
        }
        ColorType::Rgba if opaque(4) => {
            Ok(data.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect())
        }
        ColorType::GrayscaleAlpha | ColorType::Rgba => Err(Error(
            "has transparent pixels; accepted: an opaque picture, as \
             `magick in.png -background white -flatten out.png` makes"
                .to_owned(),
        )),
        ColorType::Indexed => {
            Err(Error("has a palette that cannot be read; accepted: 8-bit RGB or grey".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(width: u32, height: u32, color: ColorType, depth: BitDepth, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == ColorType::Indexed {
            encoder.set_palette(vec![255, 0, 0, 0, 0, 255]);
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(data).unwrap();
        writer.finish().unwrap();
        bytes
    }

    fn decoded(color: ColorType, depth: BitDepth, data: &[u8]) -> Result<Vec<u8>, String> {
        Pixels::decode(&png(2, 1, color, depth, data))
            .map(|pixels| pixels.rgb)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_lossless_is_converted_and_the_rest_refused_with_a_way_out() {
        use BitDepth::{Eight, One, Sixteen};
        let rgb = [1, 2, 3, 4, 5, 6];
        assert_eq!(decoded(ColorType::Rgb, Eight, &rgb), Ok(rgb.to_vec()));
        assert_eq!(decoded(ColorType::Rgba, Eight, &[1, 2, 3, 255, 4, 5, 6, 255]), Ok(rgb.to_vec()));
        assert_eq!(decoded(ColorType::Grayscale, Eight, &[7, 9]), Ok(vec![7, 7, 7, 9, 9, 9]));
        assert_eq!(decoded(ColorType::Grayscale, One, &[0b0100_0000]), Ok(vec![0, 0, 0, 255, 255, 255]));
        assert_eq!(decoded(ColorType::Indexed, One, &[0b0100_0000]), Ok(vec![255, 0, 0, 0, 0, 255]));
        let clear = decoded(ColorType::Rgba, Eight, &[1, 2, 3, 254, 4, 5, 6, 255]);
        assert!(clear.is_err_and(|error| error.contains("transparent") && error.contains("-flatten")));
        let deep = decoded(ColorType::Grayscale, Sixteen, &[0; 4]);
        assert!(deep.is_err_and(|error| error.contains("16 bits") && error.contains("-depth 8")));
        let jpeg = Pixels::decode(b"\xff\xd8\xff\xe0 a photo").expect_err("no PNG");
        assert!(jpeg.to_string().contains("is no PNG"), "{jpeg}");
        let whole = png(2, 1, ColorType::Rgb, Eight, &rgb);
        let cut = Pixels::decode(&whole[..whole.len() - 20]).expect_err("cut");
        assert!(cut.to_string().contains("is damaged"), "{cut}");
        let mut vast = png(2, 1, ColorType::Grayscale, One, &[0]);
        // The header's width, and the checksum that goes with it.
        vast[16..20].copy_from_slice(&16_777_217_u32.to_be_bytes());
        let crc = crc(&vast[12..29]);
        vast[29..33].copy_from_slice(&crc.to_be_bytes());
        let vast = Pixels::decode(&vast).expect_err("too big");
        assert!(vast.to_string().contains("16777217x1"), "{vast}");
    }

    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
        })
    }

    #[test]
    fn a_mask_is_black_and_white_and_not_black_alone() {
        let seen =
            |color, data: &[u8]| Pixels::decode(&png(2, 1, color, BitDepth::Eight, data)).unwrap().seen();
        let extent = Extent { width: 2, height: 1 };
        assert_eq!(seen(ColorType::Grayscale, &[0, 255]), Seen { extent, is_mask: true });
        assert_eq!(seen(ColorType::Rgb, &[0, 0, 0, 200, 200, 200]), Seen { extent, is_mask: true });
        assert_eq!(seen(ColorType::Grayscale, &[0, 127]), Seen { extent, is_mask: false });
        assert_eq!(seen(ColorType::Rgb, &[0, 0, 0, 255, 254, 255]), Seen { extent, is_mask: false });
    }

    #[test]
    fn a_picture_at_its_own_size_keeps_every_byte_and_a_flat_one_keeps_its_colour() {
        let data: Vec<u8> = (0..=255).cycle().take(3 * 8 * 4).collect();
        let pixels = Pixels::decode(&png(8, 4, ColorType::Rgb, BitDepth::Eight, &data)).unwrap();
        let tensor = pixels.picture(pixels.extent).unwrap();
        assert_eq!(tensor.shape, [3, 4, 8]);
        let again = Pixels::decode(&crate::picture::encode(&tensor, &[]).unwrap()).unwrap();
        assert_eq!(again.rgb, data);
        let flat = Pixels { extent: Extent { width: 64, height: 32 }, rgb: [10, 20, 30].repeat(64 * 32) };
        let small = flat.picture(Extent { width: 16, height: 8 }).unwrap();
        let small = Pixels::decode(&crate::picture::encode(&small, &[]).unwrap()).unwrap();
        assert_eq!((small.extent, small.rgb), (Extent { width: 16, height: 8 }, [10, 20, 30].repeat(16 * 8)));
    }

    /// Computed with Pillow 13.0.0, `resize((6, 4), BICUBIC)`, which the reference's pipelines call.
    #[test]
    fn a_reduced_picture_is_pillows_but_for_a_grey_level() {
        let expected: [i16; 72] = [
            130, 127, 111, 122, 123, 135, 131, 140, 127, 134, 122, 136, 125, 151, 128, 126, 103, 138, 118,
            125, 152, 147, 129, 109, 107, 127, 138, 133, 124, 114, 120, 126, 133, 134, 135, 122, 134, 121,
            122, 123, 130, 137, 142, 132, 115, 119, 129, 145, 147, 127, 109, 104, 131, 139, 118, 153, 130,
            128, 105, 131, 121, 134, 117, 129, 116, 123, 121, 133, 136, 145, 129, 116,
        ];
        let rgb = (0..3 * 24 * 16).map(|i| ((i * 37 + i / 72 * 11) % 256) as u8).collect();
        let pixels = Pixels { extent: Extent { width: 24, height: 16 }, rgb };
        let small = pixels.picture(Extent { width: 6, height: 4 }).unwrap();
        for (index, expected) in expected.into_iter().enumerate() {
            let got = i16::from(crate::picture::to_byte(small.data[index % 3 * 24 + index / 3]));
            assert!((got - expected).abs() <= 1, "value {index}: {got}, expected {expected}");
        }
    }

    #[test]
    fn no_white_pixel_of_a_mask_is_lost_on_the_way_down() {
        let edge = 64;
        for (x, y) in [(0, 0), (63, 63), (17, 5), (31, 32)] {
            let mut grey = vec![0; edge * edge];
            grey[y * edge + x] = 255;
            let rgb = grey.iter().flat_map(|value| [*value; 3]).collect();
            let pixels = Pixels { extent: Extent::square(64), rgb };
            for small in [64, 16, 4, 1] {
                let mask = pixels.mask(Extent::square(small));
                let small = small as usize;
                let expected = y * small / edge * small + x * small / edge;
                let white: Vec<usize> = (0..small * small).filter(|at| mask.data[*at] == 1.0).collect();
                assert_eq!(white, [expected], "{x},{y} in {small}");
            }
            // A size that does not divide: both pixels that share it.
            assert!((1..=4).contains(
                &pixels.mask(Extent::square(48)).data.iter().filter(|value| **value == 1.0).count()
            ));
        }
    }
}
