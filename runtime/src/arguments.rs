//! The command line of a program. It is parsed by clap and answered without panics; the arguments
//! that an answer quotes are escaped.

use std::{
    any::TypeId,
    error::Error as _,
    num::{IntErrorKind, ParseFloatError, ParseIntError},
    process::ExitCode,
};

use clap::{
    Arg, ArgMatches, Command, Error, Parser,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};

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
    let mut command = settings::without_empty(with_negative_numbers(A::command()));
    let matches = command.try_get_matches_from_mut(std::env::args_os());
    let parsed = matches.and_then(|matches| {
        warn_of_passwords(&matches);
        A::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    });
    parsed.map_err(|error| {
        let text = error.render().to_string();
        let text = text.trim_end_matches('\n');
        if error.use_stderr() {
            terminal::tell(&sentence(&error).unwrap_or_else(|| text.to_owned()));
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
        printed(terminal::print(text))
    })
}

/// The same command, which takes `-1` after an option as the option's value. Without this, clap
/// takes it for an option that does not exist, and what it says then names no range.
#[must_use]
pub fn with_negative_numbers(command: Command) -> Command {
    let numbers = [
        TypeId::of::<u32>(),
        TypeId::of::<u64>(),
        TypeId::of::<usize>(),
        TypeId::of::<i64>(),
        TypeId::of::<f64>(),
    ];
    let takes = |argument: &Arg| {
        // Of arguments without a name, only numbers: another `-x` may be a mistyped option.
        let is_number = || numbers.iter().any(|id| argument.get_value_parser().type_id() == *id);
        argument.get_action().takes_values() && (!argument.is_positional() || is_number())
    };
    let command = command.mut_args(|argument| {
        let takes = takes(&argument);
        if takes { argument.allow_negative_numbers(true) } else { argument }
    });
    command.mut_subcommands(with_negative_numbers)
}

/// A refusal of a value in one sentence, with the field, the value and what is accepted. `None` for
/// errors about something else.
#[must_use]
pub fn sentence(error: &Error) -> Option<String> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let argument = context(ContextKind::InvalidArg)?;
    let value = context(ContextKind::InvalidValue)?;
    let accepted = match (error.kind(), error.get(ContextKind::ValidValue)) {
        (ErrorKind::ValueValidation, _) => match accepted(error) {
            Some(accepted) => accepted,
            // The text holds a sentence of ours. After an empty line, clap points to its help.
            None => return error.render().to_string().split("\n\n").next().map(str::to_owned),
        },
        (ErrorKind::InvalidValue, Some(ContextValue::Strings(all))) if !all.is_empty() => {
            all.join(", ")
        }
        _ => return None,
    };
    let field = field(argument);
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit() || b"-.".contains(&byte));
    let shown = if is_number && !value.is_empty() { value } else { &format!("{value:?}") };
    Some(format!("error: {field} is {shown}; accepted: {accepted}"))
}

/// What a parser of numbers would have accepted.
fn accepted(error: &Error) -> Option<String> {
    let source = error.source()?;
    if let Some(error) = source.downcast_ref::<ParseIntError>() {
        return Some(match error.kind() {
            // The option's own limit may be far below the type's.
            IntErrorKind::PosOverflow => "a smaller whole number".to_owned(),
            _ => "a whole number without a sign".to_owned(),
        });
    }
    if source.is::<ParseFloatError>() {
        return Some("a number".to_owned());
    }
    let text = source.to_string();
    let (least, most) = text.split_once(" is not in ")?.1.split_once("..")?;
    let most = most.trim_start_matches('=');
    let is_any = most == u64::MAX.to_string() || most == i64::MAX.to_string();
    Some(if is_any { format!("{least} or more") } else { format!("{least} to {most}") })
}

/// The name in `--limit <N>` or `<INDEX>`, as our own refusals write it.
fn field(argument: &str) -> String {
    let name = argument.split_whitespace().next().unwrap_or(argument);
    let name = name.trim_matches(|at: char| "-<>[].".contains(at));
    if argument.starts_with('-') { name.to_owned() } else { name.to_lowercase() }
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[derive(Debug, Parser)]
    struct Given {
        #[arg(long)]
        limit: Option<u64>,
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        from: Option<u64>,
        #[arg(long, value_parser = clap::value_parser!(u32).range(6..=1000))]
        lease: Option<u32>,
        #[arg(long)]
        tolerance: Option<f64>,
        #[arg(long)]
        quota: Option<String>,
        #[arg(long, value_parser = ["crop", "pad"])]
        fit: Option<String>,
        #[arg(long, value_parser = |_: &str| Err::<u8, _>("no size; accepted: 20GiB"))]
        size: Option<u8>,
        index: Option<usize>,
        texts: Vec<String>,
    }

    fn parsed(arguments: &[&str]) -> Result<ArgMatches, Error> {
        let command = with_negative_numbers(Given::command());
        command.try_get_matches_from([&["program"], arguments].concat())
    }

    #[test]
    fn a_wrong_number_is_refused_in_one_sentence_with_field_value_and_what_is_accepted() {
        for (arguments, says) in [
            (&["--limit", "-1"][..], "limit is -1; accepted: a whole number without a sign"),
            (&["--limit=1.5"], "limit is 1.5; accepted: a whole number without a sign"),
            (&["--limit", "x"], "limit is \"x\"; accepted: a whole number without a sign"),
            (&["--limit", ""], "limit is \"\"; accepted: a whole number without a sign"),
            (
                &["--limit", "99999999999999999999"],
                "limit is 99999999999999999999; accepted: a smaller whole number",
            ),
            (&["--from", "0"], "from is 0; accepted: 1 or more"),
            (&["--lease", "-1"], "lease is -1; accepted: 6 to 1000"),
            (&["--tolerance", "-x"], ""),
            (&["--tolerance", "much"], "tolerance is \"much\"; accepted: a number"),
            (&["--fit", "-1"], "fit is -1; accepted: crop, pad"),
            (&["--size", "-1"], "invalid value '-1' for '--size <SIZE>': no size; accepted: 20GiB"),
            (&["-1"], "index is -1; accepted: a whole number without a sign"),
        ] {
            let error = parsed(arguments).expect_err("refused");
            let expected = if says.is_empty() { None } else { Some(format!("error: {says}")) };
            assert_eq!(sentence(&error), expected, "{arguments:?}");
        }
    }

    #[test]
    fn negative_values_reach_whoever_reads_them_and_texts_stay_options() {
        let quota = parsed(&["--quota", "-1", "--tolerance", "-0.5"]).expect("taken");
        assert_eq!(quota.get_one::<String>("quota").map(String::as_str), Some("-1"));
        assert_eq!(quota.get_one::<f64>("tolerance"), Some(&-0.5));
        let error = parsed(&["5", "a text", "-1"]).expect_err("no such option");
        assert_eq!((error.kind(), sentence(&error)), (ErrorKind::UnknownArgument, None));
    }
}
