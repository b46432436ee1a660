//! Errors in a prompt file.

use std::io;

/// Why a file is refused. Nothing of the file should be used then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its bytes cannot be read.
    #[error("it cannot be read: {0}")]
    Io(io::Error),
    /// The file as a whole is wrong.
    #[error("{0}")]
    File(String),
    /// One of its lines is wrong.
    #[error("line {line}: {message}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong there, and what is accepted.
        message: String,
    },
    /// An option does not fit the file.
    #[error("{message}")]
    Option {
        /// The option's name, as on the command line, without dashes.
        option: &'static str,
        /// What is wrong with it, and what is accepted.
        message: String,
    },
}

impl Error {
    pub(crate) fn line(line: u64, message: impl Into<String>) -> Self {
        Self::Line { line, message: message.into() }
    }

    pub(crate) fn option(option: &'static str, message: impl Into<String>) -> Self {
        Self::Option { option, message: message.into() }
    }
}

/// A value from a file, quoted, escaped and shortened for an error.
pub(crate) fn shown(value: &str) -> String {
    const LONGEST: usize = 60;
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", value.get(..end).unwrap_or_default()),
        None => format!("{value:?}"),
    }
}
