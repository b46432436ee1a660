//! The pixels of a picture: in the stored form, and in the form for a stage.

use darkroom_core::{
    extent::Extent,
    fit::{Fit, Placement},
};
use resize::{Pixel, Type};
use rgb::FromSlice as _;

use super::{Error, NoMask, mask};
use crate::tensor::FloatTensor;

/// Rows of RGB triples, or of RGBA if something is transparent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Width and height.
    pub extent: Extent,
    data: Vec<u8>,
}

/// What a picture is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Use {
    /// To start from, `[3, height, width]` in −1…1.
    Picture,
    /// As a mask, `[1, height, width]`: 1 is painted anew, 0 stays.
    Mask,
}

impl Pixels {
    /// From RGB or RGBA. An alpha channel that hides nothing is dropped, and so is the colour of
    /// fully transparent pixels.
    pub(super) fn new(extent: Extent, mut data: Vec<u8>) -> Self {
        let area = (u64::from(extent.width) * u64::from(extent.height)) as usize;
        if data.len() == 4 * area {
            if data.chunks_exact(4).all(|pixel| pixel[3] == u8::MAX) {
                for at in 0..area {
                    data.copy_within(4 * at..4 * at + 3, 3 * at);
                }
                data.truncate(3 * area);
            } else {
                data.chunks_exact_mut(4)
                    .filter(|pixel| pixel[3] == 0)
                    .for_each(|pixel| pixel.fill(0));
            }
        }
        debug_assert!(data.len() == 3 * area || data.len() == 4 * area, "RGB or RGBA");
        Self { extent, data }
    }

    /// Whether anything is transparent.
    #[must_use]
    pub fn has_alpha(&self) -> bool {
        self.data.len() as u64 == 4 * self.extent.area()
    }

    /// Notes for the user about the pixels; each follows the file's name.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let note = "has transparent parts: a picture to start from has white there, and a mask paints nothing there";
        if self.has_alpha() { vec![note.to_owned()] } else { Vec::new() }
    }

    /// Whether it can be a mask.
    ///
    /// # Errors
    /// Why not; the text follows the file's name.
    pub fn check_mask(&self) -> Result<(), NoMask> {
        mask::check(self.pixels())
    }

    /// The form of it that a stage gets.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn for_stage(
        &self,
        wanted: Use,
        extent: Extent,
        fit: Option<Fit>,
    ) -> Result<FloatTensor, Error> {
        let placement = Placement::of(fit, self.extent, extent);
        match wanted {
            Use::Picture => self.picture(extent, placement),
            Use::Mask => Ok(self.mask(extent, placement)),
        }
    }

    /// Bicubic scaling (Catmull-Rom), with wider support when the picture gets smaller, on the
    /// values as they are (not linear light), rounded to 8 bits. Unchanged if the size is the same.
    /// Transparent parts become white.
    fn picture(
        &self,
        extent: Extent,
        Placement { from, to }: Placement,
    ) -> Result<FloatTensor, Error> {
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

    /// A pixel is painted anew if any part of its area is, so that no stage keeps what a later one
    /// paints over. The area outside the picture is painted anew.
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
                    (Some(rows), Some(columns)) => {
                        rows.clone().any(|y| columns.clone().any(|x| white(x, y)))
                    }
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

    pub(super) fn data(&self) -> &[u8] {
        &self.data
    }
}

/// The pixels of `from` (first, count) that pixel `at` of the target overlaps; `None` if that is
/// outside `to`.
fn touched(at: usize, to: (u32, u32), from: (u32, u32)) -> Option<std::ops::Range<usize>> {
    let [(to_first, to), (first, count)] =
        [to, from].map(|(first, count)| (first as usize, count as usize));
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
