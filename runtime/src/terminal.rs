//! Standard output and standard error. Writing never panics, and colours are used only if somebody
//! wants them.

use std::{
    ffi::OsStr,
    io::{self, IsTerminal, Write as _},
};

use darkroom_core::shown::shown_lines;
pub use darkroom_core::shown::shown_path;

/// What the environment requests about colours.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// `NO_COLOR` is set and not empty (no-color.org).
    pub none: bool,
    /// `CLICOLOR_FORCE` is set and not `0`: colours even without a terminal.
    pub force: bool,
    /// `CLICOLOR=0`, or a terminal without colours, `TERM=dumb`.
    pub plain: bool,
}

impl Asked {
    /// The settings of this process.
    #[must_use]
    pub fn of_environment() -> Self {
        let value = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let is =
            |name: &str, wanted: &str| value(name).is_some_and(|value| value == OsStr::new(wanted));
        Self {
            none: value("NO_COLOR").is_some(),
            force: value("CLICOLOR_FORCE").is_some() && !is("CLICOLOR_FORCE", "0"),
            plain: is("CLICOLOR", "0") || is("TERM", "dumb"),
        }
    }

    /// Whether to write colours to a stream.
    #[must_use]
    pub fn colours(self, is_terminal: bool) -> bool {
        !self.none && (self.force || is_terminal && !self.plain)
    }
}

/// Whether to write colours to standard error.
#[must_use]
pub fn colours_on_stderr() -> bool {
    Asked::of_environment().colours(io::stderr().is_terminal())
}

/// Writes one or more lines to standard output. Characters that control a terminal are escaped.
///
/// # Errors
/// If it cannot be written: `BrokenPipe` if the reader has gone.
pub fn print(text: &str) -> io::Result<()> {
    print_raw(&shown_lines(text))
}

/// Writes a text that is already safe, and a line end, to standard output.
///
/// # Errors
/// As [`print()`].
pub fn print_raw(text: &str) -> io::Result<()> {
    let mut line = String::with_capacity(text.len() + 1);
    line += text;
    line.push('\n');
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}

/// Writes one or more lines to standard error. Characters that control a terminal are escaped. A
/// failed write is ignored, because there is nowhere to report it.
pub fn tell(text: &str) {
    tell_raw(&shown_lines(text));
}

/// Writes a text that is already safe, and a line end, to standard error.
pub fn tell_raw(text: &str) {
    let mut line = String::with_capacity(text.len() + 1);
    line += text;
    line.push('\n');
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_need_a_terminal_that_knows_them_unless_they_are_forced_and_nobody_refuses_them() {
        let ask = |none, force, plain| Asked { none, force, plain };
        for (asked, on_terminal, elsewhere) in [
            (ask(false, false, false), true, false),
            (ask(true, false, false), false, false),
            (ask(false, false, true), false, false),
            (ask(false, true, false), true, true),
            (ask(false, true, true), true, true),
            (ask(true, true, true), false, false),
        ] {
            assert_eq!(asked.colours(true), on_terminal, "{asked:?}");
            assert_eq!(asked.colours(false), elsewhere, "{asked:?}");
        }
    }
}
