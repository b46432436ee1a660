//! An S3 server for a farm of processes on one machine: `test-s3 FOLDER PORT BUCKET`, credentials
//! from the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`). Runs until it is killed.
//! Faults are set with `curl -d 'status:503 which=writes when=next:5'
//! http://127.0.0.1:PORT/-/faults`.

#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "an internal tool; nobody closes its output early"
)]

use std::{env, process::ExitCode};

use darkroom_test_servers::s3::{Options, S3};

const USAGE: &str = "usage: test-s3 FOLDER PORT BUCKET, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment";

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match S3::start_with(options) {
        Ok(server) => {
            println!("listening on {} as {}", server.endpoint(), server.url());
            loop {
                std::thread::park();
            }
        }
        Err(error) => {
            eprintln!("test-s3: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Option<Options> {
    let mut arguments = env::args().skip(1);
    let options = Options {
        folder: arguments.next()?.into(),
        port: arguments.next()?.parse().ok()?,
        bucket: arguments.next()?,
        access_key: env::var("AWS_ACCESS_KEY_ID").ok()?,
        secret_key: env::var("AWS_SECRET_ACCESS_KEY").ok()?,
    };
    arguments.next().is_none().then_some(options)
}
