//! The command line of a program. It is parsed by clap and answered without panics; the arguments
//! that an answer quotes are escaped.

use std::process::ExitCode;

use clap::{ArgMatches, Parser, parser::ValueSource};

use crate::{secret::SecretUrl, settings, terminal};

/// Exit code when standard output cannot take the answer. A later try may succeed.
pub const OUTPUT_FAILED: u8 = 4;

/// The arguments, or the exit code after an answer (help, version) or an error was printed.
/// Environment variables with an empty value count as unset. Call this first, before there are
/// threads.
///
/// # Errors
/// The exit code that the program must end with now.
pub fn parse<A: Parser>() -> Result<A, ExitCode> {
    settings::start_over_without_empty();
    let mut command = settings::without_empty(A::command());
    let matches = command.try_get_matches_from_mut(std::env::args_os());
    let parsed = matches.and_then(|matches| {
        warn_of_passwords(&matches);
        A::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    });
    parsed.map_err(|error| {
        let text = error.render().to_string();
        let text = text.trim_end_matches('\n');
        if error.use_stderr() {
            terminal::tell(text);
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
        printed(terminal::print(text))
    })
}

/// Says of each URL with a password that was given as a flag that others can see it.
fn warn_of_passwords(matches: &ArgMatches) {
    for id in matches.ids() {
        if matches.value_source(id.as_str()) != Some(ValueSource::CommandLine) {
            continue;
        }
        let url = matches.try_get_one::<SecretUrl>(id.as_str());
        // Of another type, it is no URL.
        if url.is_ok_and(|url| url.is_some_and(SecretUrl::shows_password)) {
            let (flag, variable) = (id.as_str(), id.as_str().to_uppercase());
            terminal::tell(&format!(
                "warning: --{flag} has a password, which everybody on this machine can read while \
                 the program runs; give it as DARKROOM_{variable}, or in a file, as --{flag} @FILE"
            ));
        }
    }
}

/// The exit code of a program that only had to print: success if the reader has gone, failure if a
/// device is full.
#[must_use]
pub fn printed(result: std::io::Result<()>) -> ExitCode {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            terminal::tell(&format!("error: cannot write standard output: {error}"));
            ExitCode::from(OUTPUT_FAILED)
        }
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}
