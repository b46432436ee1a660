//! Tools for black-box tests: the real `darkroom` binary as a process, with a deadline on
//! everything.
//!
//! Tests end processes only by their handles, keep all files in temporary folders, and use only
//! loopback.

pub mod clients;
pub mod command;
pub mod farm;
pub mod hostile;
pub mod http;
pub mod lacking;
pub mod processes;
pub mod programs;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Longest time that anything in a test may take: generous, for two cores that also compile.
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
    // target/debug/deps/name-hash: the binary is one folder up.
    let path = test.ancestors().nth(2).expect("a test is in deps/").join("darkroom");
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

/// Waits until `condition` returns something.
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

/// As [`eventually`], for a condition that is asked of a farm.
///
/// # Panics
/// After [`DEADLINE`].
pub async fn eventually_async<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < give_up, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
