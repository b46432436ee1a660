//! Loading models: parses a user's machine settings, and turns loading errors into a user's errors.

use darkroom_core::error::{Code, UserError};
use darkroom_diffusion::{DeviceChoice, DtypeChoice, LoadError, LoadOptions};

use crate::renderer::Machine;

/// Parses a user's machine settings.
///
/// # Errors
/// The wrong field, and what is accepted.
pub(crate) fn load_options(machine: &Machine) -> Result<LoadOptions, UserError> {
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
