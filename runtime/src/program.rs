//! The `main` of a service: logging, the async runtime, signals, and an exit code with one sentence
//! if it failed.

use std::{num::NonZero, process::ExitCode};

use darkroom_core::{
    error::{Code, UserError},
    shown::shown,
};
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use crate::{
    files, shutdown,
    telemetry::{self, Format},
    terminal,
};

/// Runs a service until it ends, with one thread per core. `service` gets the token that the first
/// SIGINT or SIGTERM cancels.
///
/// A failure is printed to standard error as one line, `error: …`, and becomes the exit code of its
/// kind ([`Code::exit_code`]).
pub fn run<F>(format: Format, service: impl FnOnce(CancellationToken) -> F) -> ExitCode
where
    F: Future<Output = Result<(), UserError>>,
{
    exit_code(start(format, &mut Builder::new_multi_thread(), service))
}

/// [`run`] for a service that has other threads for its work: half as many threads as cores, at
/// least one. With fewer threads, the parts of a call seldom wait for another thread to wake.
pub fn run_beside<F>(format: Format, service: impl FnOnce(CancellationToken) -> F) -> ExitCode
where
    F: Future<Output = Result<(), UserError>>,
{
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    exit_code(start(
        format,
        Builder::new_multi_thread().worker_threads((cores / 2).max(1)),
        service,
    ))
}

fn exit_code(ended: Result<(), UserError>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::tell_raw(&format!("error: {}", shown(&error.message)));
            ExitCode::from(error.code.exit_code())
        }
    }
}

fn start<F>(
    format: Format,
    threads: &mut Builder,
    service: impl FnOnce(CancellationToken) -> F,
) -> Result<(), UserError>
where
    F: Future<Output = Result<(), UserError>>,
{
    telemetry::init("info", format)
        .map_err(|error| UserError::invalid(telemetry::FILTER, error.to_string()))?;
    let runtime = threads.enable_all().build().map_err(internal)?;
    runtime.block_on(async {
        files::survive_size_limit().map_err(internal)?;
        let stop = shutdown::on_signals().map_err(internal)?;
        service(stop).await
    })
}

/// The name of this machine, used in workers' names: the kernel's, or `localhost`.
#[must_use]
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

fn internal(error: impl std::fmt::Display) -> UserError {
    UserError::new(Code::Internal, "INTERNAL", error.to_string())
}
