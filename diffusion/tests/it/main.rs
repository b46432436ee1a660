//! The crate, tested from outside: replayed reference runs, checks that must fail, and rendering.
//! One binary, because each links libtorch.

#[cfg(test)]
mod breaks;
#[cfg(test)]
mod image_to_image;
#[cfg(test)]
mod influence;
#[cfg(test)]
mod rendering;
#[cfg(test)]
mod surroundings;
#[cfg(test)]
mod surveys;
#[cfg(test)]
mod traces;

use std::path::{Path, PathBuf};

/// A folder of `tests/fixtures`.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}
