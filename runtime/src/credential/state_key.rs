//! The key of a farm on this machine, in its state folder: whoever can read the folder may use the
//! farm.

use std::{
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use darkroom_core::{
    error::{Code, UserError},
    key::Key,
    shown::shown_path,
};
use nix::fcntl::OFlag;

use super::file::{self, ACCEPTED};
use crate::files;

/// Its name in the folder.
const FILE: &str = "farm.key";

/// The file of a state folder that has the farm's key.
#[derive(Clone, Debug)]
pub struct StateKey {
    path: PathBuf,
}

impl StateKey {
    /// That of this folder.
    #[must_use]
    pub fn of(state: &Path) -> Self {
        Self { path: state.join(FILE) }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key, if the folder has one. A link is not followed.
    ///
    /// # Errors
    /// One sentence if it cannot be read, or is no key.
    pub fn read(&self) -> Result<Option<Key>, UserError> {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
            .open(&self.path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unusable(&error)),
        };
        let mut bytes = Vec::new();
        let kind = file.metadata().map_err(|error| self.unusable(&error))?.file_type();
        if kind.is_file() {
            file.take(file::MOST).read_to_end(&mut bytes).map_err(|error| self.unusable(&error))?;
        }
        file::parse(&bytes).map(Some).ok_or_else(|| {
            self.wrong(&format!(
                "does not hold a key; {ACCEPTED}, or remove the file and start the farm again"
            ))
        })
    }

    /// Writes the key in place of any that the folder has. Only the folder's owner can read it.
    ///
    /// # Errors
    /// One sentence if the file cannot be written.
    pub fn write(&self, key: &Key) -> Result<(), UserError> {
        let line = format!("{}\n", key.expose());
        files::replace(&self.path, line.as_bytes()).map_err(|error| self.unusable(&error))
    }

    fn unusable(&self, error: &io::Error) -> UserError {
        self.wrong(&format!("cannot be used: {error}"))
    }

    fn wrong(&self, why: &str) -> UserError {
        UserError {
            field: Some("state".to_owned()),
            ..UserError::new(
                Code::FailedPrecondition,
                "STATE_KEY",
                format!("the key of the farm in {} {why}", shown_path(&self.path)),
            )
        }
    }
}
