//! Scaling a picture, for previews and thumbnails.

use resize::{Pixel, Type};
use rgb::FromSlice as _;

use super::{Error, Picture, Raster, encode_rgb};

impl Raster {
    /// The longer edge, pixels.
    #[must_use]
    pub fn edge(&self) -> u32 {
        self.width.max(self.height)
    }

    /// The picture with a longer edge of `edge` pixels (at least 1), larger or smaller than it was:
    /// bicubic (Catmull-Rom), its support widened as the picture gets smaller, on the numbers as
    /// they are. The proportions stay as far as whole pixels allow.
    ///
    /// # Errors
    /// If there is not the memory for it.
    pub fn scaled(self, edge: u32) -> Result<Self, Error> {
        let (longer, edge) = (self.edge(), edge.max(1));
        if longer == edge {
            return Ok(self);
        }
        let side = |side: u32| {
            let rounded = (u64::from(side) * u64::from(edge) * 2 + u64::from(longer))
                / (2 * u64::from(longer).max(1));
            u32::try_from(rounded).unwrap_or(edge).clamp(1, edge)
        };
        let (width, height) = (side(self.width), side(self.height));
        let mut rgb = vec![0; 3 * width as usize * height as usize];
        resize::new(
            self.width as usize,
            self.height as usize,
            width as usize,
            height as usize,
            Pixel::RGB8,
            Type::Catrom,
        )
        .and_then(|mut resizer| resizer.resize(self.rgb.as_rgb(), rgb.as_rgb_mut()))
        .map_err(|error| Error::Shape(format!("it cannot be scaled to {edge} pixels: {error}")))?;
        Ok(Self { width, height, rgb })
    }

    /// As [`scaled`](Self::scaled), but never larger than it was.
    ///
    /// # Errors
    /// If there is not the memory for it.
    pub fn within(self, edge: u32) -> Result<Self, Error> {
        if self.edge() <= edge { Ok(self) } else { self.scaled(edge) }
    }

    /// Writes it as PNG, without text.
    ///
    /// # Errors
    /// If the bytes do not fill the picture.
    pub fn to_png(&self) -> Result<Vec<u8>, Error> {
        encode_rgb(self.width, self.height, &self.rgb, &[])
    }
}

impl From<Picture> for Raster {
    fn from(picture: Picture) -> Self {
        Self { width: picture.width, height: picture.height, rgb: picture.rgb }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::{decode, encode};
    use crate::tensor::FloatTensor;

    fn gradient(width: usize, height: usize) -> FloatTensor {
        let value = |i: usize| (i % 997) as f32 / 450.0 - 1.1;
        FloatTensor {
            shape: vec![3, height, width],
            data: (0..3 * width * height).map(value).collect(),
        }
    }

    #[test]
    fn a_preview_has_the_pixels_that_a_final_picture_of_the_tensor_would_have() {
        let tensor = gradient(40, 24);
        let preview = Raster::of(&tensor).unwrap();
        let picture = decode(&encode(&tensor, &[]).unwrap()).unwrap();
        assert_eq!((preview.width, preview.height), (40, 24));
        assert_eq!(preview, Raster::from(picture));
        assert_eq!(Raster::from(decode(&preview.to_png().unwrap()).unwrap()), preview);
    }

    #[test]
    fn a_picture_is_scaled_to_its_longer_edge_and_keeps_its_shape() {
        let picture = Raster::of(&gradient(96, 48)).unwrap();
        for (edge, width, height) in [(64, 64, 32), (192, 192, 96), (1, 1, 1), (96, 96, 48)] {
            let scaled = picture.clone().scaled(edge).unwrap();
            assert_eq!((scaled.width, scaled.height), (width, height));
            assert_eq!(scaled.rgb.len(), 3 * width as usize * height as usize);
        }
        let tall = Raster::of(&gradient(16, 1024)).unwrap();
        let scaled = tall.within(32).unwrap();
        assert_eq!((scaled.width, scaled.height), (1, 32), "no side is lost");
        assert_eq!(picture.clone().within(500).unwrap(), picture, "it is not made larger");
    }

    #[test]
    fn one_colour_stays_one_colour_when_it_is_scaled() {
        let data = [10, 200, 77].repeat(64 * 64);
        let picture = Raster { width: 64, height: 64, rgb: data };
        let scaled = picture.scaled(20).unwrap();
        assert_eq!(scaled.rgb, [10, 200, 77].repeat(20 * 20));
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let nan = FloatTensor { shape: vec![3, 1, 1], data: vec![0.0, f32::NAN, 0.0] };
        assert!(matches!(Raster::of(&nan), Err(Error::NonFinite)));
        for shape in [vec![1, 2, 2], vec![3, 2], vec![3, 0, 4], vec![3, 9, 9]] {
            let tensor = FloatTensor { shape, data: vec![0.0; 4] };
            assert!(matches!(Raster::of(&tensor), Err(Error::Shape(_))));
        }
    }
}
