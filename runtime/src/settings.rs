//! A program's environment. An environment variable with an empty value counts as unset, because
//! compose files, unit files and CI systems write it like that for "no value".

use std::{ffi::OsStr, os::unix::process::CommandExt as _};

use clap::Command;

/// Variables that libraries read themselves and do not ignore when empty: an empty `SSL_CERT_FILE`
/// would be a file that does not exist.
const OF_LIBRARIES: [&str; 3] = ["SSL_CERT_", "PG", "TMPDIR"];

/// Ignores the environment for every argument whose variable is empty.
pub(crate) fn without_empty(command: Command) -> Command {
    let command = command.mut_args(|argument| {
        let empty = argument.get_env().is_some_and(is_empty);
        if empty { argument.env(None::<&'static str>) } else { argument }
    });
    command.mut_subcommands(without_empty)
}

fn is_empty(name: &OsStr) -> bool {
    std::env::var_os(name).is_some_and(|value| value.is_empty())
}

/// Restarts this program in the same process if a variable that a library reads is empty, because a
/// running process cannot remove a variable from its environment safely. If the restart fails, the
/// program goes on as it is.
pub(crate) fn start_over_without_empty() {
    let empty = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let of_library = OF_LIBRARIES
            .iter()
            .any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()));
        (of_library && value.is_empty()).then_some(name)
    };
    let empty: Vec<_> = std::env::vars_os().filter_map(empty).collect();
    let Ok(program) = std::env::current_exe() else { return };
    if empty.is_empty() {
        return;
    }
    let mut arguments = std::env::args_os();
    let mut again = std::process::Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    again.args(arguments);
    for name in empty {
        again.env_remove(name);
    }
    // Returns only if it failed.
    let _ = again.exec();
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[arg(long, env = "PATH", global = true)]
        set: Option<String>,
        #[command(subcommand)]
        command: Option<Sub>,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Sub {
        Go {
            #[arg(long, env = "PATH")]
            set_too: Option<String>,
        },
    }

    #[test]
    fn a_variable_with_a_value_stays() {
        let matches = without_empty(<Program as clap::CommandFactory>::command())
            .get_matches_from(["program", "go"]);
        let program =
            <Program as clap::FromArgMatches>::from_arg_matches(&matches).expect("parsed");
        let Some(Sub::Go { set_too }) = program.command else { panic!("no command") };
        assert!(program.set.is_some() && set_too.is_some());
    }
}
