//! Files on whatever is mounted: buckets, shares and cards lack links, atomic renames, permissions or syncing, and what is
//! not there is done another way. Nothing here replaces a file unless it says so.
//!
//! New files get the permissions that the umask leaves (0666 without it).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2},
};
use tokio::signal::unix::{SignalKind, signal};

/// Whether a new name could be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// The file has it.
    Done,
    /// Something else has it; the file is where it was.
    Taken,
}

/// Gives a file that is written another name, if nothing has it: by a rename that replaces nothing, else by a link, else
/// by a copy into a file that is made new. Only the copy can be seen half written.
///
/// # Errors
/// Why the last of the three failed.
pub fn name_new(file: &Path, name: &Path) -> io::Result<Named> {
    match renameat2(AT_FDCWD, file, AT_FDCWD, name, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => return Ok(Named::Done),
        Err(Errno::EEXIST) => return Ok(Named::Taken),
        Err(_) => {}
    }
    match fs::hard_link(file, name) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Named::Taken),
        Err(_) => match copy_new(file, name) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Named::Taken),
            Err(error) => return Err(error),
        },
    }
    // Two names are no fault of what was asked for.
    let _ = fs::remove_file(file);
    Ok(Named::Done)
}

/// Gives a file that is written another name, in place of whatever file has it: by a rename, else by a copy.
///
/// # Errors
/// Why the last of the two failed.
pub fn name_over(file: &Path, name: &Path) -> io::Result<()> {
    if fs::rename(file, name).is_ok() {
        return Ok(());
    }
    let mut to = OpenOptions::new().write(true).create(true).truncate(true).open(name)?;
    let copied = File::open(file).and_then(|mut from| io::copy(&mut from, &mut to)).and_then(|_| sync(&to));
    match copied {
        Ok(()) => {
            let _ = fs::remove_file(file);
            Ok(())
        }
        Err(error) => {
            // What was there is lost already; half a file would be taken for a whole one.
            let _ = fs::remove_file(name);
            Err(error)
        }
    }
}

/// Copies a file to a name that nothing has, and returns its length. Permissions are not copied.
///
/// # Errors
/// `AlreadyExists`, or why it cannot be read or written; nothing half written stays.
pub fn copy_new(from: &Path, to: &Path) -> io::Result<u64> {
    let mut source = File::open(from)?;
    let mut copy = OpenOptions::new().write(true).create_new(true).open(to)?;
    let copied = io::copy(&mut source, &mut copy).and_then(|length| sync(&copy).map(|()| length));
    if copied.is_err() {
        let _ = fs::remove_file(to);
    }
    copied
}

/// Waits until a file's bytes are on the disk, where the file system knows such a thing.
///
/// # Errors
/// When they cannot be written there.
pub fn sync(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(error) if is_lacking(&error) => Ok(()),
        synced => synced,
    }
}

/// Whether an error says that a file system has no such operation, rather than that it failed.
#[must_use]
pub fn is_lacking(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EINVAL | Errno::ENOSYS | Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::ENOLCK))
}

/// Reads a regular file of at most `most` bytes. A folder, a pipe, a device and a bigger file are refused at once.
///
/// # Errors
/// Why it cannot be read; `InvalidInput` with what would be accepted when it is none of those.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let refuse = |what: String| {
        io::Error::new(ErrorKind::InvalidInput, format!("{what}; accepted: a file of at most {most} bytes"))
    };
    check_regular(&fs::metadata(path)?, refuse)?;
    // It may be something else by now, and a pipe must not hold the reader up.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let found = file.metadata()?;
    check_regular(&found, refuse)?;
    if found.len() > most {
        return Err(refuse(format!("it has {} bytes", found.len())));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found.len()).unwrap_or(0));
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(refuse(format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

fn check_regular(found: &fs::Metadata, refuse: impl Fn(String) -> io::Error) -> io::Result<()> {
    if found.is_dir() {
        return Err(refuse("it is a folder".to_owned()));
    }
    if !found.is_file() {
        return Err(refuse("it is a pipe or a device".to_owned()));
    }
    Ok(())
}

/// Has a write beyond a limit on the size of files (`ulimit -f`) fail as on a full disk, where it would end the process.
///
/// # Errors
/// When the signal cannot be caught.
pub fn survive_size_limit() -> io::Result<()> {
    // Caught once, it stays caught.
    signal(SignalKind::from_raw(nix::sys::signal::Signal::SIGXFSZ as i32)).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_new_name_replaces_nothing_and_a_copy_has_the_permissions_of_a_new_file() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("draft"), "new").expect("written");
        fs::write(path("old"), "old").expect("written");
        assert_eq!(name_new(&path("draft"), &path("old")).expect("looked at"), Named::Taken);
        assert_eq!(fs::read(path("old")).expect("there"), b"old");
        assert_eq!(
            copy_new(&path("draft"), &path("old")).expect_err("taken").kind(),
            ErrorKind::AlreadyExists
        );
        assert_eq!(name_new(&path("draft"), &path("name")).expect("named"), Named::Done);
        assert!(!path("draft").exists());
        name_over(&path("name"), &path("old")).expect("replaced");
        assert_eq!(fs::read(path("old")).expect("there"), b"new");

        let ordinary = fs::metadata(path("old")).expect("there").permissions().mode();
        fs::set_permissions(path("old"), fs::Permissions::from_mode(0o400)).expect("changed");
        copy_new(&path("old"), &path("copy")).expect("copied");
        assert_eq!(fs::metadata(path("copy")).expect("there").permissions().mode(), ordinary);
    }

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "1234").expect("written");
        assert_eq!(read(&path("file"), 4).expect("read"), b"1234");
        let fifo = path("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("made");
        File::create(path("huge")).and_then(|file| file.set_len(5 << 30)).expect("made");
        for (file, says) in [
            (path("file"), "it has 4 bytes; accepted: a file of at most 3 bytes"),
            (path("huge"), "it has 5368709120 bytes"),
            (folder.path().to_owned(), "it is a folder"),
            (fifo, "it is a pipe or a device"),
            ("/dev/zero".into(), "it is a pipe or a device"),
        ] {
            let error = read(&file, 3).expect_err(says);
            assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains(says), "{error}");
        }
    }
}
