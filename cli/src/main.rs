//! `darkroom`: the command line. Each command is a module. An error is one sentence on standard
//! error and an exit code: 2 for a wrong request; 3 for something missing or in the wrong state; 4
//! for something that may pass; 1 for everything else.

use std::process::ExitCode;

use darkroom_runtime::{arguments, tls};

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
mod flags;
mod forecast;
mod image;
mod image_commands;
mod image_map;
#[cfg(feature = "embedded")]
mod import;
mod inputs;
mod jobs;
mod keys;
mod listing;
mod login;
mod lost;
#[cfg(feature = "embedded")]
mod model;
#[cfg(feature = "embedded")]
mod model_choice;
#[cfg(feature = "embedded")]
mod model_info;
mod name_template;
mod output;
mod pictures;
mod previews;
mod progress;
mod quotas;
mod render;
mod request;
#[cfg(feature = "embedded")]
mod rerender;
mod retention;
mod run;
mod sheet;
mod span;
mod spool;
mod stage_flags;
mod table;
mod tenants;
#[cfg(feature = "embedded")]
mod tokenize;
#[cfg(feature = "embedded")]
mod up;
mod verify;
mod view;
mod webhooks;
mod whole_farm;

fn main() -> ExitCode {
    tls::install_provider();
    match arguments::parse() {
        Ok(cli) => run::run(cli),
        Err(ended) => ended,
    }
}
