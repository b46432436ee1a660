//! Starts a worker: which pools it serves, on which device, with which times.

use std::{ops::ControlFlow, path::PathBuf, sync::Arc, time::Duration, time::Instant};

use darkroom_artifacts::{ArtifactStore, CascadeBundle, tensor::FloatTensor};
use darkroom_core::{error::UserError, failure_code::FailureCode, id::StageName};
use darkroom_queue::{
    TaskQueue,
    signing::Signer,
    stage_loop::{
        self, BatchFault, Handle, Model, Row, Serve,
        noop::{NoopModel, NoopStage},
    },
    task::{DeviceMemory, Outcome, PoolId},
};
use tokio_util::sync::CancellationToken;

use crate::{
    batch::{self, Caps},
    fake_renderer::{FakeOptions, FakeRenderer},
    renderer::{Batch, Inputs, Machine, Renderer},
    served::{Served, served},
    stage::{self, RenderStage},
};

/// How a worker runs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Its host's name, which is part of its results.
    pub host: String,
    /// Signs its results; its worker is this one. Without keys it is a new worker that signs
    /// nothing.
    pub signer: Signer,
    /// Stages to serve, of every cascade; empty: all.
    pub stages: Vec<StageName>,
    /// What to run on.
    pub machine: Machine,
    /// Most images per batch; absent: learned (see [`batch`]).
    pub batch: Option<usize>,
    /// Folder for what is learned; absent: it is not stored.
    pub cache: Option<PathBuf>,
    /// Times; absent ones have their defaults.
    pub times: Times,
}

/// Times of a worker; absent ones have their defaults.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Time between two heartbeats; must be much less than the farm's lease.
    pub heartbeat: Option<Duration>,
    /// Most time between two steps before the heartbeat stops.
    pub stall: Option<Duration>,
    /// Time a drain may take before running work is stopped at its next step.
    pub grace: Option<Duration>,
    /// How long storage faults are retried before a task is interrupted.
    pub storage_patience: Option<Duration>,
    /// How long an idle model waits for more tasks when a batch is not full.
    pub linger: Option<Duration>,
    /// Time between two announcements of the worker.
    pub announce_every: Option<Duration>,
}

impl Times {
    /// Replaces a loop's default times by those that are set.
    fn apply(self, options: &mut stage_loop::Options) {
        let set = |time: &mut Duration, wanted: Option<Duration>| *time = wanted.unwrap_or(*time);
        set(&mut options.heartbeat, self.heartbeat);
        set(&mut options.stall, self.stall);
        set(&mut options.grace, self.grace);
        set(&mut options.storage_patience, self.storage_patience);
        set(&mut options.linger, self.linger);
        set(&mut options.announce_every, self.announce_every);
    }
}

/// Starts a worker with the real renderer, for every stage that `options` asks for.
///
/// # Errors
/// What prevents a start: a model that cannot be loaded, a device that does not exist, an unknown
/// stage.
#[cfg(feature = "torch")]
pub async fn start(
    options: Options,
    queue: Arc<dyn TaskQueue>,
    artifacts: ArtifactStore,
    cascades: &[CascadeBundle],
    shutdown: CancellationToken,
) -> Result<Handle, UserError> {
    let machine = options.machine.clone();
    let make =
        move |served: &[Served]| crate::torch_renderer::TorchRenderer::load(served, &machine);
    start_with(options, queue, artifacts, cascades, make, shutdown).await
}

/// Starts a worker with the fake renderer.
///
/// # Errors
/// An unknown stage.
pub async fn start_fake(
    options: Options,
    fake: FakeOptions,
    queue: Arc<dyn TaskQueue>,
    artifacts: ArtifactStore,
    cascades: &[CascadeBundle],
    shutdown: CancellationToken,
) -> Result<Handle, UserError> {
    start_with(options, queue, artifacts, cascades, move |_| Ok(FakeRenderer::new(fake)), shutdown)
        .await
}

/// Starts a worker that reports every task as done and stores nothing: for benchmarks of the farm
/// itself.
///
/// # Errors
/// An unknown stage.
pub async fn start_noop(
    options: Options,
    queue: Arc<dyn TaskQueue>,
    cascades: &[CascadeBundle],
    shutdown: CancellationToken,
) -> Result<Handle, UserError> {
    let served = served(&options.stages, cascades)?;
    let loop_options = loop_options(&options, &served);
    stage_loop::start(
        loop_options,
        queue,
        Arc::new(NoopStage),
        || Ok(NoopModel::default()),
        shutdown,
    )
    .await
}

/// Starts a worker with any renderer, which is made on the thread that will own it.
///
/// # Errors
/// An unknown stage, or the error of `make_renderer`.
pub async fn start_with<R: Renderer>(
    options: Options,
    queue: Arc<dyn TaskQueue>,
    artifacts: ArtifactStore,
    cascades: &[CascadeBundle],
    make_renderer: impl FnOnce(&[Served]) -> Result<R, UserError> + Send + 'static,
    shutdown: CancellationToken,
) -> Result<Handle, UserError> {
    let served = served(&options.stages, cascades)?;
    let loop_options = loop_options(&options, &served);
    let tokens = served.iter().map(|stage| (stage.pool.clone(), stage.tokens)).collect();
    let stage = RenderStage::new(artifacts).expecting(tokens);
    let (fixed, cache) = (options.batch, options.cache);
    let make_model = move || {
        let renderer = make_renderer(&served)?;
        let mut model = RenderModel { renderer, caps: Caps::new(fixed, cache.as_deref()), served };
        model.try_out();
        Ok(model)
    };
    stage_loop::start(loop_options, queue, Arc::new(stage), make_model, shutdown).await
}

fn loop_options(options: &Options, served: &[Served]) -> stage_loop::Options {
    let serve = |stage: &Served| Serve {
        pool: stage.pool.clone(),
        batch_cap: options.batch.unwrap_or_else(|| batch::rule(stage.size)),
    };
    let pools = served.iter().map(serve).collect();
    let mut loop_options =
        stage_loop::Options::signing(options.signer.clone(), &options.host, pools);
    options.times.apply(&mut loop_options);
    loop_options
}

/// The renderer for the stage loop.
struct RenderModel<R> {
    renderer: R,
    caps: Caps,
    served: Vec<Served>,
}

impl<R: Renderer> RenderModel<R> {
    fn name(&self, pool: &PoolId) -> String {
        format!("{}@{} {}", pool.stage, pool.digest, self.renderer.device_class())
    }

    /// Measures the stages without measurements, if that is worth its time (see [`batch`]).
    fn try_out(&mut self) {
        let begun = Instant::now();
        for stage in &self.served {
            let name = format!(
                "{}@{} {}",
                stage.pool.stage,
                stage.pool.digest,
                self.renderer.device_class()
            );
            let room = self.renderer.room(stage);
            batch::try_out(&mut self.caps, (&name, room), begun, |rows| {
                self.renderer.trial(stage, rows)
            });
        }
    }
}

impl<R: Renderer> Model for RenderModel<R> {
    type Input = Inputs;
    type Output = FloatTensor;

    fn run(
        &mut self,
        pool: &PoolId,
        rows: &[Row<'_, Inputs>],
        on_step: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Vec<Result<FloatTensor, Outcome>>, BatchFault> {
        let Some(first) = rows.first() else { return Ok(Vec::new()) };
        let body = stage::body(first.task).map_err(|_| BatchFault::Failed {
            code: FailureCode::WrongTask,
            message: String::new(),
        })?;
        let inputs: Vec<&Inputs> = rows.iter().map(|row| row.input).collect();
        let batch = Batch { pool, settings: &body.settings, rows: &inputs };
        let start = Instant::now();
        let result = self.renderer.render(&batch, on_step);
        let name = self.name(pool);
        match result {
            Ok(_) => self.caps.ran(&name, rows.len(), start.elapsed().as_secs_f64()),
            Err(BatchFault::OutOfMemory { .. }) => {
                let stage = self.served.iter().find(|stage| &stage.pool == pool);
                let least = stage.map_or(1, |stage| self.renderer.room(stage).least);
                self.caps.ran_out_of_memory(&name, rows.len(), least);
                return Err(BatchFault::OutOfMemory { least });
            }
            Err(_) => {}
        }
        result
    }

    fn device(&self) -> String {
        self.renderer.device()
    }

    fn device_class(&self) -> String {
        self.renderer.device_class()
    }

    fn memory(&self) -> Option<DeviceMemory> {
        self.renderer.memory()
    }

    fn batch_cap(&self, pool: &PoolId) -> Option<usize> {
        let stage = self.served.iter().find(|stage| &stage.pool == pool)?;
        Some(self.caps.cap(&self.name(pool), self.renderer.room(stage)))
    }

    fn recover(&mut self) {
        self.renderer.recover();
    }
}
