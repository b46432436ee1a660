//! Signals: the first SIGINT or SIGTERM asks the process to finish; a second SIGINT, from an impatient person, ends it
//! at once. SIGTERM may come any number of times: orchestrators repeat it, and what is being handed back must not be
//! dropped for that.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of a process that a second signal ended.
pub const ABORTED: i32 = 130;

/// A token that the first SIGINT or SIGTERM cancels. A SIGINT after that exits the process with [`ABORTED`].
///
/// # Errors
/// When the handlers cannot be installed.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let cancelled = token.clone();
    tokio::spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        tracing::info!("shutting down");
        cancelled.cancel();
        // Listened to for ever, lest its default action end the process.
        tokio::spawn(async move { while terminate.recv().await.is_some() {} });
        interrupt.recv().await;
        std::process::exit(ABORTED);
    });
    Ok(token)
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
