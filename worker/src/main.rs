//! `darkroom-worker`: a worker as a process of its own.

use std::process::ExitCode;

use darkroom_runtime::{program, settings, telemetry::Format};
use darkroom_worker::process::{self, WorkerArgs};

fn main() -> ExitCode {
    let args: WorkerArgs = settings::parse();
    let format = if args.log_json { Format::Json } else { Format::Human };
    program::run(format, |stop| process::run(args, stop))
}
