//! Configuration files: TOML into a type that refuses what it does not know, in one sentence that names the key.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

/// Why a configuration file was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("the configuration file {} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("the configuration file {} is wrong: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The key or line at fault, and what is accepted.
        message: String,
    },
}

/// Reads `path` as a `T`.
///
/// # Errors
/// [`Error`] when the file cannot be read or `T` refuses it.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|error| Error::Parse { path: path.to_owned(), message: one_line(&error.to_string()) })
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
}
