//! A file with a key, which a setting names.

use std::path::Path;

use darkroom_core::{error::UserError, key::Key, shown::shown_path};

use crate::files;

/// What is accepted wherever a key is read.
pub(super) const ACCEPTED: &str = "accepted: dk_ID_SECRET, as `darkroom key create` prints it";
/// Most bytes of such a file.
pub(super) const MOST: u64 = 4 << 10;
/// The bit of a file that everybody may read.
const EVERYBODY: u32 = 0o004;

/// The key in a file, and a warning if others can read it.
///
/// # Errors
/// One sentence with the path, and without what is in the file.
pub(super) fn read(path: &Path) -> Result<(Key, Option<String>), UserError> {
    let wrong = |why: &str| {
        UserError::invalid("key-file", format!("key-file is {}, which {why}", shown_path(path)))
    };
    let (bytes, mode) = files::read_with_mode(path, MOST)
        .map_err(|unread| wrong(&format!("cannot be read: {unread}")))?;
    let key = parse(&bytes).ok_or_else(|| wrong(&format!("does not hold a key; {ACCEPTED}")))?;
    let open = mode & EVERYBODY != 0;
    let warning = || {
        format!(
            "every user of this machine can read the key in {} (mode {:04o}); run `chmod 600` on it",
            shown_path(path),
            mode & 0o7777
        )
    };
    Ok((key, open.then(warning)))
}

/// The key that is the only line of a file.
pub(super) fn parse(bytes: &[u8]) -> Option<Key> {
    std::str::from_utf8(bytes).ok()?.trim().parse().ok()
}
