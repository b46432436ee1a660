//! What a running farm watches: its disk, its storage, and the parts that work.

use std::{path::PathBuf, pin::Pin, task::Poll, time::Duration};

use darkroom_artifacts::ArtifactStore;
use darkroom_core::error::{Code, UserError};
use darkroom_runtime::{server, state_dir};
use tokio::sync::watch;

use super::failures::{self, in_folder, state_failure};

/// How often a running farm checks its artifact folder.
const CHECK_SECONDS: u32 = 5;
/// After so many seconds on a full disk, a farm for one command gives up.
const FULL_SECONDS: u32 = 10;

/// Resolves when a part that renders or encodes has stopped working.
pub(super) struct Lost(Vec<Pin<Box<dyn Future<Output = &'static str> + Send>>>);

impl Lost {
    pub(super) fn of(
        encoder: &darkroom_encoder_service::Handle,
        worker: &darkroom_worker::Handle,
    ) -> Self {
        let (no_encoder, no_worker) = (encoder.broken(), worker.broken());
        let drains = worker.drains();
        Self(vec![
            Box::pin(async move {
                no_encoder.await;
                "the encoder of this farm broke; see the log, and start the farm again"
            }),
            Box::pin(async move {
                no_worker.await;
                "the worker of this farm broke; see the log, and start the farm again"
            }),
            Box::pin(async move {
                drains.await;
                "the worker of this farm is draining"
            }),
        ])
    }

    /// Why no work is done any more.
    pub(super) async fn any(&mut self) -> &'static str {
        std::future::poll_fn(|cx| {
            let ended = self.0.iter_mut().find_map(|part| match part.as_mut().poll(cx) {
                Poll::Ready(why) => Some(why),
                Poll::Pending => None,
            });
            ended.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Watches the disk of the state folder, its artifacts and the working parts. If the farm cannot
/// store its results, health says "not serving" until it can again. If it has lost a part, health
/// says "not serving" until it is restarted. `disks` says why work waits for room: health stays, as
/// everything else goes on.
pub(super) async fn watch_storage(
    (state, artifacts, disks): (PathBuf, ArtifactStore, impl Fn() -> Option<String>),
    health: server::Health,
    told: watch::Sender<Option<UserError>>,
    mut lost: Lost,
) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut unusable = None;
    let (mut failing, mut full_seconds) = (false, 0);
    for tick in 0_u32.. {
        tokio::select! {
            why = lost.any() => {
                health.not_serving(why).await;
                told.send_replace(Some(UserError::new(Code::Internal, "PART_BROKEN", why)));
                return;
            }
            _ = ticks.tick() => {}
        }
        if tick % CHECK_SECONDS == CHECK_SECONDS - 1 {
            unusable = artifacts.check().await.err().map(|failure| in_folder(&state, failure));
        }
        let failure =
            state_dir::check_space(&state).err().map(state_failure).or_else(|| unusable.clone());
        match &failure {
            Some(failure) => health.not_serving(&failure.message).await,
            None if failing => health.serving().await,
            None => {}
        }
        failing = failure.is_some();
        let full = disks();
        full_seconds = if full.is_some() { full_seconds + 1 } else { 0 };
        // Those who wait for the farm get some time to make room.
        let full = full.filter(|_| full_seconds > FULL_SECONDS);
        let failure = failure.or_else(|| full.map(|why| in_folder(&state, failures::full(why))));
        told.send_if_modified(|before| std::mem::replace(before, failure.clone()) != failure);
    }
}

#[cfg(test)]
mod tests;
