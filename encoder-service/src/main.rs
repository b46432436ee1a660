//! `darkroom-encoder`: the encoder service as a process of its own.

use std::process::ExitCode;

use clap::Parser;
use darkroom_encoder_service::process::{self, EncoderArgs};
use darkroom_runtime::{program, telemetry::Format};

fn main() -> ExitCode {
    let args = EncoderArgs::parse();
    let format = if args.log_json { Format::Json } else { Format::Human };
    program::run(format, |stop| process::run(args, stop))
}
