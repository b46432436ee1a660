//! Other people's clients of the HTTP API, in a Python of their own.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A program of the tests' Python, which is set up if it is not there.
///
/// # Panics
/// When it cannot be set up.
#[must_use]
pub fn client(program: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let ended = Command::new(root.join("tools/setup-clients.sh")).output().expect("bash runs");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    root.join(".clients/bin").join(program)
}
