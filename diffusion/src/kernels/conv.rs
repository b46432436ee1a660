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

/// Weights of a convolution or of several that are summed: `[outputs / 16][source, tap, channel][16 · STEP]`.
pub(crate) struct Packed<E> {
    weights: Vec<E>,
    bias: Vec<f32>,
    outputs: usize,
    /// Elements of sixteen outputs' weights.
    block: usize,
    sources: Vec<Taps>,
}

/// What a source contributes to every output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taps {
    /// A multiple of what one multiply-and-add takes.
    pub(crate) channels: usize,
    /// Edge of the window; 1 or an odd number.
    pub(crate) kernel: usize,
}

/// One part of a layer's weights as files have them: `[outputs, channels, kernel, kernel]`, of which some channels.
pub(crate) struct Part<'a> {
    pub(crate) weights: &'a [f32],
    pub(crate) kernel: usize,
    /// Channels of the whole weight.
    pub(crate) inputs: usize,
    pub(crate) from: usize,
    pub(crate) channels: usize,
    /// Multiplies the weights.
    pub(crate) factor: f32,
}

impl<E: Element> Packed<E> {
    pub(crate) fn new(outputs: usize, parts: &[Part<'_>], bias: Vec<f32>) -> Self {
        let steps = |part: &Part<'_>| part.kernel * part.kernel * part.channels.div_ceil(E::STEP);
        let block = parts.iter().map(steps).sum::<usize>() * E::STEP * LANES;
        let blocks = outputs.div_ceil(LANES);
        let mut weights = vec![E::ZERO; block * blocks];
        for output in 0..outputs {
            let mut at = (output / LANES) * block + (output % LANES) * E::STEP;
            for part in parts {
                let area = part.kernel * part.kernel;
                for tap in 0..area {
                    for channel in 0..part.channels {
                        let from = (output * part.inputs + part.from + channel) * area + tap;
                        let to = at + (channel / E::STEP) * LANES * E::STEP + channel % E::STEP;
                        weights[to] = E::of(part.weights[from] * part.factor);
                    }
                    at += part.channels.div_ceil(E::STEP) * LANES * E::STEP;
                }
            }
        }
        let mut bias = bias;
        bias.resize(blocks * LANES, 0.0);
        let sources = parts
            .iter()
            .map(|part| Taps { channels: part.channels.next_multiple_of(E::STEP), kernel: part.kernel })
            .collect();
        Self { weights, bias, outputs, block, sources }
    }

    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(crate) fn sources(&self) -> &[Taps] {
        &self.sources
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
    pub(crate) stride: usize,
    /// Multiplies the sum of everything.
    pub(crate) factor: f32,
}

struct Task<'a, E, O> {
    packed: &'a Packed<E>,
    sources: &'a [Source<'a, E>],
    residual: Option<Residual<'a, E>>,
    zeros: &'a [E],
    out: *mut O,
    height: usize,
    width: usize,
    stride: usize,
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
    let Output { data, rows, height, width, stride, factor } = output;
    let pixels = rows * height * width;
    assert_eq!(data.len(), pixels * packed.outputs, "output");
    assert_eq!(sources.len(), packed.sources.len(), "sources");
    for (source, taps) in sources.iter().zip(&packed.sources) {
        assert_eq!(source.data.len(), rows * source.height * source.width * taps.channels, "source");
    }
    if let Some(residual) = residual {
        let shrink = if residual.doubled { 4 } else { 1 };
        assert_eq!(residual.data.len() * shrink, data.len(), "residual");
    }
    if pixels == 0 || packed.outputs == 0 {
        return;
    }
    let widest = packed.sources.iter().map(|taps| taps.channels).max().unwrap_or(0);
    let zeros = vec![E::ZERO; widest];
    let out = data.as_mut_ptr();
    let task = Task { packed, sources, residual, zeros: &zeros, out, height, width, stride, factor };
    let blocks = packed.outputs.div_ceil(LANES);
    // Groups of up to three blocks share the pixels' loads.
    let groups = blocks.div_ceil(3);
    let chunks = pixels.div_ceil(PIECE);
    // Few pixels: each group by itself. Many: one piece does all groups, while its inputs are near.
    let split = chunks < 4 * threads && groups > 1;
    let pieces = if split { chunks * groups } else { chunks };
    pool::run(threads, pieces, &|piece| {
        let (chunk, wanted) =
            if split { (piece / groups, piece % groups..piece % groups + 1) } else { (piece, 0..groups) };
        let from = chunk * PIECE;
        let to = (from + PIECE).min(pixels);
        for group in wanted {
            // Blocks shared out evenly: 4 become 2 and 2.
            let begin = blocks * group / groups;
            let end = blocks * (group + 1) / groups;
            // SAFETY: `available` was asked; the pixels and blocks are within the shapes checked above.
            unsafe {
                match end - begin {
                    1 => task.pixels::<1>(from, to, begin),
                    2 => task.pixels::<2>(from, to, begin),
                    _ => task.pixels::<3>(from, to, begin),
                }
            }
        }
    });
}

impl<E: Element, O: Element> Task<'_, E, O> {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn pixels<const Q: usize>(&self, from: usize, to: usize, block: usize) {
        let mut place = (from / self.width / self.height, from / self.width % self.height, from % self.width);
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

    /// The place so many pixels on: row, line and column.
    #[inline(always)]
    fn after(&self, (mut row, mut y, x): (usize, usize, usize), pixels: usize) -> (usize, usize, usize) {
        let mut x = x + pixels;
        while x >= self.width {
            x -= self.width;
            y += 1;
            if y == self.height {
                (row, y) = (row + 1, 0);
            }
        }
        (row, y, x)
    }

    /// `P` pixels from `at`, those beyond `to` computed like the last and not stored, times `Q` blocks of outputs.
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
            let one_line = x + P <= self.width && at + P <= to;
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
            let mut weights = packed.weights.as_ptr().add(block * packed.block);
            for (source, taps) in self.sources.iter().zip(&packed.sources) {
                let steps = taps.channels / E::STEP;
                let (kernel, channels) = (taps.kernel, taps.channels);
                let pad = (kernel / 2) as isize;
                let shift = u32::from(source.doubled);
                let (height, width) = ((source.height << shift) as isize, (source.width << shift) as isize);
                let stride = self.stride;
                for ky in 0..kernel {
                    let line_y = (y * stride + ky) as isize - pad;
                    let line = (row * source.height + (line_y.max(0) as usize >> shift)) * source.width;
                    let left = (x * stride) as isize - pad;
                    let right = left + ((P - 1) * stride + kernel - 1) as isize;
                    let in_line = one_line && line_y >= 0 && line_y < height && left >= 0 && right < width;
                    if in_line && shift == 0 {
                        // The window's pixels lie side by side, as their weights do: one long tap.
                        let mut inputs = [self.zeros.as_ptr(); P];
                        let first = source.data.as_ptr().add((line + left as usize) * channels);
                        for (p, input) in inputs.iter_mut().enumerate() {
                            *input = first.add(p * stride * channels);
                        }
                        sums = accumulate(sums, inputs, weights, packed.block, kernel * steps);
                        weights = weights.add(kernel * steps * E::STEP * LANES);
                        continue;
                    }
                    for kx in 0..kernel {
                        let mut inputs = [self.zeros.as_ptr(); P];
                        let left = (x * stride + kx) as isize - pad;
                        let right = left + ((P - 1) * stride) as isize;
                        if one_line && line_y >= 0 && line_y < height && left >= 0 && right < width {
                            let line = source.data.as_ptr().add(line * channels);
                            for (p, input) in inputs.iter_mut().enumerate() {
                                *input = line.add(((left as usize + p * stride) >> shift) * channels);
                            }
                        } else {
                            for (input, (row, y, x)) in inputs.iter_mut().zip(&places) {
                                let y = (y * stride + ky) as isize - pad;
                                let x = (x * stride + kx) as isize - pad;
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
            self.store(at, to, block, &places, sums);
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn store<const P: usize, const Q: usize>(
        &self,
        at: usize,
        to: usize,
        block: usize,
        places: &[(usize, usize, usize); P],
        sums: [[__m512; P]; Q],
    ) {
        unsafe {
            let outputs = self.packed.outputs;
            let factor = _mm512_set1_ps(self.factor);
            for (q, sums) in sums.into_iter().enumerate() {
                let channel = (block + q) * LANES;
                let mask = first(outputs - channel);
                for (p, mut sum) in sums.into_iter().enumerate() {
                    let pixel = at + p;
                    if pixel >= to {
                        break;
                    }
                    if let Some(residual) = &self.residual {
                        let pixel = if residual.doubled {
                            let (row, y, x) = places[p];
                            (row * (self.height / 2) + y / 2) * (self.width / 2) + x / 2
                        } else {
                            pixel
                        };
                        let from = residual.data.as_ptr().add(pixel * outputs + channel);
                        sum = _mm512_add_ps(sum, E::load_some(mask, from));
                    }
                    sum = _mm512_mul_ps(sum, factor);
                    O::store_some(self.out.add(pixel * outputs + channel), mask, sum);
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
