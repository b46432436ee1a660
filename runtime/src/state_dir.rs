//! The state folder of a farm on one machine: which farm owns it, what is in it, and where its farm
//! can be reached.
//!
//! `farm.lock` is held while a farm runs on the folder. The system releases it when the process
//! ends, however it ends. `farm.json` says which process that is and where it listens; it is valid
//! only while the lock is held.
//!
//! The folder is its owner's alone (0700, its files 0600): it holds prompts and pictures, and
//! anyone who can open the lock file could lock it. A folder of somebody else is refused, since
//! they could change the record, or lead a client to a farm of theirs.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    libc,
    unistd::Uid,
};
use serde::{Deserialize, Serialize};

use crate::{disk::Space, files, terminal::shown_path};

/// How long a held lock is retried: longer than a client needs to check whether a farm runs.
const PATIENCE: Duration = Duration::from_millis(500);

/// With less free space than this, a farm might not be able to store its results.
pub const LEAST_FREE_BYTES: u64 = 8 << 20;

/// Most bytes of a `farm.json`.
const MOST_RECORD: u64 = 64 << 10;

/// Permissions of everybody but the owner.
const OTHERS: u32 = 0o077;

/// What a farm keeps in its folder. Other things may lie beside that.
const KEPT: [&str; 8] = [
    "farm.lock",
    "farm.json",
    "farm.key",
    "farm.sqlite",
    "farm.sqlite-wal",
    "farm.sqlite-shm",
    "artifacts",
    "cache",
];

/// What a running farm writes about itself to `farm.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farm {
    /// Its process id.
    pub pid: u32,
    /// Where its gRPC server listens, `host:port`; absent until it does.
    pub address: Option<String>,
    /// The machine that it runs on: its name, and its number since it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
}

/// This machine, as [`Farm::machine`] has it. Containers have names of their own.
fn this_machine() -> Option<String> {
    let read = |path| fs::read_to_string(path).ok();
    let name = read("/proc/sys/kernel/hostname")?;
    let started = read("/proc/sys/kernel/random/boot_id")?;
    Some(format!("{} {}", name.trim(), started.trim()))
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
        /// The other farm, if its `farm.json` can be read.
        farm: Option<Farm>,
    },
    /// Its file system cannot lock files, so two farms could run on it at once.
    #[error(
        "the file system that holds the state folder {} cannot lock files ({source}); name a folder on a local disk with --state",
        shown_path(path)
    )]
    NoLocks {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Its disk is full, or nearly full.
    #[error(
        "the disk that holds the state folder {} is full ({} KiB free, {} needed); free some space, or name another folder with --state",
        shown_path(path), free_bytes >> 10, LEAST_FREE_BYTES >> 10
    )]
    Full {
        /// The folder.
        path: PathBuf,
        /// The free space.
        free_bytes: u64,
    },
    /// The farm of the folder, which several machines share, runs on another one.
    #[error(
        "the farm of the state folder {} runs on another machine, {}; name its address with --farm",
        shown_path(path),
        darkroom_core::shown::shown(machine)
    )]
    Elsewhere {
        /// The folder.
        path: PathBuf,
        /// The name of the machine.
        machine: String,
    },
    /// It, or something in it, belongs to another user.
    #[error(
        "the state folder {} belongs to user {owner}, and this program runs as user {user}; name a \
         folder of your own with --state",
        shown_path(path)
    )]
    Foreign {
        /// The folder, or what is in it.
        path: PathBuf,
        /// The number of the user whose it is.
        owner: u32,
        /// The number of the user that the program runs as.
        user: u32,
    },
    /// It cannot be created, read or written.
    #[error(
        "the state folder {} cannot be used: {source}; give a folder that you can write to with --state",
        shown_path(path)
    )]
    Io {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

fn owner(farm: &Option<Farm>) -> String {
    match farm {
        Some(Farm { pid, address: Some(address), .. }) => {
            format!("the farm of process {pid} at {address}")
        }
        Some(Farm { pid, address: None, .. }) => {
            format!("the farm of process {pid}, which is starting")
        }
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
    /// Creates the folder if it does not exist, closes it to other users, and takes its lock.
    ///
    /// # Errors
    /// [`Error::Foreign`] if it belongs to another user, [`Error::InUse`] if another farm runs on
    /// it, [`Error::NoLocks`] if that cannot be found out, [`Error::Full`] if its disk is full,
    /// [`Error::Io`] if it cannot be created or written.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        make(path)?;
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

    /// Writes down for clients where the farm listens.
    ///
    /// # Errors
    /// [`Error::Io`] when `farm.json` cannot be written.
    pub fn publish(&self, address: &str) -> Result<(), Error> {
        self.write(Some(address.to_owned()))
    }

    fn write(&self, address: Option<String>) -> Result<(), Error> {
        let farm = Farm { pid: std::process::id(), address, machine: this_machine() };
        serde_json::to_vec(&farm)
            .map_err(io::Error::other)
            .and_then(|text| files::replace(&self.path.join("farm.json"), &text))
            .map_err(|source| Error::Io { path: self.path.clone(), source })
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // Dropping the file releases the lock. A `farm.json` that stays behind is invalid without
        // it.
        let _ = fs::remove_file(self.path.join("farm.json"));
    }
}

/// Creates the folder, or checks that an existing one is ours, and closes it to others.
fn make(path: &Path) -> Result<(), Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        fs::create_dir_all(above).map_err(io)?;
    }
    let there = match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => error,
        Err(error) => return Err(io(error)),
    };
    let found = fs::metadata(path).map_err(io)?;
    if !found.is_dir() {
        return Err(io(there));
    }
    let user = Uid::effective().as_raw();
    let link = fs::symlink_metadata(path).map_err(io)?.uid();
    // Some file systems say of every file that it belongs to one user. Then new files do too.
    if (found.uid() != user || ![user, 0].contains(&link))
        && !probe(path)
            .and_then(|probe| probe.as_file().metadata())
            .is_ok_and(|new| new.uid() == found.uid() && new.uid() == link)
    {
        let owner = if found.uid() == user { link } else { found.uid() };
        return Err(Error::Foreign { path: path.to_owned(), owner, user });
    }
    if found.mode() & OTHERS == 0 {
        return Ok(());
    }
    let closed = fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .and_then(|()| fs::metadata(path))
        .is_ok_and(|now| now.mode() & OTHERS == 0);
    if !closed {
        tracing::warn!(
            state = %shown_path(path),
            "other users can read the state folder: its file system has no permissions"
        );
        return Ok(());
    }
    if let Err(error) = KEPT.iter().try_for_each(|name| close(&path.join(name), found.uid())) {
        // The next start has to look again.
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(found.mode() & 0o7777));
        return Err(error);
    }
    tracing::warn!(
        state = %shown_path(path),
        mode = format!("{:o}", found.mode() & 0o777),
        "other users could read the state folder; now only its owner can"
    );
    Ok(())
}

/// Takes the permissions of others away from a file, or from all in a folder. Links are not
/// followed.
fn close(path: &Path, owner: u32) -> Result<(), Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io(error)),
        };
        if found.uid() != owner {
            let user = Uid::effective().as_raw();
            return Err(Error::Foreign { path, owner: found.uid(), user });
        }
        if found.is_symlink() {
            continue;
        }
        if found.mode() & OTHERS != 0 {
            let mode = fs::Permissions::from_mode(found.mode() & 0o700);
            fs::set_permissions(&path, mode).map_err(io)?;
        }
        if found.is_dir() {
            for entry in fs::read_dir(&path).map_err(io)? {
                left.push(entry.map_err(io)?.path());
            }
        }
    }
    Ok(())
}

/// A new file in the folder, under a random name; removed when it is dropped.
fn probe(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new().prefix(".probe-").tempfile_in(path)
}

/// Checks that a farm can store its results.
///
/// # Errors
/// [`Error::Full`] if it cannot, [`Error::Io`] if that cannot be found out.
pub fn check_space(path: &Path) -> Result<(), Error> {
    let space = Space::at(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let free_bytes = space.free_bytes;
    if free_bytes < LEAST_FREE_BYTES {
        return Err(Error::Full { path: path.to_owned(), free_bytes });
    }
    Ok(())
}

/// Checks SQLite's kind of file locks, which differ from the folder's lock. Where they are not
/// supported, SQLite would think that another process has locked its file.
fn check_record_locks(path: &Path) -> Result<(), Error> {
    let part = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 1,
        l_pid: 0,
    };
    let tried = probe(path).and_then(|probe| {
        fcntl(probe.as_file(), FcntlArg::F_SETLK(&part)).map_err(io::Error::from)
    });
    match tried {
        Err(source) if files::is_lacking(&source) => {
            Err(Error::NoLocks { path: path.to_owned(), source })
        }
        Err(source) => Err(Error::Io { path: path.to_owned(), source }),
        Ok(_) => Ok(()),
    }
}

/// The farm that runs on the folder now, if there is one. Changes nothing.
///
/// # Errors
/// [`Error::Foreign`] if a farm runs there, and the folder belongs to another user than this one or
/// root: that farm may be anybody's. [`Error::Elsewhere`] if it runs on another machine, whose
/// loopback addresses are not this one's.
pub fn running(path: &Path) -> Result<Option<Farm>, Error> {
    let lock = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path.join("farm.lock"));
    let Ok(lock) = lock else { return Ok(None) };
    let Err(TryLockError::WouldBlock) = lock.try_lock_shared() else { return Ok(None) };
    let user = Uid::effective().as_raw();
    let owners = [fs::metadata(path), fs::symlink_metadata(path), lock.metadata()];
    for found in owners {
        let owner = found.map_err(|source| Error::Io { path: path.to_owned(), source })?.uid();
        if ![user, 0].contains(&owner) {
            return Err(Error::Foreign { path: path.to_owned(), owner, user });
        }
    }
    let farm = read(path);
    let machine = farm.as_ref().and_then(|farm| farm.machine.clone());
    match machine.filter(|machine| this_machine().is_some_and(|here| here != *machine)) {
        Some(machine) => {
            let name = machine.split(' ').next().unwrap_or_default().to_owned();
            Err(Error::Elsewhere { path: path.to_owned(), machine: name })
        }
        None => Ok(farm),
    }
}

fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path.join("farm.lock"))
}

fn read(path: &Path) -> Option<Farm> {
    serde_json::from_slice(&files::read(&path.join("farm.json"), MOST_RECORD).ok()?).ok()
}

#[cfg(test)]
mod tests;
