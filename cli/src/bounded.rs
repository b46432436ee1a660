//! Files that a user names, read with a size limit. A folder, a pipe, a device or an endless file
//! is refused before it is read.

use std::path::Path;

use darkroom_core::error::UserError;
use darkroom_runtime::{
    files::{self, Unread, of_bytes},
    terminal::shown_path,
};

use crate::failure::{self, Result};

/// Reads a file of at most `most` bytes; `field` names it in errors.
pub(crate) fn read(field: &str, path: &Path, most: usize) -> Result<Vec<u8>> {
    if path.as_os_str().is_empty() {
        return Err(UserError::invalid(
            field,
            format!("{field} is empty; accepted: the path of a file"),
        ));
    }
    files::read(path, most as u64).map_err(|unread| {
        let what = match unread {
            Unread::NoFile(what) => format!("is {what}; accepted: a file"),
            Unread::TooBig { bytes, most } => {
                format!("has {}; accepted: at most {most}", of_bytes(bytes, most))
            }
            Unread::Io(error) => return failure::file(field, "read", path, &error),
        };
        UserError::invalid(field, format!("{} {what}", shown_path(path)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_or_too_long_is_refused_with_its_flag() {
        let folder = tempfile::tempdir().expect("folder");
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let file = folder.path().join("file");
        std::fs::write(&file, [7; 1000]).expect("written");
        for (path, says) in [
            (folder.path(), "is a folder; accepted: a file"),
            (&pipe, "is a pipe; accepted: a file"),
            (Path::new("/dev/zero"), "is a device; accepted: a file"),
            (&file, "has 1000 bytes; accepted: at most 999"),
            (Path::new("/proc/self/smaps"), "has more than 999 bytes; accepted: at most 999"),
            (Path::new(""), "image is empty"),
        ] {
            let error = read("image", path, 999).expect_err(says);
            assert!(error.message.contains(says), "{error}");
            assert_eq!(error.field.as_deref(), Some("image"));
        }
        assert_eq!(read("image", &file, 1000).expect("read").len(), 1000);
        let absent = read("image", &folder.path().join("absent"), 1000).expect_err("absent");
        assert_eq!(absent.reason, "NO_SUCH_FILE");
    }
}
