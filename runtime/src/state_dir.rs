//! The state folder of a farm on one machine: who owns it, what lies in it, and where its farm can be reached.
//!
//! `farm.lock` is held for as long as a farm runs on the folder; the system lets go of it when the process ends,
//! however it ends. `farm.json` says which process that is and where it listens; it means something only while the
//! lock is held.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
};
use serde::{Deserialize, Serialize};

use crate::{files, terminal::shown_path};

/// How long a lock that is held is asked for again: long enough to outlast a client that looks whether a farm runs.
const PATIENCE: Duration = Duration::from_millis(500);

/// With less free space than this a farm cannot be sure to store what it makes.
pub const LEAST_FREE_BYTES: u64 = 8 << 20;

/// What a running farm says of itself in `farm.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farm {
    /// Its process.
    pub pid: u32,
    /// Where its gRPC server listens, `host:port`; absent until it does.
    pub address: Option<String>,
}

/// Why a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another farm runs on it.
    #[error(
        "the state folder {} is in use by {}; stop that farm, or name another folder with --state",
        shown_path(path),
        owner(farm)
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The other farm, where it could be read.
        farm: Option<Farm>,
    },
    /// Its file system cannot lock files, so that two farms could run on it.
    #[error(
        "the file system that holds the state folder {} cannot lock files ({source}); name a folder on a local disk with --state",
        shown_path(path)
    )]
    NoLocks {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Its disk is full, or nearly.
    #[error(
        "the disk that holds the state folder {} is full ({} KiB free, {} needed); free some space, or name another folder with --state",
        shown_path(path), free_bytes >> 10, LEAST_FREE_BYTES >> 10
    )]
    Full {
        /// The folder.
        path: PathBuf,
        /// What is left.
        free_bytes: u64,
    },
    /// It cannot be made, read or written.
    #[error(
        "the state folder {} cannot be used: {source}; give a folder that you can write to with --state",
        shown_path(path)
    )]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn owner(farm: &Option<Farm>) -> String {
    match farm {
        Some(Farm { pid, address: Some(address) }) => format!("the farm of process {pid} at {address}"),
        Some(Farm { pid, address: None }) => format!("the farm of process {pid}, which is starting"),
        None => "another farm".to_owned(),
    }
}

/// A state folder held by this process.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the folder if it is not there and takes its lock.
    ///
    /// # Errors
    /// [`Error::InUse`] when another farm runs on it, [`Error::NoLocks`] when that cannot be told, [`Error::Full`] when
    /// nothing fits on its disk, [`Error::Io`] when it cannot be made or written.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(io)?;
        let lock = lock_file(path).map_err(io)?;
        let give_up = Instant::now() + PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < give_up => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::InUse { path: path.to_owned(), farm: read(path) });
                }
                Err(TryLockError::Error(source)) if files::is_lacking(&source) => {
                    return Err(Error::NoLocks { path: path.to_owned(), source });
                }
                Err(TryLockError::Error(source)) => return Err(io(source)),
            }
        }
        let state = Self { path: path.to_owned(), _lock: lock };
        check_space(path)?;
        check_record_locks(path)?;
        state.write(None)?;
        Ok(state)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells clients where the farm listens.
    ///
    /// # Errors
    /// [`Error::Io`] when `farm.json` cannot be written.
    pub fn publish(&self, address: &str) -> Result<(), Error> {
        self.write(Some(address.to_owned()))
    }

    fn write(&self, address: Option<String>) -> Result<(), Error> {
        let farm = Farm { pid: std::process::id(), address };
        let temporary = self.path.join("farm.json.new");
        serde_json::to_vec(&farm)
            .map_err(io::Error::other)
            .and_then(|text| fs::write(&temporary, text))
            .and_then(|()| files::name_over(&temporary, &self.path.join("farm.json")))
            .map_err(|source| Error::Io { path: self.path.clone(), source })
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // The lock goes with the file; a `farm.json` that stays behind means nothing without it.
        let _ = fs::remove_file(self.path.join("farm.json"));
    }
}

/// Whether a farm can store what it makes.
///
/// # Errors
/// [`Error::Full`] when it cannot, [`Error::Io`] when that cannot be told.
pub fn check_space(path: &Path) -> Result<(), Error> {
    let system = nix::sys::statvfs::statvfs(path)
        .map_err(|error| Error::Io { path: path.to_owned(), source: error.into() })?;
    let free_bytes = system.blocks_available().saturating_mul(system.fragment_size());
    if free_bytes < LEAST_FREE_BYTES {
        return Err(Error::Full { path: path.to_owned(), free_bytes });
    }
    Ok(())
}

/// SQLite locks parts of its file, in another way than a farm locks its folder. Where that cannot be, it would take its file
/// for locked by somebody.
fn check_record_locks(path: &Path) -> Result<(), Error> {
    let probe = path.join("farm.probe");
    let part = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 1,
        l_pid: 0,
    };
    let tried =
        File::create(&probe).and_then(|file| fcntl(&file, FcntlArg::F_SETLK(&part)).map_err(io::Error::from));
    let _ = fs::remove_file(&probe);
    match tried {
        Err(source) if files::is_lacking(&source) => Err(Error::NoLocks { path: path.to_owned(), source }),
        Err(source) => Err(Error::Io { path: path.to_owned(), source }),
        Ok(_) => Ok(()),
    }
}

/// The farm that runs on the folder now, if one does. Takes nothing and changes nothing.
#[must_use]
pub fn running(path: &Path) -> Option<Farm> {
    let lock = File::open(path.join("farm.lock")).ok()?;
    match lock.try_lock_shared() {
        Err(TryLockError::WouldBlock) => read(path),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join("farm.lock"))
}

fn read(path: &Path) -> Option<Farm> {
    serde_json::from_slice(&fs::read(path.join("farm.json")).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_farm_is_refused_and_told_who_holds_the_folder() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("state");
        let first = StateDir::open(&path).expect("free");
        first.publish("127.0.0.1:7878").expect("publish");

        let message = StateDir::open(&path).expect_err("held").to_string();
        assert!(message.contains(&std::process::id().to_string()), "{message}");
        assert!(message.contains("127.0.0.1:7878"), "{message}");

        drop(first);
        StateDir::open(&path).expect("free again");
    }

    #[test]
    fn a_farm_is_seen_while_it_runs_and_not_after() {
        let folder = tempfile::tempdir().expect("folder");
        assert_eq!(running(folder.path()), None, "a folder without a farm");
        let state = StateDir::open(folder.path()).expect("free");
        state.publish("127.0.0.1:1").expect("publish");
        let seen = running(folder.path()).expect("seen");
        assert_eq!(seen.address.as_deref(), Some("127.0.0.1:1"));

        // As a killed farm leaves it: the file is there, the lock is not.
        let left = fs::read(folder.path().join("farm.json")).expect("published");
        drop(state);
        fs::write(folder.path().join("farm.json"), left).expect("write");
        assert_eq!(running(folder.path()), None);
    }
}
