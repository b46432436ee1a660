//! What renders: a trait without any machine learning in it, so that a worker can run on a fake.

use std::{ops::ControlFlow, sync::Arc};

use darkroom_artifacts::tensor::FloatTensor;
use darkroom_core::settings::StageSettings;
use darkroom_queue::{
    stage_loop::BatchFault,
    task::{Outcome, PoolId},
};

use crate::batch::Room;
use crate::service::Served;

/// What to run on, as a user says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// `auto`, `cpu`, `cuda` or `cuda:N`; absent: `auto`.
    pub device: Option<String>,
    /// `auto`, `f32` or `bf16`; absent: `auto`.
    pub dtype: Option<String>,
    /// Threads inside one operation; absent: one per core.
    pub threads: Option<usize>,
    /// On a GPU, every operation is launched by itself, never as part of a recorded graph.
    pub eager: bool,
    /// Bytes that the weights of the models in memory may take together; absent: on a GPU what it has free at the start less
    /// a quarter, on a CPU no limit.
    pub model_memory: Option<u64>,
}

/// The inputs of one image in one stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    /// Embedding of the prompt, `[tokens, width]`.
    pub text: Arc<FloatTensor>,
    /// Embedding of the negative prompt, where the stage is guided.
    pub negative: Option<Arc<FloatTensor>>,
    /// The stage before's picture, `[3, height, width]` in −1…1.
    pub low_res: Option<FloatTensor>,
    /// The picture to start from, `[3, height, width]` in −1…1 at the stage's own size; where the settings have a strength.
    pub image: Option<Arc<FloatTensor>>,
    /// What of it is painted anew, `[1, height, width]`, 1 where it is; all of it where there is none.
    pub mask: Option<Arc<FloatTensor>>,
    /// Names the image's noise.
    pub seed: u64,
}

/// A batch: rows of one pool with equal settings.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The stage of a cascade.
    pub pool: &'a PoolId,
    /// The settings of all rows.
    pub settings: &'a StageSettings,
    /// The rows.
    pub rows: &'a [&'a Inputs],
}

/// The models of the stages a worker serves. Owned by one thread.
pub trait Renderer: 'static {
    /// Renders a batch: one result per row in order, each `[3, height, width]` in −1…1. A row's bytes depend on its inputs,
    /// the settings and the device class alone. `on_step` is called after each step and may stop the batch.
    ///
    /// # Errors
    /// A fault of the whole batch.
    fn render(
        &mut self,
        batch: &Batch<'_>,
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Result<FloatTensor, Outcome>>, BatchFault>;

    /// Device, for people.
    fn device(&self) -> String;

    /// Class of device: same class, same bytes.
    fn device_class(&self) -> String;

    /// How many images of a stage a batch may have, before anything is timed.
    fn room(&self, stage: &Served) -> Room {
        Room::by_rule(stage.size)
    }

    /// Seconds of model time that a batch of so many images at a stage's usual settings takes, measured in a fraction of
    /// that; none where it is not worth the time it would take, or fails.
    fn trial(&mut self, _stage: &Served, _rows: usize) -> Result<Option<f64>, BatchFault> {
        Ok(None)
    }

    /// Called after a panic in `render`.
    fn recover(&mut self) {}
}
