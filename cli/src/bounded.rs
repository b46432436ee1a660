//! Files that a user names, read within bounds: a folder, a pipe, a device or a file without end is refused before it is read.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::Read as _,
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
};

use darkroom_core::error::UserError;
use darkroom_runtime::terminal::shown_path;
use nix::fcntl::OFlag;

use crate::failure::{self, Result};

/// Reads a file of at most `most` bytes; `field` names it in errors.
pub(crate) fn read(field: &str, path: &Path, most: usize) -> Result<Vec<u8>> {
    let unreadable = |error| failure::file(field, "read", path, &error);
    if path.as_os_str().is_empty() {
        return Err(UserError::invalid(field, format!("{field} is empty; accepted: the path of a file")));
    }
    // Opening a device can have effects of its own, so it is looked at first.
    check(field, path, &std::fs::metadata(path).map_err(unreadable)?, most)?;
    let file = open(path).map_err(unreadable)?;
    // And again, for what lies there now.
    check(field, path, &file.metadata().map_err(unreadable)?, most)?;
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > most {
        return Err(too_big(field, path, &format!("more than {most}"), most));
    }
    Ok(bytes)
}

/// A pipe that took the file's place does not make this wait for its other end.
fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
}

fn check(field: &str, path: &Path, seen: &Metadata, most: usize) -> Result<()> {
    let kind = seen.file_type();
    let what = if kind.is_file() {
        return if seen.len() > most as u64 {
            Err(too_big(field, path, &seen.len().to_string(), most))
        } else {
            Ok(())
        };
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(UserError::invalid(field, format!("{} is {what}; accepted: a file", shown_path(path))))
}

fn too_big(field: &str, path: &Path, bytes: &str, most: usize) -> UserError {
    UserError::invalid(field, format!("{} has {bytes} bytes; accepted: at most {most}", shown_path(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_or_has_no_end_is_refused_unread() {
        let folder = tempfile::tempdir().expect("folder");
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&pipe, &link).expect("a link");
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        // It takes no room: nothing was written.
        let vast = folder.path().join("vast.png");
        File::create(&vast).and_then(|file| file.set_len(5 << 30)).expect("a file");
        for (path, says) in [
            (folder.path(), "is a folder; accepted: a file"),
            (&pipe, "is a pipe"),
            (&link, "is a pipe"),
            (&socket, "is a socket"),
            (Path::new("/dev/zero"), "is a device"),
            (&vast, "has 5368709120 bytes; accepted: at most 1000"),
            (Path::new(""), "image is empty"),
        ] {
            let error = read("image", path, 1000).expect_err(says);
            assert!(error.message.contains(says), "{error}");
            assert_eq!(error.field.as_deref(), Some("image"));
        }
        let absent = read("image", &folder.path().join("absent"), 1000).expect_err("absent");
        assert_eq!(absent.reason, "NO_SUCH_FILE");
    }

    #[test]
    fn a_file_is_read_to_its_end_and_no_further_than_it_may_be_long() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("file");
        std::fs::write(&path, [7; 1000]).expect("written");
        assert_eq!(read("image", &path, 1000).expect("read").len(), 1000);
        assert!(read("image", &path, 999).expect_err("too long").message.contains("1000 bytes"));
        // A pipe that took a file's place while it was looked at: opening it does not wait for a writer.
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let file = open(&pipe).expect("opens");
        check("image", &pipe, &file.metadata().expect("seen"), 9).expect_err("a pipe");
    }
}
