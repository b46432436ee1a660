//! `darkroom model info`: describes a cascade on disk by its configurations and headers. With
//! `--load`, it measures the memory of a part.

use std::{path::Path, time::Instant};

use darkroom_artifacts::CascadeBundle;
use darkroom_core::{cascade::CascadeSpec, id::StageName, picture_text, shown::shown};
use darkroom_diffusion::{
    EncoderSurvey, LoadError, LoadOptions, StageModel, StageSurvey, TextEncoder, WeightsSurvey,
};
use serde_json::{Value, json};

use crate::{
    args::ModelInfoArgs,
    failure::Result,
    model_choice::{broken, device, dtype},
    output,
};

/// Shows a cascade.
pub(crate) fn run(args: &ModelInfoArgs, as_json: bool) -> Result<()> {
    if let Some(part) = &args.load {
        return load(args, part, as_json);
    }
    let bundle = CascadeBundle::recorded(&args.cascade)?;
    let spec = &bundle.cascade().spec;
    let encoder = TextEncoder::survey(&bundle.encoder_folder(), &bundle.tokenizer_folder(), None)
        .map_err(|error| broken(&error))?;
    let stages = (0..spec.stages.len())
        .filter_map(|position| bundle.stage_folder(position))
        .map(|folder| StageSurvey::read(&folder, None).map_err(|error| broken(&error)))
        .collect::<Result<Vec<_>>>()?;
    if as_json {
        return output::json(&document(&bundle, &encoder, &stages));
    }
    output::line(&format!("{}  {}", shown(&spec.name), bundle.cascade().digest()))?;
    if !spec.description.is_empty() {
        output::line(&shown(&spec.description))?;
    }
    output::line(&format!("  {}", weights_line("encode", &encoder.weights)))?;
    let prepared = &spec.encoder;
    output::line(&format!(
        "           {} tokens of width {}, text preparation {}, runs in {}",
        prepared.max_length,
        encoder.dimension,
        prepared.text_preparation.name(),
        prepared.dtype
    ))?;
    for (position, (stage, own)) in stages.iter().zip(&spec.stages).enumerate() {
        output::line(&format!("  {}", weights_line(own.name.as_str(), &stage.weights)))?;
        output::line(&format!(
            "           {} px, {}, {}",
            own.size,
            stage.class,
            picture_text::sampling(&spec.sampling(position)?)
        ))?;
        if !stage.ignored_keys.is_empty() {
            output::line(&format!(
                "           ignored, as by the reference: {}",
                shown(&stage.ignored_keys.join(", "))
            ))?;
        }
    }
    Ok(())
}

fn document(bundle: &CascadeBundle, encoder: &EncoderSurvey, stages: &[StageSurvey]) -> Value {
    let (cascade, spec) = (bundle.cascade(), &bundle.cascade().spec);
    let stages: Vec<_> = stages
        .iter()
        .zip(&spec.stages)
        .map(|(stage, spec)| {
            let mut document = weights_document(&stage.weights);
            document["stage"] = json!(spec.name);
            document["class"] = json!(stage.class);
            document["size"] = json!(spec.size);
            document["sampler"] = json!(spec.sampling.sampler);
            document["steps"] = json!(spec.sampling.steps);
            document["preset"] = json!(spec.sampling.preset);
            document["timesteps"] = json!(spec.sampling.timesteps);
            document["spacing"] = json!(spec.sampling.spacing);
            document["eta"] = json!(spec.sampling.eta);
            document["cache_interval"] = json!(spec.sampling.cache_interval);
            document["guidance_scale"] = json!(spec.sampling.guidance_scale);
            document["guidance_schedule"] = json!(spec.sampling.guidance_schedule);
            document["thresholding"] = json!(spec.sampling.thresholding);
            document["noise_level"] = json!(spec.sampling.noise_level);
            document["ignored_keys"] = json!(stage.ignored_keys);
            document
        })
        .collect();
    let mut encoder_document = weights_document(&encoder.weights);
    encoder_document["dimension"] = json!(encoder.dimension);
    encoder_document["vocabulary"] = json!(encoder.vocabulary);
    encoder_document["tokens"] = json!(encoder.tokens);
    encoder_document["max_length"] = json!(spec.encoder.max_length);
    encoder_document["text_preparation"] = json!(spec.encoder.text_preparation);
    encoder_document["dtype"] = json!(spec.encoder.dtype);
    json!({
        "name": spec.name,
        "digest": cascade.digest(),
        "encoder_digest": cascade.encoder_digest(),
        "description": spec.description,
        "licence": spec.licence,
        "encoder": encoder_document,
        "stages": stages,
    })
}

/// Weights for machines.
pub(crate) fn weights_document(weights: &WeightsSurvey) -> Value {
    json!({
        "parameters": weights.parameters,
        "memory_bytes": {"f32": weights.memory(false), "bf16": weights.memory(true)},
        "memory_bytes_on": {
            "gpu": {"f32": weights.memory(false), "bf16": weights.memory(true)},
            "this_cpu": {"f32": weights.memory_on_this_cpu(false), "bf16": weights.memory_on_this_cpu(true)},
        },
        "stored_bytes": weights.stored,
        "unused_bytes": weights.unused,
        "variant": weights.variant,
        "other_variants": weights.other_variants,
    })
}

/// Weights, in one line.
pub(crate) fn weights_line(part: &str, weights: &WeightsSurvey) -> String {
    let stored: Vec<_> =
        weights.stored.iter().map(|(format, bytes)| format!("{} {format}", size(*bytes))).collect();
    let unused = match weights.unused {
        0 => String::new(),
        bytes => format!(", {} of it for other parts", size(bytes)),
    };
    format!(
        "{part:<8} {:>13} parameters  weights in memory: {}; on disk {}{unused}",
        weights.parameters,
        memory(weights),
        stored.join(" + ")
    )
}

/// Memory of the weights by device and number format.
fn memory(weights: &WeightsSurvey) -> String {
    let formats = |[f32, bf16]: [u64; 2]| format!("f32 {}, bf16 {}", size(f32), size(bf16));
    let gpu = [false, true].map(|bf16| weights.memory(bf16));
    let cpu = [false, true].map(|bf16| weights.memory_on_this_cpu(bf16));
    if gpu == cpu {
        return format!("on a GPU or this CPU {}", formats(gpu));
    }
    format!("on a GPU {}, on this CPU {}", formats(gpu), formats(cpu))
}

fn size(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    if mebibytes < 1024.0 {
        format!("{mebibytes:.1} MiB")
    } else {
        format!("{:.2} GiB", mebibytes / 1024.0)
    }
}

/// Loads one part and shows its peak of resident memory.
fn load(args: &ModelInfoArgs, part: &str, as_json: bool) -> Result<()> {
    let bundle = CascadeBundle::describe(&args.cascade)?;
    let spec = &bundle.cascade().spec;
    let options = LoadOptions {
        device: device(args.device.as_deref())?,
        dtype: dtype(args.dtype.as_deref())?,
        ..LoadOptions::default()
    };
    let Loaded { weights, class, before, after, seconds } =
        load_part(&args.cascade, spec, part, &options)?;
    let bytes = weights.memory(class.contains("/bf16"));
    let (peak, rest) =
        (after.peak.saturating_sub(before.now), after.now.saturating_sub(before.now));
    let share = peak as f64 / bytes.max(1) as f64;
    if as_json {
        return output::json(&json!({
            "part": part,
            "device_class": class,
            "parameters": weights.parameters,
            "weights_bytes": bytes,
            "peak_resident_bytes": peak,
            "resident_bytes": rest,
            "seconds": seconds,
        }));
    }
    output::line(&format!(
        "{part}: {} parameters, {} of weights on {class}, loaded in {seconds:.1} s; resident memory grew by {}, at its \
         peak by {} ({share:.3} of the weights)",
        weights.parameters,
        size(bytes),
        size(rest),
        size(peak)
    ))
}

/// Measurements of loading a part.
struct Loaded {
    weights: WeightsSurvey,
    /// Device and number format.
    class: String,
    before: Resident,
    /// While the part is loaded.
    after: Resident,
    seconds: f64,
}

impl Loaded {
    fn measure<T>(
        weights: WeightsSurvey,
        load: impl FnOnce() -> std::result::Result<T, LoadError>,
        row_class: impl FnOnce(&T) -> String,
    ) -> Result<Self> {
        let (before, begin) = (Resident::from_now(), Instant::now());
        let loaded = load().map_err(|error| broken(&error))?;
        let seconds = begin.elapsed().as_secs_f64();
        let after = Resident::read();
        let class = number_format(&row_class(&loaded));
        Ok(Self { weights, class, before, after, seconds })
    }
}

/// Loads a part and drops it.
fn load_part(
    folder: &Path,
    spec: &CascadeSpec,
    part: &str,
    options: &LoadOptions,
) -> Result<Loaded> {
    if part == "encode" {
        let encoder = &spec.encoder;
        let (model, tokenizer) = (folder.join(&encoder.folder), folder.join(&encoder.tokenizer));
        let survey =
            TextEncoder::survey(&model, &tokenizer, None).map_err(|error| broken(&error))?;
        let load = || TextEncoder::load(&model, &tokenizer, encoder.max_length as usize, options);
        return Loaded::measure(survey.weights, load, TextEncoder::row_class);
    }
    let name = StageName::try_from(part.to_owned())?;
    let (_, stage) = spec.stage(&name)?;
    let folder = folder.join(&stage.folder);
    let survey = StageSurvey::read(&folder, None).map_err(|error| broken(&error))?;
    Loaded::measure(
        survey.weights,
        || StageModel::load(&folder, part, options),
        StageModel::row_class,
    )
}

/// The device and number format of a row class, without the grouping of rows.
fn number_format(row_class: &str) -> String {
    row_class.rsplit_once('/').map_or(row_class, |(class, _)| class).to_owned()
}

/// Resident memory of this process, in bytes; zero if the system does not report it.
struct Resident {
    now: u64,
    peak: u64,
}

impl Resident {
    fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kibibytes = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        let bytes = |key| kibibytes(key).unwrap_or(0) * 1024;
        Self { now: bytes("VmRSS:"), peak: bytes("VmHWM:") }
    }

    /// The same, with the peak counted from now on; if the system cannot reset the peak, from the
    /// process's start.
    fn from_now() -> Self {
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self::read()
    }
}
