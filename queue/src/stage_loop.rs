//! The loop every worker runs: lease → load → run → store → complete, for the encoder and the
//! renderers alike.
//!
//! - One OS thread named `model` owns the model and runs one batch at a time. While it computes,
//!   the next batch is leased and its inputs are loaded (at most these two batches wait or run).
//!   Other threads encode and store the outputs of earlier batches (at most [`Options::uploads`]
//!   batches).
//! - Heartbeats renew everything that is held. A lost lease is dropped, and a run whose leases are
//!   all lost stops at its next step. If no step finishes within the stall limit, the heartbeat
//!   stops, so that others can take over.
//! - A batch that fails as a whole is run again row by row, so that a poison task fails alone.
//!   Running out of memory halves the batch, and the smaller cap is kept.
//! - Storage faults are retried while the lease is held. After that the task is interrupted, which
//!   counts against nobody.
//! - [`Handle::trouble`] tells what prevents the worker from working (storage, a queue that does
//!   not answer) while it lasts.
//! - Shutdown drains: waiting tasks are handed back. Running ones finish within the grace period,
//!   or stop at their next step and are handed back.
//!
//! It knows tasks and outcomes. It never knows what a stage computes, or where its inputs and
//! outputs are.

mod announce;
mod feed;
mod finish;
mod heartbeat;
mod held;
mod lock;
mod meter;
mod model;
mod model_thread;
pub mod noop;
mod options;
mod report;
mod shared;
mod stage;
mod trouble;

use std::{sync::Arc, time::Duration};

use darkroom_core::{error::UserError, id::WorkerId};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    meter::Busy,
    model::{BatchFault, Model, Row},
    options::{Options, Serve},
    stage::{Fault, Loaded, Stage},
};
use crate::{TaskQueue, task::WorkerCard};
use shared::Shared;

/// A running loop.
#[derive(Debug)]
pub struct Handle {
    drain: CancellationToken,
    shared: Arc<Shared>,
    runs: JoinHandle<()>,
}

impl Handle {
    /// Starts to drain and returns at once. [`join`](Self::join) waits for the end.
    pub fn shutdown(&self) {
        self.drain.cancel();
    }

    /// The worker's id.
    #[must_use]
    pub fn worker(&self) -> &WorkerId {
        &self.shared.options.worker
    }

    /// The worker's card as it is now.
    #[must_use]
    pub fn card(&self) -> WorkerCard {
        self.shared.card()
    }

    /// How much work the model has done so far.
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.shared.meter.busy()
    }

    /// What prevents the worker from working now, in one sentence, if anything does: a queue that
    /// missed two announcements in a row, or storage whose faults it retries. It ends with the
    /// first success.
    #[must_use]
    pub fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.shared.trouble.watch()
    }

    /// Resolves when the loop starts to drain, by a command or because the coordinator asked.
    pub fn drains(&self) -> impl Future<Output = ()> + Send + use<> {
        self.drain.clone().cancelled_owned()
    }

    /// Resolves when the loop cannot go on because its model's thread or the loop itself died.
    /// Otherwise it never resolves.
    pub fn broken(&self) -> impl Future<Output = UserError> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move {
            shared.broken.cancelled().await;
            shared::internal("a stage loop died; see the log")
        }
    }

    /// Waits for the end of a drain, or of a loop that broke.
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

/// Makes the model on its thread, then starts to work. Ends when `drain` is cancelled and the drain
/// is over.
///
/// # Errors
/// What `make_model` returns; in that case nothing runs.
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
    let runs =
        tokio::spawn(supervise(Arc::clone(&shared), feed, thread.ended, reporter, drain.clone()));
    Ok(Handle { drain, shared, runs })
}

/// Runs the parts and ends them in order: the feed first, then model and uploads within the grace
/// period, then heartbeat, reports and announcements.
async fn supervise<S: Stage>(
    shared: Arc<Shared>,
    feed: feed::Feed<S>,
    model_ended: oneshot::Receiver<()>,
    reporter: impl Future<Output = ()> + Send + 'static,
    drain: CancellationToken,
) {
    let background = TaskTracker::new();
    let over = CancellationToken::new();
    background
        .spawn(over.clone().run_until_cancelled_owned(heartbeat::keep_alive(Arc::clone(&shared))));
    background.spawn(over.clone().run_until_cancelled_owned(reporter));
    background.spawn(
        over.clone().run_until_cancelled_owned(announce::keep_announcing(
            Arc::clone(&shared),
            drain.clone(),
        )),
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
        // The feed dropped the model's channel, so the thread ends after its present batch.
        let _ = model_ended.await;
        shared.finishing.close();
        shared.finishing.wait().await;
    };
    tokio::pin!(ending);
    if timeout(shared.options.grace, &mut ending).await.is_err() {
        tracing::warn!("the grace period is over, running work stops at its next step");
        shared.stop.cancel();
        if timeout(shared.options.grace.min(Duration::from_secs(10)), &mut ending).await.is_err() {
            tracing::warn!("the model does not stop; its tasks are handed back without it");
        }
    }
    let handed_back = shared.hand_back_everything().await;
    over.cancel();
    background.wait().await;
    if !handed_back {
        // Its card says that it leaves, so its tasks count as interrupted.
        return;
    }
    if let Err(error) = shared.queue.withdraw(&shared.options.worker).await {
        tracing::warn!(%error, "the worker could not withdraw");
    }
}
