//! A worker as a process: joins a farm, serves stages until a signal, drains, and leaves.

use std::time::Duration;

use clap::{Args, Parser, ValueEnum};
use darkroom_core::{error::UserError, id::StageName};
use darkroom_member::{Face, JoinArgs, Member};
use darkroom_runtime::{listen::Listen, program};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{FakeOptions, Handle, Machine, Options, Times, service};

/// Runs stages of a farm's cascades on this machine: leases tasks from Redis, renders, stores the results.
///
/// SIGTERM drains: what waits is handed back, what runs finishes within the grace period or is handed back too.
#[derive(Debug, Parser)]
#[command(name = "darkroom-worker", version, max_term_width = 100)]
pub struct WorkerArgs {
    #[command(flatten)]
    join: JoinArgs,
    /// Serve only this stage; may be repeated. All stages when absent, later ones first
    #[arg(long = "stage", env = "DARKROOM_STAGES", value_name = "NAME", value_delimiter = ',')]
    stages: Vec<String>,
    /// cpu or cuda:N; the first CUDA device that works, else the CPU, when absent
    #[arg(long, env = "DARKROOM_DEVICE")]
    device: Option<String>,
    /// f32 or bf16; chosen for the device when absent
    #[arg(long, env = "DARKROOM_DTYPE")]
    dtype: Option<String>,
    /// Threads of the model on the CPU; all cores when absent
    #[arg(long, env = "DARKROOM_THREADS")]
    threads: Option<usize>,
    /// On a GPU, launch every operation by itself instead of replaying recorded CUDA graphs; the pictures are the same
    #[arg(long, env = "DARKROOM_EAGER")]
    eager: bool,
    /// Memory that the weights of the models kept loaded may take together; on a GPU three quarters of what is free at the
    /// start, on a CPU no limit when absent. The least recently used model goes when another needs its place
    #[arg(long, env = "DARKROOM_MODEL_MEMORY_MIB", value_name = "MIB")]
    model_memory_mib: Option<u64>,
    /// Largest batch of every stage; learned by measuring when absent
    #[arg(long, env = "DARKROOM_BATCH", value_name = "ROWS")]
    batch: Option<usize>,
    /// Seconds that a drain may take before running work is stopped at its next step and handed back
    #[arg(long, env = "DARKROOM_GRACE_SECONDS", value_name = "SECONDS", default_value_t = 20.0)]
    grace_seconds: f64,
    /// Address for gRPC health; none is served when absent
    #[arg(long, env = "DARKROOM_LISTEN", value_name = "HOST:PORT")]
    listen: Option<Listen>,
    /// Name of this host, as results and `darkroom workers` tell it; the system's when absent
    #[arg(long, env = "DARKROOM_HOST")]
    host: Option<String>,
    /// Write the log as JSON lines
    #[arg(long)]
    pub log_json: bool,
    #[command(flatten)]
    fake: FakeArgs,
}

/// What renders when nothing should be rendered: for tests of the farm, and for load tests.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "For tests")]
pub struct FakeArgs {
    /// `fake` draws noise without a model
    #[arg(long, value_enum, hide = true, env = "DARKROOM_RENDERER", default_value_t = RendererKind::usual())]
    renderer: RendererKind,
    /// Milliseconds a step takes the fake
    #[arg(long, value_name = "MS", hide = true, env = "DARKROOM_FAKE_STEP_MS", default_value_t = 0.0)]
    fake_step_ms: f64,
    /// Seeds whose images the fake fails
    #[arg(long, value_name = "SEED", hide = true, env = "DARKROOM_FAKE_FAILING_SEED", value_delimiter = ',')]
    fake_failing_seed: Vec<u64>,
    /// Seeds at which the fake aborts its process, as a crash inside a driver does
    #[arg(
        long,
        value_name = "SEED",
        hide = true,
        env = "DARKROOM_FAKE_ABORTING_SEED",
        value_delimiter = ','
    )]
    fake_aborting_seed: Vec<u64>,
}

/// What renders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RendererKind {
    /// The cascade's networks.
    Model,
    /// Noise without a model.
    Fake,
    /// Nothing: tasks are reported as done. For benchmarks of the farm itself.
    Noop,
}

impl RendererKind {
    /// The networks, where they are built in.
    fn usual() -> Self {
        if cfg!(feature = "torch") { Self::Model } else { Self::Fake }
    }
}

/// Joins, works until `stop`, and drains.
///
/// # Errors
/// What keeps it from starting, or what broke it.
pub async fn run(args: WorkerArgs, stop: CancellationToken) -> Result<(), UserError> {
    let fakes = args.fake.renderer != RendererKind::Model;
    let Some(member) = darkroom_member::join(&args.join, fakes, &stop).await? else { return Ok(()) };
    let worker = start(&args, &member).await?;
    let face = Face { listen: args.listen, routes: Routes::default(), services: &[] };
    darkroom_member::work(worker, face, stop).await
}

async fn start(args: &WorkerArgs, member: &Member) -> Result<Handle, UserError> {
    let grace = darkroom_member::grace(args.grace_seconds)?;
    let stages = args.stages.iter().map(|name| {
        StageName::try_from(name.clone()).map_err(|error| UserError::invalid("stage", error.to_string()))
    });
    let options = Options {
        host: args.host.clone().unwrap_or_else(program::host_name),
        stages: stages.collect::<Result<_, _>>()?,
        machine: Machine {
            device: args.device.clone(),
            dtype: args.dtype.clone(),
            threads: args.threads,
            eager: args.eager,
            model_memory: args.model_memory_mib.map(|mebibytes| mebibytes.saturating_mul(1 << 20)),
        },
        batch: args.batch,
        cache: Some(args.join.cache.clone()),
        times: Times { heartbeat: Some(member.heartbeat()), grace: Some(grace), ..Times::default() },
    };
    let (queue, artifacts, cascades) = (member.queue.clone(), member.artifacts.clone(), &member.cascades);
    // A drain begins in `work`, so that health can say so first.
    let drain = CancellationToken::new();
    match args.fake.renderer {
        #[cfg(feature = "torch")]
        RendererKind::Model => service::start(options, queue, artifacts, cascades, drain).await,
        #[cfg(not(feature = "torch"))]
        RendererKind::Model => Err(UserError::invalid(
            "renderer",
            "renderer is model; this darkroom-worker is built without libtorch; accepted: fake",
        )),
        RendererKind::Fake => {
            let fake = FakeOptions {
                step: Duration::try_from_secs_f64(args.fake.fake_step_ms / 1e3).unwrap_or_default(),
                failing_seeds: args.fake.fake_failing_seed.clone(),
                aborting_seeds: args.fake.fake_aborting_seed.clone(),
                ..FakeOptions::default()
            };
            service::start_fake(options, fake, queue, artifacts, cascades, drain).await
        }
        RendererKind::Noop => service::start_noop(options, queue, cascades, drain).await,
    }
}
