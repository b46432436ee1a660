//! Runs a member's work until a signal, until the coordinator asks it to drain, or until it breaks;
//! then drains. While something prevents it from working, health reports that; during the drain,
//! health reports the drain.

use std::time::Duration;

use darkroom_core::error::UserError;
use darkroom_queue::stage_loop::Handle;
use darkroom_runtime::{
    server::{Health, Listen},
    tls::Privacy,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::serve_health;

/// What a member serves beside its work.
pub struct Face {
    /// Address for gRPC; if absent, nothing is served.
    pub listen: Option<Listen>,
    /// How what is served there is kept private.
    pub privacy: Privacy,
    /// Services beside health and reflection.
    pub routes: Routes,
    /// Their names, for health.
    pub services: &'static [&'static str],
}

/// Works until `stop` or the order to drain, drains, and leaves the farm.
///
/// # Errors
/// An address that cannot be listened on (the work is drained first), or the error that broke the
/// loop.
pub async fn work(work: Handle, face: Face, stop: CancellationToken) -> Result<(), UserError> {
    let closing = CancellationToken::new();
    let served = match &face.listen {
        Some(listen) => {
            let at = (listen, &face.privacy);
            serve_health(at, face.routes, face.services, closing.clone()).await.map(Some)
        }
        None => Ok(None),
    };
    if served.is_ok() {
        tracing::info!(worker = %work.worker(), "working");
        let health = match &served {
            Ok(Some((health, _))) => health.clone(),
            _ => Health::unasked(),
        };
        tokio::select! {
            () = tell(work.trouble(), &health) => {}
            () = stop.cancelled() => {}
            () = work.drains() => {}
            error = work.broken() => tracing::error!(%error, "the work cannot go on"),
        }
    }
    if let Ok(Some((health, _))) = &served {
        health.not_serving("draining").await;
    }
    work.shutdown();
    let ended = work.join().await;
    closing.cancel();
    if let Some((_, serving)) = served? {
        let _ = serving.await;
    }
    tracing::info!("left the farm");
    ended
}

/// Reports to health what prevents the loop from working, for as long as this is polled. Other
/// services need neither queue nor storage, so they go on.
async fn tell(mut trouble: watch::Receiver<Option<String>>, health: &Health) {
    loop {
        let now = trouble.borrow_and_update().clone();
        match now {
            Some(reason) => health.not_working(&reason).await,
            None => health.serving().await,
        }
        if trouble.changed().await.is_err() {
            // The loop has ended; that is reported elsewhere.
            return std::future::pending().await;
        }
    }
}

/// The grace period of a drain, from a flag.
///
/// # Errors
/// If it is not a valid time.
pub fn grace(seconds: f64) -> Result<Duration, UserError> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        UserError::invalid(
            "grace-seconds",
            format!("grace-seconds is {seconds}; accepted: 0 or more"),
        )
    })
}
