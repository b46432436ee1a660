//! The `cascade.toml` of an imported cascade, with the defaults of DeepFloyd IF's pipelines.

use std::fmt::Write as _;

use darkroom_core::cascade::CascadeSpec;

use super::{licence, parts::Parts};
use crate::{args::ImportArgs, failure::Result};

/// Tokens per text in IF's pipelines.
const MAX_LENGTH: u32 = 77;
/// An encoder with more parameters than this runs in bf16, which is safe for T5, unless a flag says
/// otherwise.
const LARGE_ENCODER: usize = 1_000_000_000;

/// The text of `cascade.toml`.
pub(super) fn write(name: &str, parts: &Parts, args: &ImportArgs) -> Result<String> {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let from: Vec<_> = parts.folders.iter().map(|folder| folder.name.as_str()).collect();
    let dtype = encoder_dtype(parts, args);
    let mut text = format!(
        "format = 1\nname = {}\ndescription = {}\nlicence = {}\n\n\
         [encoder]\nfolder = \"text_encoder\"\ntokenizer = \"tokenizer\"\nmax_length = {MAX_LENGTH}\n\
         text_preparation = {}\ndtype = {}\n",
        quoted(name),
        quoted(&format!("Imported from {}", from.join(", "))),
        quoted(licence::name(parts)),
        quoted(&args.text_preparation),
        quoted(dtype),
    );
    for stage in &parts.stages {
        // The defaults of IF's pipelines, stage I and stage II.
        let (steps, guidance, level) = if stage.survey.takes_low_res {
            (50, "4.0", "noise_level = 250\n")
        } else {
            (100, "7.0", "")
        };
        let name = quoted(&stage.name);
        let _ = write!(
            text,
            "\n[[stages]]\nname = {name}\nfolder = {name}\nsize = {}\nsampler = \"ddpm\"\nsteps = {steps}\n\
             guidance_scale = {guidance}\n{level}",
            stage.size
        );
    }
    CascadeSpec::parse(&text)?;
    Ok(text)
}

/// `f32` or `bf16`.
fn encoder_dtype<'a>(parts: &Parts, args: &'a ImportArgs) -> &'a str {
    let large = parts.encoder.survey.weights.parameters > LARGE_ENCODER;
    args.encoder_dtype.as_deref().unwrap_or(if large { "bf16" } else { "f32" })
}
