//! Replays recorded runs of the reference libraries, to check that this machine computes the same.
//!
//! A trace (`*.trace.safetensors`) contains one run of diffusers or transformers on a cascade
//! folder: inputs, noise, and every intermediate picture. [`check`] runs the same here, with the
//! recorded noise, and compares each tensor. Besides being a test, it is the burn-in of a machine
//! or GPU: a worker that fails it must not render.
//!
//! The header's metadata names the run. A text trace has `prompts` and `negative_prompts` (JSON
//! lists). A stage trace has `stage`, `sampler` (`ddpm`, `ddim`, `dpmsolver++`, `sde-dpmsolver++`),
//! `steps`, `guidance_scale`, `sensitivity`, `noise_level` for super-resolution, and may have
//! `eta`, `custom_timesteps` (`true` if its list of timesteps was given), `spacing` (`leading`,
//! `linspace`, `trailing`), `guidance_schedule` (`timesteps FROM TO`, `steps FROM TO` as fractions,
//! `oscillating FIRST LOW`) and `thresholding` (`off`, `static RANGE`, `dynamic RATIO MAX`). Its
//! `task` is `text-to-image` if absent, `image-to-image` or `inpainting`; the latter two have a
//! `strength` and `init_image`, which `noise.init` is added to, give x at the first timestep as
//! `sample.start`, and inpainting has a `mask`.

mod recording;
mod replay;
mod sampling;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::device::{DeviceChoice, DtypeChoice, LoadOptions};
use crate::error::{LoadError, RenderError};
use crate::stage::StageModel;
use recording::Recording;

/// How to check.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CheckOptions {
    /// The largest accepted difference anywhere in a sampler's run; 2e-4 if absent. Four times the
    /// trace's own sensitivity is used if that is larger. Single forward passes and texts may
    /// differ as much as rounding changes this network here. That is measured with weights that are
    /// off by their last bits. A tolerance above 2e-4 widens this limit in proportion, and to at
    /// least a twentieth of the tolerance.
    pub tolerance: Option<f64>,
    /// The device to check.
    pub device: DeviceChoice,
    /// The number format to check; `Auto` means f32 here, as in the traces.
    pub dtype: DtypeChoice,
    /// Run networks only with libtorch's operations, even where this crate has its own kernels.
    pub libtorch_only: bool,
}

/// The result for one trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TraceReport {
    /// The trace's file.
    pub trace: PathBuf,
    /// One row per recorded tensor, in the order of computation.
    pub rows: Vec<TraceRow>,
}

/// The result for one tensor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TraceRow {
    /// The tensor's name in the trace.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The largest difference of any value; infinite if shapes differ or a value is not finite.
    pub max_difference: f64,
    /// The largest accepted difference.
    pub tolerance: f64,
    /// Whether the difference is within the tolerance.
    pub pass: bool,
}

impl TraceReport {
    /// Whether every tensor passed.
    pub fn passed(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.pass)
    }
}

/// Why a check could not run.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The cascade's folder could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A forward pass failed.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// A file is not a trace, or does not match the cascade.
    #[error("trace {path}: {message}")]
    Trace {
        /// The trace's file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

impl From<tch::TchError> for CheckError {
    fn from(error: tch::TchError) -> Self {
        Self::Render(RenderError::from(error))
    }
}

/// Replays each trace with the cascade in `cascade_dir`, which needs no `cascade.toml`.
///
/// A stage trace takes its text from the text trace among `traces`, or from
/// `text_encoder.trace.safetensors` beside it. A difference is not an error: it is a row that did
/// not pass.
pub fn check(
    cascade_dir: &Path,
    traces: &[PathBuf],
    options: CheckOptions,
) -> Result<Vec<TraceReport>, CheckError> {
    let dtype = match options.dtype {
        DtypeChoice::Auto => DtypeChoice::F32,
        given => given,
    };
    let CheckOptions { device, libtorch_only, .. } = options;
    let load = LoadOptions { device, dtype, libtorch_only, ..LoadOptions::default() };
    let recordings =
        traces.iter().map(|path| Recording::open(path)).collect::<Result<Vec<_>, _>>()?;
    let mut stages: BTreeMap<String, StageModel> = BTreeMap::new();
    let mut reports = Vec::with_capacity(recordings.len());
    for recording in &recordings {
        let rows = if recording.is_text() {
            replay::text(cascade_dir, recording, &load, options.tolerance)?
        } else {
            let name = recording.required("stage")?;
            if name.contains(['/', '\\']) || name.starts_with('.') {
                return Err(recording
                    .invalid(format!("`stage` is {name}, which is not a folder of the cascade")));
            }
            if !stages.contains_key(name) {
                stages.insert(
                    name.to_owned(),
                    StageModel::load(&cascade_dir.join(name), name, &load)?,
                );
            }
            let given = recordings.iter().find(|other| other.is_text());
            let beside;
            let text = match given {
                _ if recording.has("embeddings") => recording,
                Some(text) => text,
                None => {
                    beside = Recording::open(
                        &recording.path().with_file_name("text_encoder.trace.safetensors"),
                    )?;
                    &beside
                }
            };
            let checked =
                replay::Checked { model: &stages[name], folder: &cascade_dir.join(name), load };
            replay::stage(&checked, recording, text, options.tolerance)?
        };
        reports.push(TraceReport { trace: recording.path().to_owned(), rows });
    }
    Ok(reports)
}
