//! A member at work: until a signal, until the coordinator wishes it to drain, or until it breaks; then a drain. Health says
//! what keeps it from working while that lasts, and in the end that it drains.

use std::time::Duration;

use darkroom_core::error::UserError;
use darkroom_queue::stage_loop::Handle;
use darkroom_runtime::server::{Health, Listen};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::serve_health;

/// What a member serves beside its work.
pub struct Face {
    /// Address for gRPC; nothing is served when absent.
    pub listen: Option<Listen>,
    /// Services beside health and reflection.
    pub routes: Routes,
    /// Their names, for health.
    pub services: &'static [&'static str],
}

/// Works until `stop` or the wish to drain, drains, and leaves the farm.
///
/// # Errors
/// An address that cannot be listened on (the work is drained first), or what broke the loop.
pub async fn work(work: Handle, face: Face, stop: CancellationToken) -> Result<(), UserError> {
    let closing = CancellationToken::new();
    let served = match &face.listen {
        Some(listen) => serve_health(listen, face.routes, face.services, closing.clone()).await.map(Some),
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

/// Tells health what keeps the loop from working while something does, for as long as it is polled. Services beside the
/// loop need neither queue nor storage: they go on.
async fn tell(mut trouble: watch::Receiver<Option<String>>, health: &Health) {
    loop {
        let now = trouble.borrow_and_update().clone();
        match now {
            Some(reason) => health.not_working(&reason).await,
            None => health.serving().await,
        }
        if trouble.changed().await.is_err() {
            // The loop is gone, which is told elsewhere.
            return std::future::pending().await;
        }
    }
}

/// The grace period of a drain, from a flag.
///
/// # Errors
/// When it is no time.
pub fn grace(seconds: f64) -> Result<Duration, UserError> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        UserError::invalid("grace-seconds", format!("grace-seconds is {seconds}; accepted: 0 or more"))
    })
}
