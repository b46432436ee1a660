//! `darkroom-worker`: a worker as a process of its own.

use std::process::ExitCode;

use darkroom_runtime::{arguments, program, telemetry::Format};
use darkroom_worker::process::{self, WorkerArgs};

fn main() -> ExitCode {
    let args: WorkerArgs = match arguments::parse() {
        Ok(args) => args,
        Err(ended) => return ended,
    };
    let format = if args.log_json { Format::Json } else { Format::Human };
    program::run(format, |stop| process::run(args, stop))
}
