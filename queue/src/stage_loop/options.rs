//! How a loop runs.

use std::time::Duration;

use darkroom_core::id::WorkerId;

use crate::{signing::Signer, task::PoolId};

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
    /// The worker's id; new for every process.
    pub worker: WorkerId,
    /// Its host.
    pub host: String,
    /// Signs its results, and checks its tasks.
    pub signer: Signer,
    /// The pools, preferred ones first: later stages before earlier ones, so that started images
    /// finish.
    pub pools: Vec<Serve>,
    /// Time between two heartbeats, much less than the farm's lease. The run of a cancelled task
    /// stops at the first step after the next heartbeat.
    pub heartbeat: Duration,
    /// Most time between two steps before the heartbeat stops.
    pub stall: Duration,
    /// How long a drain may take before running work is stopped at its next step.
    pub grace: Duration,
    /// How long storage faults are retried before the task is interrupted.
    pub storage_patience: Duration,
    /// How long an idle model waits for more tasks when a batch is not full.
    pub linger: Duration,
    /// Time between two announcements of the worker.
    pub announce_every: Duration,
    /// Most batches whose outputs are encoded and stored while another batch runs.
    pub uploads: usize,
}

impl Options {
    /// The usual times for the worker that the signer has keys of, which serves these pools.
    /// Without keys it is a new worker of that host.
    #[must_use]
    pub fn signing(signer: Signer, host: &str, pools: Vec<Serve>) -> Self {
        let worker = signer.worker().unwrap_or_else(|| WorkerId::fresh(host));
        Self { signer, ..Self::new(worker, host, pools) }
    }

    /// The usual times for a worker of these pools that signs nothing.
    #[must_use]
    pub fn new(worker: WorkerId, host: &str, pools: Vec<Serve>) -> Self {
        Self {
            worker,
            host: host.to_owned(),
            signer: Signer::default(),
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
