//! The coordinator as a whole: it takes options and returns a handle, and all its tasks are joined
//! at the end.

use std::{sync::Arc, time::Duration};

use darkroom_artifacts::ArtifactStore;
use darkroom_core::{
    cascade::Cascade,
    error::{Code, UserError},
    id::WorkerId,
};
use darkroom_queue::{TaskQueue, signing::Signer, task::PoolId};

use crate::{
    budget,
    cleaner::{self, Cleaned},
    committer,
    counters::Counters,
    disk_watch, dispatcher,
    error::Error,
    feeder, finisher, follower, forecaster, historian, limits,
    options::Options,
    quota_reader, reaper,
    shared::Shared,
    store::Store,
    trust::{self, Trust},
    webhooks, worker_health,
};

/// The coordinator.
#[derive(Debug)]
pub struct Coordinator;

impl Coordinator {
    /// Recovers the work of an earlier process, and starts every part.
    ///
    /// # Errors
    /// If the record or the queue cannot be used.
    pub async fn start(
        options: Options,
        store: Arc<dyn Store>,
        queue: Arc<dyn TaskQueue>,
        artifacts: ArtifactStore,
        cascades: Vec<Cascade>,
    ) -> Result<Handle, Error> {
        let front = Arc::clone(&store);
        Self::start_fronted(options, store, front, queue, artifacts, cascades).await
    }

    /// As [`start`](Self::start), but calls use `front`: the same record over separate connections.
    ///
    /// # Errors
    /// If the record or the queue cannot be used.
    pub async fn start_fronted(
        options: Options,
        store: Arc<dyn Store>,
        front: Arc<dyn Store>,
        queue: Arc<dyn TaskQueue>,
        artifacts: ArtifactStore,
        cascades: Vec<Cascade>,
    ) -> Result<Handle, Error> {
        let started = Self::start_parts(options, store, front, queue, artifacts, cascades).await;
        started.inspect_err(Error::log)
    }

    async fn start_parts(
        options: Options,
        store: Arc<dyn Store>,
        front: Arc<dyn Store>,
        queue: Arc<dyn TaskQueue>,
        artifacts: ArtifactStore,
        cascades: Vec<Cascade>,
    ) -> Result<Handle, Error> {
        store.set_lease(None, options.lease).await?;
        for cascade in &cascades {
            store.register_cascade(cascade).await?;
        }
        if store.set_makes_up(options.makes_up).await? != options.makes_up {
            return Err(Error::Store(crate::store::Error::Refused(other_kind(options.makes_up))));
        }
        let trust = Trust::new(store.secret().await?);
        let shared = Arc::new(Shared::new(options, &store, queue, artifacts, (cascades, trust)));
        // Before anybody is let in.
        quota_reader::read(&shared, store.as_ref()).await?;
        // This process has nothing on its way to the queue yet, so two passes at once show what the
        // queue lacks. Tasks that another coordinator was about to add then run twice, which costs
        // work but loses none.
        let mut missing = reaper::Missing::default();
        reaper::sweep(&shared, store.as_ref(), &mut missing).await?;
        reaper::sweep(&shared, store.as_ref(), &mut missing).await?;
        shared.disks.look().await;
        shared.tasks.spawn(disk_watch::run(Arc::clone(&shared)));
        shared.tasks.spawn(budget::run(Arc::clone(&shared), store.clone()));
        shared.tasks.spawn(dispatcher::run(Arc::clone(&shared), store.clone()));
        shared.tasks.spawn(dispatcher::listen(Arc::clone(&shared)));
        shared.tasks.spawn(follower::run(Arc::clone(&shared), store.clone()));
        shared.tasks.spawn(finisher::run(Arc::clone(&shared), store.clone()));
        if shared.options.sends_webhooks {
            shared.tasks.spawn(webhooks::run(Arc::clone(&shared), front.clone()));
        }
        shared.tasks.spawn(limits::run(Arc::clone(&shared), store.clone()));
        shared.tasks.spawn(worker_health::run(Arc::clone(&shared), store.clone()));
        shared.tasks.spawn(forecaster::run(Arc::clone(&shared), store.clone()));
        shared.tasks.spawn(historian::run(Arc::clone(&shared), store.clone()));
        shared.tasks.spawn(quota_reader::run(Arc::clone(&shared), store.clone()));
        shared.tasks.spawn(cleaner::run(Arc::clone(&shared), store.clone()));
        shared.tasks.spawn(cleaner::run_hourly(Arc::clone(&shared), store.clone()));
        shared.tasks.spawn(feeder::run(Arc::clone(&shared), front.clone()));
        shared.tasks.spawn(reaper::run_reaper(Arc::clone(&shared), store.clone()));
        shared.tasks.spawn(reaper::run_sweeper(Arc::clone(&shared), store.clone()));
        for pool in shared.cascades.pools() {
            shared.tasks.spawn(committer::run(Arc::clone(&shared), store.clone(), pool));
        }
        Ok(Handle { shared, store, front })
    }
}

/// Why a record of made-up pictures is not for real ones, and the other way round.
fn other_kind(makes_up: bool) -> UserError {
    let message = if makes_up {
        "this farm's record has pictures of real models, so it cannot be used with the fake \
         renderer; use another state folder or database"
    } else {
        "this farm's record has pictures of the fake renderer, so it cannot be used with real \
         models; use another state folder or database"
    };
    UserError::new(Code::FailedPrecondition, "MADE_UP", message)
}

/// Pools by what they work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pools {
    /// Pools of encoders.
    Texts,
    /// Pools of workers.
    Images,
}

/// A running coordinator.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
    /// The record, for the farm's work.
    pub(crate) store: Arc<dyn Store>,
    /// The record for API calls, so that they do not wait for a connection behind bulk work.
    pub(crate) front: Arc<dyn Store>,
}

impl Handle {
    /// Its counters since start-up.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The problem that keeps the farm from working, if any: the latest error of the first failing
    /// part.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        // Without hints from other coordinators, work is found by polling.
        self.shared.troubles.first(dispatcher::LISTEN)
    }

    /// Why no work is dispatched and no job accepted, if a disk is full: one sentence.
    #[must_use]
    pub fn full(&self) -> Option<String> {
        self.shared.disks.full()
    }

    /// Bytes that the artifacts take, if they were counted within this time. They are only if there
    /// is a budget for them.
    pub async fn stored_bytes(&self, patience: Duration) -> Option<u64> {
        let _ = tokio::time::timeout(patience, self.shared.stored.counted()).await;
        self.shared.stored.bytes()
    }

    /// Keys for a worker of this process, renewed until the coordinator ends.
    #[must_use]
    pub fn signer(&self, worker: WorkerId, pools: Vec<PoolId>) -> Signer {
        let signer = Signer::new(self.shared.trust.credentials(worker.clone(), "", &pools));
        let (shared, renewed) = (Arc::clone(&self.shared), signer.clone());
        self.shared.tasks.spawn(async move {
            while !shared.stop.is_cancelled() {
                shared.pause(trust::KEYS / 2).await;
                renewed.renew(shared.trust.credentials(worker.clone(), "", &pools));
            }
        });
        signer
    }

    /// Every pool of the farm for work of this kind.
    #[must_use]
    pub fn pools(&self, of: Pools) -> Vec<PoolId> {
        let mut pools = self.shared.cascades.pools();
        pools.retain(|pool| pool.stage.is_encode() == (of == Pools::Texts));
        pools
    }

    /// Has the cleaner do now whatever there is to do, if this coordinator leads. `ahead`: as if
    /// its clock were so much ahead.
    ///
    /// # Errors
    /// If the record or storage fails, or storage does not belong to this record.
    pub async fn clean(&self, ahead: Duration) -> Result<Cleaned, Error> {
        cleaner::clean(&self.shared, self.store.as_ref(), (ahead, Duration::MAX)).await
    }

    /// Whether a part fails because the record cannot be reached.
    #[must_use]
    pub fn store_fails(&self) -> bool {
        self.shared.troubles.of_store()
    }

    /// Ends every part and stream, waits for them, and closes the record. Accepted work stays.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.leadership.resign().await;
        self.front.close().await;
        self.store.close().await;
    }
}
