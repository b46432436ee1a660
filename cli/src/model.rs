//! `darkroom model`: what a cascade on disk is, and whether this machine computes it as the reference does.

use std::process::ExitCode;

use darkroom_core::{
    error::{Code, UserError},
    shown::shown,
};
use darkroom_diffusion::{
    DeviceChoice, DtypeChoice, LoadError,
    trace::{self, CheckOptions, TraceReport},
};
use darkroom_runtime::terminal::shown_path;
use serde_json::json;

use crate::{
    args::{ModelCheckArgs, ModelCommand},
    failure::{self, Result},
    output::{self, Beside},
};

/// Runs a `model` command. `check` exits with 1 when a tensor is off.
pub(crate) async fn run(command: ModelCommand, as_json: bool) -> Result<ExitCode> {
    match command {
        ModelCommand::Check(args) => {
            let reports = blocking(move || check(&args)).await?;
            show_reports(&reports, as_json)
        }
        ModelCommand::Import(args) => {
            blocking(move || crate::import::run(&args, as_json)).await?;
            Ok(ExitCode::SUCCESS)
        }
        ModelCommand::Info(args) => {
            blocking(move || crate::model_info::run(&args, as_json)).await?;
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
        libtorch_only: false,
    };
    trace::check(&args.cascade, &args.traces, options).map_err(|error| {
        UserError::new(Code::FailedPrecondition, "CHECK_IMPOSSIBLE", failure::with_causes(&error))
    })
}

fn show_reports(reports: &[TraceReport], as_json: bool) -> Result<ExitCode> {
    let passed = reports.iter().filter(|report| report.passed()).count();
    let mut told = Beside::default();
    told.print(|| print_reports(reports, passed, as_json));
    told.end()?;
    Ok(if passed == reports.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_reports(reports: &[TraceReport], passed: usize, as_json: bool) -> Result<()> {
    if as_json {
        let traces = reports
            .iter()
            .map(|report| output::with_path(json!({"rows": report.rows}), "trace", &report.trace));
        let traces: Vec<_> = traces.collect();
        output::json(&json!({"passed": passed == reports.len(), "traces": traces}))
    } else {
        for report in reports {
            output::line(&shown_path(&report.trace))?;
            for row in &report.rows {
                output::line(&format!(
                    "  {:<24} {:<20} max |difference| {:<10.3e} tolerance {:<10.3e} {}",
                    shown(&row.name),
                    format!("{:?}", row.shape),
                    row.max_difference,
                    row.tolerance,
                    if row.pass { "pass" } else { "FAIL" }
                ))?;
            }
        }
        output::line(&format!("{passed} of {} traces passed", reports.len()))
    }
}

/// A cascade that cannot be loaded.
pub(crate) fn broken(error: &LoadError) -> UserError {
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
