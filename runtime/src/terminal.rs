//! Standard output and standard error: written to without ever panicking, and coloured only where somebody wants that.

use std::{
    ffi::OsStr,
    io::{self, IsTerminal, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use darkroom_core::shown::{shown_bytes, shown_lines};

/// What the environment says about colours.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    /// `NO_COLOR` is set and not empty (no-color.org).
    pub none: bool,
    /// `CLICOLOR_FORCE` is set and not `0`: colours even where there is no terminal.
    pub force: bool,
    /// `CLICOLOR=0`, or a terminal that knows none, `TERM=dumb`.
    pub plain: bool,
}

impl Wishes {
    /// Of this process.
    #[must_use]
    pub fn of_environment() -> Self {
        let value = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let is = |name: &str, wanted: &str| value(name).is_some_and(|value| value == OsStr::new(wanted));
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

/// Whether standard error takes colours.
#[must_use]
pub fn colours_on_stderr() -> bool {
    Wishes::of_environment().colours(io::stderr().is_terminal())
}

/// Writes a line, or several, to standard output. Whatever a terminal would obey is escaped.
///
/// # Errors
/// When it cannot be written: `BrokenPipe` when whoever read it has gone.
pub fn print(text: &str) -> io::Result<()> {
    print_raw(&shown_lines(text))
}

/// Writes a text that is safe to show, and a line end, to standard output.
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

/// Writes a line, or several, to standard error. Whatever a terminal would obey is escaped. That it cannot be written is
/// not told: there is nowhere to tell it.
pub fn tell(text: &str) {
    tell_raw(&shown_lines(text));
}

/// Writes a text that is safe to show, and a line end, to standard error.
pub fn tell_raw(text: &str) {
    let mut line = String::with_capacity(text.len() + 1);
    line += text;
    line.push('\n');
    let _ = io::stderr().lock().write_all(line.as_bytes());
}

/// A path as a terminal or a log may show it: bytes that are not UTF-8 as `\xff`.
#[must_use]
pub fn shown_path(path: &Path) -> String {
    shown_bytes(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_need_a_terminal_that_knows_them_unless_they_are_forced_and_nobody_refuses_them() {
        let wish = |none, force, plain| Wishes { none, force, plain };
        for (wishes, on_terminal, elsewhere) in [
            (wish(false, false, false), true, false),
            (wish(true, false, false), false, false),
            (wish(false, false, true), false, false),
            (wish(false, true, false), true, true),
            (wish(false, true, true), true, true),
            (wish(true, true, true), false, false),
        ] {
            assert_eq!(wishes.colours(true), on_terminal, "{wishes:?}");
            assert_eq!(wishes.colours(false), elsewhere, "{wishes:?}");
        }
    }
}
