//! The crate seen from outside: replayed reference runs, the check turning red, and rendering. One binary, since each
//! links libtorch.

mod breaks;
mod rendering;
mod traces;

use std::path::{Path, PathBuf};

/// A folder of `tests/fixtures`.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}
