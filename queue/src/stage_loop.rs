//! The loop every worker runs: lease → load → run → store → complete, for the encoder and the renderers alike.
//!
//! - One OS thread named `model` owns the model and runs one batch at a time. While it computes, the next batch is
//!   leased and its inputs loaded (at most these two batches wait or run), and the outputs of earlier ones are encoded
//!   and stored by other threads (at most [`Options::uploads`] batches).
//! - Everything held is renewed by heartbeat; a lost lease is dropped, and a run whose rows are all lost stops at its
//!   next step. When no step finishes within the stall limit the heartbeat stops, so that others can take over.
//! - A batch that fails as a whole is run again row by row: a poison task fails alone. Out of memory halves the batch,
//!   and the smaller cap is kept.
//! - Storage faults are retried under the lease, then the task is interrupted; they count against nobody.
//! - What keeps it from working (storage, a queue that does not answer) is told by [`Handle::trouble`] while it lasts.
//! - Shutdown drains: what waits is handed back, what runs finishes within the grace period or is handed back at its
//!   next step.
//!
//! It knows tasks and outcomes; it never knows what a stage computes, nor where its inputs and outputs lie.

mod announce;
mod feed;
mod finish;
mod held;
mod meter;
mod model_thread;
pub mod noop;
mod report;
mod shared;
mod trouble;

use std::{collections::HashMap, ops::ControlFlow, sync::Arc, time::Duration};

use async_trait::async_trait;
use darkroom_core::{error::UserError, id::WorkerId};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    TaskQueue,
    task::{Outcome, PoolId, Task, WorkerCard},
};
use shared::Shared;

/// What a worker does around its model: reads inputs, writes outputs. Called from many tasks at once.
#[async_trait]
pub trait Stage: Send + Sync + 'static {
    /// A task's inputs in memory.
    type Input: Send + Sync + 'static;
    /// What the model makes of them.
    type Output: Send + 'static;
    /// The output as a file.
    type File: Send + Sync + 'static;

    /// Reads a task's inputs, or finds that nothing needs to run.
    async fn load(&self, pool: &PoolId, task: &Task) -> Result<Loaded<Self::Input>, Fault>;

    /// Turns an output into a file. Runs on a thread where it may take its time.
    fn encode(&self, task: &Task, output: Self::Output, device_class: &str) -> Result<Self::File, Outcome>;

    /// Whether [`encode`](Self::encode) takes no time, so that it needs no thread.
    fn encodes_at_once(&self) -> bool {
        false
    }

    /// Stores the file; called again after a storage fault.
    async fn store(&self, task: &Task, file: &Self::File) -> Result<Outcome, Fault>;
}

/// What loading found.
#[derive(Debug)]
pub enum Loaded<I> {
    /// The inputs, ready to run.
    Ready(I),
    /// The task needs no run: an earlier one's output is stored and whole.
    Already {
        /// How it ended then.
        outcome: Outcome,
        /// Class of the device that ran it then, if that is known.
        device_class: Option<String>,
    },
}

/// Why a task could not be loaded or stored.
#[derive(Debug)]
pub enum Fault {
    /// Storage is at fault; trying again may help.
    Storage(String),
    /// The task ends so.
    Ends(Outcome),
}

/// A model on its own thread; it need not be `Send`, being made there.
pub trait Model: 'static {
    /// See [`Stage::Input`].
    type Input;
    /// See [`Stage::Output`].
    type Output;

    /// Runs a batch: one result per row, in order. `on_step` is called after each step and may ask to stop.
    fn run(
        &mut self,
        pool: &PoolId,
        rows: &[Row<'_, Self::Input>],
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Result<Self::Output, Outcome>>, BatchFault>;

    /// Device, for people.
    fn device(&self) -> String;

    /// Class of device: same class, same bytes.
    fn device_class(&self) -> String;

    /// Largest batch of a pool as the model knows by now; asked after it is made and after every batch. None: as
    /// configured.
    fn batch_cap(&self, _pool: &PoolId) -> Option<usize> {
        None
    }

    /// Called after a panic in `run`: drop what it may have left half done.
    fn recover(&mut self) {}
}

/// One row of a batch.
#[derive(Debug)]
pub struct Row<'a, I> {
    /// The task.
    pub task: &'a Task,
    /// Its inputs.
    pub input: &'a I,
}

/// Why a whole batch has no results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchFault {
    /// `on_step` asked to stop.
    Interrupted,
    /// The batch is too big for the device.
    OutOfMemory {
        /// Fewer images than this take as much: 1 where each takes its own.
        least: usize,
    },
    /// It failed; run again row by row unless it was a single row.
    Failed {
        /// Stable code.
        code: String,
        /// One sentence.
        message: String,
    },
}

/// A pool to serve.
#[derive(Clone, Debug)]
pub struct Serve {
    /// The pool.
    pub pool: PoolId,
    /// Largest batch.
    pub batch_cap: usize,
}

/// How a loop runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who this is; fresh for every process.
    pub worker: WorkerId,
    /// Its host.
    pub host: String,
    /// The pools, preferred first: later stages before earlier ones, so that started images finish.
    pub pools: Vec<Serve>,
    /// Time between two heartbeats: well below the farm's lease. A cancelled task's run stops at the first step
    /// after the next one.
    pub heartbeat: Duration,
    /// Longest time between two steps before the heartbeat stops.
    pub stall: Duration,
    /// How long a drain may take before running work is stopped at its next step.
    pub grace: Duration,
    /// How long storage faults are retried before the task is interrupted.
    pub storage_patience: Duration,
    /// How long an idle model waits for a partly filled batch to fill.
    pub linger: Duration,
    /// Time between two signs of life.
    pub announce_every: Duration,
    /// Most batches whose outputs are being encoded and stored beside the running one.
    pub uploads: usize,
}

impl Options {
    /// Usual times for a worker of these pools.
    #[must_use]
    pub fn new(worker: WorkerId, host: &str, pools: Vec<Serve>) -> Self {
        Self {
            worker,
            host: host.to_owned(),
            pools,
            heartbeat: Duration::from_secs(2),
            stall: Duration::from_secs(600),
            grace: Duration::from_secs(20),
            storage_patience: Duration::from_secs(60),
            linger: Duration::from_millis(10),
            announce_every: Duration::from_secs(2),
            uploads: 2,
        }
    }
}

/// How much the model has had to do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Busy {
    /// Seconds in which the model's thread ran batches.
    pub busy_seconds: f64,
    /// Seconds from the first batch's start to the last one's end.
    pub span_seconds: f64,
    /// Tasks completed.
    pub done: u64,
}

/// A running loop.
#[derive(Debug)]
pub struct Handle {
    drain: CancellationToken,
    shared: Arc<Shared>,
    runs: JoinHandle<()>,
}

impl Handle {
    /// Starts to drain; returns at once. See [`join`](Self::join).
    pub fn shutdown(&self) {
        self.drain.cancel();
    }

    /// Who this worker is.
    #[must_use]
    pub fn worker(&self) -> &WorkerId {
        &self.shared.options.worker
    }

    /// What it says of itself now.
    #[must_use]
    pub fn card(&self) -> WorkerCard {
        self.shared.card()
    }

    /// How much the model has had to do so far.
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.shared.meter.busy()
    }

    /// What keeps it from working now, in one sentence, if something does: a queue that does not answer to two signs of life
    /// in a row, storage whose faults it retries. It ends by itself, with the first that succeeds.
    #[must_use]
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.shared.trouble.watch()
    }

    /// Resolves when the loop drains: it was told to, here or by the coordinator's wish.
    pub fn drains(&self) -> impl Future<Output = ()> + Send + use<> {
        self.drain.clone().cancelled_owned()
    }

    /// Resolves when the loop cannot go on: its model's thread or the loop itself died. Never otherwise.
    pub fn broken(&self) -> impl Future<Output = UserError> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move {
            shared.broken.cancelled().await;
            shared::internal("a stage loop died; see the log")
        }
    }

    /// Waits for the end: of a drain, or of a loop that broke.
    ///
    /// # Errors
    /// If it broke.
    pub async fn join(self) -> Result<(), UserError> {
        let ended = self.runs.await;
        if ended.is_err() || self.shared.broken.is_cancelled() {
            return Err(shared::internal("a stage loop died; see the log"));
        }
        Ok(())
    }
}

/// Makes the model on its thread, then starts to work. Ends when `drain` is cancelled and the drain is over.
///
/// # Errors
/// What `make_model` says; nothing runs then.
pub async fn start<S, M>(
    options: Options,
    queue: Arc<dyn TaskQueue>,
    stage: Arc<S>,
    make_model: impl FnOnce() -> Result<M, UserError> + Send + 'static,
    drain: CancellationToken,
) -> Result<Handle, UserError>
where
    S: Stage,
    M: Model<Input = S::Input, Output = S::Output>,
{
    let (reports, reported) = mpsc::channel(report::BULK);
    let shared = Arc::new(Shared::new(options, queue, reports));
    let (made, is_made) = oneshot::channel();
    let thread = model_thread::spawn(Arc::clone(&shared), make_model, made)?;
    is_made
        .await
        .map_err(|_| shared::internal("the model's thread panicked while it loaded the model"))??;
    let feed = feed::Feed::new(Arc::clone(&shared), stage, thread.jobs);
    let reporter = report::keep_reporting(Arc::clone(&shared), reported);
    let runs = tokio::spawn(supervise(Arc::clone(&shared), feed, thread.ended, reporter, drain.clone()));
    Ok(Handle { drain, shared, runs })
}

/// Runs the parts, and ends them in order: feed first, then model and uploads within the grace period, heartbeat,
/// reports and announcements last.
async fn supervise<S: Stage>(
    shared: Arc<Shared>,
    feed: feed::Feed<S>,
    model_ended: oneshot::Receiver<()>,
    reporter: impl Future<Output = ()> + Send + 'static,
    drain: CancellationToken,
) {
    let background = TaskTracker::new();
    let over = CancellationToken::new();
    background.spawn(over.clone().run_until_cancelled_owned(held::keep_alive(Arc::clone(&shared))));
    background.spawn(over.clone().run_until_cancelled_owned(reporter));
    background.spawn(
        over.clone().run_until_cancelled_owned(announce::keep_announcing(Arc::clone(&shared), drain.clone())),
    );
    background.close();

    let mut feeding = tokio::spawn(feed.run(drain.clone()));
    let fed = tokio::select! {
        fed = &mut feeding => Some(fed),
        () = drain.cancelled() => None,
    };
    shared.draining();
    let ending = async {
        let fed = match fed {
            Some(fed) => fed,
            None => feeding.await,
        };
        if fed.is_err() {
            tracing::error!("the feed of the stage loop panicked");
            shared.broken.cancel();
        }
        // The feed took the model's channel with it, so the thread ends after what it runs.
        let _ = model_ended.await;
        shared.finishing.close();
        shared.finishing.wait().await;
    };
    tokio::pin!(ending);
    if timeout(shared.options.grace, &mut ending).await.is_err() {
        tracing::warn!("grace period over, running work stops at its next step");
        shared.stop.cancel();
        if timeout(shared.options.grace.min(Duration::from_secs(10)), &mut ending).await.is_err() {
            tracing::warn!("the model does not stop; its tasks are handed back without it");
        }
    }
    let handed_back = shared.hand_back_everything().await;
    over.cancel();
    background.wait().await;
    if !handed_back {
        // Its card says that it was leaving, so that what it held counts as interrupted.
        return;
    }
    if let Err(error) = shared.queue.withdraw(&shared.options.worker).await {
        tracing::warn!(%error, "worker could not withdraw");
    }
}

/// Sleeps a little longer after each fault: 50 ms, doubling to 5 s.
pub(crate) struct Backoff(Duration);

impl Backoff {
    fn new() -> Self {
        Self(Duration::from_millis(50))
    }

    async fn pause(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(Duration::from_secs(5));
    }
}

type Caps = HashMap<PoolId, usize>;
