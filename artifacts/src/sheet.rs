//! A sheet: many small pictures in a grid, in one PNG with an alpha channel.
//!
//! Tiles are squares. A picture of another shape lies in the middle of its tile; what no picture
//! covers is transparent.

use crate::picture::{Error, Raster, encode_rgba};

/// A sheet that is being filled.
#[derive(Debug)]
pub struct Sheet {
    tile: u32,
    columns: u32,
    rows: u32,
    rgba: Vec<u8>,
}

impl Sheet {
    /// An empty sheet of `tiles` tiles, `columns` (at least 1) in a row, each `tile` pixels wide
    /// and high. It takes `4 × tile² × columns × rows` bytes.
    #[must_use]
    pub fn new(tile: u32, columns: u32, tiles: u32) -> Self {
        let columns = columns.max(1);
        let rows = tiles.div_ceil(columns);
        let pixels = tile as usize * tile as usize * columns as usize * rows as usize;
        Self { tile, columns, rows, rgba: vec![0; 4 * pixels] }
    }

    /// Rows of tiles.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Puts a picture into a tile; positions count along the rows.
    ///
    /// # Errors
    /// If the sheet has no such tile, or the picture is larger than a tile.
    pub fn place(&mut self, position: u32, picture: &Raster) -> Result<(), Error> {
        let (column, row) = (position % self.columns, position / self.columns);
        if row >= self.rows || picture.edge() > self.tile {
            return Err(Error::Shape(format!(
                "a picture of {}×{} pixels does not go into tile {position} of a sheet of {}×{} \
                 tiles of {} pixels",
                picture.width, picture.height, self.columns, self.rows, self.tile
            )));
        }
        let left = column * self.tile + (self.tile - picture.width) / 2;
        let top = row * self.tile + (self.tile - picture.height) / 2;
        let stride = 4 * self.columns as usize * self.tile as usize;
        let lines = picture.rgb.chunks_exact(3 * picture.width as usize);
        for (line, y) in lines.zip(top as usize..) {
            let start = y * stride + 4 * left as usize;
            let into = &mut self.rgba[start..start + 4 * picture.width as usize];
            for (rgb, rgba) in line.chunks_exact(3).zip(into.chunks_exact_mut(4)) {
                rgba[..3].copy_from_slice(rgb);
                rgba[3] = u8::MAX;
            }
        }
        Ok(())
    }

    /// Writes it as PNG.
    ///
    /// # Errors
    /// If it has no tiles.
    pub fn to_png(&self) -> Result<Vec<u8>, Error> {
        encode_rgba(self.columns * self.tile, self.rows * self.tile, &self.rgba)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Width, height and RGBA of a PNG.
    fn pixels(png: &[u8]) -> (u32, u32, Vec<u8>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut data = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut data).unwrap();
        assert_eq!(frame.color_type, png::ColorType::Rgba);
        (frame.width, frame.height, data)
    }

    #[test]
    fn pictures_lie_in_the_middle_of_their_tiles_and_the_rest_is_transparent() {
        let mut sheet = Sheet::new(4, 3, 5);
        let wide = Raster { width: 4, height: 2, rgb: [1, 2, 3].repeat(8) };
        let full = Raster { width: 4, height: 4, rgb: [9, 8, 7].repeat(16) };
        sheet.place(1, &wide).unwrap();
        sheet.place(4, &full).unwrap();
        let (width, height, data) = pixels(&sheet.to_png().unwrap());
        assert_eq!((width, height, sheet.rows()), (12, 8, 2));
        let at = |x: usize, y: usize| &data[4 * (y * 12 + x)..][..4];
        for y in 0..8 {
            for x in 0..12 {
                let expected: &[u8] = match (x, y) {
                    (4..8, 1 | 2) => &[1, 2, 3, 255],
                    (4..8, 4..8) => &[9, 8, 7, 255],
                    _ => &[0; 4],
                };
                assert_eq!(at(x, y), expected, "{x}, {y}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut sheet = Sheet::new(4, 2, 3);
        let picture =
            |edge: u32| Raster { width: edge, height: 1, rgb: vec![0; 3 * edge as usize] };
        sheet.place(3, &picture(4)).expect("the last row has room for it");
        sheet.place(4, &picture(4)).expect_err("no such tile");
        sheet.place(0, &picture(5)).expect_err("too wide");
    }
}
