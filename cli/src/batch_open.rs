//! Opens a file of prompts. Only standard input or a file of limited size is opened. A folder, a
//! pipe or a device is refused before a byte is read, so that nothing hangs and nothing reads for
//! ever.

use std::{io::Read, path::Path};

use darkroom_core::error::UserError;
use darkroom_runtime::{
    files::{self, Unread},
    terminal::shown_path,
};

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
    let file = files::open(path, limit).map_err(|unread| {
        let what = match unread {
            Unread::NoFile(what) => {
                format!("is {what}; accepted: a file, or `-` for what is piped in")
            }
            Unread::TooBig { bytes, most } => {
                let (has, most) = (bytes.unwrap_or(most) >> 20, most >> 20);
                format!("has {has} MiB; accepted: at most {most} MiB, split it")
            }
            Unread::Io(error) => return failure::file("batch", "read", path, &error),
        };
        UserError::invalid("batch", format!("{} {what}", shown_path(path)))
    })?;
    Ok(Box::new(file))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

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
            assert!(
                error.message.contains(says) && error.message.contains("accepted: "),
                "{error}"
            );
            assert_eq!(error.field.as_deref(), Some("batch"));
        }
        assert_eq!(open(&at("absent"), LIMIT).map(|_| ()).expect_err("absent").code.exit_code(), 3);
        std::fs::write(at("few.txt"), "a").expect("written");
        let mut read = String::new();
        open(&at("few.txt"), LIMIT).expect("a file").read_to_string(&mut read).expect("read");
        assert_eq!(read, "a");
    }
}
