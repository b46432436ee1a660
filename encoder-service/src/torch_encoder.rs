//! The real encoder: T5, on darkroom-diffusion.

use darkroom_artifacts::{CascadeBundle, tensor::FloatTensor};
use darkroom_core::error::{Code, UserError};
use darkroom_core::failure_code::FailureCode;
use darkroom_diffusion::{
    DeviceChoice, DtypeChoice, LoadError, LoadOptions, RenderError, TextEncoder,
};

use crate::{
    encoder::{EncodeError, Encoded, Encoder},
    machine::Machine,
};

/// A T5 encoder with its weights in memory.
pub struct TorchEncoder {
    encoder: TextEncoder,
    device: String,
}

impl TorchEncoder {
    /// Loads a cascade's encoder in the number format of `cascade.toml`, which is part of its
    /// identity.
    ///
    /// # Errors
    /// The wrong device, option or file.
    pub fn load(cascade: &CascadeBundle, machine: &Machine) -> Result<Self, UserError> {
        let spec = &cascade.cascade().spec.encoder;
        let device = device(machine.device.as_deref())?;
        let dtype = if spec.dtype == "bf16" { DtypeChoice::Bf16 } else { DtypeChoice::F32 };
        let options =
            LoadOptions { device, dtype, threads: machine.threads, ..LoadOptions::default() };
        let (folder, tokenizer) = (cascade.encoder_folder(), cascade.tokenizer_folder());
        let encoder = TextEncoder::load(&folder, &tokenizer, spec.max_length as usize, &options)
            .map_err(|error| load_failed(&error))?;
        let class = encoder.row_class();
        let device = class.split('/').next().unwrap_or_default().to_owned();
        Ok(Self { encoder, device })
    }
}

fn device(name: Option<&str>) -> Result<DeviceChoice, UserError> {
    match name.unwrap_or("auto") {
        "auto" => Ok(DeviceChoice::Auto),
        "cpu" => Ok(DeviceChoice::Cpu),
        "cuda" => Ok(DeviceChoice::Cuda(0)),
        other => other
            .strip_prefix("cuda:")
            .and_then(|index| index.parse().ok())
            .map(DeviceChoice::Cuda)
            .ok_or_else(|| {
                let message = format!("device is {other:?}; accepted: auto, cpu, cuda or cuda:N");
                UserError::invalid("device", message)
            }),
    }
}

fn failed(error: &RenderError) -> EncodeError {
    let code = match error {
        RenderError::OutOfMemory(_) => return EncodeError::OutOfMemory,
        RenderError::Interrupted => FailureCode::Interrupted,
        RenderError::NonFinite { .. } => FailureCode::NonFinite,
        RenderError::Invalid { .. } => FailureCode::InvalidInput,
        RenderError::Torch(_) => FailureCode::Torch,
    };
    EncodeError::Failed { code, message: error.to_string() }
}

fn load_failed(error: &LoadError) -> UserError {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let message = causes.fold(error.to_string(), |message, cause| format!("{message}: {cause}"));
    let code = if error.retryable() { Code::Unavailable } else { Code::FailedPrecondition };
    UserError::new(code, "MODEL_NOT_LOADED", message)
}

impl Encoder for TorchEncoder {
    fn encode(&mut self, texts: &[&str]) -> Result<Vec<Encoded>, EncodeError> {
        let encoded = self.encoder.encode(texts).map_err(|error| failed(&error))?;
        Ok(encoded
            .into_iter()
            .map(|text| Encoded {
                embedding: FloatTensor { shape: text.embedding.shape, data: text.embedding.data },
                tokens: text.tokens,
                truncated_tokens: text.truncated_tokens,
                unknown_words: text.unknown_words,
            })
            .collect())
    }

    fn device(&self) -> String {
        self.device.clone()
    }

    fn device_class(&self) -> String {
        self.encoder.row_class()
    }
}
