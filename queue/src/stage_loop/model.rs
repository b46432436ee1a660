//! What computes a stage.

use std::ops::ControlFlow;

use darkroom_core::failure_code::FailureCode;

use crate::task::{DeviceMemory, Outcome, PoolId, Task};

/// A model on its own thread. It is created there, so it need not be `Send`.
pub trait Model: 'static {
    /// The same as [`Stage::Input`](super::Stage::Input).
    type Input;
    /// The same as [`Stage::Output`](super::Stage::Output).
    type Output;

    /// Runs a batch and returns one result per row, in order. Calls `on_step` after each step;
    /// `on_step` may ask to stop.
    fn run(
        &mut self,
        pool: &PoolId,
        rows: &[Row<'_, Self::Input>],
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Result<Self::Output, Outcome>>, BatchFault>;

    /// Device, for people.
    fn device(&self) -> String;

    /// Class of device: devices of one class make the same bytes.
    fn device_class(&self) -> String;

    /// Largest batch of a pool, as far as the model knows. Asked after the model is made and after
    /// every batch. `None`: as configured.
    fn batch_cap(&self, _pool: &PoolId) -> Option<usize> {
        None
    }

    /// Memory of the device. Asked after the model is made and after every batch, so it must cost
    /// next to nothing. `None`: not known.
    fn memory(&self) -> Option<DeviceMemory> {
        None
    }

    /// Called after a panic in `run`. Drops whatever the panic left half done.
    fn recover(&mut self) {}
}

/// One row of a batch.
#[derive(Debug)]
pub struct Row<'a, I> {
    /// The task.
    pub task: &'a Task,
    /// Its inputs.
    pub input: &'a I,
}

/// Why a whole batch has no results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchFault {
    /// `on_step` asked to stop.
    Interrupted,
    /// The batch is too big for the device.
    OutOfMemory {
        /// A batch of fewer images than this takes as much memory; 1 if every image takes its own.
        least: usize,
    },
    /// It failed. It is run again row by row, unless it was a single row.
    Failed {
        /// Why, in one word.
        code: FailureCode,
        /// One sentence.
        message: String,
    },
}
