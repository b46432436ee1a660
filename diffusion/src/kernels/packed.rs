//! Weights of convolutions and linear layers, packed once in the form that the products need.

use std::ops::Range;

use super::vector::Element;

/// Weights of a convolution, or of several that are summed, for every phase of the output.
///
/// Outputs are computed in cells. A cell is one pixel, or a few neighbouring pixels if one pixel's
/// outputs would leave most lanes of a vector idle. A convolution that doubles has phases: outputs
/// at even and at odd positions see different taps of the small picture, and each phase sums the
/// weights of the same pixel in advance.
pub(crate) struct Packed<E> {
    pub(super) phases: Vec<Phase<E>>,
    /// Of all lanes of a cell.
    pub(super) bias: Vec<f32>,
    /// Of one pixel.
    pub(super) outputs: usize,
    /// Neighbouring pixels of a line in one cell.
    pub(super) together: usize,
    pub(super) layout: Layout,
    /// Elements of one vector of lanes' weights.
    pub(super) block: usize,
    pub(super) sources: Vec<Taps>,
    /// Of a vector.
    pub(super) lanes: usize,
}

/// One phase's weights, `[vectors][source, line, tap, channel][lanes of a vector · STEP]`.
pub(super) struct Phase<E> {
    pub(super) weights: Vec<E>,
    /// Where its first cell lies in the output.
    pub(super) down: usize,
    pub(super) right: usize,
    pub(super) windows: Vec<Window>,
}

/// What a phase reads of one source for a cell, relative to the cell's position.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) top: isize,
    pub(super) left: isize,
    pub(super) lines: usize,
    pub(super) columns: usize,
}

/// How outputs are spaced relative to inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One output per this many inputs, in both directions.
    Stride(usize),
    /// One output for every input, pixel by pixel. The picture that is added may be half as large.
    Apart,
    /// The output is twice as large: a convolution over its input, doubled by nearest neighbour.
    Double,
}

/// The contribution of a source to every output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taps {
    /// A multiple of what one multiply-and-add takes.
    pub(crate) channels: usize,
}

/// One part of a layer's weights as in the file: `[outputs, channels, kernel, kernel]`, and which
/// of the channels.
pub(crate) struct Part<'a> {
    pub(crate) weights: &'a [f32],
    /// Edge of the window; 1 or an odd number.
    pub(crate) kernel: usize,
    /// Channels of the whole weight.
    pub(crate) inputs: usize,
    pub(crate) from: usize,
    pub(crate) channels: usize,
    /// Factor of the weights.
    pub(crate) factor: f32,
}

impl Layout {
    /// The position in the source of tap `tap`, for the output at `place` within a cell, relative
    /// to the cell's position.
    fn met(self, place: usize, tap: usize, kernel: usize) -> isize {
        let pad = (kernel / 2) as isize;
        match self {
            Self::Stride(stride) => (place * stride + tap) as isize - pad,
            Self::Apart => (place + tap) as isize - pad,
            Self::Double => ((place + tap) as isize - pad).div_euclid(2),
        }
    }

    /// First position in the source and number of positions that outputs `from..from + count` use.
    fn window(self, from: usize, count: usize, kernel: usize) -> (isize, usize) {
        let first = self.met(from, 0, kernel);
        (first, (self.met(from + count - 1, kernel - 1, kernel) - first + 1) as usize)
    }

    /// How many neighbouring pixels to compute as one cell: the number with the fewest
    /// multiply-and-adds per pixel.
    fn together(self, lanes: usize, outputs: usize, parts: &[Part<'_>]) -> usize {
        let ([part], true) = (parts, self != Self::Apart) else { return 1 };
        let cost = |together: usize| {
            let (_, columns) = self.window(0, together, part.kernel);
            columns as f64 * (outputs * together).div_ceil(lanes) as f64 / together as f64
        };
        [2, 4].into_iter().fold(1, |best, more| if cost(more) < cost(best) { more } else { best })
    }

    /// Pixels in a source from one cell to the next, down and to the right.
    pub(super) fn steps(self, together: usize) -> (usize, usize) {
        match self {
            Self::Stride(stride) => (stride, stride * together),
            Self::Apart => (1, 1),
            Self::Double => (1, together.div_ceil(2)),
        }
    }
}

impl<E: Element> Packed<E> {
    /// For vectors of `lanes`.
    pub(crate) fn new(
        lanes: usize,
        outputs: usize,
        parts: &[Part<'_>],
        bias: &[f32],
        layout: Layout,
    ) -> Self {
        let together = layout.together(lanes, outputs, parts);
        let phases: &[(usize, usize)] = match layout {
            Layout::Stride(_) | Layout::Apart => &[(0, 0)],
            Layout::Double if together > 1 => &[(0, 0), (1, 0)],
            Layout::Double => &[(0, 0), (0, 1), (1, 0), (1, 1)],
        };
        let phases: Vec<Phase<E>> = phases
            .iter()
            .map(|phase| Phase::new(lanes, (outputs, together), parts, layout, *phase))
            .collect();
        let blocks = (outputs * together).div_ceil(lanes);
        let bias = (0..blocks * lanes)
            .map(|lane| if lane < outputs * together { bias[lane % outputs] } else { 0.0 })
            .collect();
        let block = phases.first().map_or(0, |phase| phase.weights.len() / blocks.max(1));
        let sources = parts
            .iter()
            .map(|part| Taps { channels: part.channels.next_multiple_of(E::STEP) })
            .collect();
        Self { phases, bias, outputs, together, layout, block, sources, lanes }
    }

    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(crate) fn sources(&self) -> &[Taps] {
        &self.sources
    }

    /// The output's extent for a source's extent.
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
        lanes: usize,
        (outputs, together): (usize, usize),
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
        let lane_size: usize =
            sizes.map(|(part, window)| window.lines * window.columns * padded(part)).sum();
        let mut weights = vec![E::ZERO; lane_size * lanes * (outputs * together).div_ceil(lanes)];
        if let ([part], 1) = (parts, together)
            && part.kernel == 1
        {
            fill_matrix(&mut weights, lanes, outputs, part);
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
                        let from =
                            (output * part.inputs + part.from + channel) * kernel * kernel + tap;
                        own[to + channel] += part.weights[from] * part.factor;
                    }
                }
            }
            let begin = (lane / lanes) * lane_size * lanes + (lane % lanes) * E::STEP;
            for (index, weight) in of_lane.iter().enumerate() {
                weights[begin + (index / E::STEP) * E::STEP * lanes + index % E::STEP] =
                    E::of(*weight);
            }
        }
        Self { weights, down, right, windows }
    }
}

/// Packs a matrix; a text encoder has hundreds of them.
fn fill_matrix<E: Element>(weights: &mut [E], lanes: usize, outputs: usize, part: &Part<'_>) {
    let block = part.channels.next_multiple_of(E::STEP) * lanes;
    for (index, weights) in weights.chunks_exact_mut(block).enumerate() {
        fill_rows(weights, lanes, index * lanes..outputs.min((index + 1) * lanes), part);
    }
}

/// Packs up to `lanes` rows of a matrix, in the order of the packed weights.
pub(super) fn fill_rows<E: Element>(
    weights: &mut [E],
    lanes: usize,
    rows: Range<usize>,
    part: &Part<'_>,
) {
    let row = |output: usize| {
        let from = output * part.inputs + part.from;
        &part.weights[from..from + part.channels]
    };
    let rows: Vec<&[f32]> = rows.map(row).collect();
    for (step, weights) in weights.chunks_exact_mut(E::STEP * lanes).enumerate() {
        let channels = step * E::STEP..part.channels.min((step + 1) * E::STEP);
        for (row, weights) in rows.iter().zip(weights.chunks_exact_mut(E::STEP)) {
            for (weight, value) in weights.iter_mut().zip(&row[channels.clone()]) {
                *weight = E::of(value * part.factor);
            }
        }
    }
}
