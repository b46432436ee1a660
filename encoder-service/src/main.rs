//! `darkroom-encoder`: the encoder service as a separate process.

use std::process::ExitCode;

use darkroom_encoder_service::process::{self, EncoderArgs};
use darkroom_runtime::{arguments, program, telemetry::Format, tls};

fn main() -> ExitCode {
    tls::install_provider();
    let args: EncoderArgs = match arguments::parse() {
        Ok(args) => args,
        Err(ended) => return ended,
    };
    let format = if args.log_json { Format::Json } else { Format::Human };
    program::run(format, |stop| process::run(args, stop))
}
