//! Commands about a cascade on disk.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `darkroom model …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Replay reference traces and compare every tensor
    Check(ModelCheckArgs),
    /// Make a cascade's folder from local Hugging Face folders: a stage I pipeline,
    /// super-resolution pipelines, and a T5
    Import(ImportArgs),
    /// Show a cascade's stages, parameters, memory, digest, and ignored configuration keys
    Info(ModelInfoArgs),
    /// Print the token ids of each line of standard input, with the end token. With --json, input
    /// lines are JSON strings and output lines are JSON lists
    Tokenize(TokenizeArgs),
}

/// `darkroom model import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Folders in Hugging Face's layout, or folders of its cache (models--OWNER--NAME), in any
    /// order
    #[arg(required = true, value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
    /// Folder of the new cascade [default: the cascade's name]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Name of the cascade [default: the name of the stage I folder]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Which variant of the weights to use if a folder has several: fp32, fp16 or bf16; for one
    /// part only: encode=fp16. May be repeated [default: fp32, the plain one; without it fp16, then
    /// bf16]
    #[arg(long = "variant", value_name = "[PART=]NAME")]
    pub(crate) variants: Vec<String>,
    /// Number format of the encoder, part of its identity: f32 or bf16 [default: bf16 above a
    /// billion parameters, otherwise f32]
    #[arg(long, value_name = "DTYPE", value_parser = ["f32", "bf16"])]
    pub(crate) encoder_dtype: Option<String>,
    /// How a text is prepared before it is tokenized: none, lowercase-strip (as IF always does), …
    #[arg(long, value_name = "NAME", default_value = "lowercase-strip")]
    pub(crate) text_preparation: String,
    /// Copy the weights instead of linking to them
    #[arg(long)]
    pub(crate) copy: bool,
    /// Ignore unknown keys of configurations instead of refusing them
    #[arg(long)]
    pub(crate) ignore_unknown_keys: bool,
}

/// `darkroom model info`.
#[derive(Debug, Args)]
pub(crate) struct ModelInfoArgs {
    /// The cascade's folder
    pub(crate) cascade: PathBuf,
    /// Load one part (encode, or a stage's name) and show its peak of resident memory
    #[arg(long, value_name = "PART")]
    pub(crate) load: Option<String>,
    /// With --load, the device: cpu or cuda:N [default: the first CUDA device that works, otherwise
    /// the CPU]
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// With --load, the number format: f32 or bf16 [default: chosen for the device]
    #[arg(long)]
    pub(crate) dtype: Option<String>,
}

/// `darkroom model tokenize`.
#[derive(Debug, Args)]
pub(crate) struct TokenizeArgs {
    /// The cascade's folder
    pub(crate) cascade: PathBuf,
    /// Print all tokens, also those beyond the encoder's length
    #[arg(long)]
    pub(crate) whole: bool,
    /// Prepare the texts first, as the cascade says (for example lower case, no blanks around them)
    #[arg(long)]
    pub(crate) prepare: bool,
}

/// `darkroom model check`.
#[derive(Debug, Args)]
pub(crate) struct ModelCheckArgs {
    /// The cascade's folder
    pub(crate) cascade: PathBuf,
    /// Trace files to compare with
    #[arg(required = true, value_name = "TRACE")]
    pub(crate) traces: Vec<PathBuf>,
    /// Largest accepted difference of a tensor's values
    #[arg(long, default_value_t = 2e-4)]
    pub(crate) tolerance: f64,
    /// Device: cpu or cuda:N [default: the first CUDA device that works, otherwise the CPU]
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Number format: f32 or bf16 [default: chosen for the device]
    #[arg(long)]
    pub(crate) dtype: Option<String>,
}
