//! What keeps a coordinator from working: it is looked for, and told as the server's health.

use std::time::{Duration, Instant};

use darkroom_artifacts::ArtifactStore;
use darkroom_coordinator::{Handle, store::roles::Maintenance};
use darkroom_queue::redis::{self, RedisQueue};
use darkroom_runtime::server::Health;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// How often gRPC health is updated from the farm's problems.
const LOOK: Duration = Duration::from_millis(500);
/// How often the farm's mark in Redis is renewed.
const CLAIM: Duration = Duration::from_secs(5);
/// Time between two attempts to find out why the record cannot be reached.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Time between two checks of object storage. Each writes, reads and deletes a probe, which some
/// stores charge for.
const PROBE: Duration = Duration::from_secs(30);
/// Time between two checks while storage fails.
const PROBE_AGAIN: Duration = Duration::from_secs(10);
/// A check that takes longer counts as failed.
const PROBED: Duration = Duration::from_secs(10);

/// Reports the farm as not serving while a part of it fails, with the reason, and as serving again
/// afterwards. Also renews the farm's mark in Redis, which a flush removes.
pub(crate) async fn tell_health(
    handle: &Handle,
    queue: &RedisQueue,
    identity: &str,
    troubles: &Troubles,
    health: &Health,
) {
    let mut ticks = tokio::time::interval(LOOK);
    let mut claimed = Instant::now();
    let mut strange = None;
    loop {
        ticks.tick().await;
        if claimed.elapsed() > CLAIM {
            claimed = Instant::now();
            strange = match queue.claim_farm(identity).await {
                Err(error @ redis::StartError::TwoFarms { .. }) => Some(error.to_string()),
                // Other problems of Redis are reported by the parts that cannot work.
                _ => None,
            };
        }
        let stored = || troubles.storage.borrow().clone();
        // The connection pool only reports a timeout; the check's result says more.
        let found_out = if handle.store_fails() { troubles.store.borrow().clone() } else { None };
        match strange.clone().or(found_out).or_else(|| handle.trouble()).or_else(stored) {
            Some(trouble) => health.not_serving(&trouble).await,
            None => health.serving().await,
        }
    }
}

/// What the checks found out about a failing record and a failing object storage.
pub(crate) struct Troubles {
    pub(crate) store: watch::Receiver<Option<String>>,
    pub(crate) storage: watch::Receiver<Option<String>>,
}

/// While the record cannot be reached, finds out why.
pub(crate) async fn watch_store(
    handle: &Handle,
    store: &dyn Maintenance,
    trouble: &watch::Sender<Option<String>>,
) {
    loop {
        sleep(LOOK).await;
        if handle.store_fails() {
            trouble.send_replace(store.diagnose().await);
            sleep(ASK_AGAIN).await;
        } else {
            trouble.send_replace(None);
        }
    }
}

/// Says what prevents the use of object storage, if anything. One probe at a time: if one hangs,
/// that is reported, and no second one starts.
pub(crate) async fn watch_storage(
    storage: &ArtifactStore,
    trouble: &watch::Sender<Option<String>>,
) {
    loop {
        let failing = trouble.borrow().is_some();
        sleep(if failing { PROBE_AGAIN } else { PROBE }).await;
        let mut probe = std::pin::pin!(storage.check());
        let looked = match timeout(PROBED, &mut probe).await {
            Ok(looked) => looked,
            Err(_) => {
                let slow = format!(
                    "the artifact store did not finish a probe within {} seconds",
                    PROBED.as_secs()
                );
                trouble.send_replace(Some(slow));
                probe.await
            }
        };
        trouble.send_replace(looked.err().map(|error| error.message));
    }
}
