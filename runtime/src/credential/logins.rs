//! The keys that `darkroom login` stored: one per address of a farm, in `keys.json` in the user's
//! folder for configuration.
//!
//! The folder is its owner's alone (0700, the file 0600). The file is replaced whole, and neither
//! is followed if it is a link.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use darkroom_core::{
    error::{Code, UserError},
    key::Key,
    shown::shown_path,
};
use nix::{fcntl::OFlag, unistd::Uid};
use serde::{Deserialize, Serialize};

use crate::{
    files,
    peer::{Address, Addresses},
};

/// Name of the folder, and of the file in it.
const FOLDER: &str = "darkroom";
const FILE: &str = "keys.json";
/// Most bytes of the file.
const MOST: u64 = 1 << 20;
/// Permissions of everybody but the owner.
const OTHERS: u32 = 0o077;

/// The stored keys of a user.
#[derive(Clone, Debug)]
pub struct Logins {
    folder: PathBuf,
}

/// What the file holds.
#[derive(Default, Serialize, Deserialize)]
struct Stored {
    /// By address, as a user writes it (`https://farm.example.org:7878`).
    farms: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    key: String,
}

impl Logins {
    /// Those of the user who runs this: in `$XDG_CONFIG_HOME/darkroom`, or in `~/.config/darkroom`.
    /// None if there is no home.
    #[must_use]
    pub fn of_user() -> Option<Self> {
        let set = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        // The specification says to ignore one that is not absolute.
        let set = set.filter(|path| path.is_absolute());
        let home = || Some(std::env::home_dir()?.join(".config")).filter(|path| path.is_absolute());
        Some(Self::in_folder(&set.or_else(home)?))
    }

    /// Those below this folder for configuration.
    #[must_use]
    pub fn in_folder(configuration: &Path) -> Self {
        Self { folder: configuration.join(FOLDER) }
    }

    /// The file that has them.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// The key for an address.
    ///
    /// # Errors
    /// One sentence for a file that is damaged, too large or a link.
    pub fn find(&self, address: &Address) -> Result<Option<Key>, UserError> {
        let stored = self.read()?;
        let Some(entry) = stored.farms.get(&address.to_string()) else { return Ok(None) };
        entry.key.parse().map(Some).map_err(|_| {
            self.wrong(&format!(
                "has something for {address} that is no key; run `darkroom login --farm {address}` again"
            ))
        })
    }

    /// Stores a key for each of these addresses, in place of older ones.
    ///
    /// # Errors
    /// One sentence if the folder cannot be made or closed to others, or the file not be written.
    pub fn store(&self, addresses: &Addresses, key: &Key) -> Result<(), UserError> {
        self.change(|stored| {
            for address in addresses.as_slice() {
                let entry = Entry { key: key.expose() };
                stored.farms.insert(address.to_string(), entry);
            }
        })
    }

    /// Removes the keys for these addresses, and says for which of them there was one.
    ///
    /// # Errors
    /// As [`Self::store`].
    pub fn remove(&self, addresses: &Addresses) -> Result<Vec<Address>, UserError> {
        let stored = self.read()?;
        let has = |address: &&Address| stored.farms.contains_key(&address.to_string());
        let there: Vec<_> = addresses.as_slice().iter().filter(has).cloned().collect();
        if !there.is_empty() {
            self.change(|stored| {
                for address in &there {
                    stored.farms.remove(&address.to_string());
                }
            })?;
        }
        Ok(there)
    }

    fn change(&self, change: impl FnOnce(&mut Stored)) -> Result<(), UserError> {
        self.make_folder()?;
        // Two programs that log in at the same time must not lose one of the keys.
        let lock = File::open(&self.folder).map_err(|error| self.unusable(&error))?;
        match lock.lock() {
            Err(error) if !files::is_lacking(&error) => return Err(self.unusable(&error)),
            _ => {}
        }
        let mut stored = self.read()?;
        change(&mut stored);
        let written = serde_json::to_vec_pretty(&stored)
            .map_err(io::Error::other)
            .and_then(|text| files::replace(&self.path(), &text));
        written.map_err(|error| self.unusable(&error))
    }

    fn read(&self) -> Result<Stored, UserError> {
        if fs::symlink_metadata(&self.folder).is_ok_and(|found| found.is_symlink()) {
            return Err(self.linked(&self.folder));
        }
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
            .open(self.path());
        let file = match opened {
            Ok(file) => file,
            // A service may run without a home, or in that of somebody else.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::PermissionDenied
                        | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(Stored::default());
            }
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => {
                return Err(self.linked(&self.path()));
            }
            Err(error) => return Err(self.unusable(&error)),
        };
        let found = file.metadata().map_err(|error| self.unusable(&error))?;
        if !found.is_file() || found.len() > MOST {
            return Err(self.wrong(&format!("is not a file of at most {MOST} bytes")));
        }
        let mut text = Vec::new();
        file.take(MOST).read_to_end(&mut text).map_err(|error| self.unusable(&error))?;
        // The parser's own sentence may quote a key.
        serde_json::from_slice(&text).map_err(|error| {
            self.wrong(&format!(
                "is damaged in line {}; remove it, and run `darkroom login` for each farm again",
                error.line()
            ))
        })
    }

    /// Makes the folder, or closes one to others that is ours.
    fn make_folder(&self) -> Result<(), UserError> {
        let failed = |error: io::Error| self.unusable(&error);
        if let Some(above) = self.folder.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(above).map_err(failed)?;
        }
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        let found = fs::symlink_metadata(&self.folder).map_err(failed)?;
        if found.is_symlink() {
            return Err(self.linked(&self.folder));
        }
        let user = Uid::effective().as_raw();
        if !found.is_dir() || found.uid() != user {
            return Err(self.wrong(&format!(
                "is in a folder that belongs to user {}, and this program runs as user {user}; set XDG_CONFIG_HOME to a \
                 folder of your own",
                found.uid()
            )));
        }
        if found.mode() & OTHERS != 0 {
            let closed = fs::Permissions::from_mode(0o700);
            fs::set_permissions(&self.folder, closed).map_err(failed)?;
        }
        Ok(())
    }

    fn linked(&self, link: &Path) -> UserError {
        self.wrong(&format!(
            "is not used, because {} is a link; put a {} in its place",
            shown_path(link),
            if link == self.folder { "folder" } else { "file" }
        ))
    }

    fn unusable(&self, error: &io::Error) -> UserError {
        self.wrong(&format!("cannot be used: {error}"))
    }

    fn wrong(&self, why: &str) -> UserError {
        UserError::new(
            Code::FailedPrecondition,
            "LOGINS_UNUSABLE",
            format!("the file of logins {} {why}", shown_path(&self.path())),
        )
    }
}
