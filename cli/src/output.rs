//! What commands print: text for people, or JSON for machines. Characters that control a terminal
//! are escaped.
//!
//! The exit code is that of the work. If the reader of standard output goes away, a command that
//! only shows something ends at once with 0. A command that does something goes on, and ends with
//! the result of its work. A full device makes a command fail, after its work.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use darkroom_core::{
    error::{Code, UserError},
    shown::{shown, shown_json},
};
use darkroom_runtime::terminal;
use serde::Serialize;
use serde_json::Value;

use crate::failure::{self, Result};

/// Reason of the error that nobody reads standard output any more; never shown.
const CLOSED: &str = "STDOUT_CLOSED";

/// Prints a document as one line of JSON.
pub(crate) fn json(document: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(document).map_err(failure::internal)?;
    written(terminal::print_raw(&shown_json(&text)))
}

/// Prints a note beside the result, on standard error.
pub(crate) fn note(text: &str) {
    terminal::tell(&format!("note: {}", shown(text)));
}

/// Prints a warning, on standard error.
pub(crate) fn warn(text: &str) {
    terminal::tell(&format!("warning: {}", shown(text)));
}

/// Prints one or more lines.
pub(crate) fn line(text: &str) -> Result<()> {
    written(terminal::print(text))
}

/// Prints text from a program that is already safe to show.
pub(crate) fn raw(text: &str) -> Result<()> {
    written(terminal::print_raw(text))
}

/// Prints a line on standard error.
pub(crate) fn tell(text: &str) {
    terminal::tell(text);
}

fn written(result: io::Result<()>) -> Result<()> {
    result.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => {
            UserError::new(Code::Unavailable, CLOSED, "nobody reads standard output")
        }
        _ => failure::file("stdout", "write", "standard output".as_ref(), &error),
    })
}

/// Whether an error only says that nobody reads standard output any more.
pub(crate) fn is_closed(failure: &UserError) -> bool {
    failure.reason == CLOSED
}

/// Prints beside work that goes on whether or not anybody reads. After an error nothing more is
/// printed.
#[derive(Default)]
pub(crate) struct Beside(Option<UserError>);

impl Beside {
    /// Prints, unless printing failed before.
    pub(crate) fn print(&mut self, print: impl FnOnce() -> Result<()>) {
        if self.0.is_none() {
            self.0 = print().err();
        }
    }

    /// The result of printing. A missing reader is not an error.
    pub(crate) fn end(self) -> Result<()> {
        match self.0 {
            Some(failure) if !is_closed(&failure) => Err(failure),
            _ => Ok(()),
        }
    }
}

/// A path for JSON. A name that is not UTF-8 gets replacement characters; [`path_bytes`] has the
/// exact bytes.
pub(crate) fn path(path: &Path) -> Value {
    path.to_string_lossy().into()
}

/// The bytes of a path in hexadecimal digits, if it is not UTF-8.
pub(crate) fn path_bytes(path: &Path) -> Option<String> {
    use std::{fmt::Write as _, os::unix::ffi::OsStrExt as _};
    if path.to_str().is_some() {
        return None;
    }
    let mut digits = String::new();
    for byte in path.as_os_str().as_bytes() {
        let _ = write!(digits, "{byte:02x}");
    }
    Some(digits)
}

/// Adds a path to a JSON object as `key`, and its bytes as `key_bytes` if it is not UTF-8.
pub(crate) fn with_path(mut document: Value, key: &str, of: &Path) -> Value {
    document[key] = path(of);
    if let Some(bytes) = path_bytes(of) {
        document[format!("{key}_bytes")] = bytes.into();
    }
    document
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_that_is_not_utf8_is_told_twice() {
        let document = with_path(json!({}), "path", OsStr::from_bytes(b"a\xff/b.png").as_ref());
        assert_eq!(document, json!({"path": "a\u{fffd}/b.png", "path_bytes": "61ff2f622e706e67"}));
        assert_eq!(with_path(json!({}), "path", "ä".as_ref()), json!({"path": "ä"}));
    }

    #[test]
    fn after_a_failure_nothing_more_is_printed_and_a_reader_that_left_is_none() {
        let failed = |kind: ErrorKind| {
            let mut beside = Beside::default();
            beside.print(|| written(Err(kind.into())));
            beside.print(|| panic!("printed"));
            beside.end()
        };
        assert_eq!(failed(ErrorKind::BrokenPipe), Ok(()));
        assert_eq!(failed(ErrorKind::StorageFull).expect_err("full").reason, "DISK_FULL");
    }
}
