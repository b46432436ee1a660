use super::packed::points;
use super::*;
use crate::kernels::instructions::{InstructionSet, on, on_every_instruction_set};
use crate::kernels::packed::Part;
use crate::kernels::vector::Bf16;

const CHANNELS: usize = 64;
const OUTPUTS: usize = 112;
const BESIDE: usize = 6;

fn values(count: usize, seed: f32) -> Vec<f32> {
    (0..count).map(|index| (index as f32 * 0.37 + seed).sin() * 1.7).collect()
}

/// A layer with everything added to it, over `rows` pictures.
struct Layer<E> {
    set: InstructionSet,
    packed: Packed<E>,
    picture: Vec<E>,
    beside: Vec<E>,
    residual: Vec<E>,
    rows: usize,
    extents: (usize, usize),
}

impl<E: Element> Layer<E> {
    fn new(set: InstructionSet, rows: usize, (height, width): (usize, usize)) -> Self {
        let (window, narrow) = (values(OUTPUTS * CHANNELS * 9, 1.0), values(OUTPUTS * BESIDE, 2.0));
        let part = |weights, kernel, channels| Part {
            weights,
            kernel,
            inputs: channels,
            from: 0,
            channels,
            factor: 1.0,
        };
        let parts = [part(&window[..], 3, CHANNELS), part(&narrow[..], 1, BESIDE)];
        let bias = values(OUTPUTS, 3.0);
        let packed = on!(set, S => Packed::new::<S>(OUTPUTS, &parts, &bias));
        let pixels = |channels: usize, seed| -> Vec<E> {
            values(rows * height * width * channels, seed).into_iter().map(E::of).collect()
        };
        let (picture, beside, residual) =
            (pixels(CHANNELS, 4.0), pixels(BESIDE, 5.0), pixels(OUTPUTS, 6.0));
        Self { set, packed, picture, beside, residual, rows, extents: (height, width) }
    }

    /// The outputs of rows `from..to`, computed in a separate pass.
    fn run(&self, threads: usize, from: usize, to: usize) -> Vec<u32> {
        let (height, width) = self.extents;
        let row =
            |channels: usize| from * height * width * channels..to * height * width * channels;
        let source = |data| Source { data, height, width, doubled: false };
        let sources = [source(&self.picture[row(CHANNELS)]), source(&self.beside[row(BESIDE)])];
        let residual = Some(Residual { data: &self.residual[row(OUTPUTS)], doubled: false });
        let mut data = vec![0.0_f32; row(OUTPUTS).len()];
        let output = Output { data: &mut data, rows: to - from, height, width, factor: 0.5 };
        on!(self.set, S => run::<S, E, f32>(threads, &self.packed, &sources, residual, output));
        data.into_iter().map(f32::to_bits).collect()
    }

    fn is_the_same_in_any_batch_on_any_threads(&self) {
        let all = self.run(1, 0, self.rows);
        for threads in [1, 2, 3, 8] {
            assert_eq!(self.run(threads, 0, self.rows), all, "{threads} threads");
            let apart: Vec<u32> =
                (0..self.rows).flat_map(|row| self.run(threads, row, row + 1)).collect();
            assert_eq!(apart, all, "alone, {threads} threads");
        }
    }
}

#[test]
fn a_row_has_the_bits_it_has_alone_on_any_number_of_threads() {
    // Tiles in one piece and in many, lines that end within a group of tiles, borders that cut
    // tiles.
    for extents in [(4, 4), (7, 5), (33, 46)] {
        on_every_instruction_set(|set| {
            Layer::<f32>::new(set, 5, extents).is_the_same_in_any_batch_on_any_threads();
            Layer::<Bf16>::new(set, 5, extents).is_the_same_in_any_batch_on_any_threads();
        });
    }
}

#[test]
fn a_window_of_one_tap_has_these_points() {
    let mut window = [0.0; 9];
    window[4] = 4.0;
    let line = [0.0, 1.0, -1.0, 0.0];
    let expected: Vec<f32> =
        line.iter().flat_map(|tall| line.map(|wide| 0.5 * tall * wide)).collect();
    assert_eq!(points(&window, 0.5).to_vec(), expected);
}
