//! JPEG: baseline, in one scan, with the standard's Huffman tables. `jpeg-encoder` computes its
//! cosine transform in whole numbers; its variants for some CPUs are left out of the build.

use darkroom_core::output::Format;
use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};

use super::{Error, Raster, exif};

/// From this quality on colour has the full resolution.
const FULL_COLOUR: u8 = 90;

pub(super) fn encode(
    raster: &Raster,
    quality: u8,
    text: &[(String, String)],
) -> Result<Vec<u8>, Error> {
    let wrong = |error: jpeg_encoder::EncodingError| Error::Codec(Format::Jpeg, error.to_string());
    let edge = |pixels: u32| {
        u16::try_from(pixels).map_err(|_| Error::Shape(format!("{pixels} pixels wide or high")))
    };
    let (width, height) = (edge(raster.width)?, edge(raster.height)?);
    let mut bytes = Vec::with_capacity(raster.rgb.len() / 8 + 4096);
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(if quality >= FULL_COLOUR {
        SamplingFactor::F_1_1
    } else {
        SamplingFactor::F_2_2
    });
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    encoder.set_progressive(false);
    // Tables made for the picture would put each channel into a scan of its own. Some readers, ours
    // among them, get such a JPEG wrong where colour has half the resolution.
    encoder.set_optimized_huffman_tables(false);
    if !text.is_empty() {
        encoder.add_exif_metadata(&exif::write(text)?).map_err(wrong)?;
    }
    encoder.encode(&raster.rgb, width, height, ColorType::Rgb).map_err(wrong)?;
    Ok(bytes)
}
