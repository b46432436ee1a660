//! `darkroom-coordinator`: a coordinator as a process of its own.

use std::process::ExitCode;

use darkroom_coordinator::process::{self, CoordinatorArgs};
use darkroom_runtime::{program, settings, telemetry::Format};

fn main() -> ExitCode {
    let args: CoordinatorArgs = settings::parse();
    let format = if args.log_json { Format::Json } else { Format::Human };
    program::run_beside(format, |stop| process::run(args, stop))
}
