//! `darkroom-coordinator`: a coordinator as a process of its own.
//!
//! It connects the coordinator with the farm's database, queue and object storage, and serves its
//! calls over gRPC and HTTP. It never links libtorch.

mod args;
mod door;
mod engine;
mod first_key;
mod process;
mod record;
mod troubles;

use std::process::ExitCode;

use args::CoordinatorArgs;
use darkroom_runtime::{arguments, program, telemetry::Format, tls};

fn main() -> ExitCode {
    tls::install_provider();
    let args: CoordinatorArgs = match arguments::parse() {
        Ok(args) => args,
        Err(ended) => return ended,
    };
    let format = if args.log_json { Format::Json } else { Format::Human };
    program::run_beside(format, |stop| process::run(args, stop))
}
