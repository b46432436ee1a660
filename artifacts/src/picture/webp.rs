//! WebP, in its lossless form. Lossy WebP is not offered (docs/adr/0042-output-formats.md).

use darkroom_core::output::Format;
use image_webp::{ColorType, WebPEncoder};

use super::{Error, Raster, exif};

pub(super) fn encode(raster: &Raster, text: &[(String, String)]) -> Result<Vec<u8>, Error> {
    let longest = Format::WebP.max_edge();
    if raster.width.max(raster.height) > longest {
        return Err(Error::Shape(format!(
            "{}×{} pixels; accepted: edges of at most {longest} pixels",
            raster.width, raster.height
        )));
    }
    let mut bytes = Vec::with_capacity(raster.rgb.len() / 2 + 4096);
    let mut encoder = WebPEncoder::new(&mut bytes);
    if !text.is_empty() {
        encoder.set_exif_metadata(exif::write(text)?);
    }
    encoder
        .encode(&raster.rgb, raster.width, raster.height, ColorType::Rgb8)
        .map_err(|error| Error::Codec(Format::WebP, error.to_string()))?;
    Ok(bytes)
}
