//! `darkroom`: the command line. Each command is a module; a failure is one sentence on standard error and an exit
//! code: 2 for a wrong request, 3 for what is missing or in the wrong state, 4 for what may pass, 1 for the rest.

use std::process::ExitCode;

use darkroom_runtime::arguments;

mod args;
mod batch_file;
mod batch_open;
mod bounded;
mod client;
mod deadline;
#[cfg(feature = "embedded")]
mod embedded;
mod failure;
mod farm;
mod file_name;
mod forecast;
#[cfg(feature = "embedded")]
mod import;
mod inputs;
mod jobs;
mod lost;
#[cfg(feature = "embedded")]
mod model;
#[cfg(feature = "embedded")]
mod model_info;
mod name_template;
mod output;
mod pictures;
mod progress;
mod render;
mod request;
#[cfg(feature = "embedded")]
mod rerender;
mod run;
mod spool;
mod stage_flags;
#[cfg(feature = "embedded")]
mod tokenize;
#[cfg(feature = "embedded")]
mod up;
mod verify;
mod view;

fn main() -> ExitCode {
    match arguments::parse() {
        Ok(cli) => run::run(cli),
        Err(ended) => ended,
    }
}
