//! Runs a recorded run again and compares every tensor.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::recording::Recording;
use super::{CheckError, TraceRow, sampling};
use crate::denoise::{Denoiser, Start, augment};
use crate::device::LoadOptions;
use crate::error::RenderError;
use crate::image_to_image::{begin, repainted};
use crate::layers::Torch;
use crate::sampler::Level;
use crate::settings::SamplerSettings;
use crate::stage::StageModel;
use crate::text_encoder::TextEncoder;

/// The accepted differences of a sampler's run, in pictures of −1 to 1.
const RUN_TOLERANCE: f64 = 2e-4;
/// How much a forward pass may always differ, as a share of its largest value: a few roundings of
/// f32.
const FORWARD_FLOOR: f64 = 2.5e-6;
/// The most that it may differ, as a share of its largest value, however sensitive the network is.
const FORWARD_CEILING: f64 = 1e-3;
/// The accepted difference from the reference, as a multiple of the change that weights off by
/// their last bits cause. Both sides round, and a sum of many roundings is sometimes twice its
/// usual size.
const ROUNDINGS: f64 = 4.0;

/// Seed of the changes to the weights; any number works.
const DISTURBANCE: u64 = 1;

/// Collects the rows of one trace while they are compared.
struct Comparison {
    rows: Vec<TraceRow>,
    run_tolerance: f64,
    /// Above 1 if a larger tolerance was requested, for example for a coarser number format.
    factor: f64,
    /// How much a forward pass may differ in that case; otherwise 0.
    asked: f64,
}

impl Comparison {
    fn new(tolerance: Option<f64>, sensitivity: f64) -> Self {
        let run = tolerance.unwrap_or(RUN_TOLERANCE);
        let factor = (run / RUN_TOLERANCE).max(1.0);
        let asked = if factor > 1.0 { run / 20.0 } else { 0.0 };
        Self { rows: Vec::new(), run_tolerance: run.max(4.0 * sensitivity), factor, asked }
    }

    fn compare(
        &mut self,
        name: &str,
        got: &Tensor,
        expected: &Tensor,
        tolerance: f64,
    ) -> Torch<()> {
        let max_difference = largest_difference(got, expected)?;
        self.push(name, expected, max_difference, tolerance);
        Ok(())
    }

    fn push(&mut self, name: &str, expected: &Tensor, max_difference: f64, tolerance: f64) {
        let shape = expected.size().iter().map(|extent| *extent as usize).collect();
        let pass = max_difference <= tolerance;
        self.rows.push(TraceRow { name: name.to_owned(), shape, max_difference, tolerance, pass });
    }

    fn run(&mut self, name: &str, got: &Tensor, expected: &Tensor) -> Torch<()> {
        self.compare(name, got, expected, self.run_tolerance)
    }

    /// Compares a single forward pass. `disturbed` computes the same with weights that are off by
    /// their last bits; it is called only if that decides the result.
    fn forward(
        &mut self,
        name: &str,
        got: &Tensor,
        expected: &Tensor,
        disturbed: impl FnOnce() -> Result<Tensor, CheckError>,
    ) -> Result<(), CheckError> {
        let max_difference = largest_difference(got, expected)?;
        let largest = largest(expected)?;
        let mut tolerance = (FORWARD_FLOOR * largest * self.factor).max(self.asked);
        if max_difference > tolerance && max_difference.is_finite() {
            let moved = largest_difference(&disturbed()?, got)?;
            let rounding = (ROUNDINGS * moved).min(FORWARD_CEILING * largest);
            tolerance = tolerance.max(rounding * self.factor);
        }
        self.push(name, expected, max_difference, tolerance);
        Ok(())
    }
}

/// The largest magnitude in a tensor.
fn largest(tensor: &Tensor) -> Torch<f64> {
    if tensor.numel() == 0 {
        return Ok(0.0);
    }
    tensor.f_abs()?.f_max()?.f_double_value(&[])
}

fn largest_difference(got: &Tensor, expected: &Tensor) -> Torch<f64> {
    if got.size() != expected.size() {
        return Ok(f64::INFINITY);
    }
    if got.numel() == 0 {
        return Ok(0.0);
    }
    let wide = |tensor: &Tensor| tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double);
    let largest = wide(got)?.f_sub(&wide(expected)?)?.f_abs()?.f_max()?.f_double_value(&[])?;
    // NaN must not count as small.
    Ok(if largest.is_nan() { f64::INFINITY } else { largest })
}

/// Token ids, masks and embeddings of prompts and negative prompts.
pub(super) fn text(
    cascade_dir: &Path,
    recording: &Recording,
    load: &LoadOptions,
    tolerance: Option<f64>,
) -> Result<Vec<TraceRow>, CheckError> {
    let encoder_dir = cascade_dir.join("text_encoder");
    let encoder =
        TextEncoder::load_with_length(&encoder_dir, &cascade_dir.join("tokenizer"), None, load)?;
    let mut comparison = Comparison::new(tolerance, 0.0);
    let mut disturbed: Option<TextEncoder> = None;
    for (key, prefix) in [("prompts", ""), ("negative_prompts", "negative.")] {
        let texts = recording.texts(key)?;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let tokens =
            texts.iter().map(|text| encoder.tokenize(text)).collect::<Result<Vec<_>, _>>()?;
        let ids: Vec<Vec<u32>> = tokens.iter().map(|tokens| tokens.ids.clone()).collect();
        let masks: Vec<Vec<u32>> = tokens.iter().map(|tokens| tokens.mask.clone()).collect();
        for (name, values) in [("input_ids", ids), ("attention_mask", masks)] {
            let name = format!("{prefix}{name}");
            let expected = recording.tensor(&name)?;
            comparison.compare(&name, &integers(&values)?, expected, 0.0)?;
        }
        let name = format!("{prefix}embeddings");
        let got = embeddings(&encoder, &texts)?;
        let of_disturbed = || {
            if disturbed.is_none() {
                let load = LoadOptions { disturbed: Some(DISTURBANCE), ..*load };
                let tokenizer = cascade_dir.join("tokenizer");
                disturbed =
                    Some(TextEncoder::load_with_length(&encoder_dir, &tokenizer, None, &load)?);
            }
            embeddings(disturbed.as_ref().unwrap_or(&encoder), &texts)
        };
        comparison.forward(&name, &got, recording.tensor(&name)?, of_disturbed)?;
    }
    Ok(comparison.rows)
}

/// `[texts, length, width]`.
fn embeddings(encoder: &TextEncoder, texts: &[&str]) -> Result<Tensor, CheckError> {
    let encoded = encoder.encode(texts)?;
    let states =
        encoded.iter().map(|encoded| encoded.embedding.to_tensor()).collect::<Torch<Vec<_>>>()?;
    Ok(Tensor::f_stack(&states, 0)?)
}

fn integers(rows: &[Vec<u32>]) -> Result<Tensor, RenderError> {
    let width = rows.first().map_or(0, Vec::len);
    let flat: Vec<i64> = rows.iter().flatten().map(|value| i64::from(*value)).collect();
    let height = flat.len().checked_div(width).unwrap_or(0);
    Ok(Tensor::f_from_slice(&flat[..height * width])?.f_reshape([height as i64, width as i64])?)
}

/// A stage to check.
pub(super) struct Checked<'a> {
    pub(super) model: &'a StageModel,
    /// Its folder, and how it was loaded.
    pub(super) folder: &'a Path,
    pub(super) load: LoadOptions,
}

/// Compares the timesteps, the first forward pass, and x after every step.
pub(super) fn stage(
    checked: &Checked<'_>,
    recording: &Recording,
    text: &Recording,
    tolerance: Option<f64>,
) -> Result<Vec<TraceRow>, CheckError> {
    let model = checked.model;
    let settings = sampling::settings(recording)?;
    let plan = model.plan(&settings.sampling)?;
    let mut comparison = Comparison::new(tolerance, recording.sensitivity()?);
    let timesteps: Vec<i64> = plan.timesteps.iter().map(|timestep| i64::from(*timestep)).collect();
    let expected = recording.tensor("timesteps")?;
    let timesteps = Tensor::f_from_slice(&timesteps)?;
    comparison.compare("timesteps", &timesteps, expected, 0.0)?;
    if !comparison.rows[0].pass {
        return Ok(comparison.rows);
    }
    let inputs = Inputs::gather(model, recording, text, &settings, plan.level(0))?;
    replay(checked, recording, &inputs, &settings, &mut comparison)?;
    Ok(comparison.rows)
}

/// The recorded tensors that a run starts from, on the device.
struct Inputs {
    text: Tensor,
    negative: Option<Tensor>,
    x: Tensor,
    mask: Option<Tensor>,
    low_res: Option<Tensor>,
}

impl Inputs {
    fn gather(
        model: &StageModel,
        recording: &Recording,
        text: &Recording,
        settings: &SamplerSettings,
        first: Level,
    ) -> Result<Self, CheckError> {
        let device = model.placement().device();
        let put = |tensor: &Tensor| tensor.f_to_device(device);
        let low_res = match settings.sampling.noise_level {
            None => None,
            Some(level) => {
                let alpha = model.augmentation_alpha(level).ok_or_else(|| {
                    recording.invalid(
                        "has a `noise_level`, but its stage takes no low-resolution picture",
                    )
                })?;
                let noise = put(recording.pictures("noise.augmentation")?)?;
                let low_res = put(recording.pictures("low_res")?)?;
                Some(augment(&low_res, &noise, alpha)?)
            }
        };
        let negative = settings
            .sampling
            .guided()
            .then(|| text.tensor("negative.embeddings").and_then(|tensor| Ok(put(tensor)?)))
            .transpose()?;
        let noise = put(recording.pictures("noise.init")?)?;
        let mask = recording.mask()?.map(|mask| repainted(&put(mask)?)).transpose()?;
        let x = match recording.init_image()? {
            Some(picture) => begin(&put(picture)?, &noise, first, mask.as_ref())?,
            None => noise,
        };
        let this = Self { text: put(text.tensor("embeddings")?)?, negative, x, mask, low_res };
        let description = model.describe();
        let images = this.x.size()[0];
        for tensor in [Some(&this.text), this.negative.as_ref()].into_iter().flatten() {
            match tensor.size().as_slice() {
                [rows, _, width] if *rows == images && *width as usize == description.text_dim => {}
                shape => {
                    return Err(recording
                        .invalid(format!("its text has shape {shape:?}, its x {images} rows")));
                }
            }
        }
        if description.takes_low_res != this.low_res.is_some() {
            return Err(
                recording.invalid("`noise_level` and the stage's input channels do not agree")
            );
        }
        Ok(this)
    }

    /// `group` images from `first` on, padded with zeros.
    fn start(&self, first: i64, group: i64, noise_level: Option<u32>) -> Torch<Start> {
        let part = |tensor: &Option<Tensor>| {
            tensor.as_ref().map(|tensor| padded(tensor, first, group)).transpose()
        };
        Ok(Start {
            text: padded(&self.text, first, group)?,
            negative: part(&self.negative)?,
            low_res: part(&self.low_res)?,
            noise_level,
            x: padded(&self.x, first, group)?,
            mask: part(&self.mask)?,
        })
    }
}

/// The first forward pass, with weights that are off by their last bits.
fn disturbed_output(
    checked: &Checked<'_>,
    inputs: &Inputs,
    settings: &SamplerSettings,
) -> Result<Tensor, CheckError> {
    let load = LoadOptions { disturbed: Some(DISTURBANCE), ..checked.load };
    let model = StageModel::load(checked.folder, "disturbed", &load)?;
    let plan = model.plan(&settings.sampling)?;
    let (images, group) = (inputs.x.size()[0], model.images_per_forward(settings) as i64);
    let mut outputs = Vec::new();
    for first in (0..images).step_by(group as usize) {
        let start = inputs.start(first, group, model.class_label(settings.sampling.noise_level))?;
        outputs.push(Denoiser::new(model.network(), &plan, &start)?.predict(0)?);
    }
    Ok(joined(&outputs, if plan.guided(0) { 2 } else { 1 }, group, images)?)
}

fn replay(
    checked: &Checked<'_>,
    recording: &Recording,
    inputs: &Inputs,
    settings: &SamplerSettings,
    comparison: &mut Comparison,
) -> Result<(), CheckError> {
    let _no_grad = tch::no_grad_guard();
    let model = checked.model;
    let plan = model.plan(&settings.sampling)?;
    let device = model.placement().device();
    let images = inputs.x.size()[0];
    // The same number of images per forward pass as in a render.
    let group = model.images_per_forward(settings) as i64;
    if let Some(low_res) = &inputs.low_res {
        comparison.run("conditioned_low_res", low_res, recording.tensor("conditioned_low_res")?)?;
    }
    if recording.init_image()?.is_some() {
        comparison.run("sample.start", &inputs.x, recording.tensor("sample.start")?)?;
    }
    let mut denoisers = Vec::new();
    for first in (0..images).step_by(group as usize) {
        let start = inputs.start(first, group, model.class_label(settings.sampling.noise_level))?;
        denoisers.push(Denoiser::new(model.network(), &plan, &start)?);
    }
    for index in 0..plan.timesteps.len() {
        let noise = if plan.draws_noise(index) {
            Some(recording.pictures(&format!("noise.step{index}"))?.f_to_device(device)?)
        } else {
            None
        };
        let mut outputs = Vec::new();
        for (position, denoiser) in denoisers.iter_mut().enumerate() {
            let output = denoiser.predict(index)?;
            let noise = noise
                .as_ref()
                .map(|noise| padded(noise, position as i64 * group, group))
                .transpose()?;
            denoiser.advance(index, &output, || Ok(noise.unwrap_or_default()))?;
            outputs.push(output);
        }
        if index == 0 {
            let halves = if plan.guided(0) { 2 } else { 1 };
            let output = joined(&outputs, halves, group, images)?;
            let disturbed = || disturbed_output(checked, inputs, settings);
            let expected = recording.tensor("model_output.step0")?;
            comparison.forward("model_output.step0", &output, expected, disturbed)?;
        }
        let name = format!("sample.step{index}");
        comparison.run(&name, &gathered(&denoisers, images)?, recording.tensor(&name)?)?;
    }
    let output = gathered(&denoisers, images)?.f_clamp(-1.0, 1.0)?;
    comparison.run("output", &output, recording.tensor("output")?)?;
    Ok(())
}

/// `count` rows from `first` on; zero beyond the tensor's end.
fn padded(tensor: &Tensor, first: i64, count: i64) -> Torch<Tensor> {
    let there = count.min(tensor.size()[0] - first);
    let rows = tensor.f_narrow(0, first, there)?;
    if there == count {
        return Ok(rows);
    }
    let mut shape = tensor.size();
    shape[0] = count - there;
    let zeros = Tensor::f_zeros(&shape, (tensor.kind(), tensor.device()))?;
    Tensor::f_cat(&[rows, zeros], 0)
}

fn gathered(denoisers: &[Denoiser<'_>], images: i64) -> Torch<Tensor> {
    let rows: Vec<&Tensor> = denoisers.iter().map(Denoiser::x).collect();
    Tensor::f_cat(&rows, 0)?.f_narrow(0, 0, images)
}

/// Joins the outputs of several passes: all unconditional rows, then all conditional ones, without
/// padding.
fn joined(outputs: &[Tensor], halves: i64, group: i64, images: i64) -> Torch<Tensor> {
    let mut parts = Vec::new();
    for half in 0..halves {
        let rows: Vec<Tensor> = outputs
            .iter()
            .map(|output| output.f_narrow(0, half * group, group))
            .collect::<Torch<_>>()?;
        parts.push(Tensor::f_cat(&rows, 0)?.f_narrow(0, 0, images)?);
    }
    Tensor::f_cat(&parts, 0)
}
