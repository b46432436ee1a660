//! What black-box tests are made of: the real `darkroom` binary as a process, with a deadline on everything.
//!
//! Processes are ended by their own handle, everything lies in temporary folders, and only loopback is used.

pub mod command;
pub mod farm;
pub mod hostile;
pub mod lacking;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Longest that anything in a test may take: generous, for two cores that also compile.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// The `darkroom` binary under test: `DARKROOM_BIN`, or the one built beside this test.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("DARKROOM_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test knows its own path");
    // target/debug/deps/name-hash: the binary lies one folder up.
    let path = test.ancestors().nth(2).expect("a test lies in deps/").join("darkroom");
    assert!(
        path.is_file(),
        "{} is not there: run `cargo build -p darkroom-cli`, or `make test`",
        path.display()
    );
    path
}

/// The demo cascade.
#[must_use]
pub fn demo_cascade() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo")
}

/// Waits until `condition` gives something, and fails loudly when it does not in time.
///
/// # Panics
/// After [`DEADLINE`].
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < give_up, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
