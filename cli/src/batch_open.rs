//! Opens a file of prompts. Only a file of bounded size is opened, or standard input: a folder, a pipe or a device is
//! refused before a byte of it is read, so that nothing hangs and nothing reads for ever.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::Read,
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
};

use darkroom_core::error::UserError;
use darkroom_runtime::terminal::shown_path;
use nix::fcntl::OFlag;

use crate::failure::{self, Result};

/// Other names of standard input.
const STANDARD_INPUT: [&str; 4] = ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];

/// Whether a path means standard input.
pub(crate) fn is_standard_input(path: &Path) -> bool {
    STANDARD_INPUT.iter().any(|name| path == Path::new(name))
}

/// Opens a file of at most `limit` bytes, or standard input.
pub(crate) fn open(path: &Path, limit: u64) -> Result<Box<dyn Read>> {
    if is_standard_input(path) {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let unreadable = |error| failure::file("batch", "read", path, &error);
    check(path, &std::fs::metadata(path).map_err(unreadable)?, limit)?;
    // If it became a pipe meanwhile, opening it does not wait for a writer.
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(unreadable)?;
    check(path, &file.metadata().map_err(unreadable)?, limit)?;
    Ok(Box::new(file))
}

fn check(path: &Path, metadata: &Metadata, limit: u64) -> Result<()> {
    let kind = metadata.file_type();
    let what = if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else if metadata.len() > limit {
        let (has, most) = (metadata.len() >> 20, limit >> 20);
        return refuse(format!("{} has {has} MiB; accepted: at most {most} MiB, split it", shown_path(path)));
    } else {
        return Ok(());
    };
    refuse(format!("{} is {what}; accepted: a file, or `-` for what is piped in", shown_path(path)))
}

fn refuse(message: String) -> Result<()> {
    Err(UserError::invalid("batch", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1 << 20;

    #[test]
    fn what_is_no_file_of_bounded_size_is_refused_by_what_it_is() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let _listens = std::os::unix::net::UnixListener::bind(at("socket")).expect("a socket");
        let sparse = File::create(at("big.txt")).expect("made");
        sparse.set_len(5 << 30).expect("sparse");
        std::os::unix::fs::symlink(at("pipe"), at("link.txt")).expect("a link");
        for (path, says) in [
            (folder.path().to_owned(), "is a folder"),
            (at("pipe"), "is a pipe"),
            (at("link.txt"), "is a pipe"),
            (at("socket"), "is a socket"),
            ("/dev/zero".into(), "is a device"),
            ("/dev/null".into(), "is a device"),
            (at("big.txt"), "has 5120 MiB; accepted: at most 1 MiB"),
        ] {
            let error = open(&path, LIMIT).map(|_| ()).expect_err(says);
            assert!(error.message.contains(says) && error.message.contains("accepted: "), "{error}");
            assert_eq!(error.field.as_deref(), Some("batch"));
        }
        assert_eq!(open(&at("absent"), LIMIT).map(|_| ()).expect_err("absent").code.exit_code(), 3);
        std::fs::write(at("few.txt"), "a").expect("written");
        let mut read = String::new();
        open(&at("few.txt"), LIMIT).expect("a file").read_to_string(&mut read).expect("read");
        assert_eq!(read, "a");
    }
}
