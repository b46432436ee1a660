//! A picture as bytes: what every file format gets of it.

use super::Error;
use crate::tensor::FloatTensor;

/// 8-bit RGB pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raster {
    /// Width, pixels.
    pub width: u32,
    /// Height, pixels.
    pub height: u32,
    /// Rows of RGB triples.
    pub rgb: Vec<u8>,
}

impl Raster {
    /// The pixels of a stage's output, `[3, height, width]` in −1…1.
    ///
    /// # Errors
    /// If the tensor has another shape, or holds values that are not finite.
    pub fn of(tensor: &FloatTensor) -> Result<Self, Error> {
        let &[3, height, width] = tensor.shape.as_slice() else {
            return Err(Error::Shape(format!(
                "shape {:?}; accepted: [3, height, width]",
                tensor.shape
            )));
        };
        if tensor.data.len() != 3 * height * width || tensor.data.is_empty() {
            return Err(Error::Shape(format!(
                "shape {:?} with {} values",
                tensor.shape,
                tensor.data.len()
            )));
        }
        if !tensor.data.iter().all(|value| value.is_finite()) {
            return Err(Error::NonFinite);
        }
        let (red, rest) = tensor.data.split_at(height * width);
        let (green, blue) = rest.split_at(height * width);
        let rgb: Vec<u8> = red
            .iter()
            .zip(green)
            .zip(blue)
            .flat_map(|((r, g), b)| [to_byte(*r), to_byte(*g), to_byte(*b)])
            .collect();
        let edge =
            |edge: usize| u32::try_from(edge).map_err(|_| Error::Shape(format!("{edge} pixels")));
        Ok(Self { width: edge(width)?, height: edge(height)?, rgb })
    }
}

/// One channel value as a byte: (x + 1) · 127.5, rounded half away from zero, −1…1 to 0…255; beyond
/// is clamped.
#[must_use]
pub fn to_byte(value: f32) -> u8 {
    // The cast saturates; adding a half and cutting off is rounding half up, the same for values
    // that are not negative.
    ((value + 1.0).mul_add(127.5, 0.5)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_as_stated() {
        for (value, byte) in [
            (-1.0, 0),
            (1.0, 255),
            (0.0, 128),
            (-9.0, 0),
            (9.0, 255),
            (-1.0 + 0.5 / 127.5, 1),
            (-0.997, 0),
        ] {
            assert_eq!(to_byte(value), byte, "{value}");
        }
        for byte in 0..=255u8 {
            assert_eq!(
                to_byte(f32::from(byte) / 127.5 - 1.0),
                byte,
                "a byte survives the way to floats and back"
            );
        }
    }
}
