//! What commands print: text for people, or JSON for machines.

use std::io::{self, Write};

use serde::Serialize;

use crate::failure::{self, Result};

/// Prints a document as one line of JSON. A reader that went away ends the command quietly.
pub(crate) fn json(document: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(document).map_err(failure::internal)?;
    line(&text)
}

/// Says something beside the result, on standard error. That nobody reads it is no failure.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "note: {text}");
}

/// Prints a line.
pub(crate) fn line(text: &str) -> Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(failure::file("stdout", "write", "standard output".as_ref(), &error)),
        Ok(()) => Ok(()),
    }
}
