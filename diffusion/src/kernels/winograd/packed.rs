//! Weights of a convolution in the form for Winograd's transform: G g Gᵀ, computed in f32 and
//! rounded once.

use std::ops::Range;

use crate::kernels::packed::{Layout, Part, Taps, fill_rows};
use crate::kernels::vector::{Element, MOST_LANES, Simd};
use crate::weights::WIDE;

/// Points of a tile's transform.
pub(super) const POINTS: usize = 16;

/// Weights of a 3 × 3 convolution, and of 1 × 1 convolutions over other sources that are added to
/// it.
pub(crate) struct Packed<E> {
    /// `[vectors][point, channel; then source, channel][lanes of a vector · STEP]`.
    pub(super) weights: Vec<E>,
    pub(super) bias: Vec<f32>,
    pub(super) outputs: usize,
    /// Elements of one vector of outputs' weights.
    pub(super) block: usize,
    pub(super) sources: Vec<Taps>,
    /// Of a vector.
    pub(super) lanes: usize,
}

/// Whether a layer is enough faster with this transform. The answer depends only on the network,
/// because it changes the bits of pictures.
pub(crate) fn pays(outputs: usize, parts: &[Part<'_>], layout: Layout) -> bool {
    let [window, beside @ ..] = parts else { return false };
    matches!(layout, Layout::Stride(1) | Layout::Apart)
        && window.kernel == 3
        && beside.iter().all(|part| part.kernel == 1)
        && window.channels.min(outputs) >= WIDE
}

impl<E: Element> Packed<E> {
    /// For the vectors of `S`.
    pub(crate) fn new<S: Simd>(outputs: usize, parts: &[Part<'_>], bias: &[f32]) -> Self {
        let padded = |part: &Part<'_>| part.channels.next_multiple_of(E::STEP);
        let (window, beside) = parts.split_first().expect("a convolution has a window");
        let block = (POINTS * padded(window) + beside.iter().map(padded).sum::<usize>()) * S::LANES;
        let mut weights = vec![E::ZERO; outputs.div_ceil(S::LANES) * block];
        for (index, weights) in weights.chunks_exact_mut(block).enumerate() {
            let lanes = index * S::LANES..outputs.min((index + 1) * S::LANES);
            let (points, mut rest) = weights.split_at_mut(POINTS * padded(window) * S::LANES);
            fill_points::<S, E>(points, lanes.clone(), window);
            for part in beside {
                let (own, behind) = rest.split_at_mut(padded(part) * S::LANES);
                fill_rows(own, S::LANES, lanes.clone(), part);
                rest = behind;
            }
        }
        let bias = (0..outputs.next_multiple_of(S::LANES))
            .map(|lane| bias.get(lane).copied().unwrap_or(0.0));
        let sources = parts.iter().map(|part| Taps { channels: padded(part) }).collect();
        Self { weights, bias: bias.collect(), outputs, block, sources, lanes: S::LANES }
    }

    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(crate) fn sources(&self) -> &[Taps] {
        &self.sources
    }
}

/// `[point, channel / STEP][lanes of a vector · STEP]` for the outputs `lanes`.
fn fill_points<S: Simd, E: Element>(weights: &mut [E], lanes: Range<usize>, part: &Part<'_>) {
    let steps = part.channels.div_ceil(E::STEP);
    let width = S::LANES * E::STEP;
    let mut of_step = [[0.0_f32; 2 * MOST_LANES]; POINTS];
    for step in 0..steps {
        let channels = step * E::STEP..part.channels.min((step + 1) * E::STEP);
        of_step.iter_mut().for_each(|values| values.fill(0.0));
        for (lane, output) in lanes.clone().enumerate() {
            for (place, channel) in channels.clone().enumerate() {
                let from = (output * part.inputs + part.from + channel) * 9;
                let window: &[f32; 9] = part.weights[from..from + 9].try_into().expect("nine");
                for (values, value) in of_step.iter_mut().zip(points(window, part.factor)) {
                    values[lane * E::STEP + place] = value;
                }
            }
        }
        for (point, values) in of_step.iter().enumerate() {
            let to = (point * steps + step) * width;
            E::round::<S>(&values[..width], &mut weights[to..to + width]);
        }
    }
}

/// G g Gᵀ.
pub(super) fn points(window: &[f32; 9], factor: f32) -> [f32; POINTS] {
    let mut tall = [[0.0; 3]; 4];
    for column in 0..3 {
        let [a, b, c] =
            [window[column], window[3 + column], window[6 + column]].map(|value| value * factor);
        let (ends, middle) = (0.5 * (a + c), 0.5 * b);
        for (line, value) in tall.iter_mut().zip([a, ends + middle, ends - middle, c]) {
            line[column] = value;
        }
    }
    let mut all = [0.0; POINTS];
    for (line, [a, b, c]) in tall.into_iter().enumerate() {
        let (ends, middle) = (0.5 * (a + c), 0.5 * b);
        all[4 * line..4 * line + 4].copy_from_slice(&[a, ends + middle, ends - middle, c]);
    }
    all
}
