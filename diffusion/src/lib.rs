//! Darkroom's mathematics: text to embeddings, noise to pictures.
//!
//! [`TextEncoder`] is T5 with its tokenizer. [`StageModel`] is one stage of an Imagen-style
//! cascade: a U-Net, its noise schedule and a sampler. Both take and return plain host data
//! ([`HostTensor`]), load Hugging Face folders as they are, and refuse by name everything that they
//! would not compute exactly. [`trace`] checks that a machine computes the same as the reference.
//!
//! How a stage is sampled is `core`'s `Sampling`, the same value that a job and a task hold. Apart
//! from that, this crate knows nothing of queues, jobs, storage or the network, and has no global
//! state except libtorch's.

mod config;
mod cuda;
mod denoise;
mod device;
mod engine;
mod error;
mod foreign;
mod fused;
#[doc(hidden)]
pub mod fuzzed;
mod graphs;
mod guidance;
mod host;
mod image_to_image;
mod json;
mod kernels;
mod layers;
pub mod noise;
mod rows;
mod sampler;
mod schedule;
mod settings;
mod stage;
mod stage_survey;
mod t5;
mod text_encoder;
mod texts;
pub mod timings;
mod tokenizer;
pub mod trace;
mod unet;
mod weights;

pub use darkroom_core::sampling::{GuidanceSchedule, Sampler, Sampling, Spacing, Thresholding};
pub use device::{
    DeviceChoice, DtypeChoice, GpuMemory, LoadOptions, free_memory, gpu_index, gpu_memory,
};
pub use error::{LoadError, RenderError};
pub use host::HostTensor;
pub use json::read as read_json;
pub use settings::{RowInput, SamplerSettings, StageDescription, StepReport};
pub use stage::StageModel;
pub use stage_survey::{StageSurvey, images_per_pass, weights_memory};
pub use text_encoder::{EncodedText, EncoderSurvey, TextEncoder};
pub use tokenizer::Tokenizer;
pub use weights::{WeightsSurvey, scan as scan_weights};
