//! The trait of renderers. It contains no machine learning, so a worker can run on a fake.

use std::{ops::ControlFlow, sync::Arc};

use darkroom_artifacts::tensor::FloatTensor;
use darkroom_core::settings::StageSettings;
use darkroom_queue::{
    stage_loop::BatchFault,
    task::{DeviceMemory, Outcome, PoolId},
};
use darkroom_runtime::memory::MachineMemory;

use crate::batch::Room;
use crate::served::Served;

/// What to run on, as a user writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// `auto`, `cpu`, `cuda` or `cuda:N`; absent means `auto`.
    pub device: Option<String>,
    /// `auto`, `f32` or `bf16`; absent means `auto`.
    pub dtype: Option<String>,
    /// Threads inside one operation; absent means one per core.
    pub threads: Option<usize>,
    /// On a GPU, launch every operation separately instead of replaying recorded graphs.
    pub eager: bool,
    /// Most bytes for the weights of all loaded models; absent: on a GPU three quarters of what is
    /// free at the start, on a CPU no limit.
    pub model_memory: Option<u64>,
}

/// The inputs of one image in one stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    /// Embedding of the prompt, `[tokens, width]`.
    pub text: Arc<FloatTensor>,
    /// Embedding of the negative prompt, if the stage is guided.
    pub negative: Option<Arc<FloatTensor>>,
    /// The picture of the stage before, `[3, height, width]` in −1…1.
    pub low_res: Option<FloatTensor>,
    /// The picture to start from, `[3, height, width]` in −1…1 at the stage's own size; only if the
    /// settings have a strength.
    pub image: Option<Arc<FloatTensor>>,
    /// The part that is painted anew, `[1, height, width]`, 1 in that part; if absent, all of the
    /// picture.
    pub mask: Option<Arc<FloatTensor>>,
    /// Decides the image's noise.
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

/// Memory of the machine, for what computes on its processors.
pub(crate) fn machine_memory() -> Option<DeviceMemory> {
    let MachineMemory { used, total } = MachineMemory::read()?;
    Some(DeviceMemory { used, total })
}

/// The models of the stages that a worker serves. Owned by one thread.
pub trait Renderer: 'static {
    /// Renders a batch and returns one result per row in order, each `[3, height, width]` in −1…1.
    /// A row's bytes depend only on its inputs, the settings and the device class. `on_step` is
    /// called after each step and may stop the batch.
    ///
    /// # Errors
    /// An error of the whole batch.
    fn render(
        &mut self,
        batch: &Batch<'_>,
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Result<FloatTensor, Outcome>>, BatchFault>;

    /// Device, for people.
    fn device(&self) -> String;

    /// Class of device: devices of one class make the same bytes.
    fn device_class(&self) -> String;

    /// Memory of the device. `None`: not known.
    fn memory(&self) -> Option<DeviceMemory> {
        None
    }

    /// Limits on the images per batch of a stage, before anything is measured.
    fn room(&self, stage: &Served) -> Room {
        Room::by_rule(stage.size)
    }

    /// Seconds of model time that a batch of this many images takes at the stage's usual settings.
    /// Measured in a fraction of that time; none if a trial is not worth its time, or fails.
    fn trial(&mut self, _stage: &Served, _rows: usize) -> Result<Option<f64>, BatchFault> {
        Ok(None)
    }

    /// Called after a panic in `render`.
    fn recover(&mut self) {}
}
