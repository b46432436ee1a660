//! The real renderer, on darkroom-diffusion.

use std::{ops::ControlFlow, time::Instant};

use darkroom_artifacts::tensor::FloatTensor;
use darkroom_core::{
    error::{Code, UserError},
    failure_code::FailureCode,
    settings::StageSettings,
};
use darkroom_diffusion::{
    DeviceChoice, GpuMemory, HostTensor, RenderError, RowInput, SamplerSettings, free_memory,
    gpu_index, gpu_memory,
};
use darkroom_queue::{
    stage_loop::BatchFault,
    task::{DeviceMemory, Outcome, PoolId},
};

use crate::{
    batch::Room,
    loading::{load_failed, load_options},
    model_cache::ModelCache,
    renderer::{Batch, Inputs, Machine, Renderer, machine_memory},
    served::Served,
};

/// Steps of a trial. One pass before them initialises libtorch.
const TRIAL_STEPS: u32 = 2;

/// The models of the stages that a worker serves; as many in memory as fit.
pub struct TorchRenderer {
    models: ModelCache,
    device: String,
    device_class: String,
    choice: DeviceChoice,
    /// Whether stages are tried before the worker takes work; see [`crate::batch`].
    tries: bool,
}

impl TorchRenderer {
    /// Checks every stage's files, and loads as many models as fit.
    ///
    /// # Errors
    /// The wrong device, option or file, or the stage that cannot fit.
    pub fn load(served: &[Served], machine: &Machine) -> Result<Self, UserError> {
        let options = load_options(machine)?;
        let choice = options.device;
        let budget = match machine.model_memory {
            Some(bytes) => Some(bytes),
            None => free_memory(&options)
                .map_err(|error| load_failed(&error))?
                .map(|free| free - free / 4),
        };
        let mut models = ModelCache::survey(served, options, budget)?;
        models.fill().map_err(|error| load_failed(&error))?;
        let first = models.any().ok_or_else(|| {
            UserError::new(
                Code::InvalidArgument,
                "NOTHING_TO_SERVE",
                "no stage is given; accepted: at least one",
            )
        })?;
        let device = first.describe().device;
        let tries = served.iter().any(|stage| models.images_per_pass(&stage.pool).is_some());
        Ok(Self { device_class: first.row_class(), device, choice, models, tries })
    }

    /// Tries stages on a CPU too.
    #[cfg(test)]
    pub(crate) fn with_trials(self) -> Self {
        Self { tries: true, ..self }
    }

    fn seconds(
        &mut self,
        pool: &PoolId,
        settings: &SamplerSettings,
        rows: &[RowInput],
    ) -> Result<f64, RenderError> {
        let begun = Instant::now();
        self.models
            .run(pool, |model| model.render(settings, rows, &mut |_| ControlFlow::Continue(())))?;
        Ok(begun.elapsed().as_secs_f64())
    }
}

fn host_tensor(tensor: &FloatTensor) -> HostTensor {
    HostTensor { shape: tensor.shape.clone(), data: tensor.data.clone() }
}

fn row(inputs: &Inputs) -> RowInput {
    RowInput {
        text: host_tensor(&inputs.text),
        negative: inputs.negative.as_deref().map(host_tensor),
        low_res: inputs.low_res.as_ref().map(host_tensor),
        init_image: inputs.image.as_deref().map(host_tensor),
        mask: inputs.mask.as_deref().map(host_tensor),
        seed: inputs.seed,
    }
}

/// Inputs with the shapes of a real job's; their values do not matter.
fn made_up(stage: &Served, text_dim: usize, seed: u64) -> RowInput {
    let filled = |shape: Vec<usize>| HostTensor { data: vec![0.1; shape.iter().product()], shape };
    let edge = (stage.size as usize / 4).max(1);
    RowInput {
        text: filled(vec![stage.tokens, text_dim]),
        negative: Some(filled(vec![stage.tokens, text_dim])),
        low_res: stage.usual.sampling.noise_level.map(|_| filled(vec![3, edge, edge])),
        init_image: None,
        mask: None,
        seed,
    }
}

/// What the model must make.
fn sampler_settings(wanted: &StageSettings) -> SamplerSettings {
    let extent = wanted.extent();
    SamplerSettings {
        sampling: wanted.sampling.clone(),
        width: extent.width as usize,
        height: extent.height as usize,
    }
}

impl Renderer for TorchRenderer {
    fn memory(&self) -> Option<DeviceMemory> {
        let Some(gpu) = gpu_index(self.choice) else { return machine_memory() };
        gpu_memory(gpu).map(|GpuMemory { used, total }| DeviceMemory { used, total })
    }

    fn render(
        &mut self,
        batch: &Batch<'_>,
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Result<FloatTensor, Outcome>>, BatchFault> {
        let settings = sampler_settings(batch.settings);
        let rows: Vec<RowInput> = batch.rows.iter().map(|inputs| row(inputs)).collect();
        let pictures =
            self.models.run(batch.pool, |model| model.render(&settings, &rows, &mut |_| on_step()));
        let pictures = pictures.map_err(fault)?;
        Ok(pictures
            .into_iter()
            .map(|picture| Ok(FloatTensor { shape: picture.shape, data: picture.data }))
            .collect())
    }

    fn trial(&mut self, stage: &Served, rows: usize) -> Result<Option<f64>, BatchFault> {
        // Loading this model in place of another would take longer than the trial.
        if !self.tries || !self.models.loaded().contains(&&stage.pool) {
            return Ok(None);
        }
        let steps = stage.usual.sampling.steps.min(TRIAL_STEPS);
        let mut settings = sampler_settings(&stage.usual);
        (settings.sampling.steps, settings.sampling.timesteps) = (steps, Vec::new());
        let text_dim =
            self.models.run(&stage.pool, |model| Ok(model.describe().text_dim)).map_err(fault)?;
        let inputs: Vec<RowInput> =
            (0..rows as u64).map(|seed| made_up(stage, text_dim, seed)).collect();
        if rows == self.room(stage).least {
            self.seconds(&stage.pool, &settings, &inputs).map_err(fault)?;
        }
        let seconds = self.seconds(&stage.pool, &settings, &inputs).map_err(fault)?;
        Ok(Some(seconds * f64::from(stage.usual.sampling.steps) / f64::from(steps.max(1))))
    }

    fn room(&self, stage: &Served) -> Room {
        self.models
            .images_per_pass(&stage.pool)
            .map_or_else(|| Room::by_rule(stage.size), Room::of_passes)
    }

    fn device(&self) -> String {
        self.device.clone()
    }

    fn device_class(&self) -> String {
        self.device_class.clone()
    }
}

fn fault(error: RenderError) -> BatchFault {
    let code = match &error {
        RenderError::Interrupted => return BatchFault::Interrupted,
        RenderError::OutOfMemory(_) => return BatchFault::OutOfMemory { least: 1 },
        RenderError::NonFinite { .. } => FailureCode::NonFinite,
        RenderError::Invalid { .. } => FailureCode::InvalidInput,
        RenderError::Torch(_) => FailureCode::Torch,
    };
    BatchFault::Failed { code, message: error.to_string() }
}
