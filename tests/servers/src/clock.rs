//! Processes whose clock is wrong.

use std::path::Path;

/// Debian's path of the library that makes a process's clock wrong.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// The environment in which a process's time of day is this many hours ahead; monotonic clocks stay
/// right. `None` if Debian's package faketime is not installed.
#[must_use]
pub fn hours_ahead(hours: i8) -> Option<[(&'static str, String); 4]> {
    let counting =
        ["DONT_FAKE_MONOTONIC", "FAKETIME_DONT_FAKE_MONOTONIC"].map(|name| (name, "1".to_owned()));
    let [first, second] = counting;
    Path::new(FAKETIME).exists().then(|| {
        [("LD_PRELOAD", FAKETIME.to_owned()), ("FAKETIME", format!("{hours:+}h")), first, second]
    })
}
