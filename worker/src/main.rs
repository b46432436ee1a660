//! `darkroom-worker`: a worker as a separate process.

use std::process::ExitCode;

use darkroom_runtime::{arguments, program, telemetry::Format, tls};
use darkroom_worker::process::{self, WorkerArgs};

fn main() -> ExitCode {
    tls::install_provider();
    let args: WorkerArgs = match arguments::parse() {
        Ok(args) => args,
        Err(ended) => return ended,
    };
    let format = if args.log_json { Format::Json } else { Format::Human };
    program::run(format, |stop| process::run(args, stop))
}
