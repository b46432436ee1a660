//! Files on any kind of mount. Buckets, shares and memory cards lack links, atomic renames,
//! permissions or syncing; whatever is missing is replaced by another way. Nothing here overwrites
//! a file unless its docs say so.
//!
//! New files get the permissions that the umask leaves (0666 without it), except those of
//! [`replace`], which are their owner's alone.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read as _, Write as _},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2},
    unistd::Uid,
};
use tokio::signal::unix::{SignalKind, signal};

/// Permissions of everybody but the owner.
const OTHERS: u32 = 0o077;

/// Whether the file got its new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// The file has it.
    Done,
    /// Another file has it; this file is where it was.
    Taken,
}

/// Renames a finished file, unless the new name exists. It tries a rename that cannot replace, then
/// a link, then a copy into a new file. Only during the copy can others see half a file.
///
/// # Errors
/// The error of the last of the three.
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
    // Two existing names are not the caller's mistake.
    let _ = fs::remove_file(file);
    Ok(Named::Done)
}

/// Renames a finished file, and replaces any file that has the new name: by a rename, or else by a
/// copy.
///
/// # Errors
/// The error of the last of the two.
pub fn name_over(file: &Path, name: &Path) -> io::Result<()> {
    if fs::rename(file, name).is_ok() {
        return Ok(());
    }
    // Made new, because writing to a link would write to the file behind it.
    match fs::remove_file(name) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut to = OpenOptions::new().write(true).create_new(true).open(name)?;
    let copied =
        File::open(file).and_then(|mut from| io::copy(&mut from, &mut to)).and_then(|_| sync(&to));
    match copied {
        Ok(()) => {
            let _ = fs::remove_file(file);
            Ok(())
        }
        Err(error) => {
            // The old file is lost already, and half a file would be taken for a whole one.
            let _ = fs::remove_file(name);
            Err(error)
        }
    }
}

/// Writes a whole file in place of any that has its name: first under a random name beside it. Only
/// its owner can read it.
///
/// # Errors
/// The file cannot be written or named; then the old one stays.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut draft =
        tempfile::Builder::new().prefix(".new-").tempfile_in(folder.unwrap_or(Path::new(".")))?;
    draft.write_all(bytes)?;
    // A power cut must not leave an empty file in the old one's place.
    sync(draft.as_file())?;
    name_over(draft.path(), path)
}

/// Copies a file to a name that does not exist yet, and returns its length. Permissions are not
/// copied.
///
/// # Errors
/// `AlreadyExists`, or the error of reading or writing. No half-written file stays.
pub fn copy_new(from: &Path, to: &Path) -> io::Result<u64> {
    let mut source = File::open(from)?;
    let mut copy = OpenOptions::new().write(true).create_new(true).open(to)?;
    let copied = io::copy(&mut source, &mut copy).and_then(|length| sync(&copy).map(|()| length));
    if copied.is_err() {
        let _ = fs::remove_file(to);
    }
    copied
}

/// Waits until a file's bytes are on disk, if the file system can do that.
///
/// # Errors
/// The bytes could not be written.
pub fn sync(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(error) if is_lacking(&error) => Ok(()),
        synced => synced,
    }
}

/// Whether an error means that the file system lacks an operation, rather than that it failed.
#[must_use]
pub fn is_lacking(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(Errno::EINVAL | Errno::ENOSYS | Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::ENOLCK)
    )
}

/// Why a file that somebody named is not read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// It is not a file: a folder, a pipe, a socket or a device; the text includes the article.
    #[error("it is {0}; accepted: a file")]
    NoFile(&'static str),
    /// It has more bytes than are accepted.
    #[error("it has {}; accepted: a file of at most {most} bytes", of_bytes(*.bytes, *.most))]
    TooBig {
        /// Its length; `None` if it grew while it was read.
        bytes: Option<u64>,
        /// How many are accepted.
        most: u64,
    },
    /// The system returned an error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Unread> for io::Error {
    /// A file of the wrong kind or size becomes `InvalidInput`.
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Io(error) => error,
            other => Self::new(ErrorKind::InvalidInput, other.to_string()),
        }
    }
}

/// Says how long a file is that is longer than `most`.
#[must_use]
pub fn of_bytes(bytes: Option<u64>, most: u64) -> String {
    bytes.map_or_else(|| format!("more than {most} bytes"), |bytes| format!("{bytes} bytes"))
}

/// Opens a regular file of at most `most` bytes. Refuses a folder, a pipe, a socket, a device and a
/// larger file at once.
///
/// # Errors
/// Why it is not read.
pub fn open(path: &Path, most: u64) -> Result<File, Unread> {
    // Opening a device can have side effects, so the path is checked first.
    check(&fs::metadata(path)?, most)?;
    let file = open_now(path)?;
    // The path may have changed since, so the open file is checked again.
    check(&file.metadata()?, most)?;
    Ok(file)
}

/// Reads a regular file of at most `most` bytes, as [`open`] opens it.
///
/// # Errors
/// Why it is not read.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>, Unread> {
    Ok(read_all(open(path, most)?, most)?.0)
}

/// As [`read`]; also the permissions of the file that was read, which another may replace
/// meanwhile.
///
/// # Errors
/// Why it is not read.
pub fn read_with_mode(path: &Path, most: u64) -> Result<(Vec<u8>, u32), Unread> {
    read_all(open(path, most)?, most)
}

/// Why a file is not taken for one that its owner alone can have written and read.
#[derive(Debug, thiserror::Error)]
pub enum NotOwn {
    /// It belongs to somebody else, or its permissions let others in.
    #[error("others can read or write it; accepted: a file of your own with mode 0600")]
    Others,
    /// It is not read.
    #[error(transparent)]
    Unread(#[from] Unread),
}

/// Reads a regular file of at most `most` bytes that belongs to this user, and that nobody else can
/// read or write. No link is followed. The open file is checked, not what its name stands for.
///
/// # Errors
/// Why it is not read.
pub fn read_own(path: &Path, most: u64) -> Result<Vec<u8>, NotOwn> {
    // As in `open`: first what is there, and then what was opened.
    let seen = fs::symlink_metadata(path).map_err(Unread::from)?;
    if seen.is_symlink() {
        return Err(Unread::NoFile("a link").into());
    }
    check(&seen, most)?;
    let file = open_own(path).map_err(Unread::from)?;
    let found = file.metadata().map_err(Unread::from)?;
    check(&found, most)?;
    if found.uid() != Uid::effective().as_raw() || found.mode() & OTHERS != 0 {
        return Err(NotOwn::Others);
    }
    Ok(read_all(file, most)?.0)
}

/// Fails if a link took the file's place.
fn open_own(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

fn read_all(file: File, most: u64) -> Result<(Vec<u8>, u32), Unread> {
    let found = file.metadata()?;
    let mut bytes = Vec::with_capacity(usize::try_from(found.len().min(most)).unwrap_or(0));
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(Unread::TooBig { bytes: None, most });
    }
    Ok((bytes, found.mode()))
}

/// Prevents waiting for the other end if a pipe took the file's place.
fn open_now(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
}

fn check(seen: &fs::Metadata, most: u64) -> Result<(), Unread> {
    let kind = seen.file_type();
    if kind.is_file() {
        let bytes = seen.len();
        return if bytes > most {
            Err(Unread::TooBig { bytes: Some(bytes), most })
        } else {
            Ok(())
        };
    }
    Err(Unread::NoFile(if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }))
}

/// Makes a write beyond a limit on file sizes (`ulimit -f`) fail like a full disk. Without this it
/// would kill the process.
///
/// # Errors
/// When the signal cannot be caught.
pub fn survive_size_limit() -> io::Result<()> {
    // A handler stays installed.
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
    fn a_file_that_is_replaced_is_its_owners_alone_and_no_link_is_followed() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("outside"), "kept").expect("written");
        std::os::unix::fs::symlink(path("outside"), path("file")).expect("a link");
        replace(&path("file"), b"new").expect("replaced");
        assert_eq!(fs::read(path("file")).expect("there"), b"new");
        let found = fs::symlink_metadata(path("file")).expect("there");
        assert!(found.is_file());
        assert_eq!(found.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(path("outside")).expect("there"), b"kept");
        assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 2, "no draft stays");
    }

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "1234").expect("written");
        assert_eq!(read(&path("file"), 4).expect("read"), b"1234");
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("made");
        std::os::unix::fs::symlink(path("fifo"), path("link")).expect("a link");
        let _listens = std::os::unix::net::UnixListener::bind(path("socket")).expect("a socket");
        // The file is sparse, so nothing is written.
        File::create(path("huge")).and_then(|file| file.set_len(5 << 30)).expect("made");
        for (file, says) in [
            (path("file"), "it has 4 bytes; accepted: a file of at most 3 bytes"),
            (path("huge"), "it has 5368709120 bytes; accepted: "),
            (folder.path().to_owned(), "it is a folder; accepted: a file"),
            (path("fifo"), "it is a pipe"),
            (path("link"), "it is a pipe"),
            (path("socket"), "it is a socket"),
            ("/dev/zero".into(), "it is a device"),
            ("/dev/null".into(), "it is a device"),
        ] {
            let error = io::Error::from(read(&file, 3).expect_err(says));
            assert!(
                error.kind() == ErrorKind::InvalidInput && error.to_string().contains(says),
                "{error}"
            );
            assert!(open(&file, 3).is_err(), "{says}");
        }
        let absent = io::Error::from(read(&path("absent"), 3).expect_err("absent"));
        assert_eq!(absent.kind(), ErrorKind::NotFound);
        // A file that reports no length, and a file that a pipe replaces while it is checked.
        let endless = read(Path::new("/proc/self/maps"), 3).expect_err("it reports no length");
        assert!(endless.to_string().contains("more than 3 bytes"), "{endless}");
        check(&open_now(&path("fifo")).and_then(|file| file.metadata()).expect("opens"), 9)
            .expect_err("a pipe");
    }

    #[test]
    fn a_file_of_ones_own_is_checked_after_it_was_opened_and_no_link_is_followed() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        let set = |name: &str, mode| {
            fs::write(path(name), "1234").expect("written");
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).expect("set");
        };
        set("own", 0o600);
        assert_eq!(read_own(&path("own"), 4).expect("its own"), b"1234");
        for mode in [0o640, 0o620, 0o604, 0o602, 0o610] {
            set("open", mode);
            let refused = read_own(&path("open"), 4).expect_err("others get in");
            assert!(matches!(refused, NotOwn::Others), "{mode:o}: {refused}");
        }
        std::os::unix::fs::symlink(path("own"), path("link")).expect("a link");
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("made");
        for (name, says) in [
            ("link", "it is a link; accepted: a file"),
            ("fifo", "it is a pipe"),
            (".", "it is a folder"),
            ("own", "it has 4 bytes"),
        ] {
            let error = read_own(&path(name), 3).expect_err(name).to_string();
            assert!(error.contains(says), "{name}: {error}");
        }
        // A link and a pipe that take the file's place after its name was looked at.
        open_own(&path("link")).expect_err("a link");
        let raced =
            open_own(&path("fifo")).and_then(|file| file.metadata()).expect("does not wait");
        check(&raced, 9).expect_err("a pipe");
    }
}
