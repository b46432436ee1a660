//! Every guard of the farm, taken out once: a scenario that is green with the guard must be red without it.
//!
//! The scenarios are the checks that the suites run, or small ones of this crate; each panics with what went wrong.
//! Built only with the feature `failpoints`, which no other crate turns on: see `darkroom_core::guard`.

#![cfg(feature = "failpoints")]

use std::panic::AssertUnwindSafe;

use darkroom_core::guard::Guard;
use futures::FutureExt as _;
use tokio::sync::Mutex;

/// A guard is out for its whole process, so only one scenario runs at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Runs a scenario with its guard, which must go well, and without, which must fail for the reason expected.
///
/// # Panics
/// When the scenario fails with the guard, goes well without it, or fails for another reason.
pub async fn red<F>(guard: Guard, reason: &str, scenario: impl Fn() -> F)
where
    F: Future<Output = ()>,
{
    let _alone = ONE_AT_A_TIME.lock().await;
    if let Err(message) = outcome(scenario()).await {
        panic!("{guard:?} stands and its scenario fails all the same: {message}");
    }
    let out = guard.take_out();
    let ended = outcome(scenario()).await;
    drop(out);
    match ended {
        Ok(()) => panic!("{guard:?} is out and nothing noticed"),
        Err(message) if message.contains(reason) => {}
        Err(message) => panic!("{guard:?} is out, and the scenario fails for another reason: {message}"),
    }
}

/// How a scenario ended: its panic's message, where it failed.
async fn outcome(scenario: impl Future<Output = ()>) -> Result<(), String> {
    let panic = match AssertUnwindSafe(scenario).catch_unwind().await {
        Ok(()) => return Ok(()),
        Err(panic) => panic,
    };
    let text = panic.downcast_ref::<String>().cloned();
    Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
}
