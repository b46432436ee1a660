//! A fake renderer: deterministic pictures from seed and inputs. Delays, failures and panics can be
//! configured.

use std::{ops::ControlFlow, time::Duration};

use darkroom_artifacts::tensor::FloatTensor;
use darkroom_core::digest::{Digest, FieldHasher};
use darkroom_queue::{
    stage_loop::BatchFault,
    task::{DeviceMemory, Outcome},
};

use crate::renderer::{Batch, Inputs, Renderer, machine_memory};

/// How the fake behaves.
#[derive(Clone, Debug, Default)]
pub struct FakeOptions {
    /// Time per step of a batch.
    pub step: Duration,
    /// Seeds whose images fail.
    pub failing_seeds: Vec<u64>,
    /// Seeds that make the renderer panic.
    pub panicking_seeds: Vec<u64>,
    /// Seeds that abort the whole process, as a crash inside a driver does.
    pub aborting_seeds: Vec<u64>,
    /// Batches with more rows run out of memory.
    pub memory_rows: Option<usize>,
}

/// Renders deterministic pictures without a model. It waits, fails or panics as its options say.
#[derive(Debug, Default)]
pub struct FakeRenderer {
    options: FakeOptions,
}

impl FakeRenderer {
    /// A fake with these options.
    #[must_use]
    pub fn new(options: FakeOptions) -> Self {
        Self { options }
    }
}

impl Renderer for FakeRenderer {
    fn memory(&self) -> Option<DeviceMemory> {
        machine_memory()
    }

    fn render(
        &mut self,
        batch: &Batch<'_>,
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Result<FloatTensor, Outcome>>, BatchFault> {
        if self.options.memory_rows.is_some_and(|rows| batch.rows.len() > rows) {
            return Err(BatchFault::OutOfMemory { least: 1 });
        }
        for row in batch.rows {
            assert!(!self.options.panicking_seeds.contains(&row.seed), "ordered by the test");
            if self.options.aborting_seeds.contains(&row.seed) {
                std::process::abort();
            }
        }
        for _ in 0..batch.settings.sampling.steps {
            if !self.options.step.is_zero() {
                std::thread::sleep(self.options.step);
            }
            if on_step().is_break() {
                return Err(BatchFault::Interrupted);
            }
        }
        let picture = |row: &&Inputs| {
            if self.options.failing_seeds.contains(&row.seed) {
                let message = "ordered by the test".to_owned();
                return Err(Outcome::Failed { code: "fake".into(), message });
            }
            Ok(picture(batch, row))
        };
        Ok(batch.rows.iter().map(picture).collect())
    }

    fn device(&self) -> String {
        "fake".to_owned()
    }

    fn device_class(&self) -> String {
        "fake".to_owned()
    }
}

/// A gradient whose colours are a digest of every input that decides a picture.
fn picture(batch: &Batch<'_>, row: &Inputs) -> FloatTensor {
    let hasher =
        FieldHasher::new("fake picture").field(&batch.pool.digest.0).field(&row.seed.to_le_bytes());
    let mut hasher = batch.settings.hash(hasher).field(&digest(&row.text).0);
    for input in row.negative.as_deref().into_iter().chain(&row.low_res) {
        hasher = hasher.field(&digest(input).0);
    }
    for (name, input) in [("image", &row.image), ("mask", &row.mask)] {
        if let Some(input) = input {
            hasher = hasher.field(name.as_bytes()).field(&digest(input).0);
        }
    }
    let Digest(bytes) = hasher.finish();
    let extent = batch.settings.extent();
    let (width, height) = (extent.width as usize, extent.height as usize);
    let mut data = Vec::with_capacity(3 * width * height);
    for channel in bytes.chunks(4).take(3) {
        let [start, right, down] =
            [channel[0], channel[1], channel[2]].map(|byte| f32::from(byte) / 255.0);
        for y in 0..height {
            let line = start + down * y as f32 / height as f32;
            data.extend(
                (0..width).map(|x| (line + right * x as f32 / width as f32) % 1.0 * 2.0 - 1.0),
            );
        }
    }
    FloatTensor { shape: vec![3, height, width], data }
}

fn digest(tensor: &FloatTensor) -> Digest {
    let bytes: Vec<u8> = tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect();
    Digest::of(&bytes)
}
