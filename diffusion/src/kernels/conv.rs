//! Convolutions and linear layers over channels-last pictures, by vector instructions.
//!
//! An output is a sum over sources (pictures side by side in their channels, or a second convolution's input), taps and
//! channels, always in that order and in f32: it depends neither on where in the batch the pixel lies nor on who
//! computes it. Eight pixels and up to three times sixteen output channels are computed together. A pixel's inputs
//! are found by pointers, one a pixel, so that strides, borders, doubling and joined sources cost no copies.

#![expect(
    unsafe_code,
    reason = "raw pointers into pictures and packed weights, bounded by the shapes checked on entry"
)]

use std::arch::x86_64::*;

use super::pool;
use super::vector::{Element, LANES, first};

/// Pixels of one tile.
const TILE: usize = 8;

/// Pixels of one piece of work: their inputs and outputs stay in the first caches.
const PIECE: usize = 64;

/// Weights of a convolution or of several that are summed, for every phase of the output.
///
/// Outputs are computed in cells. A cell is one pixel, or a few side by side where a pixel's outputs would leave most of a
/// vector's lanes idle. A convolution that doubles has phases: outputs at even and at odd places see other taps of the
/// small picture, and each phase adds up beforehand the weights that meet the same pixel.
pub(crate) struct Packed<E> {
    phases: Vec<Phase<E>>,
    /// Of every lane of a cell.
    bias: Vec<f32>,
    /// Of a pixel.
    outputs: usize,
    /// Neighbouring pixels of a line in one cell.
    together: usize,
    layout: Layout,
    /// Elements of sixteen lanes' weights.
    block: usize,
    sources: Vec<Taps>,
}

/// One phase's weights, `[lanes / 16][source, line, tap, channel][16 · STEP]`.
struct Phase<E> {
    weights: Vec<E>,
    /// Where its first cell lies in the output.
    down: usize,
    right: usize,
    windows: Vec<Window>,
}

/// What a phase reads of one source for a cell, from the place of the cell.
#[derive(Clone, Copy)]
struct Window {
    top: isize,
    left: isize,
    lines: usize,
    columns: usize,
}

/// Where outputs lie among inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One output for every so many inputs, either way.
    Stride(usize),
    /// One output for every input, each pixel by itself: what is added to it may be half as large a picture.
    Apart,
    /// The output is twice as large: a convolution over its input's nearest-neighbour double.
    Double,
}

/// What a source contributes to every output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taps {
    /// A multiple of what one multiply-and-add takes.
    pub(crate) channels: usize,
}

/// One part of a layer's weights as files have them: `[outputs, channels, kernel, kernel]`, of which some channels.
pub(crate) struct Part<'a> {
    pub(crate) weights: &'a [f32],
    /// Edge of the window; 1 or an odd number.
    pub(crate) kernel: usize,
    /// Channels of the whole weight.
    pub(crate) inputs: usize,
    pub(crate) from: usize,
    pub(crate) channels: usize,
    /// Multiplies the weights.
    pub(crate) factor: f32,
}

impl Layout {
    /// Where tap `tap` of the output at `place` within a cell meets the source, counted from the cell's place.
    fn met(self, place: usize, tap: usize, kernel: usize) -> isize {
        let pad = (kernel / 2) as isize;
        match self {
            Self::Stride(stride) => (place * stride + tap) as isize - pad,
            Self::Apart => (place + tap) as isize - pad,
            Self::Double => ((place + tap) as isize - pad).div_euclid(2),
        }
    }

    /// First place and number of places of the source that outputs `from..from + count` meet.
    fn window(self, from: usize, count: usize, kernel: usize) -> (isize, usize) {
        let first = self.met(from, 0, kernel);
        (first, (self.met(from + count - 1, kernel - 1, kernel) - first + 1) as usize)
    }

    /// How many neighbouring pixels to compute as one: what takes the fewest multiply-and-adds for each.
    fn together(self, outputs: usize, parts: &[Part<'_>]) -> usize {
        let ([part], true) = (parts, self != Self::Apart) else { return 1 };
        let cost = |together: usize| {
            let (_, columns) = self.window(0, together, part.kernel);
            columns as f64 * (outputs * together).div_ceil(LANES) as f64 / together as f64
        };
        [2, 4].into_iter().fold(1, |best, more| if cost(more) < cost(best) { more } else { best })
    }

    /// Pixels of a source from one cell to the next, downwards and to the right.
    fn steps(self, together: usize) -> (usize, usize) {
        match self {
            Self::Stride(stride) => (stride, stride * together),
            Self::Apart => (1, 1),
            Self::Double => (1, together.div_ceil(2)),
        }
    }
}

impl<E: Element> Packed<E> {
    pub(crate) fn new(outputs: usize, parts: &[Part<'_>], bias: &[f32], layout: Layout) -> Self {
        let together = layout.together(outputs, parts);
        let phases: &[(usize, usize)] = match layout {
            Layout::Stride(_) | Layout::Apart => &[(0, 0)],
            Layout::Double if together > 1 => &[(0, 0), (1, 0)],
            Layout::Double => &[(0, 0), (0, 1), (1, 0), (1, 1)],
        };
        let phases: Vec<Phase<E>> =
            phases.iter().map(|phase| Phase::new(outputs, together, parts, layout, *phase)).collect();
        let blocks = (outputs * together).div_ceil(LANES);
        let bias = (0..blocks * LANES)
            .map(|lane| if lane < outputs * together { bias[lane % outputs] } else { 0.0 })
            .collect();
        let block = phases.first().map_or(0, |phase| phase.weights.len() / blocks.max(1));
        let sources =
            parts.iter().map(|part| Taps { channels: part.channels.next_multiple_of(E::STEP) }).collect();
        Self { phases, bias, outputs, together, layout, block, sources }
    }

    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(crate) fn sources(&self) -> &[Taps] {
        &self.sources
    }

    /// The extent of the output of a source's extent.
    pub(crate) fn extent(&self, source: usize) -> usize {
        match self.layout {
            Layout::Stride(stride) => source.div_ceil(stride),
            Layout::Apart => source,
            Layout::Double => 2 * source,
        }
    }
}

impl<E: Element> Phase<E> {
    fn new(
        outputs: usize,
        together: usize,
        parts: &[Part<'_>],
        layout: Layout,
        (down, right): (usize, usize),
    ) -> Self {
        let windows: Vec<Window> = parts
            .iter()
            .map(|part| {
                let (top, lines) = layout.window(down, 1, part.kernel);
                let (left, columns) = layout.window(right, together, part.kernel);
                Window { top, left, lines, columns }
            })
            .collect();
        let padded = |part: &Part<'_>| part.channels.next_multiple_of(E::STEP);
        let sizes = parts.iter().zip(&windows);
        let lane_size: usize = sizes.map(|(part, window)| window.lines * window.columns * padded(part)).sum();
        let mut weights = vec![E::ZERO; lane_size * LANES * (outputs * together).div_ceil(LANES)];
        if let ([part], 1) = (parts, together)
            && part.kernel == 1
        {
            fill_matrix(&mut weights, outputs, part);
            return Self { weights, down, right, windows };
        }
        let mut of_lane = vec![0.0_f32; lane_size];
        for lane in 0..outputs * together {
            let (place, output) = (lane / outputs, lane % outputs);
            of_lane.fill(0.0);
            let mut rest = of_lane.as_mut_slice();
            for (part, window) in parts.iter().zip(&windows) {
                let kernel = part.kernel;
                let (own, behind) = rest.split_at_mut(window.lines * window.columns * padded(part));
                rest = behind;
                for tap in 0..kernel * kernel {
                    let line = layout.met(down, tap / kernel, kernel) - window.top;
                    let column = layout.met(right + place, tap % kernel, kernel) - window.left;
                    let to = (line as usize * window.columns + column as usize) * padded(part);
                    for channel in 0..part.channels {
                        let from = (output * part.inputs + part.from + channel) * kernel * kernel + tap;
                        own[to + channel] += part.weights[from] * part.factor;
                    }
                }
            }
            let begin = (lane / LANES) * lane_size * LANES + (lane % LANES) * E::STEP;
            for (index, weight) in of_lane.iter().enumerate() {
                weights[begin + (index / E::STEP) * E::STEP * LANES + index % E::STEP] = E::of(*weight);
            }
        }
        Self { weights, down, right, windows }
    }
}

/// Packs a matrix, which a text encoder has hundreds of: in the order of the packed weights, sixteen rows at a time.
fn fill_matrix<E: Element>(weights: &mut [E], outputs: usize, part: &Part<'_>) {
    let steps = part.channels.div_ceil(E::STEP);
    let row = |output: usize| {
        let from = output * part.inputs + part.from;
        &part.weights[from..from + part.channels]
    };
    for (block, weights) in weights.chunks_exact_mut(steps * E::STEP * LANES).enumerate() {
        let first = block * LANES;
        let rows: Vec<&[f32]> = (first..outputs.min(first + LANES)).map(row).collect();
        for (step, weights) in weights.chunks_exact_mut(E::STEP * LANES).enumerate() {
            let channels = step * E::STEP..part.channels.min((step + 1) * E::STEP);
            for (row, weights) in rows.iter().zip(weights.chunks_exact_mut(E::STEP)) {
                for (weight, value) in weights.iter_mut().zip(&row[channels.clone()]) {
                    *weight = E::of(value * part.factor);
                }
            }
        }
    }
}

/// A picture that a layer reads: `[rows, height, width, channels]`.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a, E> {
    pub(crate) data: &'a [E],
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Read at twice its size, nearest neighbour.
    pub(crate) doubled: bool,
}

/// What is added to every output before it is stored.
#[derive(Clone, Copy)]
pub(crate) struct Residual<'a, E> {
    pub(crate) data: &'a [E],
    /// `data` is half as large.
    pub(crate) doubled: bool,
}

/// Where outputs lie and what is done to them.
pub(crate) struct Output<'a, O> {
    /// `[rows, height, width, outputs]`.
    pub(crate) data: &'a mut [O],
    pub(crate) rows: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Multiplies the sum of everything.
    pub(crate) factor: f32,
}

struct Task<'a, E, O> {
    packed: &'a Packed<E>,
    phase: &'a Phase<E>,
    sources: &'a [Source<'a, E>],
    residual: Option<Residual<'a, E>>,
    zeros: &'a [E],
    out: *mut O,
    /// Of the output, in pixels.
    height: usize,
    width: usize,
    /// Of a phase, in cells.
    lines: usize,
    columns: usize,
    factor: f32,
}

// SAFETY: `out` is only written, and each piece writes other pixels or other channels of it.
unsafe impl<E: Sync, O: Send> Sync for Task<'_, E, O> {}

/// Computes a whole layer.
///
/// # Panics
/// When a slice is not as long as the shapes say.
pub(crate) fn run<E: Element, O: Element>(
    threads: usize,
    packed: &Packed<E>,
    sources: &[Source<'_, E>],
    residual: Option<Residual<'_, E>>,
    output: Output<'_, O>,
) {
    assert!(super::available(), "the caller asks first");
    let Output { data, rows, height, width, factor } = output;
    assert_eq!(data.len(), rows * height * width * packed.outputs, "output");
    assert_eq!(sources.len(), packed.sources.len(), "sources");
    for (source, taps) in sources.iter().zip(&packed.sources) {
        assert_eq!(source.data.len(), rows * source.height * source.width * taps.channels, "source");
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
    // Phases side by side share their lines and, if cells are single pixels, their columns.
    let apart = if packed.layout == Layout::Double { 2 } else { 1 };
    let (lines, columns) =
        (height / apart, if packed.together > 1 { width.div_ceil(packed.together) } else { width / apart });
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
    let blocks = (packed.outputs * packed.together).div_ceil(LANES);
    // Groups of up to three blocks share the cells' loads.
    let groups = blocks.div_ceil(3);
    let chunks = cells.div_ceil(PIECE);
    // Of equal size, in whole tiles.
    let chunk_cells = cells.div_ceil(chunks).next_multiple_of(TILE);
    let chunks = cells.div_ceil(chunk_cells);
    // Few cells: each group by itself. Many: one piece does all groups, while its inputs are near.
    let split = chunks < 4 * threads && groups > 1;
    let pieces = if split { chunks * groups } else { chunks };
    pool::run(threads, pieces, &|piece| {
        let (chunk, wanted) =
            // A group's weights are then near for one chunk after the other.
            if split { (piece % chunks, piece / chunks..piece / chunks + 1) } else { (piece, 0..groups) };
        let from = chunk * chunk_cells;
        let to = (from + chunk_cells).min(cells);
        for (task, group) in tasks.iter().flat_map(|task| wanted.clone().map(move |group| (task, group))) {
            // Blocks shared out evenly: 4 become 2 and 2.
            let begin = blocks * group / groups;
            let end = blocks * (group + 1) / groups;
            // SAFETY: `available` was asked; the cells and blocks are within the shapes checked above.
            unsafe {
                match end - begin {
                    1 => task.cells::<1>(from, to, begin),
                    2 => task.cells::<2>(from, to, begin),
                    _ => task.cells::<3>(from, to, begin),
                }
            }
        }
    });
}

impl<E: Element, O: Element> Task<'_, E, O> {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn cells<const Q: usize>(&self, from: usize, to: usize, block: usize) {
        let (lines, columns) = (self.lines, self.columns);
        let mut place = (from / columns / lines, from / columns % lines, from % columns);
        let mut at = from;
        while at < to {
            unsafe {
                match to - at {
                    1 | 2 => self.tile::<2, Q>(at, to, place, block),
                    3 | 4 => self.tile::<4, Q>(at, to, place, block),
                    _ => self.tile::<TILE, Q>(at, to, place, block),
                }
            }
            at += TILE;
            place = self.after(place, TILE);
        }
    }

    /// The place so many cells on: row, line and column.
    #[inline(always)]
    fn after(&self, (mut row, mut y, x): (usize, usize, usize), cells: usize) -> (usize, usize, usize) {
        let mut x = x + cells;
        while x >= self.columns {
            x -= self.columns;
            y += 1;
            if y == self.lines {
                (row, y) = (row + 1, 0);
            }
        }
        (row, y, x)
    }

    /// `P` cells from `at`, those beyond `to` computed like the last and not stored, times `Q` blocks of lanes.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn tile<const P: usize, const Q: usize>(
        &self,
        at: usize,
        to: usize,
        (row, y, x): (usize, usize, usize),
        block: usize,
    ) {
        unsafe {
            let packed = self.packed;
            // Nearly always a tile lies within one line.
            let one_line = x + P <= self.columns && at + P <= to;
            let mut places = [(row, y, x); P];
            for p in 1..P {
                places[p] = match one_line {
                    true => (row, y, x + p),
                    false if at + p < to => self.after(places[p - 1], 1),
                    false => places[p - 1],
                };
            }
            let mut sums = [[_mm512_setzero_ps(); P]; Q];
            for (q, sums) in sums.iter_mut().enumerate() {
                let bias = _mm512_loadu_ps(packed.bias.as_ptr().add((block + q) * LANES));
                *sums = [bias; P];
            }
            let mut weights = self.phase.weights.as_ptr().add(block * packed.block);
            let (step_y, step_x) = packed.layout.steps(packed.together);
            for ((source, taps), window) in self.sources.iter().zip(&packed.sources).zip(&self.phase.windows)
            {
                let channels = taps.channels;
                let steps = channels / E::STEP;
                let shift = u32::from(source.doubled);
                let (height, width) = ((source.height << shift) as isize, (source.width << shift) as isize);
                for ky in 0..window.lines {
                    let line_y = (y * step_y + ky) as isize + window.top;
                    let line = (row * source.height + (line_y.max(0) as usize >> shift)) * source.width;
                    let left = (x * step_x) as isize + window.left;
                    let right = left + ((P - 1) * step_x + window.columns - 1) as isize;
                    let in_line = one_line && line_y >= 0 && line_y < height && left >= 0 && right < width;
                    if in_line && shift == 0 {
                        // The window's pixels lie side by side, as their weights do: one long tap.
                        let mut inputs = [self.zeros.as_ptr(); P];
                        let first = source.data.as_ptr().add((line + left as usize) * channels);
                        for (p, input) in inputs.iter_mut().enumerate() {
                            *input = first.add(p * step_x * channels);
                        }
                        sums = accumulate(sums, inputs, weights, packed.block, window.columns * steps);
                        weights = weights.add(window.columns * steps * E::STEP * LANES);
                        continue;
                    }
                    for kx in 0..window.columns {
                        let mut inputs = [self.zeros.as_ptr(); P];
                        let left = left + kx as isize;
                        let right = left + ((P - 1) * step_x) as isize;
                        if one_line && line_y >= 0 && line_y < height && left >= 0 && right < width {
                            let line = source.data.as_ptr().add(line * channels);
                            for (p, input) in inputs.iter_mut().enumerate() {
                                *input = line.add(((left as usize + p * step_x) >> shift) * channels);
                            }
                        } else {
                            for (input, (row, y, x)) in inputs.iter_mut().zip(&places) {
                                let y = (y * step_y + ky) as isize + window.top;
                                let x = (x * step_x + kx) as isize + window.left;
                                if y >= 0 && y < height && x >= 0 && x < width {
                                    let (y, x) = (y as usize >> shift, x as usize >> shift);
                                    let pixel = (row * source.height + y) * source.width + x;
                                    *input = source.data.as_ptr().add(pixel * channels);
                                }
                            }
                        }
                        sums = accumulate(sums, inputs, weights, packed.block, steps);
                        weights = weights.add(steps * E::STEP * LANES);
                    }
                }
            }
            self.store(to - at, block, &places, sums);
        }
    }

    /// Stores the first `count` cells.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn store<const P: usize, const Q: usize>(
        &self,
        count: usize,
        block: usize,
        places: &[(usize, usize, usize); P],
        sums: [[__m512; P]; Q],
    ) {
        unsafe {
            let packed = self.packed;
            let (outputs, together) = (packed.outputs, packed.together);
            let (down, right) = match packed.layout {
                Layout::Double if together == 1 => (2, 2),
                Layout::Double => (2, together),
                Layout::Stride(_) | Layout::Apart => (1, together),
            };
            let factor = _mm512_set1_ps(self.factor);
            for (p, (row, y, x)) in places.iter().enumerate().take(count) {
                let column = x * right + self.phase.right;
                let pixel = (row * self.height + y * down + self.phase.down) * self.width + column;
                // Of a line's last cell, pixels may lie beyond the line.
                let lanes = outputs * together.min(self.width - column);
                for (q, sums) in sums.iter().enumerate() {
                    let lane = (block + q) * LANES;
                    let mask = first(lanes.saturating_sub(lane));
                    let mut sum = sums[p];
                    if let Some(residual) = &self.residual {
                        let pixel = if residual.doubled {
                            (row * (self.height / 2) + y / 2) * (self.width / 2) + x / 2
                        } else {
                            pixel
                        };
                        let from = residual.data.as_ptr().add(pixel * outputs + lane);
                        sum = _mm512_add_ps(sum, E::load_some(mask, from));
                    }
                    sum = _mm512_mul_ps(sum, factor);
                    O::store_some(self.out.add(pixel * outputs + lane), mask, sum);
                }
            }
        }
    }
}

/// Adds `steps` channels of one tap.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
#[inline]
unsafe fn accumulate<E: Element, const P: usize, const Q: usize>(
    mut sums: [[__m512; P]; Q],
    inputs: [*const E; P],
    weights: *const E,
    block: usize,
    steps: usize,
) -> [[__m512; P]; Q] {
    unsafe {
        for step in 0..steps {
            let mut weight = [_mm512_setzero_ps(); Q];
            for (q, weight) in weight.iter_mut().enumerate() {
                *weight = E::weights(weights.add(q * block + step * E::STEP * LANES));
            }
            for p in 0..P {
                let input = E::broadcast(inputs[p].add(step * E::STEP));
                for q in 0..Q {
                    sums[q][p] = E::multiply_add(sums[q][p], input, weight[q]);
                }
            }
        }
        sums
    }
}
