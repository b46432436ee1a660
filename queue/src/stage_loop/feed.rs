//! Leases batches and loads their inputs, one batch ahead of the model.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Fault, Loaded, Stage,
    finish::Finish,
    held::Held,
    model_thread::{Item, Job},
    shared::{RunFacts, Shared, given_up, retries},
    trouble::Use,
};
use crate::{
    Error,
    task::{Outcome, PoolId},
};

/// Most time to wait for a hint; after it, pools are looked at without one.
const WAIT: Duration = Duration::from_secs(1);
/// Time between two checks whether a worker that gets nothing gets tasks again.
const ASIDE: Duration = Duration::from_millis(200);
/// After this many wrong hints in a row there is a pause after each: this worker may have been set
/// aside and not know it yet.
const WRONG_HINTS: u32 = 3;
/// Pause after a wrong hint.
const MISSED: Duration = Duration::from_millis(5);

pub(super) struct Feed<S: Stage> {
    shared: Arc<Shared>,
    stage: Arc<S>,
    jobs: mpsc::Sender<Job<S::Input, S::Output>>,
    model: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    /// Tasks leased with a batch that they are not compatible with. They make the next batches.
    leftovers: VecDeque<Held>,
}

/// A batch that is being collected.
struct Batch<I> {
    pool: PoolId,
    compatibility: String,
    suspect: bool,
    items: Vec<Item<I>>,
    since: Instant,
}

impl<S: Stage> Feed<S> {
    pub(super) fn new(
        shared: Arc<Shared>,
        stage: Arc<S>,
        jobs: mpsc::Sender<Job<S::Input, S::Output>>,
    ) -> Self {
        let uploads = Arc::new(Semaphore::new(shared.options.uploads.max(1) + 1));
        Self {
            shared,
            stage,
            jobs,
            model: Arc::new(Semaphore::new(1)),
            uploads,
            leftovers: VecDeque::new(),
        }
    }

    /// Feeds the model until `drain`, then hands back the tasks that it did not get.
    pub(super) async fn run(mut self, drain: CancellationToken) {
        while let Some(held) = self.next_leases(&drain).await {
            let Some(first) = held.first() else { continue };
            let mut batch = Batch {
                pool: first.pool().clone(),
                compatibility: first.task().compatibility.clone(),
                suspect: first.task().suspect,
                items: Vec::new(),
                since: Instant::now(),
            };
            batch.items = self.load(held, &drain).await;
            if batch.items.is_empty() {
                continue;
            }
            let Some((model_free, upload)) =
                self.fill_until_model_is_free(&mut batch, &drain).await
            else {
                let held = batch.items.into_iter().map(|item| item.held).collect();
                self.shared.hand_back(held).await;
                break;
            };
            let (reply, ran) = oneshot::channel();
            let job = Job { pool: batch.pool, items: batch.items, model_free, reply };
            if self.jobs.send(job).await.is_err() {
                tracing::error!("the model's thread ended, so the worker drains");
                self.shared.broken.cancel();
                drain.cancel();
                break;
            }
            let finish = Finish::new(Arc::clone(&self.shared), Arc::clone(&self.stage), upload);
            self.shared.finishing.spawn(finish.run(ran));
        }
        drain.cancelled().await;
        self.shared.hand_back(self.leftovers.into()).await;
    }

    /// The next leases of one pool and compatibility key; none while draining.
    async fn next_leases(&mut self, drain: &CancellationToken) -> Option<Vec<Held>> {
        let pools: Vec<PoolId> =
            self.shared.options.pools.iter().map(|serve| serve.pool.clone()).collect();
        let mut backoff = retries();
        let mut wrong_hints = 0;
        while !drain.is_cancelled() {
            if let Some(run) = self.take_leftovers() {
                return Some(run);
            }
            if self.shared.is_aside() {
                drain.run_until_cancelled(sleep(ASIDE)).await?;
                continue;
            }
            let fault = match self.lease_from_any(&pools).await {
                Ok(true) => continue,
                Ok(false) => {
                    let hint = self.shared.queue.wait_for_tasks(&pools, WAIT);
                    let hint = async { timeout(WAIT * 3, hint).await.unwrap_or(Ok(false)) };
                    let hint = drain.run_until_cancelled(hint).await?;
                    wrong_hints = if matches!(hint, Ok(true)) { wrong_hints + 1 } else { 0 };
                    if wrong_hints > WRONG_HINTS {
                        sleep(MISSED).await;
                    }
                    hint.err()
                }
                Err(error) => Some(error),
            };
            match fault {
                None => backoff.reset(),
                Some(error) => {
                    tracing::warn!(%error, "no tasks can be leased");
                    drain.run_until_cancelled(sleep(backoff.pause())).await?;
                }
            }
        }
        None
    }

    /// Leases a batch from the first pool that has one. Never dropped half way, because a lease
    /// that nobody knows would have to expire.
    async fn lease_from_any(&mut self, pools: &[PoolId]) -> Result<bool, Error> {
        for pool in pools {
            if self.lease(pool, self.shared.cap(pool)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn lease(&mut self, pool: &PoolId, max: usize) -> Result<bool, Error> {
        let worker = &self.shared.options.worker;
        let leases = self.shared.queue.lease(pool, worker, max, Duration::ZERO).await?;
        let any = !leases.is_empty();
        self.leftovers
            .extend(leases.into_iter().map(|lease| self.shared.registry.hold(pool, lease)));
        Ok(any)
    }

    /// The first leftover task and all others that may run with it, up to the cap; a suspect alone.
    fn take_leftovers(&mut self) -> Option<Vec<Held>> {
        let first = self.leftovers.pop_front()?;
        let cap = if first.task().suspect { 1 } else { self.shared.cap(first.pool()) };
        let mut run = vec![first];
        let mut rest = VecDeque::new();
        for held in self.leftovers.drain(..) {
            if run.len() < cap && compatible(&run[0], &held) {
                run.push(held)
            } else {
                rest.push_back(held)
            }
        }
        self.leftovers = rest;
        Some(run)
    }

    /// Waits until the model is free for this batch, and adds to the batch meanwhile. None when
    /// draining.
    async fn fill_until_model_is_free(
        &mut self,
        batch: &mut Batch<S::Input>,
        drain: &CancellationToken,
    ) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let linger = batch.since + self.shared.options.linger;
        let (model, uploads) = (Arc::clone(&self.model), Arc::clone(&self.uploads));
        let free = async move {
            let upload = uploads.acquire_owned().await.ok()?;
            Some((model.acquire_owned().await.ok()?, upload))
        };
        tokio::pin!(free);
        let pool = [batch.pool.clone()];
        let mut permits = None;
        loop {
            let room = self.room(batch);
            if let Some(permits) = permits.take_if(|_| room == 0 || Instant::now() >= linger) {
                return Some(permits);
            }
            let queue = Arc::clone(&self.shared.queue);
            tokio::select! {
                () = drain.cancelled() => return None,
                acquired = &mut free, if permits.is_none() => permits = Some(acquired?),
                () = sleep_until(linger), if permits.is_some() => {}
                hint = queue.wait_for_tasks(&pool, WAIT), if room > 0 => {
                    let added = match hint {
                        Ok(true) => self.lease(&batch.pool, room).await.unwrap_or(false),
                        Ok(false) => continue,
                        Err(_) => false,
                    };
                    if added {
                        let run = self.take_compatible(batch);
                        batch.items.extend(self.load(run, drain).await);
                    } else {
                        sleep(MISSED).await;
                    }
                }
            }
        }
    }

    /// How many more tasks the batch may lease.
    fn room(&self, batch: &Batch<S::Input>) -> usize {
        let open = !batch.suspect && self.leftovers.is_empty();
        if open { self.shared.cap(&batch.pool).saturating_sub(batch.items.len()) } else { 0 }
    }

    fn take_compatible(&mut self, batch: &Batch<S::Input>) -> Vec<Held> {
        let fits = |held: &Held| {
            !held.task().suspect
                && held.pool() == &batch.pool
                && held.task().compatibility == batch.compatibility
        };
        let (run, rest): (Vec<_>, Vec<_>) = self.leftovers.drain(..).partition(fits);
        self.leftovers = rest.into();
        run
    }

    /// Loads all inputs at the same time. Tasks that end here, or whose lease is lost, are not
    /// returned.
    async fn load(&self, tasks: Vec<Held>, drain: &CancellationToken) -> Vec<Item<S::Input>> {
        let loaded = join_all(tasks.into_iter().map(|held| self.load_one(held, drain))).await;
        loaded.into_iter().flatten().collect()
    }

    async fn load_one(&self, held: Held, drain: &CancellationToken) -> Option<Item<S::Input>> {
        if !self.shared.options.signer.accepts(held.pool(), held.task()) {
            self.refuse(held).await;
            return None;
        }
        let patience = Instant::now() + self.shared.options.storage_patience;
        let mut backoff = retries();
        while !held.is_lost() {
            let loaded = self.stage.load(held.pool(), held.task()).await;
            self.shared.used_storage(Use::Load, loaded.as_ref().err());
            let (outcome, device_class) = match loaded {
                Ok(Loaded::Ready(input)) => return Some(Item { held, input }),
                Ok(Loaded::Already { outcome, device_class }) => (outcome, device_class),
                Err(Fault::Ends(outcome)) => (outcome, None),
                Err(Fault::Storage(reason)) if Instant::now() >= patience => {
                    (given_up(reason), None)
                }
                Err(Fault::Storage(reason)) => {
                    tracing::warn!(reason, "an input cannot be loaded, retrying");
                    if drain.run_until_cancelled(sleep(backoff.pause())).await.is_none() {
                        self.shared.hand_back(vec![held]).await;
                        return None;
                    }
                    continue;
                }
            };
            self.shared
                .complete(held, outcome, RunFacts { device_class, ..RunFacts::default() })
                .await;
            return None;
        }
        None
    }

    /// Does nothing of what a task says that the farm did not make: it may name another image's
    /// inputs. The farm dispatches the real one again, which costs no failure.
    async fn refuse(&self, held: Held) {
        tracing::warn!(pool = %held.pool(), task = ?held.task().key,
            "a task was not made by this farm, or was changed in the queue; it is not run");
        let reason = "the task was not made by this farm, or was changed in the queue".to_owned();
        let outcome = Outcome::Interrupted { reason };
        self.shared.complete(held, outcome, RunFacts::default()).await;
    }
}

fn compatible(one: &Held, other: &Held) -> bool {
    let same = one.task().compatibility == other.task().compatibility && one.pool() == other.pool();
    same && !one.task().suspect && !other.task().suspect
}
