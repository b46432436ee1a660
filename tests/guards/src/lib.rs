//! Every guard of the farm is taken out once: a scenario that passes with the guard must fail
//! without it.
//!
//! The scenarios are checks of the suites, or small ones of this crate; a failing one panics with
//! the reason. This crate is built only with the feature `failpoints`, which no other crate turns
//! on: see `darkroom_core::guard`.

#![cfg(feature = "failpoints")]

use std::panic::AssertUnwindSafe;

use darkroom_core::guard::Guard;
use futures::FutureExt as _;
use tokio::sync::Mutex;

/// A guard is disabled for its whole process, so only one scenario runs at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Runs a scenario with its guard, where it must pass, and without it, where it must fail for the
/// expected reason.
///
/// # Panics
/// When the scenario fails with the guard, passes without it, or fails for another reason.
pub async fn red<F>(guard: Guard, reason: &str, scenario: impl Fn() -> F)
where
    F: Future<Output = ()>,
{
    let _alone = ONE_AT_A_TIME.lock().await;
    if let Err(message) = outcome(scenario()).await {
        panic!("the scenario fails although {guard:?} is in place: {message}");
    }
    let out = guard.take_out();
    let ended = outcome(scenario()).await;
    drop(out);
    match ended {
        Ok(()) => panic!("{guard:?} is out and nothing noticed"),
        Err(message) if message.contains(reason) => {}
        Err(message) => {
            panic!("{guard:?} is out, and the scenario fails for another reason: {message}")
        }
    }
}

/// The result of a scenario: an error with its panic's message if it failed.
async fn outcome(scenario: impl Future<Output = ()>) -> Result<(), String> {
    let panic = match AssertUnwindSafe(scenario).catch_unwind().await {
        Ok(()) => return Ok(()),
        Err(panic) => panic,
    };
    let text = panic.downcast_ref::<String>().cloned();
    Err(text
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default())
}
