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

use crate::{files, terminal::shown_path};

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
    let system = nix::sys::statvfs::statvfs(path)
        .map_err(|error| Error::Io { path: path.to_owned(), source: error.into() })?;
    let free_bytes = system.blocks_available().saturating_mul(system.fragment_size());
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
mod tests {
    use super::*;

    #[test]
    fn a_farm_on_another_machine_is_not_looked_for_on_this_one() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("state");
        let state = StateDir::open(&path).expect("free");
        state.publish("127.0.0.1:7878").expect("publish");
        let here = running(&path).expect("it is here").expect("it runs");
        assert_eq!(
            (here.address.as_deref(), here.machine),
            (Some("127.0.0.1:7878"), this_machine())
        );
        // As a shared folder shows it to another machine, where the lock is seen too.
        let there = Farm { machine: Some("node-a 1234".to_owned()), ..read(&path).expect("read") };
        let text = serde_json::to_vec(&there).expect("text");
        files::replace(&path.join("farm.json"), &text).expect("written");
        let error = running(&path).expect_err("it is elsewhere");
        assert!(
            matches!(&error, Error::Elsewhere { machine, .. } if machine == "node-a"),
            "{error}"
        );
        // An older farm says nothing of its machine.
        let older = br#"{"pid":1,"address":"127.0.0.1:7878"}"#;
        files::replace(&path.join("farm.json"), older).expect("written");
        assert_eq!(running(&path).expect("it is read").expect("it runs").machine, None);
    }

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
        let running = |path: &Path| running(path).expect("ours");
        assert_eq!(running(folder.path()), None, "a folder without a farm");
        let state = StateDir::open(folder.path()).expect("free");
        state.publish("127.0.0.1:1").expect("publish");
        let seen = running(folder.path()).expect("seen");
        assert_eq!(seen.address.as_deref(), Some("127.0.0.1:1"));

        // The state after a farm was killed: the file exists, but the lock is free.
        let left = fs::read(folder.path().join("farm.json")).expect("published");
        drop(state);
        fs::write(folder.path().join("farm.json"), left).expect("write");
        assert_eq!(running(folder.path()), None);
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("there").mode() & 0o777
    }

    #[test]
    fn a_folder_and_what_a_farm_keeps_in_it_are_its_owners_alone() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("above/state");
        let state = StateDir::open(&path).expect("made");
        state.publish("127.0.0.1:1").expect("published");
        assert_eq!(mode(&path), 0o700);
        for name in ["farm.lock", "farm.json"] {
            assert_eq!(mode(&path.join(name)), 0o600, "{name}");
        }
        let names: Vec<_> = fs::read_dir(&path)
            .expect("read")
            .map(|entry| entry.expect("entry").file_name())
            .collect();
        assert_eq!(names.len(), 2, "nothing else: {names:?}");
    }

    #[test]
    fn a_folder_from_before_is_closed_and_links_in_it_lead_nowhere() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("state");
        let outside = folder.path().join("outside");
        fs::create_dir_all(path.join("artifacts/cas")).expect("made");
        let picture = path.join("artifacts/cas/1.png");
        let program = path.join("venv");
        for file in [&picture, &path.join("farm.sqlite"), &program, &outside] {
            fs::write(file, "kept").expect("written");
            fs::set_permissions(file, fs::Permissions::from_mode(0o755)).expect("opened");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("opened");
        std::os::unix::fs::symlink(&outside, path.join("cache")).expect("a link");
        std::os::unix::fs::symlink(&outside, path.join("farm.json.new")).expect("a link");
        std::os::unix::fs::symlink(&outside, path.join("farm.probe")).expect("a link");
        drop(StateDir::open(&path).expect("ours"));
        assert_eq!((mode(&path), mode(&path.join("artifacts/cas"))), (0o700, 0o700));
        assert_eq!((mode(&picture), mode(&path.join("farm.sqlite"))), (0o700, 0o700));
        assert_eq!((mode(&outside), mode(&program)), (0o755, 0o755), "not a farm's");
        assert_eq!(fs::read(&outside).expect("there"), b"kept");

        std::os::unix::fs::symlink(&outside, path.join("farm.json")).expect("a link");
        fs::remove_file(path.join("farm.lock")).expect("removed");
        std::os::unix::fs::symlink(&outside, path.join("farm.lock")).expect("a link");
        assert!(matches!(StateDir::open(&path), Err(Error::Io { .. })), "a lock elsewhere");
        fs::remove_file(path.join("farm.lock")).expect("removed");
        let state = StateDir::open(&path).expect("ours");
        state.publish("127.0.0.1:1").expect("published");
        assert_eq!(fs::read(&outside).expect("there"), b"kept", "farm.json took the link's place");
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused_by_farms_and_clients() {
        if !Uid::effective().is_root() {
            // Only root can give a folder away, but root's are there to be looked at.
            let refused = make(Path::new("/proc/1")).expect_err("root's");
            assert!(matches!(refused, Error::Foreign { owner: 0, .. }), "{refused}");
            return;
        }
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("state");
        let state = StateDir::open(&path).expect("ours");
        state.publish("127.0.0.1:1").expect("published");
        let give = |path: &Path| std::os::unix::fs::lchown(path, Some(12_345), None).expect("root");
        give(&path);
        let says = "belongs to user 12345, and this program runs as user 0";
        let refused = running(&path).expect_err("theirs").to_string();
        assert!(refused.contains(says), "{refused}");
        drop(state);
        assert_eq!(running(&path).expect("no farm"), None);
        let refused = StateDir::open(&path).map(drop).expect_err("theirs").to_string();
        assert!(refused.contains(says) && refused.contains("--state"), "{refused}");

        let ours = folder.path().join("ours");
        fs::create_dir(&ours).expect("made");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&ours, &link).expect("a link");
        drop(StateDir::open(&link).expect("our own link"));
        give(&link);
        let refused = StateDir::open(&link).map(drop).expect_err("their link").to_string();
        assert!(refused.contains(says), "{refused}");

        // What they put into a folder that was open to all.
        fs::set_permissions(&ours, fs::Permissions::from_mode(0o777)).expect("opened");
        fs::write(ours.join("farm.sqlite"), "theirs").expect("written");
        give(&ours.join("farm.sqlite"));
        let refused = StateDir::open(&ours).map(drop).expect_err("their record").to_string();
        assert!(refused.contains("farm.sqlite") && refused.contains(says), "{refused}");
    }
}
