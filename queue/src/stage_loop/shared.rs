//! What the parts of one loop share: options, the queue, held leases, caps, the meter, the trouble,
//! and the two stop signals.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use darkroom_core::{
    backoff::Backoff,
    error::{Code, UserError},
    failure_code::FailureCode,
    guard::{Guard, stands},
    worker_state::WorkerState,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Fault, Options,
    held::{Held, Registry},
    lock::locked,
    meter::Meter,
    trouble::{Trouble, Use},
};
use crate::{
    TaskQueue,
    task::{DeviceMemory, Orders, Outcome, PoolId, ServedPool, TaskResult, WorkerCard, place},
};

/// Pauses between retries of what may pass.
pub(super) fn retries() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(5))
}

type Caps = HashMap<PoolId, usize>;

pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) queue: Arc<dyn TaskQueue>,
    pub(super) registry: Arc<Registry>,
    pub(super) meter: Meter,
    pub(super) trouble: Trouble,
    /// Sends to the task that reports results.
    reports: mpsc::Sender<Report>,
    /// Tasks that finish rows. The supervisor ends them.
    pub(super) finishing: TaskTracker,
    /// Cancelled when everything must stop now because the grace period is over.
    pub(super) stop: CancellationToken,
    /// Cancelled when the loop cannot go on.
    pub(super) broken: CancellationToken,
    caps: Mutex<Caps>,
    /// Batches with more rows ran out of memory.
    limits: Mutex<Caps>,
    labels: Mutex<Labels>,
    memory: Mutex<Option<DeviceMemory>>,
    is_draining: AtomicBool,
    is_aside: AtomicBool,
}

/// A result to report.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) held: Held,
    pub(super) result: TaskResult,
    /// Resolves when the result is settled.
    pub(super) settled: oneshot::Sender<()>,
}

/// What the model reports about itself once it is made.
#[derive(Clone, Default)]
pub(super) struct Labels {
    pub(super) device: String,
    pub(super) device_class: String,
}

/// How the run of a task ended, for its result.
#[derive(Clone, Debug, Default)]
pub(super) struct RunFacts {
    pub(super) seconds: f64,
    pub(super) alone: bool,
    /// Tasks in its batch; 0 if it did not run.
    pub(super) batch: u32,
    /// Of an earlier run whose output is used again; absent: this worker's.
    pub(super) device_class: Option<String>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        options: Options,
        queue: Arc<dyn TaskQueue>,
        reports: mpsc::Sender<Report>,
    ) -> Self {
        let caps = options
            .pools
            .iter()
            .map(|serve| (serve.pool.clone(), serve.batch_cap.max(1)))
            .collect();
        Self {
            options,
            queue,
            registry: Arc::default(),
            meter: Meter::new(),
            trouble: Trouble::new(),
            reports,
            finishing: TaskTracker::new(),
            stop: CancellationToken::new(),
            broken: CancellationToken::new(),
            caps: Mutex::new(caps),
            limits: Mutex::default(),
            labels: Mutex::default(),
            memory: Mutex::default(),
            is_draining: AtomicBool::new(false),
            is_aside: AtomicBool::new(false),
        }
    }

    pub(super) fn cap(&self, pool: &PoolId) -> usize {
        let cap = locked(&self.caps).get(pool).copied().unwrap_or(1);
        locked(&self.limits).get(pool).map_or(cap, |limit| cap.min(*limit))
    }

    pub(super) fn set_cap(&self, pool: &PoolId, cap: usize) {
        locked(&self.caps).insert(pool.clone(), cap.max(1));
    }

    /// Remembers that a batch of more than `rows` rows does not fit.
    pub(super) fn limit_cap(&self, pool: &PoolId, rows: usize) {
        let rows = rows.max(1);
        locked(&self.limits)
            .entry(pool.clone())
            .and_modify(|limit| *limit = rows.min(*limit))
            .or_insert(rows);
        tracing::warn!(%pool, batch.cap = rows, "out of memory, so batches become smaller");
    }

    pub(super) fn set_labels(&self, labels: Labels) {
        *locked(&self.labels) = labels;
    }

    pub(super) fn set_memory(&self, memory: Option<DeviceMemory>) {
        *locked(&self.memory) = memory;
    }

    pub(super) fn device_class(&self) -> String {
        locked(&self.labels).device_class.clone()
    }

    pub(super) fn draining(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Records whether this worker gets nothing for some time; returns the previous value.
    pub(super) fn set_aside(&self, aside: bool) -> bool {
        self.is_aside.swap(aside, Ordering::Relaxed)
    }

    pub(super) fn is_aside(&self) -> bool {
        self.is_aside.load(Ordering::Relaxed)
    }

    /// Records how storage did. Storage worked if a task ends for another reason.
    pub(super) fn used_storage(&self, used: Use, fault: Option<&Fault>) {
        match fault {
            Some(Fault::Storage(reason)) => self.trouble.storage_failed(used, reason),
            Some(Fault::Ends(_)) | None => self.trouble.storage_worked(used),
        }
    }

    /// Host and device as one name.
    fn place(&self) -> String {
        place(&self.options.host, &locked(&self.labels).device)
    }

    pub(super) fn card(&self) -> WorkerCard {
        let labels = locked(&self.labels).clone();
        let draining = self.is_draining.load(Ordering::Relaxed);
        let times = self.meter.row_times();
        let running = self.meter.running();
        let served = |pool: &PoolId| {
            let time = times.get(pool).copied().unwrap_or_default();
            ServedPool {
                pool: pool.clone(),
                batch_cap: u32::try_from(self.cap(pool)).unwrap_or(u32::MAX),
                seconds_per_image: time.seconds,
                seconds_per_pass: time.seconds_per_pass,
                running: running
                    .as_ref()
                    .filter(|(of, _)| of == pool)
                    .map_or(0, |(_, rows)| u32::try_from(*rows).unwrap_or(u32::MAX)),
                mean_batch: time.rows,
            }
        };
        WorkerCard {
            id: self.options.worker.clone(),
            host: self.options.host.clone(),
            device: labels.device,
            device_class: labels.device_class,
            pools: self
                .options
                .pools
                .iter()
                .map(|s| (s.pool.to_string(), served(&s.pool)))
                .collect(),
            leased: self.registry.len() as u64,
            done: self.meter.busy().done,
            busy: self.meter.share(),
            state: WorkerState::Working,
            trouble: self.trouble.with_storage().unwrap_or_default(),
            failed: self.meter.failed(),
            memory: *locked(&self.memory),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            seen_seconds_ago: 0.0,
        }
        .under(Orders { drain: draining, aside: self.is_aside() })
    }

    /// Reports how a task ended. Returns when the queue has the result or the lease is lost.
    pub(super) async fn complete(&self, held: Held, outcome: Outcome, facts: RunFacts) {
        if let Outcome::Failed { code, .. } = &outcome {
            self.meter.count_failed();
            tracing::warn!(pool = %held.pool(), task = ?held.task().key, error.code = code.name(), "task failed");
        }
        let mut result = TaskResult {
            key: held.task().key,
            worker: self.options.worker.clone(),
            place: self.place(),
            device_class: facts.device_class.unwrap_or_else(|| self.device_class()),
            alone: facts.alone,
            seconds: facts.seconds,
            batch: facts.batch,
            outcome,
            warrant: held.task().warrant,
            signature: None,
        };
        self.options.signer.sign(held.pool(), &mut result);
        let (settled, is_settled) = oneshot::channel();
        if self.reports.send(Report { held, result, settled }).await.is_ok() {
            // The reporter gave up on it, which counts as settled.
            let _ = is_settled.await;
        }
    }

    /// Hands tasks back without a result.
    pub(super) async fn hand_back(&self, tasks: Vec<Held>) {
        let mut by_pool: HashMap<PoolId, Vec<_>> = HashMap::new();
        for held in tasks.iter().filter(|held| !held.is_lost()) {
            by_pool.entry(held.pool().clone()).or_default().push(held.id().clone());
        }
        for (pool, ids) in by_pool {
            self.hand_back_ids(&pool, ids).await;
        }
    }

    /// The last step of a drain: hands back whatever is still held.
    ///
    /// Returns whether the queue took all of it.
    pub(super) async fn hand_back_everything(&self) -> bool {
        let mut taken = true;
        for (pool, ids) in self.registry.by_pool() {
            taken &= self.hand_back_ids(&pool, ids).await;
        }
        taken
    }

    async fn hand_back_ids(&self, pool: &PoolId, ids: Vec<crate::task::EntryId>) -> bool {
        if !stands(Guard::DrainHandsBack) {
            return true;
        }
        let handed = self.queue.hand_back(pool, &self.options.worker, &ids);
        let taken = matches!(timeout(CALL, handed).await, Ok(Ok(())));
        if !taken {
            // Their leases expire by themselves.
            tracing::warn!(%pool, tasks = ids.len(), "tasks could not be handed back");
        }
        taken
    }
}

/// Most time for one call to the queue.
pub(super) const CALL: Duration = Duration::from_secs(10);

/// The outcome of a task when storage was away for too long.
pub(super) fn given_up(reason: String) -> Outcome {
    if !stands(Guard::StorageInterrupts) {
        return Outcome::Failed { code: FailureCode::Storage, message: reason };
    }
    Outcome::Interrupted { reason }
}

pub(super) fn internal(message: &str) -> UserError {
    UserError::new(Code::Internal, "INTERNAL", message)
}
