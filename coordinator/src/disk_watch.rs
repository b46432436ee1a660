//! Looks at the disks that the farm writes to, and probes object storage when somebody found it
//! full. Wakes the dispatcher when work stops or may go on.

use std::{sync::Arc, time::Duration};

use darkroom_artifacts::NO_SPACE;
use darkroom_core::error::Code;
use tokio::time::timeout;

use crate::{disks::Probe, shared::Shared};

/// How often disks are looked at, beside the look before each dispatch.
const EVERY: Duration = Duration::from_secs(2);
/// Longest probe of object storage.
const PROBED: Duration = Duration::from_secs(10);

/// Looks at the disks until shutdown.
pub(crate) async fn run(shared: Arc<Shared>) {
    while !shared.stop.is_cancelled() {
        let turned = shared.disks.look().await;
        if look_at_storage(&shared).await || turned {
            shared.events.dispatch.notify_one();
        }
        tokio::select! {
            () = shared.disks.suspected() => {}
            () = tokio::time::sleep(EVERY) => {}
            () = shared.stop.cancelled() => {}
        }
    }
}

/// Whether that changed what is known.
async fn look_at_storage(shared: &Shared) -> bool {
    let cards = shared.crew.get().cards().iter().any(|card| card.trouble.contains(NO_SPACE));
    let mut probe = None;
    if shared.disks.wants_probe(cards) {
        let checked = timeout(PROBED, shared.artifacts.check());
        let Some(checked) = shared.stop.run_until_cancelled(checked).await else { return false };
        probe = Some(match checked {
            Ok(Ok(())) => Probe::Fits,
            Ok(Err(error)) if error.code == Code::ResourceExhausted => Probe::Full,
            Ok(Err(_)) | Err(_) => Probe::Failed,
        });
    }
    shared.disks.look_at_storage(cards, probe)
}
