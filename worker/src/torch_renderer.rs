//! The real renderer, on darkroom-diffusion.

use std::{collections::HashMap, ops::ControlFlow};

use darkroom_artifacts::tensor::FloatTensor;
use darkroom_core::{
    error::{Code, UserError},
    settings::{GuidanceSchedule, Sampler, Spacing, StageSettings, Thresholding},
};
use darkroom_diffusion::{
    DeviceChoice, DtypeChoice, HostTensor, LoadError, LoadOptions, RenderError, RowInput, SamplerSettings,
    StageModel,
};
use darkroom_queue::{
    stage_loop::BatchFault,
    task::{Outcome, PoolId},
};

use crate::{
    renderer::{Batch, Inputs, Machine, Renderer},
    service::Served,
};

/// Models of the stages a worker serves, in memory.
pub struct TorchRenderer {
    models: HashMap<PoolId, StageModel>,
    device: String,
    device_class: String,
}

impl TorchRenderer {
    /// Loads every stage.
    ///
    /// # Errors
    /// The device, the option or the file at fault.
    pub fn load(served: &[Served], machine: &Machine) -> Result<Self, UserError> {
        let options = load_options(machine)?;
        let (mut models, mut device, mut device_class) = (HashMap::new(), String::new(), String::new());
        for stage in served {
            let model = StageModel::load(&stage.folder, stage.pool.stage.as_str(), &options)
                .map_err(|error| load_failed(&error))?;
            device = model.describe().device;
            device_class = model.row_class();
            models.insert(stage.pool.clone(), model);
        }
        Ok(Self { models, device, device_class })
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
    Ok(LoadOptions { device, dtype, threads: machine.threads, ..LoadOptions::default() })
}

fn load_failed(error: &LoadError) -> UserError {
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
        let model = self.models.get(batch.pool).ok_or_else(|| BatchFault::Failed {
            code: "wrong_task".to_owned(),
            message: format!("this worker does not serve {}", batch.pool),
        })?;
        let settings = sampler_settings(batch.settings);
        let rows: Vec<RowInput> = batch.rows.iter().map(|inputs| row(inputs)).collect();
        let pictures = model.render(&settings, &rows, &mut |_| on_step()).map_err(fault)?;
        Ok(pictures
            .into_iter()
            .map(|picture| Ok(FloatTensor { shape: picture.shape, data: picture.data }))
            .collect())
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
        RenderError::OutOfMemory(_) => return BatchFault::OutOfMemory,
        RenderError::NonFinite { .. } => "non_finite",
        RenderError::Invalid { .. } => "invalid_input",
        RenderError::Torch(_) => "torch",
    };
    BatchFault::Failed { code: code.to_owned(), message: error.to_string() }
}
