//! Where and how a cascade on disk is computed, as the command line names it, and the error about a
//! cascade that cannot be loaded.

use darkroom_core::error::{Code, UserError};
use darkroom_diffusion::{DeviceChoice, DtypeChoice, LoadError};

use crate::failure::{self, Result};

/// A device, as the command line names it.
pub(crate) fn device(name: Option<&str>) -> Result<DeviceChoice> {
    match name {
        None | Some("auto") => Ok(DeviceChoice::Auto),
        Some("cpu") => Ok(DeviceChoice::Cpu),
        Some("cuda") => Ok(DeviceChoice::Cuda(0)),
        Some(other) => other
            .strip_prefix("cuda:")
            .and_then(|index| index.parse().ok())
            .map(DeviceChoice::Cuda)
            .ok_or_else(|| {
                UserError::invalid(
                    "device",
                    format!("device is {other:?}; accepted: auto, cpu, cuda or cuda:N"),
                )
            }),
    }
}

/// A number format, as the command line names it.
pub(crate) fn dtype(name: Option<&str>) -> Result<DtypeChoice> {
    match name {
        None | Some("auto") => Ok(DtypeChoice::Auto),
        Some("f32") => Ok(DtypeChoice::F32),
        Some("bf16") => Ok(DtypeChoice::Bf16),
        Some(other) => Err(UserError::invalid(
            "dtype",
            format!("dtype is {other:?}; accepted: auto, f32 or bf16"),
        )),
    }
}

/// An error about a cascade that cannot be loaded.
pub(crate) fn broken(error: &LoadError) -> UserError {
    let mut failure =
        UserError::new(Code::FailedPrecondition, "BROKEN_CASCADE", failure::with_causes(error));
    failure.field = Some("cascade".to_owned());
    failure
}
