//! `darkroom model`: describes a cascade on disk, and checks that this machine computes it like the
//! reference.

use std::process::ExitCode;

use darkroom_core::{
    error::{Code, UserError},
    shown::shown,
};
use darkroom_diffusion::trace::{self, CheckOptions, TraceReport};
use darkroom_runtime::terminal::shown_path;
use serde_json::json;

use crate::{
    args::{ModelCheckArgs, ModelCommand},
    failure::{self, Result},
    model_choice::{device, dtype},
    output::{self, Beside},
};

/// Runs a `model` command. `check` exits with 1 if a tensor differs too much.
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

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(failure::internal)?
}
