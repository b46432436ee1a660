//! The real renderer, on darkroom-diffusion.

use std::{ops::ControlFlow, time::Instant};

use darkroom_artifacts::tensor::FloatTensor;
use darkroom_core::{
    error::{Code, UserError},
    settings::{GuidanceSchedule, Sampler, Spacing, StageSettings, Thresholding},
};
use darkroom_diffusion::{
    DeviceChoice, DtypeChoice, HostTensor, LoadError, LoadOptions, RenderError, RowInput, SamplerSettings,
    free_memory,
};
use darkroom_queue::{
    stage_loop::BatchFault,
    task::{Outcome, PoolId},
};

use crate::{
    batch::Room,
    model_cache::ModelCache,
    renderer::{Batch, Inputs, Machine, Renderer},
    service::Served,
};

/// Steps of a trial; the pass before them sets libtorch up.
const TRIAL_STEPS: u32 = 2;

/// Models of the stages a worker serves, as many in memory as fit.
pub struct TorchRenderer {
    models: ModelCache,
    device: String,
    device_class: String,
    /// Whether stages are tried before work is taken; see [`crate::batch`].
    tries: bool,
}

impl TorchRenderer {
    /// Checks every stage's files, and loads as many as fit.
    ///
    /// # Errors
    /// The device, the option or the file at fault, or the stage that cannot fit.
    pub fn load(served: &[Served], machine: &Machine) -> Result<Self, UserError> {
        let options = load_options(machine)?;
        let budget = match machine.model_memory {
            Some(bytes) => Some(bytes),
            None => free_memory(&options).map_err(|error| load_failed(&error))?.map(|free| free - free / 4),
        };
        let mut models = ModelCache::survey(served, options, budget)?;
        models.fill().map_err(|error| load_failed(&error))?;
        let first = models.any().ok_or_else(|| {
            UserError::new(Code::InvalidArgument, "NOTHING_TO_SERVE", "no stage to serve is given")
        })?;
        let device = first.describe().device;
        let tries = device.starts_with("cuda");
        Ok(Self { device_class: first.row_class(), device, models, tries })
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
        self.models.run(pool, |model| model.render(settings, rows, &mut |_| ControlFlow::Continue(())))?;
        Ok(begun.elapsed().as_secs_f64())
    }
}

/// Reads what a user says of the machine.
///
/// # Errors
/// The field at fault, and what is accepted.
pub fn load_options(machine: &Machine) -> Result<LoadOptions, UserError> {
    let device = match machine.device.as_deref().unwrap_or("auto") {
        "auto" => DeviceChoice::Auto,
        "cpu" => DeviceChoice::Cpu,
        "cuda" => DeviceChoice::Cuda(0),
        other => match other.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
            Some(index) => DeviceChoice::Cuda(index),
            None => {
                let message = format!("device is {other:?}; accepted: auto, cpu, cuda or cuda:N");
                return Err(UserError::invalid("device", message));
            }
        },
    };
    let dtype = match machine.dtype.as_deref().unwrap_or("auto") {
        "auto" => DtypeChoice::Auto,
        "f32" => DtypeChoice::F32,
        "bf16" => DtypeChoice::Bf16,
        other => {
            let message = format!("dtype is {other:?}; accepted: auto, f32 or bf16");
            return Err(UserError::invalid("dtype", message));
        }
    };
    if machine.threads == Some(0) {
        return Err(UserError::invalid("threads", "threads is 0; accepted: at least 1"));
    }
    Ok(LoadOptions {
        device,
        dtype,
        threads: machine.threads,
        eager: machine.eager,
        ..LoadOptions::default()
    })
}

pub(crate) fn load_failed(error: &LoadError) -> UserError {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let message = causes.fold(error.to_string(), |message, cause| format!("{message}: {cause}"));
    let code = if error.retryable() { Code::Unavailable } else { Code::FailedPrecondition };
    UserError::new(code, "MODEL_NOT_LOADED", message)
}

fn host(tensor: &FloatTensor) -> HostTensor {
    HostTensor { shape: tensor.shape.clone(), data: tensor.data.clone() }
}

fn row(inputs: &Inputs) -> RowInput {
    RowInput {
        text: host(&inputs.text),
        negative: inputs.negative.as_deref().map(host),
        low_res: inputs.low_res.as_ref().map(host),
        init_image: inputs.image.as_deref().map(host),
        mask: inputs.mask.as_deref().map(host),
        seed: inputs.seed,
    }
}

/// Inputs of a shape that a job's would have; their values do not matter.
fn made_up(stage: &Served, text_dim: usize, seed: u64) -> RowInput {
    let filled = |shape: Vec<usize>| HostTensor { data: vec![0.1; shape.iter().product()], shape };
    let edge = (stage.size as usize / 4).max(1);
    RowInput {
        text: filled(vec![stage.tokens, text_dim]),
        negative: Some(filled(vec![stage.tokens, text_dim])),
        low_res: stage.usual.noise_level.map(|_| filled(vec![3, edge, edge])),
        init_image: None,
        mask: None,
        seed,
    }
}

/// The settings in the words of the mathematics.
fn sampler_settings(wanted: &StageSettings) -> SamplerSettings {
    use darkroom_diffusion as diffusion;
    SamplerSettings {
        sampler: match wanted.sampler {
            Sampler::Ddpm => diffusion::Sampler::Ddpm,
            Sampler::Ddim => diffusion::Sampler::Ddim,
            Sampler::DpmSolverPlusPlus => diffusion::Sampler::DpmSolverPp,
            Sampler::SdeDpmSolverPlusPlus => diffusion::Sampler::SdeDpmSolverPp,
        },
        steps: wanted.steps as usize,
        timesteps: Some(wanted.timesteps.clone()).filter(|list| !list.is_empty()),
        spacing: match wanted.spacing {
            Spacing::Configured => None,
            Spacing::Leading => Some(diffusion::Spacing::Leading),
            Spacing::Linspace => Some(diffusion::Spacing::Linspace),
            Spacing::Trailing => Some(diffusion::Spacing::Trailing),
        },
        eta: wanted.eta,
        guidance_scale: wanted.guidance_scale,
        guidance_schedule: match wanted.guidance_schedule {
            GuidanceSchedule::Constant => diffusion::GuidanceSchedule::Constant,
            GuidanceSchedule::Timesteps { from, to } => diffusion::GuidanceSchedule::Timesteps { from, to },
            GuidanceSchedule::Steps { from, to } => {
                diffusion::GuidanceSchedule::Steps { from: from / 100.0, to: to / 100.0 }
            }
            GuidanceSchedule::Oscillating { first, low } => {
                diffusion::GuidanceSchedule::Oscillating { first: first as usize, low }
            }
        },
        thresholding: match wanted.thresholding {
            Thresholding::Configured => None,
            Thresholding::Off => Some(diffusion::Thresholding::Off),
            Thresholding::Static { range } => Some(diffusion::Thresholding::Static { range }),
            Thresholding::Dynamic { percentile, max } => {
                Some(diffusion::Thresholding::Dynamic { ratio: percentile / 100.0, max })
            }
        },
        noise_level: wanted.noise_level,
        width: wanted.extent().width as usize,
        height: wanted.extent().height as usize,
        strength: wanted.strength,
        cache_interval: wanted.cache_interval as usize,
    }
}

impl Renderer for TorchRenderer {
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
        // Loading a model for it, in another's place, would take longer than the trial.
        if !self.tries || !self.models.loaded().contains(&&stage.pool) {
            return Ok(None);
        }
        let steps = stage.usual.steps.min(TRIAL_STEPS);
        let brief = StageSettings { steps, timesteps: Vec::new(), ..stage.usual.clone() };
        let settings = sampler_settings(&brief);
        let text_dim = self.models.run(&stage.pool, |model| Ok(model.describe().text_dim)).map_err(fault)?;
        let inputs: Vec<RowInput> = (0..rows as u64).map(|seed| made_up(stage, text_dim, seed)).collect();
        if rows == self.room(stage).least {
            self.seconds(&stage.pool, &settings, &inputs).map_err(fault)?;
        }
        let seconds = self.seconds(&stage.pool, &settings, &inputs).map_err(fault)?;
        Ok(Some(seconds * f64::from(stage.usual.steps) / f64::from(steps.max(1))))
    }

    fn room(&self, stage: &Served) -> Room {
        self.models.images_per_pass(&stage.pool).map_or_else(|| Room::by_rule(stage.size), Room::of_passes)
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
        RenderError::NonFinite { .. } => "non_finite",
        RenderError::Invalid { .. } => "invalid_input",
        RenderError::Torch(_) => "torch",
    };
    BatchFault::Failed { code: code.to_owned(), message: error.to_string() }
}
