//! 3 × 3 convolutions with many channels, by Winograd's F(2 × 2, 3 × 3): 16 products instead of 36.
//!
//! A tile is two by two outputs, from four by four inputs d and a window g: Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d
//! B)]A, where ⊙ at each of the 16 points is a product of matrices, tiles × channels by channels ×
//! outputs. Both transforms compute in f32; the inputs of the products are rounded to the network's
//! format once. A tile is computed only from its own picture, in one order.

#![expect(
    unsafe_code,
    reason = "raw pointers into pictures, packed weights and scratch, bounded by the shapes checked on entry"
)]

mod packed;

use super::conv::{Output, Residual, Source, Spot, accumulate};
use super::pool;
use super::scratch::Scratch;
use super::vector::{Element, Mask, Simd, first};
use packed::POINTS;
pub(crate) use packed::{Packed, pays};

/// Outputs of a tile; their sums with other sources come after the points.
const PLACES: usize = 4;

/// Tiles per piece of work that only transforms.
const TRANSFORMED: usize = 8;

/// Bytes of transformed inputs per piece of work, so that they stay in the second-level cache.
const PIECE_BYTES: usize = 1 << 19;

struct Task<'a, E, O> {
    packed: &'a Packed<E>,
    sources: &'a [Source<'a, E>],
    residual: Option<Residual<'a, E>>,
    zeros: &'a [E],
    out: *mut O,
    height: usize,
    width: usize,
    /// Tiles of a column and of a line.
    down: usize,
    right: usize,
    factor: f32,
}

// SAFETY: `out` is only written, and each piece writes other tiles or other channels of it.
unsafe impl<E: Sync, O: Send> Sync for Task<'_, E, O> {}

/// Transformed inputs, one plane per point, `[tile][channel]`.
struct Seen<E> {
    planes: Scratch<E>,
    /// The tile with which every plane begins.
    first: usize,
}

impl<E> Seen<E> {
    fn room(first: usize, tiles: usize, channels: usize) -> Self {
        Self { planes: Scratch::new(POINTS, tiles * channels), first }
    }
}

/// Where several threads write transformed inputs.
struct Place<E>(*mut E);

// SAFETY: each piece writes its own tiles.
unsafe impl<E: Send> Sync for Place<E> {}

/// Computes a whole layer.
///
/// # Panics
/// When a slice's length does not match the shapes.
pub(crate) fn run<S: Simd, E: Element, O: Element>(
    threads: usize,
    packed: &Packed<E>,
    sources: &[Source<'_, E>],
    residual: Option<Residual<'_, E>>,
    output: Output<'_, O>,
) {
    assert!(S::runs_here(), "the caller asks first");
    assert_eq!(packed.lanes, S::LANES, "lanes");
    let Output { data, rows, height, width, factor } = output;
    assert_eq!(data.len(), rows * height * width * packed.outputs, "output");
    assert_eq!(sources.len(), packed.sources.len(), "sources");
    assert!(!sources[0].doubled, "the window's source is read as it is");
    for (source, taps) in sources.iter().zip(&packed.sources) {
        assert_eq!(
            source.data.len(),
            rows * source.height * source.width * taps.channels,
            "source"
        );
        let seen = if source.doubled { 2 } else { 1 };
        assert_eq!(
            [source.height * seen, source.width * seen],
            [height, width],
            "the output's extents"
        );
    }
    if let Some(residual) = residual {
        let shrink = if residual.doubled { 4 } else { 1 };
        assert_eq!(residual.data.len() * shrink, data.len(), "residual");
    }
    if data.is_empty() {
        return;
    }
    let widest = packed.sources.iter().map(|taps| taps.channels).max().unwrap_or(0);
    let zeros = vec![E::ZERO; widest];
    let (down, right) = (height.div_ceil(2), width.div_ceil(2));
    let out = data.as_mut_ptr();
    let task =
        &Task { packed, sources, residual, zeros: &zeros, out, height, width, down, right, factor };
    let tiles = rows * down * right;
    let blocks = packed.outputs.div_ceil(S::LANES);
    let groups = blocks.div_ceil(S::BLOCKS);
    let channels = packed.sources[0].channels;
    let piece_tiles = (PIECE_BYTES / (POINTS * channels * size_of::<E>())).max(4 * TRANSFORMED);
    let chunks = tiles.div_ceil(piece_tiles);
    let chunk_tiles = tiles.div_ceil(chunks).next_multiple_of(S::WHOLE_TILES);
    let chunks = tiles.div_ceil(chunk_tiles);
    let bounds = |chunk: usize| (chunk * chunk_tiles, tiles.min((chunk + 1) * chunk_tiles));
    // With few tiles, all are transformed first, and then each group of outputs is a piece. With
    // many, one piece does everything for its tiles while they are in the cache.
    if chunks < 4 * threads && groups > 1 {
        let mut seen = Seen::<E>::room(0, tiles, channels);
        let (place, plane) = (&Place(seen.planes.as_mut_ptr()), seen.planes.plane());
        pool::run(threads, tiles.div_ceil(TRANSFORMED), &|piece| {
            let (from, to) = (piece * TRANSFORMED, tiles.min((piece + 1) * TRANSFORMED));
            // SAFETY: the CPU was asked; the tiles are within the shapes checked above and the
            // room made.
            unsafe {
                let out = place.0.add(from * channels);
                S::run(
                    #[inline(always)]
                    || task.transform::<S>(from, to, out, plane),
                );
            };
        });
        pool::run(threads, chunks * groups, &|piece| {
            let (from, to) = bounds(piece % chunks);
            // SAFETY: as above, and all tiles were transformed.
            unsafe { task.group::<S>(&seen, from, to, blocks, piece / chunks, groups) };
        });
        return;
    }
    pool::run(threads, chunks, &|chunk| {
        let (from, to) = bounds(chunk);
        let mut seen = Seen::<E>::room(from, to - from, channels);
        // SAFETY: as above.
        unsafe {
            let (out, plane) = (seen.planes.as_mut_ptr(), seen.planes.plane());
            S::run(
                #[inline(always)]
                || task.transform::<S>(from, to, out, plane),
            );
            for group in 0..groups {
                task.group::<S>(&seen, from, to, blocks, group, groups);
            }
        }
    });
}

impl<E: Element, O: Element> Task<'_, E, O> {
    /// Where a tile is, counted in tiles.
    #[inline(always)]
    fn place(&self, tile: usize) -> Spot {
        Spot {
            row: tile / self.right / self.down,
            y: tile / self.right % self.down,
            x: tile % self.right,
        }
    }

    /// Transforms tiles `from..to` into `out`; points are `plane` elements apart.
    #[inline(always)]
    unsafe fn transform<S: Simd>(&self, from: usize, to: usize, out: *mut E, plane: usize) {
        let mut at = from;
        while at < to {
            let Spot { row, y, x } = self.place(at);
            let count = (self.right - x).min(to - at);
            unsafe {
                self.transform_line::<S>(
                    row,
                    (y, x),
                    count,
                    out.add((at - from) * self.channels()),
                    plane,
                )
            };
            at += count;
        }
    }

    #[inline(always)]
    fn channels(&self) -> usize {
        self.packed.sources[0].channels
    }

    /// Transforms `count` tiles side by side.
    #[inline(always)]
    unsafe fn transform_line<S: Simd>(
        &self,
        row: usize,
        (tile_y, tile_x): (usize, usize),
        count: usize,
        out: *mut E,
        plane: usize,
    ) {
        unsafe {
            let channels = self.channels();
            let (height, width) = (self.height, self.width);
            let picture = self.sources[0].data.as_ptr();
            // The picture's lines in the tile; 0 outside the picture.
            let lines: [Option<*const E>; 4] = std::array::from_fn(|line| {
                let y = (2 * tile_y + line).wrapping_sub(1);
                (y < height).then(|| picture.add((row * height + y) * width * channels))
            });
            let mut channel = 0;
            while channel < channels {
                let mask = first::<S>(channels - channel);
                let column = |x: usize| (x < width).then_some(x * channels + channel);
                let begin = (2 * tile_x).wrapping_sub(1);
                let mut a = combined::<S, E>(&lines, column(begin), mask);
                let mut b = combined::<S, E>(&lines, column(2 * tile_x), mask);
                for tile in 0..count {
                    let x = 2 * (tile_x + tile) + 1;
                    let c = combined::<S, E>(&lines, column(x), mask);
                    let d = combined::<S, E>(&lines, column(x + 1), mask);
                    let to = out.add(tile * channels + channel);
                    for line in 0..4 {
                        let (a, b, c, d) = (a[line], b[line], c[line], d[line]);
                        let points = [S::sub(a, c), S::add(b, c), S::sub(c, b), S::sub(b, d)];
                        for (column, point) in points.into_iter().enumerate() {
                            let to = to.add((4 * line + column) * plane);
                            E::store_some::<S>(to, mask, point);
                        }
                    }
                    (a, b) = (c, d);
                }
                channel += S::LANES;
            }
        }
    }

    /// Everything for tiles `from..to` and one group of outputs, from transformed inputs.
    unsafe fn group<S: Simd>(
        &self,
        seen: &Seen<E>,
        from: usize,
        to: usize,
        blocks: usize,
        group: usize,
        groups: usize,
    ) {
        // Blocks are divided evenly: 4 become 2 and 2.
        let begin = blocks * group / groups;
        let end = blocks * (group + 1) / groups;
        unsafe {
            match end - begin {
                1 => S::run(
                    #[inline(always)]
                    || self.products::<S, 1>(seen, from, to, begin),
                ),
                2 => S::run(
                    #[inline(always)]
                    || self.products::<S, 2>(seen, from, to, begin),
                ),
                _ => S::run(
                    #[inline(always)]
                    || self.products::<S, 3>(seen, from, to, begin),
                ),
            }
        }
    }

    #[inline(always)]
    unsafe fn products<S: Simd, const Q: usize>(
        &self,
        seen: &Seen<E>,
        from: usize,
        to: usize,
        block: usize,
    ) {
        let planes = if self.sources.len() > 1 { POINTS + PLACES } else { POINTS };
        // `[tile][lane]` in every plane.
        let mut sums = Scratch::<f32>::new(planes, (to - from) * Q * S::LANES);
        let (plane_size, sums) = (sums.plane(), sums.as_mut_ptr());
        unsafe {
            for plane in 0..planes {
                let mut at = from;
                while at < to {
                    let out = sums.add(plane * plane_size + (at - from) * Q * S::LANES);
                    let range = (at, to);
                    match (to - at, S::TILES[Q - 1]) {
                        (1 | 2, _) => self.tiles::<S, 2, Q>(seen, plane, range, block, out),
                        (3 | 4, _) | (_, 4) => {
                            self.tiles::<S, 4, Q>(seen, plane, range, block, out)
                        }
                        (_, 6) => self.tiles::<S, 6, Q>(seen, plane, range, block, out),
                        _ => self.tiles::<S, 8, Q>(seen, plane, range, block, out),
                    }
                    at += S::TILES[Q - 1];
                }
            }
            for tile in from..to {
                self.finish::<S, Q>(
                    tile,
                    block,
                    sums.add((tile - from) * Q * S::LANES),
                    plane_size,
                );
            }
        }
    }

    /// One plane of `P` tiles from `at`. Tiles beyond `to` are computed like the last one and not
    /// stored.
    #[inline(always)]
    unsafe fn tiles<S: Simd, const P: usize, const Q: usize>(
        &self,
        seen: &Seen<E>,
        plane: usize,
        (at, to): (usize, usize),
        block: usize,
        out: *mut f32,
    ) {
        unsafe {
            let packed = self.packed;
            let channels = self.channels();
            let size = channels * S::LANES;
            let mut weights =
                packed.weights.as_ptr().add(block * packed.block + plane.min(POINTS) * size);
            let mut sums = [[S::splat(0.0); P]; Q];
            let mut inputs = [self.zeros.as_ptr(); P];
            if plane < POINTS {
                let from = seen.planes.as_ptr().add(plane * seen.planes.plane());
                for (p, input) in inputs.iter_mut().enumerate() {
                    *input = from.add(((at + p).min(to - 1) - seen.first) * channels);
                }
                sums = accumulate::<S, E, P, Q>(
                    sums,
                    inputs,
                    weights,
                    packed.block,
                    channels / E::STEP,
                );
            } else {
                let (down, right) = ((plane - POINTS) / 2, (plane - POINTS) % 2);
                for (source, taps) in self.sources.iter().zip(&packed.sources).skip(1) {
                    for (p, input) in inputs.iter_mut().enumerate() {
                        let Spot { row, y, x } = self.place((at + p).min(to - 1));
                        // Outside an odd border: not stored.
                        let y = (2 * y + down).min(self.height - 1) >> u32::from(source.doubled);
                        let x = (2 * x + right).min(self.width - 1) >> u32::from(source.doubled);
                        let pixel = (row * source.height + y) * source.width + x;
                        *input = source.data.as_ptr().add(pixel * taps.channels);
                    }
                    sums = accumulate::<S, E, P, Q>(
                        sums,
                        inputs,
                        weights,
                        packed.block,
                        taps.channels / E::STEP,
                    );
                    weights = weights.add(taps.channels * S::LANES);
                }
            }
            for p in 0..P.min(to - at) {
                for (q, sums) in sums.iter().enumerate() {
                    S::store(out.add((p * Q + q) * S::LANES), sums[p]);
                }
            }
        }
    }

    /// Aᵀ m A of a tile, plus everything that is added to it.
    #[inline(always)]
    unsafe fn finish<S: Simd, const Q: usize>(
        &self,
        tile: usize,
        block: usize,
        sums: *const f32,
        plane_size: usize,
    ) {
        unsafe {
            let Spot { row, y, x } = self.place(tile);
            let outputs = self.packed.outputs;
            let factor = S::splat(self.factor);
            for q in 0..Q {
                let lane = (block + q) * S::LANES;
                let mask = first::<S>(outputs - lane);
                let bias = S::load(self.packed.bias.as_ptr().add(lane));
                let plane = |plane: usize| sums.add(plane * plane_size + q * S::LANES);
                // Two lines of Aᵀ m, with four columns each.
                let mut columns = [[bias; 2]; 4];
                for (column, lines) in columns.iter_mut().enumerate() {
                    let (a, b) = (S::load(plane(column)), S::load(plane(4 + column)));
                    let (c, d) = (S::load(plane(8 + column)), S::load(plane(12 + column)));
                    *lines = [S::add(S::add(a, b), c), S::sub(S::sub(b, c), d)];
                }
                let [a, b, c, d] = columns;
                for down in 0..2 {
                    let (a, b, c, d) = (a[down], b[down], c[down], d[down]);
                    let pair = [S::add(S::add(a, b), c), S::sub(S::sub(b, c), d)];
                    for (right, sum) in pair.into_iter().enumerate() {
                        let (y, x) = (2 * y + down, 2 * x + right);
                        if y >= self.height || x >= self.width {
                            continue;
                        }
                        let mut sum = S::add(sum, bias);
                        if self.sources.len() > 1 {
                            sum = S::add(sum, S::load(plane(POINTS + 2 * down + right)));
                        }
                        if let Some(residual) = &self.residual {
                            let shift = u32::from(residual.doubled);
                            let line = row * (self.height >> shift) + (y >> shift);
                            let pixel = line * (self.width >> shift) + (x >> shift);
                            let from = residual.data.as_ptr().add(pixel * outputs + lane);
                            sum = S::add(sum, E::load_some::<S>(mask, from));
                        }
                        let pixel = (row * self.height + y) * self.width + x;
                        O::store_some::<S>(
                            self.out.add(pixel * outputs + lane),
                            mask,
                            S::mul(sum, factor),
                        );
                    }
                }
            }
        }
    }
}

/// One column of Bᵀ d, from four lines of a picture; 0 outside the picture.
///
/// # Safety
/// That of [`Simd`]; `at` lies within each line.
#[inline(always)]
unsafe fn combined<S: Simd, E: Element>(
    lines: &[Option<*const E>; 4],
    at: Option<usize>,
    mask: Mask,
) -> [S::Vector; 4] {
    unsafe {
        let mut values = [S::splat(0.0); 4];
        if let Some(at) = at {
            for (value, line) in values.iter_mut().zip(lines) {
                if let Some(line) = line {
                    *value = E::load_some::<S>(mask, line.add(at));
                }
            }
        }
        let [a, b, c, d] = values;
        [S::sub(a, c), S::add(b, c), S::sub(c, b), S::sub(b, d)]
    }
}

#[cfg(test)]
mod tests;
