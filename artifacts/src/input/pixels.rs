//! The pixels of a picture: what is stored of them, and what a stage gets.

use darkroom_core::{
    extent::Extent,
    fit::{Fit, Placement},
};
use resize::{Pixel, Type};
use rgb::FromSlice as _;

use super::{Error, NoMask, kind::Kind, mask, png_file};
use crate::{picture, tensor::FloatTensor};

/// Rows of RGB triples, or of RGBA where something is transparent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// How many.
    pub extent: Extent,
    data: Vec<u8>,
}

/// What a picture is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// To start from, `[3, height, width]` in −1…1.
    Picture,
    /// As a mask, `[1, height, width]`: 1 is painted anew, 0 stays.
    Mask,
}

impl Pixels {
    /// Of RGB or RGBA; alpha that hides nothing is dropped, and so is the colour of what is quite transparent.
    pub(super) fn new(extent: Extent, mut data: Vec<u8>) -> Self {
        let area = (u64::from(extent.width) * u64::from(extent.height)) as usize;
        if data.len() == 4 * area {
            if data.chunks_exact(4).all(|pixel| pixel[3] == u8::MAX) {
                for at in 0..area {
                    data.copy_within(4 * at..4 * at + 3, 3 * at);
                }
                data.truncate(3 * area);
            } else {
                data.chunks_exact_mut(4).filter(|pixel| pixel[3] == 0).for_each(|pixel| pixel.fill(0));
            }
        }
        debug_assert!(data.len() == 3 * area || data.len() == 4 * area, "RGB or RGBA");
        Self { extent, data }
    }

    /// Reads what is stored: a canonical PNG, or one as it was sent in times before there were such. Which way up it is
    /// its metadata do not say.
    ///
    /// # Errors
    /// One sentence, if it is damaged or something else.
    pub fn stored(bytes: &[u8]) -> Result<Self, Error> {
        if Kind::Png != super::header(bytes)?.0 {
            return Err(Error("is not stored as a PNG".to_owned()));
        }
        png_file::decode(bytes).map(|decoded| decoded.pixels)
    }

    /// The canonical PNG: equal pixels, equal bytes, whatever file they came in.
    ///
    /// # Errors
    /// If there is not the memory for it.
    pub fn canonical(&self) -> Result<Vec<u8>, Error> {
        let Extent { width, height } = self.extent;
        let encoded = if self.has_alpha() {
            picture::encode_rgba(width, height, &self.data)
        } else {
            picture::encode_rgb(width, height, &self.data, &[])
        };
        encoded.map_err(|error| Error(format!("cannot be stored: {error}")))
    }

    /// Whether anything is transparent.
    #[must_use]
    pub fn has_alpha(&self) -> bool {
        self.data.len() as u64 == 4 * self.extent.area()
    }

    /// What its user should know of the pixels themselves, each to follow its name.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let note =
            "has transparent parts: a picture to start from has white there, and a mask paints nothing there";
        if self.has_alpha() { vec![note.to_owned()] } else { Vec::new() }
    }

    /// Whether it can be a mask.
    ///
    /// # Errors
    /// Why not, to follow its name.
    pub fn check_mask(&self) -> Result<(), NoMask> {
        mask::check(self.pixels())
    }

    /// What a stage gets of it.
    ///
    /// # Errors
    /// If there is not the memory for it.
    pub fn for_stage(&self, wanted: Use, extent: Extent, fit: Option<Fit>) -> Result<FloatTensor, Error> {
        let placement = Placement::of(fit, self.extent, extent);
        match wanted {
            Use::Picture => self.picture(extent, placement),
            Use::Mask => Ok(self.mask(extent, placement)),
        }
    }

    /// Bicubic (Catmull-Rom), its support widened as the picture gets smaller, on the numbers as they are (not linear light),
    /// rounded to 8 bits; as it is where the size is its own. Transparent parts lie on white.
    fn picture(&self, extent: Extent, Placement { from, to }: Placement) -> Result<FloatTensor, Error> {
        let (width, height) = edges(extent);
        let flat;
        let rgb = if self.has_alpha() {
            flat = self.pixels().flat_map(on_white).collect();
            &flat
        } else {
            &self.data
        };
        if from == to && extent == self.extent {
            return Ok(planes(rgb, width, height));
        }
        let (stride, _) = edges(self.extent);
        let (lies_in, lies_in_rows) = (to.width as usize, to.height as usize);
        let mut fitted = vec![0; 3 * lies_in * lies_in_rows];
        let source = &rgb[3 * (from.y as usize * stride + from.x as usize)..];
        resize::new(
            from.width as usize,
            from.height as usize,
            lies_in,
            lies_in_rows,
            Pixel::RGB8,
            Type::Catrom,
        )
        .and_then(|mut resizer| resizer.resize_stride(source.as_rgb(), stride, fitted.as_rgb_mut()))
        .map_err(|error| Error(format!("cannot be scaled to {extent}: {error}")))?;
        if (lies_in, lies_in_rows) == (width, height) {
            return Ok(planes(&fitted, width, height));
        }
        // The rest is black.
        let mut padded = vec![0; 3 * width * height];
        for (row, line) in fitted.chunks_exact(3 * lies_in).enumerate() {
            let at = 3 * ((to.y as usize + row) * width + to.x as usize);
            padded[at..at + line.len()].copy_from_slice(line);
        }
        Ok(planes(&padded, width, height))
    }

    /// A pixel is painted anew if any part of what it stands for is, so that no stage keeps what a later one paints over.
    /// What the picture does not fill is painted anew.
    fn mask(&self, extent: Extent, Placement { from, to }: Placement) -> FloatTensor {
        let (width, height) = edges(extent);
        let (stride, channels) = (self.extent.width as usize, if self.has_alpha() { 4 } else { 3 });
        let white = |x: usize, y: usize| {
            let at = channels * (y * stride + x);
            self.data.get(at..at + channels).is_some_and(mask::is_painted)
        };
        let columns: Vec<_> =
            (0..width).map(|x| touched(x, (to.x, to.width), (from.x, from.width))).collect();
        let mut data = Vec::with_capacity(width * height);
        for y in 0..height {
            let rows = touched(y, (to.y, to.height), (from.y, from.height));
            for columns in &columns {
                let anew = match (&rows, columns) {
                    (Some(rows), Some(columns)) => rows.clone().any(|y| columns.clone().any(|x| white(x, y))),
                    _ => true,
                };
                data.push(f32::from(u8::from(anew)));
            }
        }
        FloatTensor { shape: vec![1, height, width], data }
    }

    fn pixels(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.data.chunks_exact(if self.has_alpha() { 4 } else { 3 })
    }

    pub(super) fn into_data(self) -> Vec<u8> {
        self.data
    }

    #[cfg(test)]
    pub(super) fn data(&self) -> &[u8] {
        &self.data
    }
}

/// The pixels of `from` (first, count) that pixel `at` of the target touches; `None` where that lies outside of `to`.
fn touched(at: usize, to: (u32, u32), from: (u32, u32)) -> Option<std::ops::Range<usize>> {
    let [(to_first, to), (first, count)] = [to, from].map(|(first, count)| (first as usize, count as usize));
    let at = at.checked_sub(to_first).filter(|at| *at < to)?;
    Some(first + at * count / to..first + ((at + 1) * count).div_ceil(to))
}

fn on_white(pixel: &[u8]) -> [u8; 3] {
    let alpha = u32::from(pixel[3]);
    let blend = |value: u8| {
        let sum = u32::from(value) * alpha + 255 * (255 - alpha);
        u8::try_from((sum + 127) / 255).unwrap_or(u8::MAX)
    };
    [blend(pixel[0]), blend(pixel[1]), blend(pixel[2])]
}

fn edges(extent: Extent) -> (usize, usize) {
    (extent.width as usize, extent.height as usize)
}

fn planes(rgb: &[u8], width: usize, height: usize) -> FloatTensor {
    let channel = |channel: usize| rgb.iter().skip(channel).step_by(3);
    let data = (0..3).flat_map(channel).map(|value| f32::from(*value) / 127.5 - 1.0).collect();
    FloatTensor { shape: vec![3, height, width], data }
}
