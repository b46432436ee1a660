//! `darkroom`: the command line. Each command is a module; a failure is one sentence on standard error and an exit
//! code: 2 for a wrong request, 3 for what is missing or in the wrong state, 4 for what may pass, 1 for the rest.

use std::process::ExitCode;

mod args;
mod batch_file;
mod client;
mod deadline;
#[cfg(feature = "embedded")]
mod embedded;
mod failure;
mod farm;
mod forecast;
#[cfg(feature = "embedded")]
mod import;
mod inputs;
mod jobs;
#[cfg(feature = "embedded")]
mod model;
#[cfg(feature = "embedded")]
mod model_info;
mod output;
mod pictures;
mod progress;
mod render;
mod request;
#[cfg(feature = "embedded")]
mod rerender;
mod run;
mod stage_flags;
#[cfg(feature = "embedded")]
mod tokenize;
#[cfg(feature = "embedded")]
mod up;
mod verify;
mod view;

fn main() -> ExitCode {
    run::run(darkroom_runtime::settings::parse())
}
