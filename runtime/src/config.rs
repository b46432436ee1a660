//! Configuration files: TOML is read into a type that refuses unknown keys, with one sentence that
//! names the key.

use std::{
    io,
    path::{Path, PathBuf},
};

use darkroom_core::shown::shown_path;
use serde::de::DeserializeOwned;

use crate::files;

/// Most bytes of a configuration file.
const MOST: u64 = 1 << 20;

/// Why a configuration file was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("the configuration file {} cannot be read: {source}", shown_path(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Its content is wrong.
    #[error("the configuration file {} is wrong: {message}", shown_path(path))]
    Parse {
        /// The file.
        path: PathBuf,
        /// The wrong key or line, and what is accepted.
        message: String,
    },
}

/// Reads `path` into a `T`.
///
/// # Errors
/// [`Error`] if the file cannot be read or `T` refuses it.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let unreadable = |source| Error::Read { path: path.to_owned(), source };
    let bytes = files::read(path, MOST).map_err(|unread| unreadable(unread.into()))?;
    let text = String::from_utf8(bytes).map_err(|_| {
        unreadable(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8; accepted: TOML"))
    })?;
    toml::from_str(text.trim_start_matches('\u{feff}')).map_err(|error| Error::Parse {
        path: path.to_owned(),
        message: one_line(&error.to_string()),
    })
}

fn one_line(text: &str) -> String {
    text.lines()
        .map(|line| line.trim_matches([' ', '|', '^']))
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        listen: String,
    }

    #[test]
    fn a_file_is_read_and_an_unknown_key_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("farm.toml");
        std::fs::write(&path, "listen = '127.0.0.1:1'").expect("write");
        assert_eq!(load::<Sample>(&path).expect("valid").listen, "127.0.0.1:1");

        std::fs::write(&path, "listen = '127.0.0.1:1'\ncolour = 3").expect("write");
        let message = load::<Sample>(&path).expect_err("unknown key").to_string();
        assert!(message.contains("colour") && message.contains("farm.toml"), "{message}");
        assert!(!message.contains('\n'), "one sentence: {message}");
    }

    #[test]
    fn what_is_no_file_of_a_sensible_size_is_refused_and_a_name_is_not_obeyed_by_a_terminal() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        std::fs::write(path("latin.toml"), b"listen = '\xe9'").expect("written");
        std::fs::write(path("marked.toml"), "\u{feff}listen = ':1'").expect("written");
        assert_eq!(
            load::<Sample>(&path("marked.toml")).expect("a byte order mark is not a key").listen,
            ":1"
        );
        for (path, says) in [
            (path("pipe"), "it is a pipe; accepted: a file"),
            ("/dev/zero".into(), "it is a device"),
            (folder.path().to_owned(), "it is a folder"),
            (path("latin.toml"), "it is not UTF-8"),
            (path("a\u{1b}[2J\u{202e}.toml"), "a\\u{1b}[2J\\u{202e}.toml cannot be read"),
        ] {
            let message = load::<Sample>(&path).expect_err(says).to_string();
            assert!(
                message.contains(says) && !message.contains(['\u{1b}', '\u{202e}']),
                "{message}"
            );
        }
    }
}
