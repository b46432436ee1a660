//! Signals. The first SIGINT, SIGTERM or SIGHUP asks the process to finish. A second SIGINT, from
//! an impatient person, ends it at once. SIGTERM and SIGHUP may come any number of times:
//! orchestrators repeat them, and work that is being handed back must not be lost for that.
//!
//! If SIGHUP was ignored when the process started, as with `nohup`, it stays ignored.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of a process that a second signal ended.
pub const ABORTED: i32 = 130;
/// Number of SIGHUP.
const HANGUP: u32 = 1;

/// A token that the first SIGINT, SIGTERM or SIGHUP cancels. A later SIGINT exits the process with
/// [`ABORTED`].
///
/// # Errors
/// When the handlers cannot be installed.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = if ignored(HANGUP) { None } else { Some(signal(SignalKind::hangup())?) };
    let cancelled = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = came(&mut hangup) => {}
        }
        tracing::info!("shutting down");
        cancelled.cancel();
        // Listens for ever, because the default action would end the process.
        tokio::spawn(async move { while terminate.recv().await.is_some() {} });
        tokio::spawn(async move { came(&mut hangup).await });
        interrupt.recv().await;
        std::process::exit(ABORTED);
    });
    Ok(token)
}

async fn came(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether the process ignores this signal now. If the system does not say, it does not.
fn ignored(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignores(&status, number)
}

fn ignores(status: &str, number: u32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (number - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_what_the_kernel_says() {
        let status = "Name:\tsh\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000000005\nSigCgt:\tffffffffffffffff\n";
        assert!(ignores(status, 1) && ignores(status, 3));
        assert!(!ignores(status, 2) && !ignores(status, 15));
        assert!(!ignores("", 1) && !ignores("SigIgn:\tx\n", 1));
    }
}
