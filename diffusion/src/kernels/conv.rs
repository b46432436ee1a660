//! Convolutions and linear layers over channels-last pictures, with vector instructions.
//!
//! An output is a sum over sources (pictures joined in their channels, or a second convolution's
//! input), taps and channels, always in that order and in f32. It depends neither on the pixel's
//! position in the batch nor on the thread that computes it. Several pixels and up to three
//! vectors of output channels are computed together. Each pixel's inputs are found through a
//! pointer, so strides, borders, doubling and joined sources need no copies.

#![expect(
    unsafe_code,
    reason = "raw pointers into pictures and packed weights, bounded by the shapes checked on entry"
)]

use super::packed::{Layout, Packed, Phase};
use super::pool;
use super::vector::{Element, Simd, first};

/// Pixels of one piece of work: their inputs and outputs stay in the first-level caches.
const PIECE: usize = 64;

/// A picture that a layer reads: `[rows, height, width, channels]`.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a, E> {
    pub(crate) data: &'a [E],
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Whether it is read at twice its size, nearest neighbour.
    pub(crate) doubled: bool,
}

/// A picture that is added to every output before it is stored.
#[derive(Clone, Copy)]
pub(crate) struct Residual<'a, E> {
    pub(crate) data: &'a [E],
    /// Whether `data` is half as large.
    pub(crate) doubled: bool,
}

/// Where outputs are stored, and what is done to them.
pub(crate) struct Output<'a, O> {
    /// `[rows, height, width, outputs]`.
    pub(crate) data: &'a mut [O],
    pub(crate) rows: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Factor of the whole sum.
    pub(crate) factor: f32,
}

struct Task<'a, E, O> {
    packed: &'a Packed<E>,
    phase: &'a Phase<E>,
    sources: &'a [Source<'a, E>],
    residual: Option<Residual<'a, E>>,
    zeros: &'a [E],
    out: *mut O,
    /// Extent of the output, in pixels.
    height: usize,
    width: usize,
    /// Extent of a phase, in cells.
    lines: usize,
    columns: usize,
    factor: f32,
}

// SAFETY: `out` is only written, and each piece writes other pixels or other channels of it.
unsafe impl<E: Sync, O: Send> Sync for Task<'_, E, O> {}

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
    for (source, taps) in sources.iter().zip(&packed.sources) {
        assert_eq!(
            source.data.len(),
            rows * source.height * source.width * taps.channels,
            "source"
        );
        let seen = if source.doubled { 2 } else { 1 };
        let extents = [source.height, source.width].map(|extent| packed.extent(extent * seen));
        assert_eq!(extents, [height, width], "the output's extents");
    }
    if let Some(residual) = residual {
        let shrink = if residual.doubled { 4 } else { 1 };
        assert_eq!(residual.data.len() * shrink, data.len(), "residual");
        assert!(!residual.doubled || packed.together == 1, "a doubled residual is read by pixels");
    }
    if data.is_empty() {
        return;
    }
    let widest = packed.sources.iter().map(|taps| taps.channels).max().unwrap_or(0);
    let zeros = vec![E::ZERO; widest];
    let out = data.as_mut_ptr();
    // Phases side by side have the same lines and, if cells are single pixels, the same columns.
    let apart = if packed.layout == Layout::Double { 2 } else { 1 };
    let (lines, columns) = (
        height / apart,
        if packed.together > 1 { width.div_ceil(packed.together) } else { width / apart },
    );
    let task = |phase| Task {
        packed,
        phase,
        sources,
        residual,
        zeros: &zeros,
        out,
        height,
        width,
        lines,
        columns,
        factor,
    };
    let tasks: Vec<Task<'_, E, O>> = packed.phases.iter().map(task).collect();
    let cells = rows * lines * columns;
    let blocks = (packed.outputs * packed.together).div_ceil(S::LANES);
    // The blocks of a group share the loads of the cells.
    let groups = blocks.div_ceil(S::BLOCKS);
    let chunks = cells.div_ceil(PIECE);
    // Of equal size, in whole tiles.
    let chunk_cells = cells.div_ceil(chunks).next_multiple_of(S::WHOLE_TILES);
    let chunks = cells.div_ceil(chunk_cells);
    // With few cells, each group is a piece of its own. With many, one piece does all groups while
    // its inputs are in the cache.
    let split = chunks < 4 * threads && groups > 1;
    let pieces = if split { chunks * groups } else { chunks };
    pool::run(threads, pieces, &|piece| {
        let (chunk, wanted) =
            // A group's weights then stay in the cache from one chunk to the next.
            if split { (piece % chunks, piece / chunks..piece / chunks + 1) } else { (piece, 0..groups) };
        let from = chunk * chunk_cells;
        let to = (from + chunk_cells).min(cells);
        for (task, group) in
            tasks.iter().flat_map(|task| wanted.clone().map(move |group| (task, group)))
        {
            // Blocks are divided evenly: 4 become 2 and 2.
            let begin = blocks * group / groups;
            let end = blocks * (group + 1) / groups;
            // SAFETY: the CPU was asked; the cells and blocks are within the shapes checked
            // above.
            unsafe {
                match end - begin {
                    1 => S::run(
                        #[inline(always)]
                        || task.cells::<S, 1>(from, to, begin),
                    ),
                    2 => S::run(
                        #[inline(always)]
                        || task.cells::<S, 2>(from, to, begin),
                    ),
                    _ => S::run(
                        #[inline(always)]
                        || task.cells::<S, 3>(from, to, begin),
                    ),
                }
            }
        }
    });
}

/// A cell of the output, or a tile of cells: its picture in the batch, its line and its column.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    pub(super) row: usize,
    pub(super) y: usize,
    pub(super) x: usize,
}

impl<E: Element, O: Element> Task<'_, E, O> {
    #[inline(always)]
    unsafe fn cells<S: Simd, const Q: usize>(&self, from: usize, to: usize, block: usize) {
        let (lines, columns) = (self.lines, self.columns);
        let (row, y) = (from / columns / lines, from / columns % lines);
        let mut place = Spot { row, y, x: from % columns };
        let mut at = from;
        while at < to {
            unsafe {
                match (to - at, S::TILES[Q - 1]) {
                    (1 | 2, _) => self.tile::<S, 2, Q>(at, to, place, block),
                    (3 | 4, _) | (_, 4) => self.tile::<S, 4, Q>(at, to, place, block),
                    (_, 6) => self.tile::<S, 6, Q>(at, to, place, block),
                    _ => self.tile::<S, 8, Q>(at, to, place, block),
                }
            }
            at += S::TILES[Q - 1];
            place = self.after(place, S::TILES[Q - 1]);
        }
    }

    /// The spot this many cells further.
    #[inline(always)]
    fn after(&self, spot: Spot, cells: usize) -> Spot {
        let Spot { mut row, mut y, mut x } = spot;
        x += cells;
        while x >= self.columns {
            x -= self.columns;
            y += 1;
            if y == self.lines {
                (row, y) = (row + 1, 0);
            }
        }
        Spot { row, y, x }
    }

    /// `P` cells from `at`, times `Q` blocks of lanes. Cells beyond `to` are computed like the last
    /// one and not stored.
    #[inline(always)]
    unsafe fn tile<S: Simd, const P: usize, const Q: usize>(
        &self,
        at: usize,
        to: usize,
        spot: Spot,
        block: usize,
    ) {
        unsafe {
            let packed = self.packed;
            let Spot { row, y, x } = spot;
            // A tile is nearly always within one line.
            let one_line = x + P <= self.columns && at + P <= to;
            let mut places = [spot; P];
            for p in 1..P {
                places[p] = match one_line {
                    true => Spot { row, y, x: x + p },
                    false if at + p < to => self.after(places[p - 1], 1),
                    false => places[p - 1],
                };
            }
            let mut sums = [[S::splat(0.0); P]; Q];
            for (q, sums) in sums.iter_mut().enumerate() {
                let bias = S::load(packed.bias.as_ptr().add((block + q) * S::LANES));
                *sums = [bias; P];
            }
            let mut weights = self.phase.weights.as_ptr().add(block * packed.block);
            let (step_y, step_x) = packed.layout.steps(packed.together);
            for ((source, taps), window) in
                self.sources.iter().zip(&packed.sources).zip(&self.phase.windows)
            {
                let channels = taps.channels;
                let steps = channels / E::STEP;
                let shift = u32::from(source.doubled);
                let (height, width) =
                    ((source.height << shift) as isize, (source.width << shift) as isize);
                for ky in 0..window.lines {
                    let line_y = (y * step_y + ky) as isize + window.top;
                    let line =
                        (row * source.height + (line_y.max(0) as usize >> shift)) * source.width;
                    let left = (x * step_x) as isize + window.left;
                    let right = left + ((P - 1) * step_x + window.columns - 1) as isize;
                    let in_line =
                        one_line && line_y >= 0 && line_y < height && left >= 0 && right < width;
                    if in_line && shift == 0 {
                        // The window's pixels are adjacent, and so are their weights: they form one
                        // long tap.
                        let mut inputs = [self.zeros.as_ptr(); P];
                        let first = source.data.as_ptr().add((line + left as usize) * channels);
                        for (p, input) in inputs.iter_mut().enumerate() {
                            *input = first.add(p * step_x * channels);
                        }
                        sums = accumulate::<S, E, P, Q>(
                            sums,
                            inputs,
                            weights,
                            packed.block,
                            window.columns * steps,
                        );
                        weights = weights.add(window.columns * steps * E::STEP * S::LANES);
                        continue;
                    }
                    for kx in 0..window.columns {
                        let mut inputs = [self.zeros.as_ptr(); P];
                        let left = left + kx as isize;
                        let right = left + ((P - 1) * step_x) as isize;
                        if one_line && line_y >= 0 && line_y < height && left >= 0 && right < width
                        {
                            let line = source.data.as_ptr().add(line * channels);
                            for (p, input) in inputs.iter_mut().enumerate() {
                                *input =
                                    line.add(((left as usize + p * step_x) >> shift) * channels);
                            }
                        } else {
                            for (input, Spot { row, y, x }) in inputs.iter_mut().zip(&places) {
                                let y = (y * step_y + ky) as isize + window.top;
                                let x = (x * step_x + kx) as isize + window.left;
                                if y >= 0 && y < height && x >= 0 && x < width {
                                    let (y, x) = (y as usize >> shift, x as usize >> shift);
                                    let pixel = (row * source.height + y) * source.width + x;
                                    *input = source.data.as_ptr().add(pixel * channels);
                                }
                            }
                        }
                        sums = accumulate::<S, E, P, Q>(sums, inputs, weights, packed.block, steps);
                        weights = weights.add(steps * E::STEP * S::LANES);
                    }
                }
            }
            self.store::<S, P, Q>(to - at, block, &places, sums);
        }
    }

    /// Stores the first `count` cells.
    #[inline(always)]
    unsafe fn store<S: Simd, const P: usize, const Q: usize>(
        &self,
        count: usize,
        block: usize,
        places: &[Spot; P],
        sums: [[S::Vector; P]; Q],
    ) {
        unsafe {
            let packed = self.packed;
            let (outputs, together) = (packed.outputs, packed.together);
            let (down, right) = match packed.layout {
                Layout::Double if together == 1 => (2, 2),
                Layout::Double => (2, together),
                Layout::Stride(_) | Layout::Apart => (1, together),
            };
            let factor = S::splat(self.factor);
            for (p, Spot { row, y, x }) in places.iter().enumerate().take(count) {
                let column = x * right + self.phase.right;
                let pixel = (row * self.height + y * down + self.phase.down) * self.width + column;
                // Pixels of a line's last cell may be beyond the line.
                let lanes = outputs * together.min(self.width - column);
                for (q, sums) in sums.iter().enumerate() {
                    let lane = (block + q) * S::LANES;
                    let mask = first::<S>(lanes.saturating_sub(lane));
                    let mut sum = sums[p];
                    if let Some(residual) = &self.residual {
                        let pixel = if residual.doubled {
                            (row * (self.height / 2) + y / 2) * (self.width / 2) + x / 2
                        } else {
                            pixel
                        };
                        let from = residual.data.as_ptr().add(pixel * outputs + lane);
                        sum = S::add(sum, E::load_some::<S>(mask, from));
                    }
                    sum = S::mul(sum, factor);
                    O::store_some::<S>(self.out.add(pixel * outputs + lane), mask, sum);
                }
            }
        }
    }
}

/// Adds `steps` channels of one tap.
#[inline(always)]
pub(super) unsafe fn accumulate<S: Simd, E: Element, const P: usize, const Q: usize>(
    mut sums: [[S::Vector; P]; Q],
    inputs: [*const E; P],
    weights: *const E,
    block: usize,
    steps: usize,
) -> [[S::Vector; P]; Q] {
    unsafe {
        for step in 0..steps {
            let mut weight = [S::splat(0.0); Q];
            for (q, weight) in weight.iter_mut().enumerate() {
                *weight = E::weights::<S>(weights.add(q * block + step * E::STEP * S::LANES));
            }
            for p in 0..P {
                let input = E::broadcast::<S>(inputs[p].add(step * E::STEP));
                for q in 0..Q {
                    sums[q][p] = E::multiply_add::<S>(sums[q][p], input, weight[q]);
                }
            }
        }
        sums
    }
}
