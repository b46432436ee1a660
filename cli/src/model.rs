//! `darkroom model`: what a cascade on disk is, and whether this machine computes it as the reference does.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use darkroom_artifacts::CascadeBundle;
use darkroom_core::{
    error::{Code, UserError},
    picture_text,
};
use darkroom_diffusion::{
    DeviceChoice, DtypeChoice, LoadError, LoadOptions, StageDescription, StageModel,
    trace::{self, CheckOptions, TraceReport},
};
use serde_json::json;

use crate::{
    args::{ModelCheckArgs, ModelCommand},
    failure::{self, Result},
    output,
};

/// Runs a `model` command. `check` exits with 1 when a tensor is off.
pub(crate) async fn run(command: ModelCommand, as_json: bool) -> Result<ExitCode> {
    match command {
        ModelCommand::Check(args) => {
            let reports = blocking(move || check(&args)).await?;
            show_reports(&reports, as_json)
        }
        ModelCommand::Info { cascade } => {
            info(cascade, as_json).await?;
            Ok(ExitCode::SUCCESS)
        }
        ModelCommand::Tokenize(args) => {
            blocking(move || crate::tokenize::tokenize(&args, as_json)).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn check(args: &ModelCheckArgs) -> Result<Vec<TraceReport>> {
    if !(args.tolerance > 0.0 && args.tolerance.is_finite()) {
        return Err(UserError::invalid(
            "tolerance",
            format!("tolerance is {}; accepted: a number above 0, such as 2e-4", args.tolerance),
        ));
    }
    let options = CheckOptions {
        tolerance: Some(args.tolerance),
        device: device(args.device.as_deref())?,
        dtype: dtype(args.dtype.as_deref())?,
    };
    trace::check(&args.cascade, &args.traces, options).map_err(|error| {
        UserError::new(Code::FailedPrecondition, "CHECK_IMPOSSIBLE", failure::with_causes(&error))
    })
}

fn show_reports(reports: &[TraceReport], as_json: bool) -> Result<ExitCode> {
    let passed = reports.iter().filter(|report| report.passed()).count();
    if as_json {
        output::json(&json!({"passed": passed == reports.len(), "traces": reports}))?;
    } else {
        for report in reports {
            output::line(&report.trace.display().to_string())?;
            for row in &report.rows {
                output::line(&format!(
                    "  {:<24} {:<20} max |difference| {:<10.3e} tolerance {:<10.3e} {}",
                    row.name,
                    format!("{:?}", row.shape),
                    row.max_difference,
                    row.tolerance,
                    if row.pass { "pass" } else { "FAIL" }
                ))?;
            }
        }
        output::line(&format!("{passed} of {} traces passed", reports.len()))?;
    }
    Ok(if passed == reports.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn info(cascade: PathBuf, as_json: bool) -> Result<()> {
    let (cascade, stages) = blocking(move || {
        let bundle = CascadeBundle::load(&cascade)?;
        let names = bundle.cascade().spec.stages.iter().map(|stage| stage.name.as_str());
        let stages = names
            .enumerate()
            .filter_map(|(position, name)| Some((bundle.stage_folder(position)?, name)))
            .map(|(folder, name)| describe(&folder, name))
            .collect::<Result<Vec<_>>>()?;
        Ok((bundle.cascade().clone(), stages))
    })
    .await?;
    let (spec, digest) = (&cascade.spec, cascade.digest());
    if as_json {
        let stages: Vec<_> = stages
            .iter()
            .zip(&spec.stages)
            .map(|(stage, spec)| {
                json!({
                    "stage": stage.name,
                    "class": stage.class,
                    "size": spec.size,
                    "parameters": stage.parameters,
                    "sampler": spec.sampler,
                    "steps": spec.steps,
                    "preset": spec.preset,
                    "timesteps": spec.timesteps,
                    "spacing": spec.spacing,
                    "eta": spec.eta,
                    "guidance_scale": spec.guidance_scale,
                    "guidance_schedule": spec.guidance_schedule,
                    "thresholding": spec.thresholding,
                    "noise_level": spec.noise_level,
                    "ignored_keys": stage.ignored_keys,
                })
            })
            .collect();
        return output::json(&json!({
            "name": spec.name,
            "digest": digest,
            "encoder_digest": cascade.encoder_digest(),
            "description": spec.description,
            "licence": spec.licence,
            "stages": stages,
        }));
    }
    output::line(&format!("{}  {digest}", spec.name))?;
    if !spec.description.is_empty() {
        output::line(&spec.description)?;
    }
    for (position, (stage, spec)) in stages.iter().zip(&spec.stages).enumerate() {
        let defaults = &cascade.spec.defaults(position)?;
        output::line(&format!(
            "  {:<8} {:>4} px  {:>10} parameters  {}",
            stage.name,
            spec.size,
            stage.parameters,
            picture_text::sampling(defaults)
        ))?;
        if !stage.ignored_keys.is_empty() {
            output::line(&format!(
                "           ignored, as by the reference: {}",
                stage.ignored_keys.join(", ")
            ))?;
        }
    }
    Ok(())
}

fn describe(folder: &Path, name: &str) -> Result<StageDescription> {
    let options = LoadOptions { device: DeviceChoice::Cpu, ..LoadOptions::default() };
    let model = StageModel::load(folder, name, &options).map_err(|error| broken(&error))?;
    Ok(model.describe())
}

fn broken(error: &LoadError) -> UserError {
    let mut failure = UserError::new(Code::FailedPrecondition, "BROKEN_CASCADE", failure::with_causes(error));
    failure.field = Some("cascade".to_owned());
    failure
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(failure::internal)?
}

/// A device as the command line names it.
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

/// A number format as the command line names it.
pub(crate) fn dtype(name: Option<&str>) -> Result<DtypeChoice> {
    match name {
        None | Some("auto") => Ok(DtypeChoice::Auto),
        Some("f32") => Ok(DtypeChoice::F32),
        Some("bf16") => Ok(DtypeChoice::Bf16),
        Some(other) => {
            Err(UserError::invalid("dtype", format!("dtype is {other:?}; accepted: auto, f32 or bf16")))
        }
    }
}
