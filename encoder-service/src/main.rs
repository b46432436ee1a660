//! `darkroom-encoder`: the encoder service as a process of its own.

use std::process::ExitCode;

use darkroom_encoder_service::process::{self, EncoderArgs};
use darkroom_runtime::{program, settings, telemetry::Format};

fn main() -> ExitCode {
    let args: EncoderArgs = settings::parse();
    let format = if args.log_json { Format::Json } else { Format::Human };
    program::run(format, |stop| process::run(args, stop))
}
