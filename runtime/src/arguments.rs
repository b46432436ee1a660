//! The command line of a program: read by clap, and answered without panicking and without obeying what it quotes.

use std::process::ExitCode;

use clap::Parser;

use crate::{settings, terminal};

/// Exit code where standard output cannot take what was asked for: it may be able to later.
pub const OUTPUT_FAILED: u8 = 4;

/// The arguments, or the exit code after an answer (help, version) or a refusal was printed. Environment variables that are
/// set to nothing count as unset. To be called first, before there are threads.
///
/// # Errors
/// The exit code that the program ends with now.
pub fn parse<A: Parser>() -> Result<A, ExitCode> {
    settings::start_over_without_empty();
    let mut command = settings::without_empty(A::command());
    let matches = command.try_get_matches_from_mut(std::env::args_os());
    let parsed =
        matches.and_then(|matches| A::from_arg_matches(&matches).map_err(|error| error.format(&mut command)));
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

/// The exit code of a program whose only work was to print: well, if its reader has gone, and not if a device is full.
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
